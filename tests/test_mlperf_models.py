"""Which model is meant, the embedded one built and cached, and ImageNet read as MLPerf does."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from recordedruns import load

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import imagenet, models, resnet50

REPOSITORY = Path(models.__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_weights_have_the_shipped_checksum():
    assert resnet50.checksum(models.SEED) == models.digits_head().checksum


def test_weights_depend_on_the_seed_and_the_layer_alone():
    conv = resnet50.STEM
    assert np.array_equal(conv.weights(1), conv.weights(1))
    assert not np.array_equal(conv.weights(1), conv.weights(2))
    longer = {conv.name: conv for conv in resnet50.convolutions((3, 4, 8, 3))}
    for conv in resnet50.convolutions():
        assert longer[conv.name].shape == conv.shape
    assert len(longer) == 53 + 6


def test_weights_have_hes_variance_and_no_mean():
    weights = next(c for c in resnet50.convolutions() if c.name == "stage3_block0_b").weights(1)
    assert weights.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert abs(weights.mean()) < weights.std() / 100


def test_the_graph_is_resnet50():
    convs = list(resnet50.convolutions())
    assert len(convs) == 53
    # 25.6 million parameters less the fully connected layer's 2.05 and 0.05 of batch normalisation.
    assert sum(np.prod(conv.shape) for conv in convs) == 23_454_912


def test_an_unknown_model(cache):
    with pytest.raises(GpuperfError, match='no model "resnet51"; use "resnet50-digits" or "resnet50"'):
        models.resolve("resnet51")


def test_imagenet_needs_both_folders_and_files(tmp_path):
    with pytest.raises(GpuperfError, match="needs MODEL_DIR"):
        models.resolve("resnet50")
    with pytest.raises(GpuperfError, match=r"resnet50_v1\.onnx does not exist"):
        models.resolve(None, model_dir=tmp_path, data_dir=tmp_path)
    (tmp_path / "resnet50_v1.onnx").write_bytes(b"")
    with pytest.raises(GpuperfError, match=r"val_map\.txt does not exist"):
        models.resolve(None, model_dir=tmp_path, data_dir=tmp_path)
    (tmp_path / "a.jpg").touch()
    (tmp_path / "val_map.txt").write_text("a.jpg 3\n")
    model = models.resolve(None, model_dir=tmp_path, data_dir=tmp_path)
    assert (model.name, model.label_offset, model.output) == ("resnet50", -1, "ArgMax:0")
    assert model.dataset(None).labels.tolist() == [3]


def test_the_embedded_model_without_onnx_names_the_package(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(Unavailable, match=r"needs onnx .*pip install 'pytest-gpuperf\[mlperf\]'"):
        models.resolve()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.jpg", '"a.jpg" must be'),
        ("a.jpg x", "must be"),
        ("a.jpg 1000", "0..999"),
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
    found = imagenet.preprocess(tmp_path / "a.png")
    assert (found.shape, found.dtype) == ((3, 224, 224), np.float32)
    assert found[:, 112, 112] == pytest.approx([130 - 123.68, 120 - 116.78, 110 - 103.94], abs=1e-4)
    assert found[:, 0, 0] == pytest.approx([30 - 123.68, 20 - 116.78, 10 - 103.94], abs=1e-4)
    # The shorter side becomes 256: the 100 middle pixels 85.3 of 300, or 100 of 256.
    width = np.count_nonzero(found[0, 112] > -43)
    assert width == pytest.approx(100 * 256 / min(shape[:2]), abs=2)


def test_missing_images_are_named_early_and_bad_ones_when_read(tmp_path, cv2):
    (tmp_path / "val_map.txt").write_text("text.jpg 1\ngone.jpg 1\nval/gone.jpg 1\n")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(GpuperfError, match=r"lists 3 images, of which 2 are missing, first .*/gone\.jpg"):
        imagenet.ImageNet(tmp_path)
    with pytest.raises(GpuperfError, match=r"text\.jpg is missing or is no image"):
        imagenet.ImageNet(tmp_path, 1).images([0])


def test_images_are_decoded_at_once_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    (tmp_path / "val_map.txt").write_text("".join(f"{i}.jpg {i}\n" for i in range(6)))
    for i in range(6):
        (tmp_path / f"{i}.jpg").touch()
    together = threading.Barrier(3, timeout=20)  # one thread alone would wait in vain

    def decode(path):
        together.wait()
        return np.full((3, 2, 2), int(path.stem), np.float32)

    monkeypatch.setattr(imagenet, "preprocess", decode)
    assert imagenet.ImageNet(tmp_path).images(np.arange(6)[::-1])[:, 0, 0, 0].tolist() == [5, 4, 3, 2, 1, 0]


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
        imagenet.preprocess(tmp_path / "a.jpg")


def test_more_blocks_keep_the_models_name_and_recipe(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="building the model needs onnx")
    monkeypatch.setattr(models, "cached", lambda name, make: tmp_path / Path(name).name)
    found = load("more_work/more_blocks.py").with_blocks(tmp_path / "slower.onnx", (1, 1, 2, 1))
    original = models.digits_model()
    assert (found.name, found.recipe) == (original.name, original.recipe)
    kinds = [node.op_type for node in onnx.load(str(found.path)).graph.node]
    assert kinds.count("Conv") == 1 + 3 * 5 + 4  # the stem, three a block, four shortcuts
