"""ImageNet as MLPerf reads it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import reason
from pytest_gpuperf.mlperf import imported
from pytest_gpuperf.mlperf.image_cache import ImageCache
from pytest_gpuperf.text import counted

# As mlcommons/inference reads it: vision/classification_and_detection/python/imagenet.py and dataset.py
# (pre_process_vgg).

MAP = "val_map.txt"
CLASSES = 1000
_LABEL = re.compile("0*[0-9]{1,3}")
SIDE = 224
RESIZED = 256  # int(100 * 224 / 87.5): the crop keeps 87.5 % of the shorter side
MEANS = (123.68, 116.78, 103.94)  # of the training set's R, G and B; there is no division by a deviation
AT_ONCE = 64  # images that are decoded before another process may go on


def read_map(data_dir: Path, listing: Path | None = None) -> tuple[list[Path], np.ndarray]:
    """Read val_map.txt, or another list: paths and labels, int64 [n] of 0..999, in LoadGen's order.

    Raises GpuperfError naming the bad line.
    """
    path = listing or data_dir / MAP
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise GpuperfError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it so"
        ) from None
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        remedy = "" if listing else f"; DATA_DIR must hold ImageNet's {MAP}"
        raise GpuperfError(f"{path} cannot be read ({reason(error)}){remedy}") from error
    images, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 2 or not _LABEL.fullmatch(fields[1]):
            raise GpuperfError(
                f'{path}, line {number}: "{line}" must be a path and a label of 0..{CLASSES - 1}'
            )
        images.append(data_dir / fields[0])
        labels.append(int(fields[1]))
    if not images:
        raise GpuperfError(f"{path} lists no image; each line must be a path and a label")
    return images, np.array(labels, np.int64)


def _require_files(listing: Path, images: Sequence[Path]) -> None:
    """Raise GpuperfError if an image is not there, of 50,000 the last as well as the first."""
    there: dict[Path, set[str]] = {}
    for folder in {image.parent for image in images}:
        with suppress(OSError, ValueError):  # a null byte in a name
            there[folder] = set(os.listdir(folder))
    missing = [image for image in images if image.name not in there.get(image.parent, ())]
    if missing:
        raise GpuperfError(
            f"{len(missing):,} of the {len(images):,} images that {listing} lists cannot be found, first "
            f"{missing[0]}; DATA_DIR must hold ImageNet's validation images where it says"
        )


def decode(path: Path) -> np.ndarray:
    """Turn an image file into uint8 [224, 224, 3], RGB: the middle of the image, its shorter side 256 long.

    Raises Unavailable without OpenCV, GpuperfError if the file is missing or is no image.
    """
    cv2 = _opencv()
    try:
        image = cv2.imread(str(path))
        if image is not None:
            return _middle(cv2, image)
    except cv2.error as error:  # of more pixels than it takes, say
        raise GpuperfError(f"{path} cannot be decoded: OpenCV requires {error.err}") from None
    raise GpuperfError(
        f"{path} is missing or is no image that OpenCV and this user can read; it is in the dataset's list"
    )


def _middle(cv2: Any, image: np.ndarray) -> np.ndarray:
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    if height > width:
        size = (RESIZED, int(RESIZED * height / width))
    else:
        size = (int(RESIZED * width / height), RESIZED)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = int((image.shape[0] - SIDE) / 2), int((image.shape[1] - SIDE) / 2)
    crop: np.ndarray = image[top : top + SIDE, left : left + SIDE]
    return crop


def _opencv() -> Any:
    return imported("cv2", "ImageNet needs OpenCV")


class ImageNet:
    """The first ``count`` images of ``data_dir`` (None: all) that val_map.txt lists, or another ``listing``.

    They are decoded once: the crops, in which the arithmetic is still of whole numbers, are kept in the
    cache.
    """

    def __init__(self, data_dir: Path, count: int | None = None, listing: Path | None = None) -> None:
        paths, labels = read_map(data_dir, listing)
        self.name = f"imagenet, {listing.name} {_digest(listing)[:8]}" if listing else "imagenet"
        self._paths = paths[:count]
        self.labels = labels[:count]
        self._stamps: dict[int, int] = {}
        self._cut_off: set[Path] = set()
        names = "\n".join(str(path.absolute()) for path in paths)
        file = f"imagenet/{hashlib.sha256(names.encode()).hexdigest()[:16]}.images"
        self._room = file, len(paths), (SIDE, SIDE, 3)
        _require_files(listing or data_dir / MAP, self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what is to be said of the images that were decoded."""
        if not self._cut_off:
            return ()
        first = min(self._cut_off)
        return (
            f"{counted(len(self._cut_off), 'image file')} cut off, first {first}: is the copy whole? What is "
            "there was read, as MLPerf's reference does",
        )

    @cached_property
    def _cache(self) -> ImageCache:
        return ImageCache(*self._room)

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Decode all that the cache lacks, on all cores; ``progress`` hears how many of how many are done.

        Raises as ``decode`` does, and GpuperfError if the disk has no room for them.
        """
        with _pool(len(self)) as pool:
            stamps = enumerate(pool.map(self._stamp, range(len(self))))
            lacking = [index for index, stamp in stamps if self._cache.lacks(index, stamp)]
            self._cache.require_room(len(lacking))
            for start in range(0, len(lacking), AT_ONCE):
                made = self._made(pool, lacking[start : start + AT_ONCE])
                for done, _ in enumerate(made, start + 1):
                    progress(done, len(lacking))

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return float32 [len(indices), 3, 224, 224], the means subtracted; raises as ``prepare`` does."""
        chosen, kept = [int(index) for index in indices], partial(self._kept, self._cache)
        with _pool(len(chosen)) as pool:
            crops = dict(zip(chosen, pool.map(kept, chosen), strict=True))
            lacking = [index for index, crop in crops.items() if crop is None]
            crops |= zip(lacking, self._made(pool, lacking), strict=True)
            images = np.empty((len(chosen), 3, SIDE, SIDE), np.float32)
            list(pool.map(_subtract_means, (crops[index] for index in chosen), images))
        return images

    def _made(self, pool: ThreadPoolExecutor, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode images into the cache, unless another process has done so meanwhile."""
        if indices:
            cache = self._cache
            with cache.writing(len(indices)):
                yield from pool.map(partial(self._make, cache), indices)

    def _make(self, cache: ImageCache, index: int) -> np.ndarray:
        crop = self._kept(cache, index)
        if crop is None:
            crop = decode(self._paths[index])
            if _is_cut_off(self._paths[index]):  # kept nowhere, so that it is said each time
                self._cut_off.add(self._paths[index])
            else:
                cache.put(index, self._stamp(index), crop)
        return crop

    def _kept(self, cache: ImageCache, index: int) -> np.ndarray | None:
        return cache.get(index, self._stamp(index))

    def _stamp(self, index: int) -> int:
        """Return a number, not 0, that another content of the image's file or another OpenCV changes."""
        if index not in self._stamps:
            path = self._paths[index]
            try:
                about = path.stat()
            except OSError as error:
                raise GpuperfError(f"{path} cannot be read ({error.strerror})") from error
            text = f"{about.st_size} {about.st_mtime_ns} {_opencv().__version__}"
            self._stamps[index] = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) | 1
        return self._stamps[index]


def _is_cut_off(path: Path) -> bool:
    """Say whether a JPEG lacks its end: within a scan there is no such marker."""
    data = path.read_bytes()
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _pool(most: int) -> ThreadPoolExecutor:
    # OpenCV lets go of the interpreter's lock while it decodes and resizes, and NumPy while it calculates.
    return ThreadPoolExecutor(min(most, os.cpu_count() or 1) or 1)


def _subtract_means(crop: np.ndarray, image: np.ndarray) -> None:
    np.subtract(crop.transpose(2, 0, 1), np.array(MEANS, np.float32)[:, None, None], out=image)


def _digest(listing: Path) -> str:
    return hashlib.sha256(b" ".join(listing.read_bytes().split())).hexdigest()


@dataclass(frozen=True, slots=True)
class ImageNetAt:
    """What makes ``ImageNet`` of a count of images: the folder, and another list than its val_map.txt."""

    data_dir: Path
    listing: Path | None = None

    def __call__(self, count: int | None) -> ImageNet:
        return ImageNet(self.data_dir, count, self.listing)

    def listed(self, listing: Path) -> ImageNetAt:
        """Return the same with the images of that list."""
        return replace(self, listing=listing)
