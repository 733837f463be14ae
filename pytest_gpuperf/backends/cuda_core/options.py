"""Translate nvcc's options for NVRTC, which shares most of them and spells them in one word."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

_NAMES = {
    **{"-D": "-D", "--define-macro": "-D", "-U": "-U", "--undefine-macro": "-U"},
    **dict.fromkeys(("-I", "--include-path", "-isystem", "--system-include"), "-I"),
    **dict.fromkeys(("-include", "--pre-include"), "--pre-include"),
    **dict.fromkeys(("-arch", "--gpu-architecture"), "-arch"),
    **dict.fromkeys(("-gencode", "--generate-code"), "-gencode"),
    **dict.fromkeys(("-std", "--std"), "-std"),
    **dict.fromkeys(("-maxrregcount", "--maxrregcount"), "-maxrregcount"),
    **dict.fromkeys(("-Xptxas", "--ptxas-options"), "--ptxas-options"),
    **dict.fromkeys(("-Xcompiler", "--compiler-options", "-ccbin", "--compiler-bindir", "-Xlinker"), ""),
    **dict.fromkeys(("-O", "--optimize", "-t", "--threads", "-Xcudafe", "-x", "-l", "-L"), ""),
}
"""Options with a value, also one in the word behind them, by NVRTC's name; "" for the host's own."""
_HOSTS = re.compile(
    r"-O\d|-m64|-g|-v|--verbose|-keep|--keep|-cubin|-res-usage|--resource-usage|-L.+"
    r"|--?(?:expt-)?(?:relaxed-constexpr|extended-lambda)"  # NVRTC has them on
)


def of_nvrtc(options: Sequence[str], capability: tuple[int, int], path: Path) -> list[str]:
    """Return NVRTC's options for nvcc's of a kernel file, beside which relative folders are searched.

    What concerns the host alone is left out; what NVRTC does not know is left to it to refuse. Options in
    NVCC_PREPEND_FLAGS and NVCC_APPEND_FLAGS count as they do for nvcc.
    """
    before, behind = (shlex.split(os.environ.get(f"NVCC_{name}_FLAGS", "")) for name in ("PREPEND", "APPEND"))
    found = [each for each in _translated([*before, *options, *behind], path) if each]
    if not any(option.startswith("-arch=") for option in found):
        found.append(f"-arch=sm_{capability[0]}{capability[1]}")
    if not any(option.startswith("-std=") for option in found):
        found.append("-std=c++17")
    return found


def _translated(options: Sequence[str], path: Path) -> Iterator[str]:
    waiting = list(options)
    while waiting:
        option = waiting.pop(0)
        name, equals, value = option.partition("=")
        if short := re.match(r"-[DUI](?=.)", option):
            name, value = short[0], option[2:]
        elif name in _NAMES and not equals:
            value = waiting.pop(0) if waiting else ""
        elif name not in _NAMES:
            yield "" if _HOSTS.fullmatch(option) else option
            continue
        yield _joined(_NAMES.get(name, name), value, path)


def _joined(name: str, value: str, path: Path) -> str:
    if name == "-I":
        return f"-I{os.path.abspath(path.parent / value)}"
    if name in ("-D", "-U"):
        return name + value
    if name == "-gencode":
        code = re.search(r"code=\[?(?:\w+,)*?(sm_\w+)", value)
        return f"-arch={code[1]}" if code else ""
    if name == "-arch" and value in ("native", "all", "all-major"):
        return ""
    return f"{name}={value}" if name else ""
