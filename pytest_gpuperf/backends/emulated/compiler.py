"""Build kernel files, and the runtime they run on, with the machine's own g++; both are cached.

A kernel is compiled to assembly with the hooks of ``-fsanitize=thread`` and without its library: every
access calls the runtime in ``simt/``. The assembly is then changed in four ways that the language cannot
express: gaps around every variable, calls of memcpy and its like seen by the hooks, casts that clamp, and the
name of a dynamic shared array bound to the launch's own.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_gpuperf.backends.emulated.account import FLAG, statements
from pytest_gpuperf.backends.emulated.bounds import ACCOUNT
from pytest_gpuperf.backends.emulated.branches import with_branches
from pytest_gpuperf.backends.emulated.calls import Made, built_in, unseen
from pytest_gpuperf.backends.emulated.casts import with_clamped_casts
from pytest_gpuperf.backends.emulated.conversions import unsigned_casts
from pytest_gpuperf.backends.emulated.gaps import adapted
from pytest_gpuperf.backends.emulated.hooks import shortened
from pytest_gpuperf.backends.emulated.launchers import launcher_of, launchers, note_launch_bounds, probe_of
from pytest_gpuperf.backends.emulated.locals import watched
from pytest_gpuperf.backends.emulated.loops import with_loops
from pytest_gpuperf.backends.emulated.preprocessed import Code
from pytest_gpuperf.backends.emulated.source import (
    leave_out_host_code,
    let_guarded_shuffles,
    refuse,
    refuse_missing,
    shown,
)
from pytest_gpuperf.backends.signature import HEADER, PLACE, Unresolved
from pytest_gpuperf.backends.sources import compiled, fingerprint, preprocess, run
from pytest_gpuperf.errors import KernelError, Unavailable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations

_MAKERS = (
    *("compiler.py", "account.py", "bounds.py", "branches.py", "calls.py", "casts.py", "conversions.py"),
    *("gaps.py", "hooks.py", "locals.py", "loops.py", "../functions.py"),
)
_SIMT = Path(__file__).parent / "simt"
_TOOLKIT = _SIMT / "toolkit"  # <cuda_runtime.h> and its like, empty: what they declare is in cuda.hpp
_INSTALL = "install it with `apt-get install g++` or `dnf install gcc-c++`"
# __builtin_bit_cast came with 11; the counters were compared with a GPU's under 12.2.
_OLDEST = 11

_RUNTIME_FLAGS = [
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-pthread",
    "-fno-semantic-interposition",
    "-ftls-model=initial-exec",
    "-U_FORTIFY_SOURCE",
]
# -O1 and nothing else: counters are those of one optimisation level. A variable that nobody writes must not
# become a constant, since the hooks pass over those. Without SRA a float4 stays one access of 16 bytes; jumps
# that are threaded through a barrier would give an access two places; unique symbols would be shared between
# libraries; contraction depends on the CPU; addr2line loses the included file's name in DWARF 5.
_KERNEL_FLAGS = [
    *("-O1", "-g", "-gdwarf-4", "-w", "-fPIC", "-fno-exceptions", "-U_FORTIFY_SOURCE"),
    *("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"),
    *("--param", "tsan-distinguish-volatile=1", "-fstack-clash-protection"),
    *(
        "-fno-tree-sra",
        "-fno-ipa-sra",
        "-fno-ipa-reference-addressable",
        "-fno-crossjumping",
        "-fno-thread-jumps",
        "-fno-math-errno",
        "-ffp-contract=off",
    ),
    *("-fno-gnu-unique", "-fno-extern-tls-init", "-fno-stack-protector", "-fcf-protection=none"),
]
# All that is asked for is what the optimiser finds, most of it in loops that it unrolls; -fpermissive lets a
# function of a local type be declared alone. That an index is inside is not to be taken from its use.
_BEST = (
    *("-O2", "-fpeel-loops", "-fwhole-program", "-fno-aggressive-loop-optimizations"),
    *("-fno-exceptions", "-w", "-fpermissive"),
)
# Where a number is shifted by more bits than it has, a GPU's result is not a CPU's (simt/faults.cpp).
_SHIFTS = "-fsanitize=shift-exponent"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A g++ that runs: its command, what it calls itself, and the version for people ("12.2")."""

    command: tuple[str, ...]
    identity: str
    version: str


@cache
def find_compiler(chosen: str | None) -> Compiler:
    """Find the g++ that ``chosen`` ($CXX) names, or the one on PATH; raises Unavailable."""
    if not (sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")):
        raise Unavailable(
            "The emulated backend runs on x86-64 Linux only, and this is "
            f"{platform.machine()} {sys.platform}; run this test on a GPU."
        )
    command = tuple(shlex.split(chosen or "g++"))
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace")
        said = done.stdout if done.returncode == 0 else ""
    except OSError:
        said = ""
    if not said:
        named = f"CXX names {chosen}, which does not run" if chosen else "g++ is not there"
        raise Unavailable(f"Kernels are emulated with g++, and {named}; {_INSTALL}.")
    if "clang" in said or "Free Software Foundation" not in said:
        raise Unavailable(
            f"CXX names {chosen}, which is {said.splitlines()[0]}: its counters differ from those of g++; "
            f"unset CXX or {_INSTALL}."
        )
    match = re.search(r"(\d+)\.(\d+)\.\d+", said)
    if not match or int(match[1]) < _OLDEST:
        raise Unavailable(
            f"{said.splitlines()[0]} is too old to emulate kernels; g++ {_OLDEST} or newer is needed."
        )
    return Compiler(command, said, f"{match[1]}.{match[2]}")


def build_runtime(compiler: Compiler) -> Path:
    """Return the shared library of ``simt/``, from the cache or built now."""
    files = sorted(_SIMT.glob("*.[ch]pp"))
    contents = (part for file in files for part in (file.name, file.read_bytes()))
    key = fingerprint(compiler.identity, *_RUNTIME_FLAGS, *contents)
    name = f"libgpuperf_simt-{key[:16]}.so"

    def build(output: Path) -> None:
        # The name inside, by which kernels ask for it, must not depend on the cache's folder.
        command = [*compiler.command, *_RUNTIME_FLAGS, "-shared", f"-Wl,-soname,{name}", "-o", str(output)]
        # As one file, which takes g++ half the time.
        parts = [part for file in sorted(_SIMT.glob("*.cpp")) for part in ("-include", file.name)]
        done = run([*command, "-I", str(_SIMT), *parts, "-x", "c++", os.devnull], _SIMT)
        if done.returncode:
            raise Unavailable(
                f"{compiler.command[0]} cannot build a library ({_first_error(done.stderr)}); {_INSTALL}."
            )

    return compiled(f"emulated/{name}", build)


def build_kernels(
    compiler: Compiler,
    runtime: Path,
    file: Declarations,
    options: Sequence[str],
    *,
    kernel: str = "",
    variable: str = "",
    counting: bool = False,
) -> Path:
    """Return the shared library of a kernel file, from the cache or compiled now.

    It has launchers of the file's kernels, or only of the one that the C++ expression ``kernel`` names, or
    tells of a ``variable``. One for ``counting`` tells the runtime also where loops begin anew. Raises
    KernelError with the compiler's own first error, in the file's own lines, and Unresolved for an expression
    that names nothing.
    """
    path = file.path.resolve()
    flags = [*_KERNEL_FLAGS, *_host_options(options)]
    code = _preprocessed(compiler, path, flags)
    behind = launcher_of(kernel) if kernel else probe_of(variable) if variable else launchers(code)
    plain = os.fsencode(code.compiled() + behind)

    def build(output: Path) -> None:
        make = partial(_translate, compiler, path, code.host_functions, output.with_name("kernel.s"))
        ask = partial(_optimised, compiler, path, output.with_name("asked.ii"), flags)
        if counting or variable:
            assembly = built_in(lambda: make(os.fsencode(code.compiled() + behind), flags), code).assembly
        else:
            assembly = watched(make, ask, code, behind, [*flags, _SHIFTS])
        finished = with_loops(with_branches(assembly)) if counting else shortened(assembly)
        _link(compiler, runtime, path, finished, output)

    # These files decide too what is made of the code.
    makers = ((_SIMT.parent / name).read_bytes() for name in _MAKERS)
    key = fingerprint(compiler.identity, *flags, runtime.name, plain, str(counting), *makers)
    return compiled(f"emulated/{path.stem}-{key[:32]}.so", build)


def _preprocessed(compiler: Compiler, path: Path, flags: Sequence[str]) -> Code:
    """Return the file's code with all that it includes; what the emulated device does not have is refused."""
    # Behind our own header, whose names a definition may be.
    defined = "".join(_directive(flag) for flag in flags if flag.startswith(("-D", "-U")))
    flags = [flag for flag in flags if not flag.startswith(("-D", "-U")) or flag in _KERNEL_FLAGS]
    wrapper = f'#include "{_SIMT / "cuda.hpp"}"\n{defined}#include "{path}"\n#include "{HEADER}"\n'
    # The kernel's own quotes are searched beside it.
    command = [*compiler.command, "-I", str(_TOOLKIT), *flags, "-E", "-x", "c++", "-"]
    done = preprocess(command, path.parent, os.fsencode(wrapper))
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        refuse_missing(said, path.parent)
        raise KernelError(f"{shown(path)} does not compile: {_first_error(said)}")
    code = Code(os.fsdecode(done.stdout), path.parent, _SIMT, HEADER)
    leave_out_host_code(code)
    refuse(code)
    note_launch_bounds(code)
    let_guarded_shuffles(code)
    return code


def _directive(option: str) -> str:
    """Return the preprocessor's line for -Dname, -Dname=value or -Uname; "" for one of our own."""
    if option in _KERNEL_FLAGS:
        return ""
    name, equals, value = option[2:].partition("=")
    return f"#undef {name}\n" if option[1] == "U" else f"#define {name} {value if equals else 1}\n"


def _host_options(options: Sequence[str]) -> list[str]:
    """Translate those of nvcc's options that mean something to g++: definitions, folders, the language."""
    kept: list[str] = []
    if not any(option.startswith(("-std", "--std")) for option in options):
        kept.append("-std=c++17")
    names = {"--define-macro": "-D", "--undefine-macro": "-U", "--include-path": "-I", "--std": "-std"}
    for option, following in zip(options, [*options[1:], ""], strict=False):
        name, equals, value = option.partition("=")
        if name in names:
            value = value if equals else following
            kept.append(f"{names[name]}={value}" if name == "--std" else names[name] + value)
        elif option in ("-D", "-U", "-I"):
            kept.append(option + following)
        elif option.startswith(("-D", "-U", "-I", "-std=")):
            kept.append(option)
    return kept


def _optimised(
    compiler: Compiler, path: Path, source: Path, flags: Sequence[str], code: str, *more: str
) -> tuple[str, str] | None:
    """Return what g++ makes of the code at its best and its account of it, None where it does not compile."""
    source.write_bytes(os.fsencode(code))
    kept = [flag for flag in flags if flag not in (*_KERNEL_FLAGS, "--param")]
    account = source.with_suffix(".gimple")
    command = [*compiler.command, *kept, *_BEST, *more, f"{ACCOUNT}{account}", "-S", str(source), "-o", "-"]
    done = run(command, path.parent)
    return None if done.returncode else (done.stdout, account.read_text(errors="replace"))


def _translate(
    compiler: Compiler, path: Path, of_host: set[str], assembly: Path, code: bytes, flags: Sequence[str]
) -> Made:
    """Return the code's assembly, adapted, and what g++ says of calls."""
    source, tree = assembly.with_suffix(".ii"), assembly.with_suffix(".tree")
    source.write_bytes(code)
    command = [*compiler.command, *flags, f"{FLAG}{tree}", "-S", str(source), "-o", str(assembly)]
    done = run(command, path.parent)
    if done.returncode:
        error = _first_error(done.stderr)
        if error.startswith(PLACE):
            raise Unresolved(error.partition(": ")[2])
        unknown = re.search(r"'(\w+)' (?:was not declared|is not a member|has not been declared)", error)
        if unknown and unknown[1] in of_host:
            place, _, _ = error.partition(": ")
            error = f"{place}: {unknown[1]} is a function for the host; declare it __device__"
        raise KernelError(f"{shown(path)} does not compile: {error}")
    account = list(statements(tree.read_text(errors="replace")))
    casts = unsigned_casts(account, os.fsdecode(code))
    return Made(with_clamped_casts(adapted(assembly.read_text()), casts), frozenset(unseen(account)))


def _link(compiler: Compiler, runtime: Path, path: Path, assembly: str, output: Path) -> None:
    file = output.with_name("kernel.s")
    file.write_text(assembly)
    link = [*compiler.command, "-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", str(file), str(runtime)]
    done = run([*link, "-o", str(output)], path.parent)
    if done.returncode:
        missing = re.search(r"undefined reference to [`'](.+?)'", done.stderr)
        what = f"{missing[1]} is declared but not defined" if missing else _first_error(done.stderr)
        raise KernelError(
            f"{shown(path)} does not link: {what}; define it, or run this test on a GPU if CUDA has it."
        )


def _first_error(output: str) -> str:
    """Return the first error as "file:line: message", or the compiler's first line."""
    for line in output.splitlines():
        if match := re.match(r"(.+?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)", line):
            if match[1] == PLACE:
                return f"{PLACE}: {match[3]}"
            return f"{shown(match[1])}:{match[2]}: {match[3]}"
    return next((line for line in output.splitlines() if line.strip()), "the compiler said nothing")
