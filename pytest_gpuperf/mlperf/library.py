"""LoadGen's QSL: the images that are loaded, read a few at a time."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf import perf_counter
from pytest_gpuperf.mlperf.datasets import Arrays, Dataset
from pytest_gpuperf.mlperf.raised import described

Hold = Callable[[Any], Callable[[], None]]
Progress = Callable[[int, int], None]
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
        self._slots: dict[int, int] = {}
        self._images: Any = np.empty(0)
        self._single: dict[int, Any] = {}  # each image as a batch of one

    def load(self, indices: Sequence[int], progress: Progress = lambda done, wanted: None) -> None:
        """Load the images of LoadGen's sample indices, in place of those loaded before.

        ``progress`` hears how many of how many are there: a thousand images of a cold disk take minutes, and
        only one that does not come is a stall.
        """
        self.unload()
        # MultiStream pads its set with repeated indices.
        distinct = list(dict.fromkeys(indices))
        self._slots = {index: slot for slot, index in enumerate(distinct)}
        done, size = 0, 1
        while done < len(distinct):
            begin = perf_counter()
            read = self._read(distinct[done : done + size])
            if done == 0:
                self._images = self._allocated(len(distinct), read)
            self._require_like(read, distinct[done])
            self._images[done : done + len(read)] = read
            self._require_held(read, done)
            done += len(read)
            progress(done, len(distinct))
            took = max(perf_counter() - begin, 1e-6)
            size = max(1, min(MOST_READ, int(len(read) * READING / took)))
        self._single = {index: self._images[slot : slot + 1] for index, slot in self._slots.items()}
        self._release = self._hold(self._images)

    @contextmanager
    def reading(self, dataset: Dataset) -> Iterator[None]:
        """Load from another dataset, as long as the block lasts."""
        mine, self._dataset = self._dataset, dataset
        try:
            yield
        finally:
            self._dataset = mine

    def _read(self, indices: Sequence[int]) -> Any:
        try:
            images = self._dataset.images(indices)
            several = isinstance(images, Mapping)
        except GpuperfError:
            raise
        except Exception as error:
            raise GpuperfError(f"{self._dataset.name}: images() failed: {described(error)}") from error
        try:
            read = {str(k): np.asarray(v) for k, v in images.items()} if several else {"": np.asarray(images)}
        except (TypeError, ValueError):
            raise GpuperfError(
                f"{self._dataset.name}: images() gave images of several shapes; it must return one array of "
                "numbers, or for a Sut the samples' numbers, which run() looks up"
            ) from None
        for name, array in read.items():
            if array.ndim == 0 or len(array) != len(indices) or array.dtype.kind not in "fiub":
                found = f"{array.dtype} {list(array.shape)}{name and f' for {name}'}"
                raise GpuperfError(
                    f"{self._dataset.name}: images() was asked for {len(indices)} and gave {found}; "
                    "it must return an array of numbers with as many entries"
                )
        if several and not read:
            raise GpuperfError(f"{self._dataset.name}: images() gave a dict without an array")
        self._require_names(read if several else {})
        return Arrays(read) if several else read[""]

    def _require_names(self, read: Mapping[str, np.ndarray]) -> None:
        """Raise GpuperfError unless there is an array for each input that the file has."""
        wanted = set(self._dtype) if isinstance(self._dtype, Mapping) else set()
        if isinstance(self._dtype, Mapping) and not read:
            raise GpuperfError(
                f"{self._dataset.name}: images() gave one array, the model takes {', '.join(self._dtype)}: "
                "return a dict with an array for each, or give those that never change as Model.inputs"
            )
        if read and self._dtype is not None and wanted != set(read):
            names = ", ".join(self._dtype) if wanted else "one array"
            raise GpuperfError(
                f"{self._dataset.name}: images() gave {', '.join(read)}, and the model takes {names}"
            )

    def _allocated(self, count: int, read: Any) -> Any:
        """Return room for so many samples like those that were read, in the model's types."""
        if not isinstance(read, Arrays):
            return self._empty(count, read, self._dtype)
        dtypes = self._dtype or {}
        return Arrays({k: self._empty(count, v, dtypes.get(k), f" for {k}") for k, v in read.arrays.items()})

    def _empty(self, count: int, read: np.ndarray, dtype: Any, whose: str = "") -> np.ndarray:
        if dtype is not None and read.dtype.kind == "f" and np.dtype(dtype).kind in "iub":
            raise GpuperfError(
                f"{self._dataset.name}: images() gave {read.dtype}{whose}, and the model takes "
                f"{np.dtype(dtype)}: nothing is rounded, return whole numbers"
            )
        return np.empty((count, *read.shape[1:]), dtype or read.dtype)

    def _pairs(self, read: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each array that was read, beside that of the loaded samples."""
        if not isinstance(read, Arrays):
            return [(read, self._images)]
        return [(array, self._images.arrays[name]) for name, array in read.arrays.items()]

    def _require_like(self, read: Any, first: int) -> None:
        """Raise GpuperfError unless samples have names, shape and type of those that were loaded before."""
        found, before = ((list(x.arrays) if isinstance(x, Arrays) else []) for x in (read, self._images))
        if set(found) != set(before):
            raise GpuperfError(
                f"{self._dataset.name}: images() gave {', '.join(found) or 'one array'} for image {first}, "
                f"and {', '.join(before) or 'one array'} for others; it must give the same for each"
            )
        for array, loaded in self._pairs(read):
            if array.shape[1:] != loaded.shape[1:]:
                shape, usual = list(array.shape[1:]), list(loaded.shape[1:])
                raise GpuperfError(
                    f"{self._dataset.name}: image {first} has the shape {shape}, others {usual}"
                )
            if self._dtype is None and array.dtype != loaded.dtype:
                raise GpuperfError(
                    f"{self._dataset.name}: image {first} is {array.dtype}, others {loaded.dtype}; "
                    "images() must return one type"
                )

    def _require_held(self, read: Any, done: int) -> None:
        """Raise GpuperfError if the model's type, of whole numbers, could not hold those that were read."""
        for array, loaded in self._pairs(read):
            part = loaded[done : done + len(array)]
            if part.dtype != array.dtype and part.dtype.kind in "iub" and not (part == array).all():
                raise GpuperfError(
                    f"{self._dataset.name}: images() gave {array.dtype} from {array.min()} to {array.max()}, "
                    f"which {part.dtype}, the model's type, cannot hold"
                )

    def unload(self) -> None:
        release, self._release = self._release, lambda: None
        release()
        self._slots, self._single = {}, {}
        self._images = np.empty(0)

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

    def batch(self, indices: Sequence[int]) -> Any:
        """Return the images of LoadGen's sample indices, C-contiguous [n, *input_shape]."""
        if len(indices) == 1:
            return self._single[indices[0]]
        first = self._slots[indices[0]]
        slots = [self._slots[index] for index in indices]
        if slots == list(range(first, first + len(slots))):
            return self._images[first : first + len(slots)]
        return self._images[slots]

    def slice(self, start: int, size: int) -> Any:
        """Return ``size`` images for a warm-up, from ``start`` on if so many are loaded."""
        start = start % max(1, len(self._images) - size + 1)
        if len(self._images) >= size:
            return self._images[start : start + size]
        return self._images[np.arange(size) % len(self._images)]


class InOrder(SampleLibrary):
    """A library for a model whose state goes from query to query: they get the dataset's samples in order.

    LoadGen's own order is random; which sample it asks for first is then only a name for the first. ``order``
    has these names. ``restart`` is called before the first sample and before each of the dataset's
    ``starts``.
    """

    def __init__(self, dataset: Dataset, dtype: Any, hold: Hold, restart: Callable[[], None]) -> None:
        super().__init__(dataset, dtype, hold)
        self._restart, self._starts = restart, _starts(dataset)
        self._first, self.order = 0, list[int]()
        self._issued, self._total = 0, len(dataset)

    def load(self, indices: Sequence[int], progress: Progress = lambda done, wanted: None) -> None:
        self._first = self._issued
        super().load(range(self._first, self._first + len(indices)), progress)

    def batch(self, indices: Sequence[int]) -> Any:
        if len(self.order) < self._total:
            self.order.extend(indices)
        slot = (self._issued - self._first) % len(self._slots)
        self._issued += len(indices)
        if self._first + slot in self._starts:
            self._restart()
        return self._images[slot : slot + len(indices)]


def _starts(dataset: Dataset) -> set[int]:
    given = getattr(dataset, "starts", ())
    try:
        found = {0, *map(operator.index, given)}
    except TypeError:
        found = {-1}
    if min(found) < 0:
        raise GpuperfError(f"{dataset.name}: starts={short(given)}; give the numbers of samples, from 0 on")
    return found  # those beyond a count of samples are of no matter


class Kept(SampleLibrary):
    """A library whose images stay from phase to phase, until it is closed: for scenarios of random order."""

    def load(self, indices: Sequence[int], progress: Progress = lambda done, wanted: None) -> None:
        if not set(indices) <= set(self._slots):
            self.close()
            super().load(indices, progress)

    def unload(self) -> None:
        """Keep them."""

    def close(self) -> None:
        """Let go of the images."""
        super().unload()
