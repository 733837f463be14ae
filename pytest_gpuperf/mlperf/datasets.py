"""Datasets: what one is, and the digits that are shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from importlib.resources import as_file, files
from typing import Any, Protocol, cast

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import is_text, short
from pytest_gpuperf.mlperf.raised import described

LAYOUTS = ("NCHW", "NHWC")


class Dataset(Protocol):
    """Labelled samples; ``labels`` is int64 [len], or with a score whatever that compares.

    It may also have ``data_format``, "NHWC" if its images are laid out so; ``starts``, the numbers of the
    samples with which a sequence begins, for a model whose state goes from one to the next; ``notes``, texts
    for the result once its samples were read; and ``prepare(progress)``, which is called before an accuracy
    phase, that loads every sample, and calls ``progress(done, wanted)`` as it goes on.
    """

    name: str
    labels: Any

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int] | np.ndarray) -> Any:
        """Return [len(indices), *the model's input shape], preprocessed, in a type that goes into the file's.

        For a file with several inputs, such an array for the name of each.
        """


class Arrays:
    """Several inputs of the same samples: an array for each name, indexed by sample as one array is."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, samples: Any) -> Arrays:
        return Arrays({name: array[samples] for name, array in self.arrays.items()})

    def __setitem__(self, samples: Any, given: Arrays) -> None:
        for name, array in self.arrays.items():
            array[samples] = given.arrays[name]


def dataset_of(model: Any, count: int | None) -> Dataset:
    """Return the first ``count`` samples of the dataset of a Model or a Sut, laid out as its file takes them.

    Raises GpuperfError as ``open_dataset`` does.
    """
    dataset = open_dataset(model.name, model.dataset, count, getattr(model, "score", None) is None)
    wanted, given = getattr(model, "data_format", None), getattr(dataset, "data_format", LAYOUTS[0])
    if given not in LAYOUTS:
        raise GpuperfError(f'{model.name}: data_format={short(given)} of its dataset; give "NCHW" or "NHWC"')
    if wanted is None or wanted == given:
        return dataset
    return cast(Dataset, _Transposed(dataset, (0, 2, 3, 1) if wanted == "NHWC" else (0, 3, 1, 2)))


class _Transposed:
    """A dataset whose images have their axes in another order."""

    def __init__(self, dataset: Dataset, axes: tuple[int, ...]) -> None:
        self._dataset, self._axes = dataset, axes

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        images = np.asarray(self._dataset.images(indices))
        if images.ndim != len(self._axes):
            raise GpuperfError(
                f"{self._dataset.name}: images() gave {list(images.shape)}; data_format is for "
                "images, which have four axes"
            )
        return images.transpose(self._axes)


class Part:
    """Samples ``first`` to ``first`` + ``count`` of a dataset."""

    def __init__(self, dataset: Dataset, first: int, count: int) -> None:
        self._dataset, self._first = dataset, first
        self.name, self.labels = dataset.name, dataset.labels[first : first + count]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> Any:
        return self._dataset.images([self._first + index for index in indices])


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
    except GpuperfError:
        raise
    except Exception as error:  # of a file that is not there, too
        raise GpuperfError(
            f"{model}: its dataset does not fit: {described(error)}; dataset(count) must have "
            "name, labels, len() and images(indices)"
        ) from error
    if not is_text(name) or not complete:
        raise GpuperfError(f"{model}: its dataset must have a text as its name, and images(indices)")
    if found and not _are_labels(dataset.labels, found, classes):
        what = "a whole number" if classes else "a label"
        raise GpuperfError(
            f"{model}: the dataset {name} has {found} images and {count_of_labels} labels, "
            f"{short(dataset.labels)}; it must have {what} for each, in the images' order"
        )
    if count is not None and found < count:
        raise GpuperfError(f"{model}: count={count}, and the dataset {name} has {found} images")
    if count is not None and found > count:
        raise GpuperfError(f"{model}: the dataset {name} was made of count={count} and has {found} images")
    return dataset


def _are_labels(labels: Any, count: int, classes: bool) -> bool:
    if isinstance(labels, Mapping | Set) or len(labels) != count:
        return False
    if not classes:
        return True
    try:
        plain = np.asarray(labels)
    except ValueError:  # parts of several lengths
        return False
    whole = plain.shape == (count,) and plain.dtype.kind in "iu"
    return whole and (plain.dtype != np.uint64 or int(plain.max()) < 1 << 63)  # as a class is held


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
    """Turn uint8 [n, 8, 8] into float32 [n, 3, 224, 224] in -0.5..0.5, a read-only view: one channel thrice.

    Every pixel becomes a 28x28 square. Unlike an interpolation this is exact in float32, so the model's
    input has the same bits on every machine.
    """
    grey = pixels.astype(np.float32) / np.float32(16) - np.float32(0.5)
    large = grey.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return np.broadcast_to(large[:, None], (len(large), 3, 224, 224))


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
        """Return float32 [len(indices), 3, 224, 224], read-only."""
        return enlarge(self._pixels[np.asarray(indices)])
