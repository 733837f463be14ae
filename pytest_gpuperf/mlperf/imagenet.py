"""ImageNet's validation set as MLPerf reads it: ``val_map.txt`` and the preprocessing called "vgg".

Source: mlcommons/inference, vision/classification_and_detection/python/imagenet.py and dataset.py
(pre_process_vgg). The order of val_map.txt is the order of LoadGen's sample indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError, Unavailable

CLASSES = 1000
SIDE = 224
RESIZED = 256  # int(100 * 224 / 87.5): the crop keeps 87.5 % of the shorter side
MEANS = (123.68, 116.78, 103.94)  # of the training set's R, G and B; there is no division by a deviation


def read_map(data_dir: Path) -> tuple[list[Path], np.ndarray]:
    """The images' paths and their labels, int64 [n] of 0..999; raises GpuperfError naming the bad line."""
    path = data_dir / "val_map.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise GpuperfError(
            f"{path} cannot be read ({error.strerror}); DATA_DIR must hold ImageNet's val_map.txt"
        ) from error
    images, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdigit() or int(fields[1]) >= CLASSES:
            raise GpuperfError(
                f'{path}, line {number}: "{line}" must be a path and a label of 0..{CLASSES - 1}'
            )
        images.append(data_dir / fields[0])
        labels.append(int(fields[1]))
    if not images:
        raise GpuperfError(f"{path} lists no image; each line must be a path and a label")
    return images, np.array(labels, np.int64)


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise Unavailable(f"ImageNet needs OpenCV ({error}): pip install 'pytest-gpuperf[mlperf]'") from error
    return cv2


def preprocess(path: Path) -> np.ndarray:
    """One image file to float32 [3, 224, 224], RGB: shorter side to 256, middle crop, means subtracted."""
    cv2 = _cv2()
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
    """The images listed in ``data_dir``/val_map.txt, read and preprocessed when LoadGen loads them."""

    name = "imagenet"

    def __init__(self, data_dir: Path, count: int | None = None) -> None:
        paths, labels = read_map(data_dir)
        self._paths = paths[:count]
        self.labels = labels[:count]

    def __len__(self) -> int:
        return len(self._paths)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """float32 [len(indices), 3, 224, 224]; raises GpuperfError naming a file that cannot be read."""
        return np.stack([preprocess(self._paths[int(index)]) for index in indices])
