"""Arrays on a CUDA device, shown to other libraries by DLPack and the CUDA array interface."""

from __future__ import annotations

import ctypes
import operator
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np

from pytest_gpuperf.backends.cuda.export import dlpack
from pytest_gpuperf.backends.room import FREED
from pytest_gpuperf.errors import KernelError


class View:
    """An array in memory that ``base`` has, or this one itself if that is None.

    ``layout`` is a NumPy array of the same shape and strides at the device's address: it is asked where
    things lie, and nothing is read from it.
    """

    def __init__(self, layout: np.ndarray, base: Any = None) -> None:
        self._layout, self.base = layout, base

    shape = property(operator.attrgetter("_layout.shape"))
    dtype = property(operator.attrgetter("_layout.dtype"))
    strides = property(operator.attrgetter("_layout.strides"))
    nbytes = property(operator.attrgetter("_layout.nbytes"))
    size = property(operator.attrgetter("_layout.size"))
    ndim = property(operator.attrgetter("_layout.ndim"))

    def __len__(self) -> int:
        return len(self._layout)

    def __repr__(self) -> str:
        return f"<{self.dtype}{list(self.shape)} on the device>"

    @property
    def _owner(self) -> Array:
        return self if isinstance(self, Array) else self.base

    @property
    def own_address(self) -> int:
        """Return the address for a use that is known, such as a launch of ours."""
        return int(self._layout.ctypes.data)

    @property
    def ptr(self) -> int:
        """Return the address, at which other libraries may write from then on."""
        self._owner.given_away()
        return self.own_address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe it to other libraries; its stream is one that their default streams order with."""
        strides = None if self._layout.flags.c_contiguous else self.strides
        known = {"shape": self.shape, "strides": strides, "typestr": self.dtype.str, "stream": None}
        return {**known, "descr": self.dtype.descr, "data": (self.ptr, False), "version": 3}

    def __dlpack__(self, **how: Any) -> Any:
        return dlpack(self.ptr, self).__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = dlpack(self.ptr, self).__dlpack_device__()
        return device

    def __getitem__(self, key: Any) -> View:
        """Return a part of it by numbers and slices, without a copy."""
        keys = key if isinstance(key, tuple) else (key,)
        known = (int, np.integer, slice, type(None), type(...))
        if not all(isinstance(each, known) for each in keys):
            raise KernelError("an array on the device is indexed by integers and slices alone.")
        whole = keys if any(each is ... for each in keys) else (*keys, ...)  # no number, which would be read
        return View(self._layout[whole], self._owner)

    def reshape(self, *shape: Any) -> View:
        """Return it in another shape of as many elements, without a copy."""
        if not self._layout.flags.c_contiguous:
            raise KernelError("only a C-contiguous array can be given another shape; copy it first.")
        return View(self._layout.reshape(*shape), self._owner)

    def view(self, dtype: Any) -> View:
        """Return its bytes as another type's, without a copy."""
        return View(self._layout.view(dtype), self._owner)

    @property
    def T(self) -> View:
        return View(self._layout.T, self._owner)

    def get(self) -> np.ndarray:
        """Copy it to the host, after everything enqueued so far has finished."""
        owner = self._owner
        if self._layout.flags.c_contiguous:
            host = np.empty(self.shape, self.dtype)
            owner.copied("memcpy_dtoh", host, self.own_address)
            return host
        whole = np.empty(owner.nbytes, np.uint8)
        owner.copied("memcpy_dtoh", whole, owner.own_address)
        offset = self.own_address - owner.own_address
        part: np.ndarray = np.ndarray(self.shape, self.dtype, whole.data, offset, self.strides)
        return part.copy()

    def set(self, values: np.ndarray) -> None:
        """Overwrite it from the host with as many elements of its own type."""
        values = np.ascontiguousarray(values)
        if values.dtype != self.dtype or values.nbytes != self.nbytes or not self._layout.flags.c_contiguous:
            raise KernelError(
                f"{values.dtype}{list(values.shape)} does not fit {self!r}; give as many of its type."
            )
        self._owner.copied("memcpy_htod", self.own_address, values)


class Array(View):
    """An array that has its memory, and names its error once that was given back."""

    explained: Any = staticmethod(nullcontext)
    wait: Any = staticmethod(lambda: None)
    freed = False
    contents: str | None = None

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._driver, self._memory = driver, None
        nbytes = int(np.prod(shape, dtype=np.uint64)) * dtype.itemsize
        self._memory = driver.call("cuMemAlloc", nbytes)
        there: Any = (ctypes.c_char * nbytes).from_address(int(self._memory))
        super().__init__(np.ndarray(shape, dtype, there))

    def given_away(self) -> None:
        """Forget what is in it: somebody else may write to it from now on."""
        if self.freed:
            raise KernelError(FREED)
        self.contents = None

    def copied(self, copy: str, *arguments: Any) -> None:
        """Copy between host and device."""
        if self.freed:
            raise KernelError(FREED)
        self.wait()  # for so long as a kernel may run, and no longer
        with self.explained("copying an array between host and device"):
            getattr(self._driver, copy)(*arguments)

    def free(self) -> None:
        """Give the memory back; freeing twice is no error."""
        if not self.freed:
            self.freed = True
            memory, self._memory = self._memory, None
            if memory is not None:
                self._driver.call("cuMemFree", memory)

    def __del__(self) -> None:
        with suppress(Exception):  # of a context that is lost or gone
            self.free()
