"""Refuse what the emulated backend does not have of CUDA, by name and line, before it is compiled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pytest_gpuperf.backends.sources import blanked
from pytest_gpuperf.errors import KernelError

_INCLUDES = {
    r"cooperative_groups(/.*)?\.h": "cooperative_groups",
    r"mma\.h": "wmma",
    r"cuda_fp16\.(h|hpp)": "half precision",
    r"cuda_bf16\.(h|hpp)": "bfloat16",
    r"cuda_fp8\.(h|hpp)": "8-bit floats",
    r"cuda_pipeline.*\.h": "asynchronous copies",
    r"cuda/.*": "libcu++ (cuda::)",
    r"cub/.*": "CUB",
    r"thrust/.*": "Thrust",
    r"cutlass/.*|cute/.*": "CUTLASS",
    r"curand.*\.h": "cuRAND",
    r"texture.*\.h|surface.*\.h|cuda_texture_types\.h|cuda_surface_types\.h": "textures and surfaces",
}

_CODE = {
    r"\bcooperative_groups\b": "cooperative_groups",
    r"\basm\b|\b__asm__\b": "inline assembly",
    r"<<<": "launches from a kernel file (<<<>>>)",
    r"\bnvcuda\b|\bwmma\s*::": "wmma",
    r"\bcuda\s*::": "libcu++ (cuda::)",
    r"\b__half2?\b": "half precision",
    r"\b__nv_bfloat162?\b": "bfloat16",
    r"\b__nv_fp8\w*": "8-bit floats",
    r"\bcudaTextureObject_t\b|\btex[123]D\w*\s*[<(]|\btexture\s*<": "textures",
    r"\bcudaSurfaceObject_t\b|\bsurf[123]D\w*\s*[<(]|\bsurface\s*<": "surfaces",
    r"\b__managed__\b": "managed memory (__managed__)",
    r"\bextern\s+__constant__": "constant memory that the host fills",
    r"\b__constant__\s[^=;(){]*;": "constant memory that the host fills",
    r"\b__cluster_dims__\b": "thread block clusters",
    r"\b__pipeline_\w+|\b__memcpy_async\b|\bmemcpy_async\b": "asynchronous copies",
    r"\b__reduce_\w+_sync\b": "warp reductions (__reduce_*_sync)",
    r"\b__match_all_sync\b": "__match_all_sync",
    r"\bmalloc\s*\(|\bnew\s+\w": "allocation inside a kernel",
}

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:<([^>\n]+)>|"([^"\n]+)")', re.MULTILINE)


def refuse(files: Iterable[Path]) -> None:
    """Raise KernelError at the first construct that the emulated device does not have."""
    for file in files:
        source = file.read_text(encoding="utf-8", errors="replace")
        found = min(_found(source), default=None)
        if found:
            line, what = found
            raise KernelError(
                f"{shown(file)}:{line}: the emulated backend cannot run {what}; run this test on a GPU."
            )


def _found(source: str) -> Iterable[tuple[int, str]]:
    """Yield line (from 1) and name of everything refused."""
    without_comments = blanked(source, keep=lambda text: not text.startswith("/"))
    for match in _INCLUDE.finditer(without_comments):
        for pattern, what in _INCLUDES.items():
            if re.fullmatch(pattern, match[1] or match[2]):
                yield _line(source, match.start()), what
    code = blanked(source)
    for pattern, what in _CODE.items():
        if used := re.search(pattern, code):
            yield _line(source, used.start()), what


def _line(source: str, offset: int) -> int:
    return source.count("\n", 0, offset) + 1


def shown(file: Path | str) -> str:
    """Return the file as a person types it: relative to the current folder if it is inside."""
    path = Path(file)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
