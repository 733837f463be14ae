"""CUDA streams, buffers and copies that wait for nothing, through the runtime library of ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pytest_gpuperf.backends.cuda.driver import Loader
from pytest_gpuperf.errors import GpuperfError

_TO_DEVICE, _TO_HOST, _ON_DEVICE = 1, 2, 3  # cudaMemcpyKind
_NON_BLOCKING = 1  # cudaStreamNonBlocking: it does not wait for the default stream
_PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every device


class Copies:
    """The CUDA runtime, version ``built_for``; every method raises GpuperfError if CUDA refuses.

    What only enqueues is called through ``quick``, which keeps the interpreter's lock: giving it up and
    taking it again costs more than the call, and more so where another thread waits for it. What waits is
    called through ``load``, which gives it up.
    """

    def __init__(
        self, built_for: int, load: Loader = ctypes.CDLL, quick: Loader | None = ctypes.PyDLL
    ) -> None:
        name = f"libcudart.so.{built_for}"
        self._waiting: Any = load(name)
        self._quick: Any = (quick or load)(name)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._copy = self._quick.cudaMemcpyAsync
        self._synchronise = self._waiting.cudaStreamSynchronize
        self._copy.argtypes = (pointer, pointer, size, ctypes.c_int, pointer)
        self._synchronise.argtypes = (pointer,)

    def devices(self) -> int:
        """Return how many devices this process sees."""
        count = ctypes.c_int()
        self._check(self._waiting.cudaGetDeviceCount(ctypes.byref(count)), "counting the devices")
        return count.value

    def pci(self, device: int) -> str:
        """Return the PCI address of a device, such as "0000:1b:00.0"."""
        text = ctypes.create_string_buffer(32)
        code = self._waiting.cudaDeviceGetPCIBusId(text, ctypes.c_int(32), ctypes.c_int(device))
        self._check(code, "asking for a device's address")
        return text.value.decode().lower()

    def stream(self, device: int) -> int:
        """Make a stream on the device and return its handle."""
        handle = ctypes.c_void_p()
        with self._on(device):
            made = self._waiting.cudaStreamCreateWithFlags(ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING))
            self._check(made, "making a stream")
        return handle.value or 0

    def put(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy from host memory to the device."""
        if code := self._copy(target, source, size, _TO_DEVICE, stream):
            self._check(code, "copying to the device")

    def move(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy within the device."""
        if code := self._copy(target, source, size, _ON_DEVICE, stream):
            self._check(code, "copying on the device")

    def fetch(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy from the device to host memory, and wait for all that is on the stream."""
        code = self._copy(target, source, size, _TO_HOST, stream) or self._synchronise(stream)
        if code:
            self._check(code, "waiting for the device")

    def wait(self, stream: int) -> None:
        """Wait for all that is on the stream."""
        if code := self._synchronise(stream):
            self._check(code, "waiting for the device")

    def resident(self, array: np.ndarray, device: int) -> tuple[int, Callable[[], None]]:
        """Copy a host array to the device; returns its address there and what frees it."""
        address = ctypes.c_void_p()
        with self._on(device):
            code = self._waiting.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(array.nbytes))
            self._check(code, f"reserving {array.nbytes / 2**20:,.0f} MiB for images on the device")
            target = address.value or 0
            try:
                self.put(target, array.ctypes.data, array.nbytes, 0)
                self._check(self._synchronise(0), "copying images to the device")
            except BaseException:
                self._waiting.cudaFree(ctypes.c_void_p(target))
                raise
        return target, lambda: self._waiting.cudaFree(ctypes.c_void_p(target))

    def page_lock(self, array: np.ndarray) -> Callable[[], None] | None:
        """Lock a host array's pages, for copies at the link's speed; returns what unlocks them.

        That must be called before the array goes. Returns None if CUDA refuses (a container's memory limit);
        copies are then slower.
        """
        address = ctypes.c_void_p(array.ctypes.data)
        if self._waiting.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(_PORTABLE)):
            self._waiting.cudaGetLastError()  # or this thread's next CUDA call would report the refusal
            return None
        return lambda: self._waiting.cudaHostUnregister(address)

    @contextmanager
    def _on(self, device: int) -> Iterator[None]:
        """Have this thread's calls go to a device, as long as the block lasts."""
        before = ctypes.c_int()
        self._check(self._waiting.cudaGetDevice(ctypes.byref(before)), "asking for the device")
        self._check(self._waiting.cudaSetDevice(ctypes.c_int(device)), f"choosing device {device}")
        try:
            yield
        finally:
            self._waiting.cudaSetDevice(before)

    def _check(self, code: int, doing: str) -> None:
        if code:
            self._waiting.cudaGetErrorString.restype = ctypes.c_char_p
            text = (self._waiting.cudaGetErrorString(ctypes.c_int(code)) or b"").decode()
            hint = ": use a smaller batch, or fewer images" if code == 2 else ""
            raise GpuperfError(f"CUDA failed while {doing}: {text or 'error'} ({code}){hint}")
