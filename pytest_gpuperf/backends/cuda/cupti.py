"""Count what a launch does, in this process, by the range profiler of NVIDIA's CUPTI.

Nsight Compute's own counters under its own names. The library is loaded with ctypes: it comes with the wheel
nvidia-cuda-cupti or with the CUDA toolkit, and there is no binding to install. Structures are those of
cupti_range_profiler.h and cupti_profiler_host.h of CUDA 12.6 and later; each carries its own size, so that
newer libraries take them too.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import Unavailable

_SIZE, _POINTER, _TEXT = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
_NAMES = ctypes.POINTER(_TEXT)
_HOST = ("libnvperf_host.so", "libnvperf_target.so")  # what libcupti loads, from beside it
_FOLDERS = ("nvidia/cu13/lib", "nvidia/cuda_cupti/lib")
_TOOLKITS = ("cuda*/extras/CUPTI/lib64", "cuda*/targets/*/lib")
_RANGES = 64  # kernels of one count, until more are asked for
# cupti_profiler_target.h: CUpti_ProfilerRange and CUpti_ProfilerReplayMode
_AUTO_RANGE, _USER_RANGE = 1, 2
_KERNEL_REPLAY, _USER_REPLAY = 2, 3
_BUSY = "HARDWARE_BUSY"
_REASONS = {  # by a part of the result's name
    "PRIVILEGES": "this user may not read the GPU's performance counters: run as root or with CAP_PERFMON, "
    "or have the driver loaded with NVreg_RestrictProfilingToAdminUsers=0",
    "MULTIPLE_SUBSCRIBERS": "another profiler listens to CUPTI in this process (torch.profiler, Nsight "
    "Systems), and CUPTI serves one at a time: run without it",
    _BUSY: "another process holds the GPU's counters (Nsight Compute, DCGM's profiling, another "
    "session): end it, or pause it (dcgmi profile --pause)",
}
_PATIENCE = 5.0  # seconds: another session's count takes tens of milliseconds, its first one a second


class Busy(Unavailable):
    """Another process holds the device's counters."""


def _libraries() -> Iterator[Path]:
    """Yield the candidates for libcupti, those of Python's packages first."""
    for folder in (Path(entry) / name for entry in sys.path for name in _FOLDERS):
        yield from sorted(folder.glob("libcupti.so.1*"))
    for pattern in _TOOLKITS:
        yield from sorted(Path("/usr/local").glob(f"{pattern}/libcupti.so.1*"), reverse=True)


@cache
def library() -> ctypes.CDLL:
    """Load libcupti; raises Unavailable, naming what to install."""
    path = next(_libraries(), None)
    if path is None:
        raise Unavailable(
            "counters and traces on a GPU need CUPTI: pip install nvidia-cuda-cupti (in pytest-gpuperf[cuda])"
        )
    try:
        for name in _HOST:
            if (beside := path.with_name(name)).exists():
                ctypes.CDLL(str(beside), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(
            f"counters and traces on a GPU need CUPTI, and {path} cannot be loaded: {error}"
        ) from None


def call(function: str, *arguments: Any) -> None:
    """Call a CUPTI function; raises Unavailable, with what to do or CUPTI's words."""
    try:
        result = getattr(library(), function)(*arguments)
    except AttributeError:
        raise Unavailable(f"counters on a GPU need CUPTI of CUDA 12.6 or newer: no {function} here") from None
    if result:
        said = _TEXT()
        library().cuptiGetResultString(result, ctypes.byref(said))
        text = (said.value or b"").decode(errors="replace")
        known = (why for part, why in _REASONS.items() if part in text)
        kind = Busy if _BUSY in text else Unavailable
        raise kind(f"the GPU's profiler (CUPTI): {next(known, f'{function} says {text or result}')}")


def _call(function: str, **fields: Any) -> Any:
    """Call a CUPTI function with its parameters' structure and return that; raises Unavailable.

    ``fields`` are the structure's, in its order: (type, value) to be given, a type to be filled in.
    """
    given = {name: field if isinstance(field, tuple) else (field,) for name, field in fields.items()}
    members = [("structSize", _SIZE), ("pPriv", _POINTER)]
    members += [(name, kind) for name, (kind, *_) in given.items()]
    kind: Any = type(function, (ctypes.Structure,), {"_fields_": members})
    last, size = members[-1]
    parameters = kind(getattr(kind, last).offset + ctypes.sizeof(size))
    for name, (_, *value) in given.items():
        if value:
            setattr(parameters, name, *value)
    call(function, ctypes.byref(parameters))
    return parameters


class RangeProfiler:
    """Counts ``metrics`` of every kernel that the current context runs while a callable runs.

    CUPTI replays each kernel as often as the metrics need passes, and restores the device's memory between.
    Takes some 40 ms to set up on an H100, the first count 0.8 s, each further one 0.04 s. Raises Unavailable
    without the library or the right to read counters.
    """

    def __init__(self, metrics: Sequence[str], device: int = 0) -> None:
        self.metrics = tuple(metrics)
        self._names = (_TEXT * len(metrics))(*[metric.encode() for metric in metrics])
        self._listed = {"names": (_NAMES, ctypes.cast(self._names, _NAMES)), "number": (_SIZE, len(metrics))}
        _call("cuptiProfilerInitialize")
        chip = _call("cuptiDeviceGetChipName", device=(_SIZE, device), chip=_TEXT).chip
        made = _call(
            "cuptiProfilerHostInitialize",
            type=(ctypes.c_int, 0),
            chip=(_TEXT, chip),
            available=(_POINTER, None),
            host=_POINTER,
        )
        self._host = {"host": (_POINTER, made.host)}
        _call("cuptiProfilerHostConfigAddMetrics", **self._host, **self._listed)
        size = _call("cuptiProfilerHostGetConfigImageSize", **self._host, size=_SIZE).size
        self._config = (ctypes.c_uint8 * size)()
        _call("cuptiProfilerHostGetConfigImage", **self._host, **_image(self._config))

    @contextmanager
    def _opened(
        self, ranges: int, range_mode: int = _AUTO_RANGE, replay: int = _KERNEL_REPLAY
    ) -> Iterator[None]:
        """Hold the device's counters, with room for the figures of so many kernels or ranges.

        Not for longer than a count: nobody else can count meanwhile, in this process or another.
        """
        made = _call("cuptiRangeProfilerEnable", context=(_POINTER, current()), object=_POINTER)
        self._object = {"object": (_POINTER, made.object)}
        try:
            size = _call(
                "cuptiRangeProfilerGetCounterDataSize",
                **self._object,
                **self._listed,
                ranges=(_SIZE, ranges),
                nodes=(ctypes.c_uint32, ranges),
                size=_SIZE,
            ).size
            self._data = (ctypes.c_uint8 * size)()
            _call("cuptiRangeProfilerCounterDataImageInitialize", **self._object, **_image(self._data))
            _call(
                "cuptiRangeProfilerSetConfig",
                **self._object,
                config_size=(_SIZE, len(self._config)),
                config=(_POINTER, ctypes.addressof(self._config)),
                data_size=(_SIZE, size),
                data=(_POINTER, ctypes.addressof(self._data)),
                range=(ctypes.c_int, range_mode),
                replay=(ctypes.c_int, replay),
                ranges=(_SIZE, ranges),
                levels=(ctypes.c_uint16, 1),
                least=(ctypes.c_uint16, 1),
                index=(_SIZE, 0),
                level=(ctypes.c_uint16, 1),
            )
            yield
        finally:
            _call("cuptiRangeProfilerDisable", **self._object)

    def _start(self) -> None:
        """Begin to count, once another session's count has ended; raises Busy if that takes too long."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                _call("cuptiRangeProfilerStart", **self._object)
                return
            except Busy:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def count(
        self, enqueue: Callable[[], Any], synchronize: Callable[[], None], kernels: int = _RANGES
    ) -> list[Mapping[str, float]]:
        """Run ``enqueue`` and return each kernel's figures by metric, in the order of their launches.

        There is room for ``kernels`` of them at least.
        """
        ranges = max(kernels, _RANGES)
        with self._opened(ranges):
            self._pass(enqueue, synchronize)
            data = self._decoded(ranges)
        found = _call("cuptiRangeProfilerGetCounterDataInfo", **data, ranges=_SIZE).ranges
        return [self._figures(number, data) for number in range(found)]

    def count_whole(self, enqueue: Callable[[], Any], synchronize: Callable[[], None]) -> Mapping[str, float]:
        """Run ``enqueue`` once for each pass and return the figures by metric of all that it enqueues.

        Of a CUDA graph, since of its kernels ``count`` sees the first alone, or none (CUPTI 13.0 on an H100).
        """

        def in_a_range() -> None:
            _call("cuptiRangeProfilerPushRange", **self._object, name=(_TEXT, b"whole"))
            enqueue()
            synchronize()
            _call("cuptiRangeProfilerPopRange", **self._object)

        with self._opened(1, _USER_RANGE, _USER_REPLAY):
            while not self._pass(in_a_range, synchronize):
                pass
            data = self._decoded(1)
        return self._figures(0, data)

    def _pass(self, enqueue: Callable[[], Any], synchronize: Callable[[], None]) -> bool:
        """Count what ``enqueue`` does; say whether all passes have been made that the metrics need."""
        self._start()
        try:
            enqueue()
            synchronize()
        finally:
            stopped = {"index": _SIZE, "level": _SIZE, "all": ctypes.c_uint8}
            found = _call("cuptiRangeProfilerStop", **self._object, **stopped)
        return bool(found.all)

    def _decoded(self, ranges: int) -> Mapping[str, Any]:
        dropped = _call("cuptiRangeProfilerDecodeData", **self._object, dropped=_SIZE).dropped
        if dropped:
            raise Unavailable(
                f"counters on a GPU: CUPTI left out {dropped} of the kernels, of {ranges} at most"
            )
        return {"data": (_POINTER, ctypes.addressof(self._data)), "size": (_SIZE, len(self._data))}

    def _figures(self, number: int, data: Mapping[str, Any]) -> Mapping[str, float]:
        values = (ctypes.c_double * len(self.metrics))()
        _call(
            "cuptiProfilerHostEvaluateToGpuValues",
            **self._host,
            **data,
            index=(_SIZE, number),
            **self._listed,
            values=(_POINTER, ctypes.addressof(values)),
        )
        return dict(zip(self.metrics, values, strict=True))


def _image(image: Any) -> dict[str, Any]:
    return {"size": (_SIZE, len(image)), "image": (_POINTER, ctypes.addressof(image))}


def current() -> int | None:
    """Return the driver's handle of the current context."""
    handle = ctypes.c_void_p()
    ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(handle))
    return handle.value
