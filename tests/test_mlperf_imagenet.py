"""ImageNet read as MLPerf does, decoded once into the cache; its lists, and what is wrong with them."""

import os
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import imagenet, models
from pytest_gpuperf.mlperf.phase import Phase

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.jpg", '"a.jpg" must be'),
        ("a.jpg x", "must be"),
        ("a.jpg 1000", "0..999"),
        ("a.jpg " + "9" * 5000, "0..999"),  # more digits than int() takes
        ("a.jpg \N{SUPERSCRIPT TWO}", "0..999"),
        ("a.jpg 1 2", "must be"),
    ],
)
def test_a_bad_line_of_val_map(tmp_path, line, said):
    (tmp_path / "val_map.txt").write_text(f"ok.jpg 1\n\n{line}\n")
    with pytest.raises(GpuperfError, match="line 3") as error:
        imagenet.read_map(tmp_path)
    assert said in str(error.value)


def test_an_empty_or_missing_val_map(tmp_path):
    with pytest.raises(GpuperfError, match="cannot be read"):
        imagenet.read_map(tmp_path)
    (tmp_path / "val_map.txt").write_text("\n")
    with pytest.raises(GpuperfError, match="lists no image"):
        imagenet.read_map(tmp_path)


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2", reason="MLPerf's preprocessing needs opencv-python-headless")


@pytest.mark.parametrize("shape", [(300, 500, 3), (500, 300, 3), (256, 256, 3)])
def test_preprocessing_takes_the_middle_in_rgb_less_the_means(tmp_path, cv2, shape):
    image = np.zeros(shape, np.uint8)
    image[...] = (10, 20, 30)  # OpenCV writes B, G, R
    middle = (slice(shape[0] // 2 - 50, shape[0] // 2 + 50), slice(shape[1] // 2 - 50, shape[1] // 2 + 50))
    image[middle] = (110, 120, 130)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (tmp_path / "val_map.txt").write_text("a.png 1\n")
    dataset = imagenet.ImageNet(tmp_path)
    (found,), (again,) = dataset.images([0]), dataset.images([0])
    assert np.array_equal(found, again)  # which comes out of the cache
    assert (found.shape, found.dtype) == ((3, 224, 224), np.float32)
    assert found[:, 112, 112] == pytest.approx([130 - 123.68, 120 - 116.78, 110 - 103.94], abs=1e-4)
    assert found[:, 0, 0] == pytest.approx([30 - 123.68, 20 - 116.78, 10 - 103.94], abs=1e-4)
    # The shorter side becomes 256: the 100 middle pixels 85.3 of 300, or 100 of 256.
    width = np.count_nonzero(found[0, 112] > -43)
    assert width == pytest.approx(100 * 256 / min(shape[:2]), abs=2)


def test_missing_images_are_named_early_and_bad_ones_when_read(tmp_path, cv2):
    (tmp_path / "val_map.txt").write_text("text.jpg 1\ngone.jpg 1\nval/gone.jpg 1\n")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(GpuperfError, match=r"2 of the 3 images that .* cannot be found, first .*/gone\.jpg"):
        imagenet.ImageNet(tmp_path)
    with pytest.raises(GpuperfError, match=r"text\.jpg is missing or is no image"):
        imagenet.ImageNet(tmp_path, 1).images([0])
    (tmp_path / "val_map.txt").write_text("a\0b/gone.jpg 1\n")
    with pytest.raises(GpuperfError, match=r"1 of the 1 images that .* cannot be found"):
        imagenet.ImageNet(tmp_path)


def test_an_image_of_more_pixels_than_opencv_takes_is_named(tmp_path, cv2):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((1, 1, 3), np.uint8))
    content = bytearray((tmp_path / "large.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "large.png").write_bytes(content)
    with pytest.raises(GpuperfError, match=r"large\.png cannot be decoded: OpenCV requires pix") as error:
        imagenet.decode(tmp_path / "large.png")
    assert "\n" not in str(error.value)


def test_a_jpeg_that_is_cut_off_is_read_and_said_each_time(tmp_path, cv2):
    (tmp_path / "val_map.txt").write_text("whole.jpg 1\ncut.jpg 1\n")
    for name in ("whole", "cut"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.random.default_rng(1).integers(0, 255, (256, 256, 3)))
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: int(0.6 * len(content))])
    for _ in range(2):
        dataset = imagenet.ImageNet(tmp_path)
        assert dataset.notes == ()
        whole, cut = dataset.images([0, 1])
        assert np.array_equal(whole[:, :100], cut[:, :100])
        assert dataset.notes[0].startswith(f"1 image file cut off, first {tmp_path / 'cut.jpg'}: is the copy")


def test_images_are_decoded_at_once_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    (tmp_path / "val_map.txt").write_text("".join(f"{i}.jpg {i}\n" for i in range(6)))
    for i in range(6):
        (tmp_path / f"{i}.jpg").touch()
    together = threading.Barrier(3, timeout=20)  # one thread alone would wait in vain
    monkeypatch.setattr(imagenet, "_opencv", lambda: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(imagenet, "decode", lambda path: together.wait() * 0 + flat(int(path.stem)))
    found = imagenet.ImageNet(tmp_path).images(np.arange(6)[::-1])
    assert np.round(found[:, 0, 0, 0] + 123.68).tolist() == [5, 4, 3, 2, 1, 0]


def test_a_val_map_of_a_windows_editor(tmp_path):
    (tmp_path / "val_map.txt").write_bytes(b"\xef\xbb\xbfa.jpg 1\r\nb.jpg 007\r\n")
    paths, labels = imagenet.read_map(tmp_path)
    assert [path.name for path in paths] == ["a.jpg", "b.jpg"]
    assert labels.tolist() == [1, 7]
    (tmp_path / "val_map.txt").write_bytes("\xe9.jpg 1\n".encode("latin-1"))
    with pytest.raises(GpuperfError, match=r"val_map\.txt is not UTF-8 \(.* at byte 0\); save it so"):
        imagenet.read_map(tmp_path)


def test_imagenet_without_opencv_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(Unavailable, match=r"pip install 'pytest-gpuperf\[mlperf\]'"):
        imagenet.decode(tmp_path / "a.jpg")


def flat(value):
    return np.full((224, 224, 3), value, np.uint8)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Ten images whose only value is their number, and how often each was decoded."""
    (tmp_path / "val_map.txt").write_text("".join(f"{i}.jpg {i}\n" for i in range(10)))
    for i in range(10):
        (tmp_path / f"{i}.jpg").write_text(str(i))
    decoded = Counter()

    def decode(path):
        decoded[path.name] += 1
        return flat(int(path.read_text()))

    monkeypatch.setattr(imagenet, "_opencv", lambda: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(imagenet, "decode", decode)
    return SimpleNamespace(folder=tmp_path, decoded=decoded)


def values(folder, indices=range(10)):
    return np.round(imagenet.ImageNet(folder).images(indices)[:, 0, 100, 100] + 123.68).tolist()


def prepared(dataset):
    heard = []
    dataset.prepare(lambda *done: heard.append(done))
    return heard


def test_what_was_decoded_is_read_from_the_cache(pictures, cache):
    assert values(pictures.folder, [7, 2, 7]) == [7, 2, 7]
    heard = prepared(imagenet.ImageNet(pictures.folder))
    assert heard == [(done, 8) for done in range(1, 9)]  # two are there
    assert values(pictures.folder) == list(range(10))
    assert prepared(imagenet.ImageNet(pictures.folder)) == []
    assert set(pictures.decoded.values()) == {1}
    (file,) = cache.glob("imagenet/*.images")
    assert file.stat().st_size == 4096 + 10 * 224 * 224 * 3


def test_only_what_is_decoded_takes_room(pictures, cache):
    values(pictures.folder, [9])
    (file,) = cache.glob("imagenet/*.images")
    assert file.stat().st_blocks * 512 < 0.3 * file.stat().st_size


def spoilt(file, offset, content=b"nonsense"):
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(content)


@pytest.mark.parametrize(
    ("spoil", "anew"),
    [
        (lambda file, folder: spoilt(file, 4096 + 150528 * 3 + 7), {"3.jpg"}),  # a byte of the image
        (lambda file, folder: spoilt(file, 16 * 3), {"3.jpg"}),  # its entry
        (lambda file, folder: os.truncate(file, 4096 + 150528 * 8 + 99), {"8.jpg", "9.jpg"}),
        (lambda file, folder: file.unlink(), {f"{i}.jpg" for i in range(10)}),
        (lambda file, folder: os.utime(folder / "3.jpg", (1, 1)), {"3.jpg"}),  # another image by that name
    ],
)
def test_what_is_not_whole_or_of_another_image_is_decoded_anew(pictures, cache, spoil, anew):
    values(pictures.folder)
    (file,) = cache.glob("imagenet/*.images")
    spoil(file, pictures.folder)
    pictures.decoded.clear()
    assert values(pictures.folder) == list(range(10))
    assert set(pictures.decoded) == anew
    pictures.decoded.clear()
    assert values(pictures.folder) == list(range(10))
    assert not pictures.decoded


def test_a_cache_that_can_only_be_read_gives_what_it_has(pictures, cache, monkeypatch):
    values(pictures.folder, [1, 2])
    really = os.open

    def only_reading(path, flags, *rest, **more):
        if str(path).startswith(str(cache)) and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return really(path, flags, *rest, **more)

    monkeypatch.setattr("os.open", only_reading)
    assert values(pictures.folder, [2, 1]) == [2, 1]
    with pytest.raises(GpuperfError, match=r"cannot be written \(Permission denied\): make room"):
        values(pictures.folder)
    next(cache.glob("imagenet/*.images")).unlink()
    with pytest.raises(GpuperfError, match=r"cannot be written \(Permission denied\): make room"):
        values(pictures.folder, [1])


def test_another_opencv_decodes_anew(pictures, monkeypatch):
    values(pictures.folder)
    monkeypatch.setattr(imagenet, "_opencv", lambda: SimpleNamespace(__version__="2"))
    values(pictures.folder)
    assert set(pictures.decoded.values()) == {2}


def test_two_at_a_time_share_the_work(pictures, monkeypatch):
    monkeypatch.setattr(imagenet, "AT_ONCE", 2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(prepared, [imagenet.ImageNet(pictures.folder) for _ in range(2)]))
    assert len(pictures.decoded) == 10
    assert set(pictures.decoded.values()) == {1}


def test_a_disk_without_room_is_said_at_the_start(pictures, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    said = r"\w+\.images: 10 decoded images need 1\.5 MB, and the disk has 1\.0 MB free: make room, or point"
    with pytest.raises(GpuperfError, match=said):
        prepared(imagenet.ImageNet(pictures.folder))
    assert not pictures.decoded
    assert values(pictures.folder, [1]) == [1]


def test_a_disk_that_fills_up_is_one_sentence(pictures, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(GpuperfError, match=r"cannot be written \(No space left on device\): make room"):
        prepared(imagenet.ImageNet(pictures.folder))


def test_another_list_names_its_lines_and_has_a_name_of_its_own(pictures):
    listing = pictures.folder / "few.txt"
    listing.write_text("3.jpg 30\n7.jpg 70\n")
    mine = models.Model("resnet50", listing, "", imagenet.ImageNetAt(pictures.folder))
    dataset = models.with_list(mine, str(listing)).dataset(None)
    assert dataset.labels.tolist() == [30, 70]
    assert dataset.name.startswith("imagenet, few.txt ")
    assert mine.dataset(None).name == "imagenet"
    listing.write_text("3.jpg 30\n7.jpg 71\n")
    assert models.with_list(mine, listing).dataset(None).name != dataset.name
    for text, said in (
        ("3.jpg 30\n7.jpg 1000\n", r'few\.txt, line 2: "7\.jpg 1000" must be a path and a label'),
        ("3.jpg 1\nx.jpg 2\n", r"1 of the 2 images that .*few\.txt lists cannot be found, first .*/x\.jpg"),
    ):
        listing.write_text(text)
        with pytest.raises(GpuperfError, match=said):
            models.with_list(mine, listing).dataset(None)
    with pytest.raises(GpuperfError, match=r"none\.txt cannot be read \(No such file or directory\)$"):
        models.with_list(mine, "none.txt").dataset(None)
    with pytest.raises(GpuperfError, match=r"cannot be read \(embedded null byte"):
        models.with_list(mine, "a\0b").dataset(None)


def test_a_list_is_for_imagenet(tmp_path):
    digits = models.Model("digits", tmp_path, "", models.Digits)
    with pytest.raises(GpuperfError, match="dataset_list= is for resnet50 on ImageNet; digits has another"):
        models.with_list(digits, "few.txt")
    with pytest.raises(GpuperfError, match="dataset_list=3; give the path"):
        models.with_list(digits, 3)


def test_the_live_line_counts_decoded_images_and_time_left():
    calls = SimpleNamespace(loading="decoded", done=1500, wanted=50_000, began=time.perf_counter() - 3)
    doing = SimpleNamespace(callbacks=calls, _session=SimpleNamespace(model=SimpleNamespace(name="resnet50")))
    assert Phase._doing(doing, None) == "1,500 of 50,000 images decoded, 97 s left: resnet50"
    calls.done = 0
    assert Phase._doing(doing, None) == "warming up resnet50"
