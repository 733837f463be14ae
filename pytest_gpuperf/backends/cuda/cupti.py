"""Count what a launch does, in this process, by the range profiler of NVIDIA's CUPTI.

Nsight Compute's own counters under its own names. The library is loaded with ctypes: it comes with the wheel
nvidia-cuda-cupti or with the CUDA toolkit, and there is no binding to install. Structures are those of
cupti_range_profiler.h and cupti_profiler_host.h of CUDA 12.6 and later; each carries its own size, so that
newer libraries take them too.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import Unavailable

_SIZE, _POINTER, _TEXT = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
_NAMES = ctypes.POINTER(_TEXT)
_HOST = ("libnvperf_host.so", "libnvperf_target.so")  # what libcupti loads, from beside it
_FOLDERS = ("nvidia/cu13/lib", "nvidia/cuda_cupti/lib")
_TOOLKITS = ("cuda*/extras/CUPTI/lib64", "cuda*/targets/*/lib")
_RANGES = 64  # kernels of one count, at most
_AUTO_RANGE, _KERNEL_REPLAY = 1, 2  # cupti_range_profiler.h: CUPTI_AutoRange, CUPTI_KernelReplay
_PERMISSION = (
    "this user may not read the GPU's performance counters: run as root or with CAP_PERFMON, or have the "
    "driver loaded with NVreg_RestrictProfilingToAdminUsers=0"
)


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
            "counters on a GPU need CUPTI: pip install nvidia-cuda-cupti (in pytest-gpuperf[cuda])"
        )
    try:
        for name in _HOST:
            if (beside := path.with_name(name)).exists():
                ctypes.CDLL(str(beside), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"counters on a GPU need CUPTI, and {path} cannot be loaded: {error}") from None


def _call(function: str, fields: Sequence[tuple[str, Any]], **values: Any) -> Any:
    """Call a CUPTI function with its parameters' structure and return that; raises Unavailable."""
    loaded = library()
    kind: Any = type(
        function, (ctypes.Structure,), {"_fields_": [("structSize", _SIZE), ("pPriv", _POINTER), *fields]}
    )
    name, last = kind._fields_[-1][:2]
    parameters = kind()
    parameters.structSize = getattr(kind, name).offset + ctypes.sizeof(last)
    for key, value in values.items():
        setattr(parameters, key, value)
    try:
        result = getattr(loaded, function)(ctypes.byref(parameters))
    except AttributeError:
        raise Unavailable(f"counters on a GPU need CUPTI of CUDA 12.6 or newer: no {function} here") from None
    if result:
        said = _TEXT()
        loaded.cuptiGetResultString(result, ctypes.byref(said))
        text = (said.value or b"").decode(errors="replace")
        why = _PERMISSION if "PRIVILEGES" in text else f"{function} says {text or result}"
        raise Unavailable(f"counters on a GPU: {why}")
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
        names = {"names": ctypes.cast(self._names, _NAMES), "n": len(metrics)}
        _call("cuptiProfilerInitialize", [])
        chip = _call("cuptiDeviceGetChipName", [("device", _SIZE), ("chip", _TEXT)], device=device).chip
        host = [("type", ctypes.c_int), ("chip", _TEXT), ("available", _POINTER), ("host", _POINTER)]
        self._host = _call("cuptiProfilerHostInitialize", host, type=0, chip=chip).host
        listed = [("names", _NAMES), ("n", _SIZE)]
        _call("cuptiProfilerHostConfigAddMetrics", [("host", _POINTER), *listed], host=self._host, **names)
        self._config = self._image(
            "cuptiProfilerHostGetConfigImageSize", [("host", _POINTER), ("size", _SIZE)], host=self._host
        )
        size, image = len(self._config), ctypes.addressof(self._config)
        sized = [("size", _SIZE), ("image", _POINTER)]
        _call(
            "cuptiProfilerHostGetConfigImage",
            [("host", _POINTER), *sized],
            host=self._host,
            size=size,
            image=image,
        )
        self._object = _call(
            "cuptiRangeProfilerEnable", [("context", _POINTER), ("object", _POINTER)], context=_current()
        ).object
        self._data = self._image(
            "cuptiRangeProfilerGetCounterDataSize",
            [("object", _POINTER), *listed, ("ranges", _SIZE), ("nodes", ctypes.c_uint32), ("size", _SIZE)],
            object=self._object,
            ranges=_RANGES,
            nodes=_RANGES,
            **names,
        )
        self._clear()
        self._configure()

    @staticmethod
    def _image(function: str, fields: Sequence[tuple[str, Any]], **values: Any) -> Any:
        return (ctypes.c_uint8 * _call(function, fields, **values).size)()

    def _configure(self) -> None:
        fields: list[tuple[str, Any]] = [("object", _POINTER), ("config_size", _SIZE), ("config", _POINTER)]
        fields += [
            ("data_size", _SIZE),
            ("data", _POINTER),
            ("range", ctypes.c_int),
            ("replay", ctypes.c_int),
        ]
        fields += [
            ("ranges", _SIZE),
            ("levels", ctypes.c_uint16),
            ("least", ctypes.c_uint16),
            ("index", _SIZE),
        ]
        fields += [("level", ctypes.c_uint16)]
        _call(
            "cuptiRangeProfilerSetConfig",
            fields,
            object=self._object,
            config_size=len(self._config),
            config=ctypes.addressof(self._config),
            data_size=len(self._data),
            data=ctypes.addressof(self._data),
            range=_AUTO_RANGE,
            replay=_KERNEL_REPLAY,
            ranges=_RANGES,
            levels=1,
            least=1,
            index=0,
            level=1,
        )

    def _clear(self) -> None:
        _call(
            "cuptiRangeProfilerCounterDataImageInitialize",
            [("object", _POINTER), ("size", _SIZE), ("data", _POINTER)],
            object=self._object,
            size=len(self._data),
            data=ctypes.addressof(self._data),
        )

    def count(self, enqueue: Callable[[], Any], synchronize: Callable[[], None]) -> list[Mapping[str, float]]:
        """Run ``enqueue`` and return each kernel's figures by metric, in the order of their launches."""
        self._clear()
        _call("cuptiRangeProfilerStart", [("object", _POINTER)], object=self._object)
        try:
            enqueue()
            synchronize()
        finally:
            stop = [("object", _POINTER), ("pass_", _SIZE), ("level", _SIZE), ("all", ctypes.c_uint8)]
            _call("cuptiRangeProfilerStop", stop, object=self._object)
        decode = [("object", _POINTER), ("dropped", _SIZE)]
        if dropped := _call("cuptiRangeProfilerDecodeData", decode, object=self._object).dropped:
            raise Unavailable(
                f"counters on a GPU: CUPTI left out {dropped} of the kernels, of {_RANGES} at most"
            )
        sized = {"data": ctypes.addressof(self._data), "size": len(self._data)}
        held = [("data", _POINTER), ("size", _SIZE)]
        ranges = _call("cuptiRangeProfilerGetCounterDataInfo", [*held, ("n", _SIZE)], **sized).n
        return [self._figures(number, held, sized) for number in range(ranges)]

    def _figures(
        self, number: int, held: Sequence[tuple[str, Any]], sized: Mapping[str, Any]
    ) -> Mapping[str, float]:
        values = (ctypes.c_double * len(self.metrics))()
        _call(
            "cuptiProfilerHostEvaluateToGpuValues",
            [
                ("host", _POINTER),
                *held,
                ("index", _SIZE),
                ("names", _NAMES),
                ("n", _SIZE),
                ("values", _POINTER),
            ],
            host=self._host,
            i=number,
            names=ctypes.cast(self._names, _NAMES),
            n=len(self.metrics),
            values=ctypes.addressof(values),
            **sized,
        )
        return dict(zip(self.metrics, values, strict=True))

    def close(self) -> None:
        """Give the counters back, so that others may use them."""
        _call("cuptiRangeProfilerDisable", [("object", _POINTER)], object=self._object)


def _current() -> int | None:
    """Return the driver's handle of the current context."""
    handle = ctypes.c_void_p()
    ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(handle))
    return handle.value
