"""LoadGen's QSL: the images that are loaded, read a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf.datasets import Dataset

Hold = Callable[[np.ndarray], Callable[[], None]]
MOST_READ = 64  # images asked of a dataset at once
READING = 0.5  # seconds that one such request is to take


class SampleLibrary:
    """LoadGen's QSL: the loaded images in host memory, in the order LoadGen loaded them.

    LoadGen walks its loaded set in that order in Offline and in runs of eight in MultiStream, so nearly every
    batch is a slice of one array and is not copied. ``hold`` is told of that array before it is used.
    """

    def __init__(self, dataset: Dataset, dtype: Any, hold: Hold) -> None:
        self._dataset, self._dtype, self._hold = dataset, dtype, hold
        self._release: Callable[[], None] = lambda: None
        self.decoded = self.wanted = 0
        self._slots: dict[int, int] = {}
        self._images = np.empty(0, dtype)
        self._single: dict[int, np.ndarray] = {}  # each image as a batch of one

    def load(self, indices: Sequence[int], progress: Callable[[], None] = lambda: None) -> None:
        """Load the images of LoadGen's sample indices, in place of those loaded before.

        ``progress`` is called whenever some are there: a thousand images of a cold disk take minutes, and
        only one that does not come is a stall.
        """
        self.unload()
        # MultiStream pads its set with repeated indices.
        distinct = list(dict.fromkeys(indices))
        self._slots = {index: slot for slot, index in enumerate(distinct)}
        done, size = 0, 1
        self.decoded, self.wanted = 0, len(distinct)
        while done < len(distinct):
            begin = perf_counter()
            read = self._read(distinct[done : done + size])
            if done == 0:
                self._images = np.empty((len(distinct), *read.shape[1:]), self._dtype or read.dtype)
            elif read.shape[1:] != self._images.shape[1:]:
                found, before = list(read.shape[1:]), list(self._images.shape[1:])
                raise GpuperfError(
                    f"{self._dataset.name}: image {distinct[done]} has the shape {found}, others {before}"
                )
            self._images[done : done + len(read)] = read
            done += len(read)
            self.decoded = done
            progress()
            took = max(perf_counter() - begin, 1e-6)
            size = max(1, min(MOST_READ, int(len(read) * READING / took)))
        self._single = {index: self._images[slot : slot + 1] for index, slot in self._slots.items()}
        self._release = self._hold(self._images)

    def _read(self, indices: Sequence[int]) -> np.ndarray:
        try:
            images = np.asarray(self._dataset.images(indices))
        except GpuperfError:
            raise
        except Exception as error:
            raise GpuperfError(
                f"{self._dataset.name}: images() failed: {type(error).__name__}: {error}"
            ) from error
        if images.ndim == 0 or len(images) != len(indices) or images.dtype.kind not in "fiub":
            found = f"{images.dtype} {list(images.shape)}"
            raise GpuperfError(
                f"{self._dataset.name}: images() was asked for {len(indices)} and gave {found}; "
                "it must return an array of numbers with as many entries"
            )
        return images

    def unload(self) -> None:
        release, self._release = self._release, lambda: None
        release()
        self._slots, self._single = {}, {}
        self._images = np.empty(0, self._dtype)

    def parts(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """Return where the images of LoadGen's sample indices lie in the held array: (first, count)."""
        slots = self._slots
        if len(indices) == 1:
            return [(slots[indices[0]], 1)]
        found: list[tuple[int, int]] = []
        first, count = slots[indices[0]], 0
        for index in indices:
            slot = slots[index]
            if slot != first + count:
                found.append((first, count))
                first, count = slot, 0
            count += 1
        return [*found, (first, count)]

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Return the images of LoadGen's sample indices, C-contiguous [n, *input_shape]."""
        if len(indices) == 1:
            return self._single[indices[0]]
        first = self._slots[indices[0]]
        slots = [self._slots[index] for index in indices]
        if slots == list(range(first, first + len(slots))):
            return self._images[first : first + len(slots)]
        return self._images[slots]

    def slice(self, start: int, size: int) -> np.ndarray:
        """Return ``size`` images for a warm-up, from ``start`` on if so many are loaded."""
        start = start % max(1, len(self._images) - size + 1)
        if len(self._images) >= size:
            return self._images[start : start + size]
        return self._images[np.arange(size) % len(self._images)]
