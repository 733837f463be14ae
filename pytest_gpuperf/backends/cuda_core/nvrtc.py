"""Compile kernel files to cubins with NVRTC, which knows device code alone and needs no other compiler."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pytest_gpuperf.backends.cuda.grid import noted
from pytest_gpuperf.backends.cuda.names import Names
from pytest_gpuperf.backends.cuda_core.headers import headers, include_folders, missing_header
from pytest_gpuperf.backends.cuda_core.made_of import made_of, state_of
from pytest_gpuperf.backends.cuda_core.options import of_nvrtc
from pytest_gpuperf.backends.functions import of_host
from pytest_gpuperf.backends.signature import HEADER, PLACE, Signature, address_of, unresolved
from pytest_gpuperf.backends.sources import (
    DIRECTIVE,
    fingerprint,
    not_compiled,
    read_source,
    without_directives,
)
from pytest_gpuperf.cache import cached
from pytest_gpuperf.errors import KernelError, Unavailable

INSTALL = 'pip install "pytest-gpuperf[cuda-core]"'
_TYPES = """
#include "{header}"
#line 1 "{place}"
__device__ auto gpuperf_types_of = gpuperf_types::Described<decltype({address})>::table();
"""
_AS_DEVICE = "-default-device"
_ONLY_HOST = "execution space annotations", "memory space annotations"  # what NVRTC asks for in host code


class Compiled(NamedTuple):
    """A cubin, and the name in it of the expression that was asked for."""

    cubin: bytes
    symbol: str


class _Refused(Exception):
    """What NVRTC says against a source."""


class NvrtcNames(Names):
    """The same by NVRTC, which itself tells what an expression names in the machine code."""

    def _compiled(self, instance: Signature | None) -> tuple[bytes, str]:
        cubin, _ = compile_cubin(*self._file, expression=address_of(instance.name) if instance else "")
        return cubin, "by NVRTC"

    def probed(self, name: str) -> tuple[bytes, str]:
        if name not in self._probed:
            address = address_of(name)
            types = _TYPES.format(header=HEADER.name, place=PLACE, address=address)
            self._probed[name] = compile_cubin(*self._file, types, address)
        return self._probed[name]


def compile_cubin(
    path: Path,
    options: Sequence[str],
    capability: tuple[int, int],
    around: Callable[[], AbstractContextManager[None]],
    behind: str = "",
    expression: str = "",
) -> Compiled:
    """Compile a file with code ``behind`` its own, and find what ``expression`` names in it.

    A file that NVRTC refuses is tried without the functions that only a host can call, as nvcc leaves them
    out of device code; then with what is still the host's taken for the device's, as a struct's methods are.
    """
    flags = of_nvrtc(options, capability, path)

    def make() -> bytes:
        with around():
            made = _tried(path, flags, behind, expression)
        return b"\n".join((made.symbol.encode(), made.cubin))

    parts = _parts(path, flags)
    if parts is None:
        content = make()
    else:
        key = fingerprint(compiler_version(), "noted", *flags, behind, expression, path.name, *parts)
        content = cached(f"cubin/{key}.nvrtc", make).read_bytes()
    symbol, _, cubin = content.partition(b"\n")
    return Compiled(cubin, symbol.decode())


def _parts(path: Path, flags: Sequence[str]) -> list[str] | None:
    """Return all that decides what NVRTC makes of a file but its options, None if nobody can tell."""
    if any(flag.startswith("--pre-include") for flag in flags):
        return None
    folders, cudas = [Path(flag[2:]) for flag in flags if flag.startswith("-I")], include_folders()
    parts = made_of(path, folders, cudas)
    return (
        None
        if parts is None
        else [*parts, HEADER.read_text(), repr(sorted(headers().items())), state_of(cudas)]
    )


def _tried(path: Path, flags: Sequence[str], behind: str, expression: str) -> Compiled:
    source = read_source(path)
    device = _without_host(source)
    tries = [(source, ()), (device, ()), (device, (_AS_DEVICE,))]
    if behind:  # signature.hpp says of nothing where it runs
        tries = [(source, (_AS_DEVICE,)), (device, (_AS_DEVICE,))]
    said = list[str]()
    for text, more in tries:
        try:
            return _compiled(path, text + behind, [*flags, *more], expression)
        except _Refused as error:
            said.append(str(error))
        if meant := unresolved(said[-1]):
            raise meant
        if missing_header(said[-1]):
            break
    raise _explained(path, said)


def _without_host(source: str) -> str:
    """Return a source without the functions that only a host can call; lines stay."""
    for function in of_host(without_directives(source)):
        left = re.sub(r"[^\n]", " ", source[function.begin : function.end])
        # Directives stay: an #endif in front of a function is part of its text here.
        for directive in DIRECTIVE.finditer(source, function.begin, function.end):
            begin, end = (offset - function.begin for offset in directive.span())
            left = left[:begin] + directive[0] + left[end:]
        source = source[: function.begin] + left + source[function.end :]
    return source


def _explained(path: Path, said: Sequence[str]) -> KernelError | Unavailable:
    last = said[-1]
    if "invalid value for --gpu-architecture" in last:
        return Unavailable(f"{compiler_version()} is not made for this GPU; {INSTALL} --upgrade.")
    return KernelError(f"{not_compiled(path, last, 'NVRTC')}{missing_header(last) or _remedy(said)}")


def _remedy(said: Sequence[str]) -> str:
    if option := re.search(r"unrecognized option (\S+)", said[-1]):
        return f"\nNVRTC has no {option[1]}: leave it out, or take nvcc: --gpuperf-backend=cuda."
    if any(words in each for each in said[1:-1] for words in _ONLY_HOST):
        return (
            "\nNVRTC compiles for the device alone, and this file has more of the host's than functions: put "
            "that into a file of its own, or take nvcc: --gpuperf-backend=cuda."
        )
    return ""


def _compiled(path: Path, text: str, flags: Sequence[str], expression: str) -> Compiled:
    nvrtc = library()
    known = {HEADER.name: HEADER.read_text(), **headers()}
    names, texts = [name.encode() for name in known], [text.encode() for text in known.values()]
    given = [*flags, *(f"-I{folder}" for folder in include_folders())]
    # The path says where quotes are searched; the name is what the machine code of an assert has.
    name = re.sub(r'(["\\])', r"\\\1", path.name)
    source = f'#line 1 "{name}"\n{text}'.encode("utf-8", "surrogateescape")
    result, program = nvrtc.nvrtcCreateProgram(source, os.fsencode(path.absolute()), len(names), texts, names)
    _check(result)
    try:
        if expression:
            _check(*nvrtc.nvrtcAddNameExpression(program, expression.encode()))
        (result,) = nvrtc.nvrtcCompileProgram(program, len(given), [flag.encode() for flag in given])
        if result:
            log = _bytes(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise _Refused(log.rstrip(b"\0").decode(errors="replace") or str(result))
        symbol = b""
        if expression:
            result, symbol = nvrtc.nvrtcGetLoweredName(program, expression.encode())
            _check(result)
        ptx = _bytes(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
        cubin = _bytes(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        return Compiled(noted(cubin, ptx.decode(errors="replace")), symbol.decode())
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _bytes(size: Callable[[Any], Any], get: Callable[[Any, bytes], Any], program: Any) -> bytes:
    result, length = size(program)
    _check(result)
    content = b"\0" * length
    _check(*get(program, content))
    return content


def _check(result: Any) -> None:
    if result:
        raise _Refused(f"NVRTC says {result.name}")


@cache
def library() -> Any:
    """Import NVRTC's bindings; raises Unavailable, naming what to install."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # loads the library
    except (ImportError, RuntimeError) as error:
        first_line = str(error).partition("\n")[0]
        raise Unavailable(
            f"Kernels are compiled with NVRTC, which does not load ({first_line}); {INSTALL}."
        ) from None
    return nvrtc


def compiler_version() -> str:
    """Return NVRTC's version as "NVRTC 13.0.88"; "" if it is missing."""
    try:
        _, *release = library().nvrtcVersion()
    except Unavailable:
        return ""
    return f"NVRTC {_build() or '.'.join(map(str, release))}"


def _build() -> str:
    """Return the library's whole version, which it does not tell: that of its file or of its wheel."""
    from importlib.metadata import PackageNotFoundError, version

    from cuda.pathfinder import load_nvidia_dynamic_lib

    file = Path(load_nvidia_dynamic_lib("nvrtc").abs_path or "").resolve()
    if whole := re.search(r"\.so\.(\d+\.\d+\.\d+)$", file.name):
        return whole[1]
    for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
