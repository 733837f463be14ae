"""The headers that kernel files include and NVRTC does not have: those of CUDA, of C++ and of the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

# Of C++, as libcu++ has them for the device.
_STANDARD = (
    *("algorithm", "array", "bit", "cfloat", "climits", "cmath", "complex", "concepts", "cstddef"),
    *("cstdint", "cstring", "functional", "initializer_list", "iterator", "limits", "numeric", "optional"),
    *("ratio", "span", "tuple", "type_traits", "utility", "variant"),
)
_OF_C = {"stdint.h": "cstdint", "limits.h": "climits", "float.h": "cfloat", "stddef.h": "cstddef"}
# What they declare is the host's, or NVRTC has it without a header: printf, assert, <math.h>'s functions.
_EMPTY = (
    *("assert.h", "math.h", "stdio.h", "stdlib.h", "string.h", "time.h", "unistd.h", "sys/time.h"),
    *("cassert", "chrono", "cstdio", "cstdlib", "ctime", "exception", "fstream", "iomanip", "iostream"),
    *("list", "map", "memory", "mutex", "random", "set", "sstream", "stdexcept", "string", "thread"),
    *("unordered_map", "unordered_set", "vector"),
)
_BUILT_IN = ("cuda.h", "cuda_runtime.h", "cuda_runtime_api.h", "device_launch_parameters.h")


@cache
def headers() -> Mapping[str, str]:
    """Return the texts of headers by the names by which they are included."""
    found = dict.fromkeys(_EMPTY, "")
    if not _folder("cudart"):
        found |= dict.fromkeys(_BUILT_IN, "")
    if folder := _folder("cccl"):
        taken = "#include <cuda/std/{}>\n{} using namespace cuda::std; {}\n".format
        there = {path.name for path in (folder / "cuda/std").iterdir()}  # CUDA 13.0 has no <algorithm> yet
        found |= {name: taken(name, "namespace std {", "}") for name in _STANDARD if name in there}
        found |= {name: taken(standard, "", "") for name, standard in _OF_C.items() if standard in there}
    return found


@cache
def include_folders() -> tuple[Path, ...]:
    """Return the folders of CUDA's own headers, as far as they are installed."""
    return tuple(folder for name in ("cudart", "cccl") if (folder := _folder(name)))


@cache
def _folder(name: str) -> Path | None:
    from cuda.pathfinder import find_nvidia_header_directory

    found = find_nvidia_header_directory(name)
    return Path(found) if found else None


def missing_header(said: str) -> str:
    """Return what to do about a header that NVRTC did not find; "" if it says nothing of one."""
    missing = re.search(r'(?:could not|cannot) open source file "(.+?)"', said)
    if not missing:
        return ""
    name = missing[1]
    if name in (*_STANDARD, *_OF_C) or name.startswith(("cuda/", "cub/", "thrust/", "nv/")):
        return "\nInstall libcu++'s headers, or newer ones: pip install -U nvidia-cuda-cccl."
    if re.fullmatch(r"(cuda|cooperative|mma|vector|math|device|crt/).*\.h(pp)?", name):
        return "\nInstall CUDA's headers: pip install nvidia-cuda-runtime."
    return (
        f"\nNVRTC compiles for the device alone and has no <{name}>: include it in a file of the host's "
        "own, or take nvcc: --gpuperf-backend=cuda."
    )
