"""Hash the work of kernels that other libraries compile and launch, where their compiled code can be had.

By what the objects have, not by their types: none of the libraries is imported. Known are Triton's
``kernel[grid]``, numba-cuda's ``kernel[grid, block]``, CuPy's ``RawKernel`` and cuda.core's ``launch``, each
with its arguments, or a ``functools.partial`` of one of them.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pytest_gpuperf.backends.cuda.machine_code import only_kernel_hash

BY_LIBRARY = "f-"
"""How the hash of such work begins."""
_LARGEST = 1 << 30
"""Bytes of an array whose contents are looked at, which takes a second."""


class _Launch(NamedTuple):
    """A launch's geometry, its arguments, and what returns its compiled code's hash once it was launched."""

    geometry: Any
    arguments: Sequence[Any]
    code: Callable[[], str | None]


def work_hash(launch: Callable[..., Any], args: Sequence[Any]) -> str | None:
    """Launch once, and hash all that the device is told: machine code, geometry, scalars, contents of arrays.

    It ends with "?" where an argument's contents cannot be had. None, and no launch, for what is not known
    here; None for a kernel whose compiled code cannot be had.
    """
    found = _known(*_unwrapped(launch, args))
    if found is None:
        return None
    contents = [_contents(argument) for argument in found.arguments]
    places = [next(i for i, a in enumerate(found.arguments) if a is each) for each in found.arguments]
    launch(*args)
    code = None
    with suppress(Exception):  # of another library's version, whose objects have something else there
        code = found.code()
    if code is None:
        return None
    told = repr((code, found.geometry, contents, places))
    return BY_LIBRARY + hashlib.sha256(told.encode()).hexdigest()[:16] + ("?" if None in contents else "")


def _unwrapped(launch: Any, args: Sequence[Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    given, named = tuple(args), dict[str, Any]()
    while isinstance(launch, functools.partial):
        given, named = (*launch.args, *given), {**launch.keywords, **named}
        launch = launch.func
    return launch, given, named


def _known(launch: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> _Launch | None:
    library = str(getattr(launch, "__module__", None) or type(launch).__module__).partition(".")[0]
    with suppress(Exception):  # asked of objects that only look like what they should be
        if library == "triton":
            return _triton(launch, args, named)
        if hasattr(launch, "dispatcher") and hasattr(launch, "griddim"):
            return _numba(launch, args)
        if library == "cupy" and hasattr(launch, "code") and hasattr(launch, "options") and len(args) >= 3:
            return _cupy(launch, args, named)
        if library == "cuda" and getattr(launch, "__name__", "") == "launch" and len(args) >= 3:
            return _cuda_core(args)
    return None


def _triton(launch: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> _Launch | None:
    """Take apart what ``kernel[grid]`` returns: a function that holds the kernel and the grid."""
    held = dict(zip(launch.__code__.co_freevars, (c.cell_contents for c in launch.__closure__), strict=True))
    kernel, grid = held["self"], held["grid"]
    if callable(grid) or not hasattr(kernel, "device_caches"):
        return None  # a grid that is computed, or a kernel that is tuned while it runs

    def code() -> str | None:
        held = [each for caches in kernel.device_caches.values() for each in caches]
        made = [k for table in held if isinstance(table, dict) for k in table.values() if hasattr(k, "asm")]
        hashes = {(only_kernel_hash(k.asm["cubin"]), k.metadata.num_warps, k.metadata.shared) for k in made}
        return repr(hashes) if len(hashes) == 1 else None  # which of several variants runs is not known

    arguments = [*args, *(named[key] for key in sorted(named))]
    return _Launch(("triton", tuple(grid), sorted(named)), arguments, code)


def _numba(launch: Any, args: tuple[Any, ...]) -> _Launch:
    def code() -> str | None:
        made = list(launch.dispatcher.overloads.values())
        if len(made) != 1:
            return None
        cubin = made[0]._codelibrary.get_cubin()
        return only_kernel_hash(bytes(getattr(cubin, "code", cubin)))

    return _Launch(("numba", launch.griddim, launch.blockdim, launch.sharedmem), args, code)


def _cupy(launch: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> _Launch | None:
    """Take the source for the code, which CuPy does not keep: one compiler makes the same of it."""
    if not isinstance(launch.code, str) or "#include" in launch.code or len(args) > 4:
        return None  # a source that includes others says too little
    version = sys.modules["cupy"].cuda.nvrtc.getVersion()
    source = (launch.code, tuple(launch.options), launch.name, launch.backend, version)
    shared = args[3] if len(args) == 4 else named.get("shared_mem", 0)
    return _Launch(("cupy", args[0], args[1], shared), tuple(args[2]), lambda: repr(source))


def _cuda_core(args: tuple[Any, ...]) -> _Launch:
    _, config, kernel, *arguments = args

    def code() -> str | None:
        module = getattr(kernel, "_module", None)
        return only_kernel_hash(bytes(module.code)) if module is not None else None

    told = (getattr(config, name, None) for name in ("grid", "cluster", "block", "shmem_size"))
    return _Launch(("cuda.core", *map(repr, told)), arguments, code)


def _contents(argument: Any) -> Any:
    """Return a scalar, or what names an array's contents; None where they cannot be had."""
    if isinstance(argument, (int, float, complex, bool, str)) or argument is None:
        return repr(argument)
    if hasattr(argument, "contents"):  # an array of ours
        return argument.contents
    if hasattr(argument, "item") and not getattr(argument, "shape", ()) and not hasattr(argument, "data_ptr"):
        return repr(argument)  # a NumPy scalar
    with suppress(Exception):
        if argument.nbytes > _LARGEST:
            return None
        if hasattr(argument, "cpu"):
            host = argument.detach().cpu().numpy()
        else:
            host = argument.get() if hasattr(argument, "get") else argument.copy_to_host()
        crc = zlib.crc32(host.tobytes())
        return f"{crc:08x} {host.dtype.descr} {host.shape} {getattr(argument, 'strides', '')}"
    return None
