"""Leave out host code, and refuse by name and line what the emulated backend does not have of CUDA."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_gpuperf.backends.emulated.preprocessed import Code
from pytest_gpuperf.backends.functions import closing, of_host
from pytest_gpuperf.errors import Unsupported

_CUB = "CUB beyond the reductions and scans of blocks and warps"
_INCLUDES = {
    r"cooperative_groups/(?!reduce|scan|memcpy_async).*\.h": "this part of cooperative_groups",
    r"mma\.h": "wmma",
    r"cuda_fp(?:4|6|8)\.(?:h|hpp)": "floats of 4 to 8 bits",
    r"cuda_awbarrier.*\.h": "barriers in memory (mbarrier)",
    r"cudaTypedefs\.h|cu(?:dnn|fft|solver|sparse|tensor)\w*\.h|(?:nccl|nvshmem|npp)\w*\.h": (
        "what this header of CUDA declares"
    ),
    r"cuda/(?!(?:std/)?functional$)[\w/]+": "libcu++ (cuda::)",
    r"cub/(?!cub\.cuh|(?:block|warp)/\w+_(?:reduce|scan)\.cuh).*": _CUB,
    r"thrust/.*": "Thrust",
    r"cutlass/.*|cute/.*": "CUTLASS",
    r"curand.*\.h": "cuRAND",
    r"texture.*\.h|surface.*\.h|cuda_texture_types\.h|cuda_surface_types\.h": "textures and surfaces",
}

_CODE = {
    r"\bcluster_group\b|\bthis_cluster\b": "groups of a cluster",
    r"\bmulti_grid_group\b|\bthis_multi_grid\b": "groups of several GPUs",
    r"\basm\b|\b__asm__\b": "inline assembly",
    r"<<<": "launches from a kernel file (<<<>>>)",
    r"\bnvcuda\b|\bwmma\s*::": "wmma",
    r"\bcuda\s*::(?!\s*(?:(?:std\s*::\s*(?:plus|multiplies)|maximum|minimum)\b))": "libcu++ (cuda::)",
    r"\bcub\s*::(?!\s*(?:(?:Block|Warp)(?:Reduce|Scan)\b|Sum\b|Max\b|Min\b|BLOCK_(?:REDUCE|SCAN)_))": _CUB,
    r"\b__nv_fp[468]\w*": "floats of 4 to 8 bits",
    r"\bCUtensorMap\b": "tensor maps (TMA)",
    r"\bcudaTextureObject_t\b|\btex[123]D\w*\s*[<(]|\btexture\s*<": "textures",
    r"\bcudaSurfaceObject_t\b|\bsurf[123]D\w*\s*[<(]|\bsurface\s*<": "surfaces",
    r"\b__managed__\b": "managed memory (__managed__)",
    r"\b__cluster\w+": "thread block clusters",
    r"\b__(?:is(?:Global|Shared|Local|Constant|GridConstant|ClusterShared|CtaShared)|cvta_\w+)\b": (
        "questions where a pointer points"
    ),
    r"\b__(?:barrier_sync(?:_count)?|nv_atomic_\w+|u128Atomic\w+|brkpt|pm[0-3])\b": "this intrinsic",
    r"\.\s*barrier_(?:arrive|wait)\s*\(": "barriers of groups in two steps",
    r"\btiled_partition\s*<\s*(?:64|128|256|512|1024)\b": "groups of several warps",
    r"\bcuda(?:GridDependencySynchronize|TriggerProgrammaticLaunchCompletion|Device(?:Synchronize|Get\w+)|"
    r"Malloc|Free|(?:Memcpy|Memset)(?:2D|3D)?Async|(?:Stream|Event)\w+|(?:Get|PeekAt)LastError)\s*\(": (
        "calls of the CUDA runtime in a kernel"
    ),
    r"\b__pipeline_arrive_on\b|\b__mbarrier_\w+": "barriers in memory (mbarrier)",
    r"\bmalloc\s*\(|\bnew\s+\w": "allocation inside a kernel",
}

_NAME = re.compile(r"(\w+)\s*\(")
_ASSIGNED_SHUFFLE = re.compile(
    r"[;{})]\s*(?:[\w:<>]+\s+)*\w+\s*=\s*(?P<name>__shfl(?:_up|_down|_xor)?_sync)\s*\("
)
_CONDITION = re.compile(r"\s*;(?:\s|#[^\n]*\n)*(?:if\b|[^;{}]*\?)")
MARK = 'or mark it @pytest.mark.gpuperf(backend="cuda"), which skips it elsewhere'
_MISSING = re.compile(r"^(.+?):(\d+):\d+: fatal error: (.+?): No such file", re.MULTILINE)


def refuse(code: Code) -> None:
    """Raise Unsupported at the first construct in the user's code that the emulated device does not have."""
    for name, file, line in code.included:
        if file.name != "<stdin>":
            # From the including file on: a folder further up may be called cub.
            refuse_header(os.path.relpath(name, file.parent), file, line)
    found = [
        (used.start(), what) for pattern, what in _CODE.items() if (used := re.search(pattern, code.code))
    ]
    if found:
        offset, what = min(found)
        raise _unsupported(*code.where(offset), what)


def refuse_missing(said: str, folder: Path) -> None:
    """Raise Unsupported where the preprocessor ended at a header that the emulated device does not have."""
    if missing := _MISSING.search(said):
        refuse_header(missing[3], folder / missing[1], int(missing[2]))


def refuse_header(name: str, file: Path, line: int) -> None:
    """Raise Unsupported if ``file`` may not include the header ``name`` in ``line``."""
    for pattern, what in _INCLUDES.items():
        if re.fullmatch(rf"(?:.*/)?(?:{pattern})", name):
            raise _unsupported(file, line, what)


def leave_out_host_code(code: Code) -> None:
    """Erase the functions that only a host can call: main, launches, allocations."""
    for function in list(of_host(code.code)):
        name = _NAME.search(code.code, function.begin, function.body)
        code.host_functions.add(name[1] if name else "")
        code.erase(function.begin, function.end)


def let_guarded_shuffles(code: Code) -> None:
    """Let shuffles go to lanes that are not there, where only a condition decides whether the result is used.

    CUDA gives them an undefined value then, and code like ``t = __shfl_up_sync(m, v, 1); if (lane) v += t;``
    does not look at it.
    """
    for match in _ASSIGNED_SHUFFLE.finditer(code.code):
        if _CONDITION.match(code.code, closing(code.code, match.end() - 1) + 1):
            code.insert(match.start("name"), "gpuperf_guarded::")


def _unsupported(file: Path, line: int, what: str) -> Unsupported:
    return Unsupported(
        f"{shown(file)}:{line}: the emulated backend cannot run {what}; run this test on a GPU, {MARK}."
    )


def shown(file: Path | str) -> str:
    """Return the file as a person types it: relative to the current folder if it is inside."""
    path = Path(file)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
