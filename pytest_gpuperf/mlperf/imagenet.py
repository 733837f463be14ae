"""ImageNet as MLPerf reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import imported

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
        """Return float32 [len(indices), 3, 224, 224], decoded on all cores; raises as ``preprocess``."""
        # OpenCV lets go of the interpreter's lock while it decodes and resizes.
        with ThreadPoolExecutor(min(len(indices), os.cpu_count() or 1) or 1) as pool:
            return np.stack(list(pool.map(preprocess, [self._paths[int(index)] for index in indices])))
