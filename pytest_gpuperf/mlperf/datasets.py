"""Datasets: the digits that are shipped with the package, and ImageNet as MLPerf reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf import imported


class Dataset(Protocol):
    """Labelled images; ``labels`` is int64 [len], or for a ``Sut`` with a score whatever that compares."""

    name: str
    labels: Any

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return float32 [len(indices), *the model's input shape], preprocessed."""


def open_dataset(model: str, make: Any, count: int | None, classes: bool = True) -> Dataset:
    """Return ``make(count)``, the first images of the dataset of ``model``.

    Raises GpuperfError if it has not as many, or is none: each image has a label, which is a whole number
    unless the labels are no ``classes``.
    """
    if not callable(make):
        raise GpuperfError(
            f"{model}: dataset={short(make)}; give what makes one of a count of images (None: all), "
            "such as its class"
        )
    try:
        dataset: Dataset = make(count)
        found, count_of_labels, name = len(dataset), len(dataset.labels), dataset.name
        complete = callable(dataset.images)
    except (AttributeError, TypeError, ValueError) as error:
        raise GpuperfError(
            f"{model}: its dataset does not fit ({type(error).__name__}: {error}); dataset(count) must have "
            "name, labels, len() and images(indices)"
        ) from error
    if not isinstance(name, str) or not complete:
        raise GpuperfError(f"{model}: its dataset must have a text as its name, and images(indices)")
    labels = np.asarray(dataset.labels) if classes else np.arange(count_of_labels)
    if found and (labels.shape != (found,) or labels.dtype.kind not in "iu"):
        what = "a whole number" if classes else "a label"
        raise GpuperfError(
            f"{model}: the dataset {name} has {found} images and labels {labels.dtype} {list(labels.shape)}; "
            f"it must have {what} for each"
        )
    if count is not None and found < count:
        raise GpuperfError(f"{model}: count={count}, and the dataset {name} has {found} images")
    if count is not None and found > count:
        raise GpuperfError(f"{model}: the dataset {name} was made of count={count} and has {found} images")
    return dataset


def shipped(name: str) -> dict[str, np.ndarray]:
    """Read the arrays of ``name`` in the package's data folder."""
    data = files("pytest_gpuperf.mlperf") / "data" / name
    with as_file(data) as path, np.load(path, allow_pickle=False) as stored:
        return dict(stored)


# --------------------------------------------------------------------------- UCI's digits
#
# E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (1998), UCI Machine Learning
# Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0: the 1,797 images of its test file
# optdigits.tes, unchanged. Which 797 of them are held out is stored with them.

SCALE = 224 // 8


def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels uint8 [1797, 8, 8] of 0..16, labels uint8 [1797], held-out indices uint16 [797]."""
    stored = shipped("digits.npz")
    return stored["pixels"], stored["labels"], stored["held_out"]


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 [n, 8, 8] into float32 [n, 3, 224, 224] in -0.5..0.5, three equal channels.

    Every pixel becomes a 28x28 square. Unlike an interpolation this is exact in float32, so the model's
    input has the same bits on every machine.
    """
    grey = pixels.astype(np.float32) / np.float32(16) - np.float32(0.5)
    large = grey.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return np.broadcast_to(large[:, None], (len(large), 3, 224, 224)).copy()


class Digits:
    """The first ``count`` held-out digits (None: all 797), in their stored order."""

    name = "uci-digits"

    def __init__(self, count: int | None = None) -> None:
        pixels, labels, held_out = load_digits()
        chosen = held_out[:count]
        self._pixels = pixels[chosen]
        self.labels = labels[chosen].astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return float32 [len(indices), 3, 224, 224]."""
        return enlarge(self._pixels[np.asarray(indices)])


# --------------------------------------------------------------------------- ImageNet
#
# As mlcommons/inference reads it: vision/classification_and_detection/python/imagenet.py and dataset.py
# (pre_process_vgg).

CLASSES = 1000
SIDE = 224
RESIZED = 256  # int(100 * 224 / 87.5): the crop keeps 87.5 % of the shorter side
MEANS = (123.68, 116.78, 103.94)  # of the training set's R, G and B; there is no division by a deviation


def read_map(data_dir: Path) -> tuple[list[Path], np.ndarray]:
    """Read val_map.txt: the images' paths and their labels, int64 [n] of 0..999, in LoadGen's order.

    Raises GpuperfError naming the bad line.
    """
    path = data_dir / "val_map.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise GpuperfError(
            f"{path} cannot be read ({error.strerror}); DATA_DIR must hold ImageNet's val_map.txt"
        ) from error
    except UnicodeDecodeError as error:
        raise GpuperfError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it so"
        ) from None
    images, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()) or int(fields[1]) >= CLASSES:
            raise GpuperfError(
                f'{path}, line {number}: "{line}" must be a path and a label of 0..{CLASSES - 1}'
            )
        images.append(data_dir / fields[0])
        labels.append(int(fields[1]))
    if not images:
        raise GpuperfError(f"{path} lists no image; each line must be a path and a label")
    return images, np.array(labels, np.int64)


def _require_files(data_dir: Path, images: Sequence[Path]) -> None:
    """Raise GpuperfError if an image is not there, of 50,000 the last as well as the first."""
    there: dict[Path, set[str]] = {}
    for folder in {image.parent for image in images}:
        with suppress(OSError):
            there[folder] = set(os.listdir(folder))
    missing = [image for image in images if image.name not in there.get(image.parent, ())]
    if missing:
        raise GpuperfError(
            f"{data_dir / 'val_map.txt'} lists {len(images):,} images, of which {len(missing):,} are "
            f"missing, first {missing[0]}; DATA_DIR must hold ImageNet's validation images where it says"
        )


def preprocess(path: Path) -> np.ndarray:
    """Turn an image file into float32 [3, 224, 224], RGB: middle crop, the means subtracted.

    Raises Unavailable without OpenCV, GpuperfError if the file is missing or is no image.
    """
    cv2 = imported("cv2", "ImageNet needs OpenCV")
    image = cv2.imread(str(path))
    if image is None:
        raise GpuperfError(f"{path} is missing or is no image that OpenCV reads; val_map.txt lists it")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    if height > width:
        size = (RESIZED, int(RESIZED * height / width))
    else:
        size = (int(RESIZED * width / height), RESIZED)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = int((image.shape[0] - SIDE) / 2), int((image.shape[1] - SIDE) / 2)
    crop = image[top : top + SIDE, left : left + SIDE].astype(np.float32)
    return (crop - np.array(MEANS, np.float32)).transpose(2, 0, 1)


class ImageNet:
    """The first ``count`` images of ``data_dir``/val_map.txt (None: all), read when LoadGen loads them."""

    name = "imagenet"

    def __init__(self, data_dir: Path, count: int | None = None) -> None:
        paths, labels = read_map(data_dir)
        self._paths = paths[:count]
        self.labels = labels[:count]
        _require_files(data_dir, self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return float32 [len(indices), 3, 224, 224]; raises as ``preprocess`` does."""
        return np.stack([preprocess(self._paths[int(index)]) for index in indices])
