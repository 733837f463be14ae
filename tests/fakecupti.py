"""A stand-in for libcupti, as far as a recorder of activity asks it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any


class Cupti:
    """It asks for a buffer, fills it with its ``records`` once kernels are off, and gives it back."""

    def __init__(self, records: Iterable[Any] = (), refuses: str = "") -> None:
        self.records, self.refuses, self.calls = list(records), refuses, []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments):
            self.calls.append((name, *arguments[:1]))
            if name == "cuptiActivityRegisterCallbacks":
                self.requested, self.completed = arguments
            if name == "cuptiActivityFlushAll" and ("cuptiActivityDisable", 10) in self.calls:
                self.deliver()
            return 15 if name == self.refuses else 0

        return call

    def deliver(self) -> None:
        buffer, size, most = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
        self.requested(ctypes.byref(buffer), ctypes.byref(size), ctypes.byref(most))
        assert (buffer.value % 8, most.value) == (0, 0)
        assert size.value >= 2**16
        self.left = list(self.records)
        self.completed(None, 0, buffer, size, 208 * len(self.left))

    def cuptiActivityGetNextRecord(self, buffer, valid, record):
        if not self.left:
            return 12
        record._obj.value = ctypes.addressof(self.left.pop(0))
        return 0

    def cuptiGetResultString(self, result, said):
        said._obj.value = b"CUPTI_ERROR_NOT_INITIALIZED"
