"""Handwritten digits: the labelled images behind ``resnet50-digits``, shipped with the package.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0. These are the 1,797 images of its test file
optdigits.tes, unchanged (8x8 pixels of 0..16); which 797 of them are held out is stored beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np

IMAGES = 1797
HELD_OUT = 797
SCALE = 224 // 8


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels uint8 [1797, 8, 8] of 0..16, labels uint8 [1797], and the held-out indices uint16 [797]."""
    with (
        as_file(files("pytest_gpuperf.mlperf") / "data" / "digits.npz") as path,
        np.load(path, allow_pickle=False) as stored,
    ):
        return stored["pixels"], stored["labels"], stored["held_out"]


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """uint8 [n, 8, 8] to float32 [n, 3, 224, 224] in -0.5..0.5: three equal channels.

    Every pixel becomes a 28x28 square: exact in float32, so that the input's bits are the same everywhere,
    which no interpolation promises.
    """
    grey = pixels.astype(np.float32) / np.float32(16) - np.float32(0.5)
    large = grey.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return np.broadcast_to(large[:, None], (len(large), 3, 224, 224)).copy()


class Digits:
    """The held-out images, in their stored order; ``count`` keeps the first so many."""

    name = "uci-digits"

    def __init__(self, count: int | None = None) -> None:
        pixels, labels, held_out = load()
        chosen = held_out[:count]
        self._pixels = pixels[chosen]
        self.labels = labels[chosen].astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """float32 [len(indices), 3, 224, 224]."""
        return enlarge(self._pixels[np.asarray(indices)])
