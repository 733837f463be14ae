"""Compile kernel files to cubins with nvcc, once: the cache is keyed by all that decides the result."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

from pytest_gpuperf.backends.cuda.grid import noted
from pytest_gpuperf.backends.signature import unresolved
from pytest_gpuperf.backends.sources import compiled, fingerprint, not_compiled, preprocess, run
from pytest_gpuperf.errors import KernelError, Unavailable

_TOOLKIT = "/usr/local/cuda"
_INSTALL = 'pip install "cuda-toolkit[nvcc,cccl]", or install the CUDA toolkit and put its bin folder on PATH'


def compile_cubin(
    path: Path,
    options: Sequence[str],
    capability: tuple[int, int],
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    behind: str = "",
) -> tuple[bytes, Path]:
    """Return the cubin of a kernel file for a compute capability, and the cache file that holds it.

    ``around`` is entered while nvcc runs, which takes seconds and no device. ``behind`` is code to compile
    behind the file's own. Raises KernelError with the compiler's first error, Unresolved where that is in
    ``behind``, Unavailable if nvcc or the host compiler that it needs is missing.
    """
    nvcc = find_nvcc()
    flags = ["-cubin", *options]
    # The author may have chosen an architecture, as sm_90a needs.
    if not any(option.startswith(("-arch", "--gpu-architecture", "-gencode")) for option in options):
        flags.append(f"-arch=sm_{capability[0]}{capability[1]}")
    if not any(option.startswith(("-std", "--std")) for option in options):
        flags.append("-std=c++17")

    def build(output: Path) -> None:
        source, more = path.name, list[str]()
        if behind:  # the file's own name stays as it is, which is in the machine code of an assert
            source, more = str(output.with_name("behind.cu")), ["-Xcompiler", "-iquote,."]
            Path(source).write_text(f'#include "{path.name}"\n{behind}')
        with around():
            kept = ["--keep", "--keep-dir", str(output.parent)]
            done = run([str(nvcc), *flags, *more, *kept, "-o", str(output), source], path.parent)
        if done.returncode:
            said = done.stderr or done.stdout
            raise (unresolved(said) if behind else None) or _explained(path, said)
        ptx = "".join(file.read_text(errors="replace") for file in output.parent.glob("*.ptx"))
        output.write_bytes(noted(output.read_bytes(), ptx))

    key = fingerprint(_version(nvcc), "noted", *flags, *_asked(nvcc, flags, path), *filter(None, [behind]))
    file = compiled(f"cubin/{key}.cubin", build)
    return file.read_bytes(), file


_TEMPORARY = re.compile(rb"[^\s\"]*tmpxft_\w+-\d+_")


def _asked(nvcc: Path, flags: Sequence[str], path: Path) -> tuple[bytes, bytes]:
    """Ask nvcc what it would do: the commands that it would run, and the code that they would compile.

    The commands hold options from the environment (NVCC_APPEND_FLAGS) and from files of options. Their
    temporary files and the source's folder are left out: neither changes the machine code.
    """
    code = preprocess([str(nvcc), *flags, "-E", path.name], path.parent)
    if code.returncode:
        raise _explained(path, (code.stderr or code.stdout).decode(errors="replace"))
    said = preprocess([str(nvcc), *flags, "--dryrun", path.name], path.parent).stderr
    lines = _TEMPORARY.sub(b"", said).replace(os.fsencode(path.parent), b"").splitlines()
    commands = [line for line in lines if not re.match(rb"#\$ \w+=", line)]  # NAME=VALUE: where the tools lie
    return b"\n".join(commands), code.stdout


def _explained(path: Path, output: str) -> KernelError | Unavailable:
    lines = [line for line in output.splitlines() if line.strip()]
    fatal = next((line for line in lines if "fatal" in line), "")
    if "host compiler" in output or re.search(r"sh: .*\bg(cc|\+\+).*not found", output):
        return Unavailable(
            f"nvcc needs a host C++ compiler that it does not find; install g++. It says: {lines[0]}"
        )
    if "nsupported gpu architecture" in fatal:
        return Unavailable(
            f"This nvcc is not made for this GPU ({fatal.strip()}); install another CUDA toolkit."
        )
    return not_compiled(path, output, "nvcc")


def find_nvcc() -> Path:
    """Find nvcc on PATH, in $CUDA_HOME, in /usr/local/cuda or in the PyPI packages; raises Unavailable."""
    if on_path := shutil.which("nvcc"):
        return Path(on_path)
    for folder in (os.environ.get("CUDA_HOME"), _TOOLKIT, *_packages()):
        if folder and os.access(Path(folder) / "bin" / "nvcc", os.X_OK):
            return Path(folder) / "bin" / "nvcc"
    raise Unavailable(
        f"nvcc is not on PATH, in CUDA_HOME, in /usr/local/cuda or in a PyPI package; {_INSTALL}."
    )


def _packages() -> Iterator[Path]:
    """Yield the folders nvidia/cu13 (CUDA 13 wheels) and nvidia/cuda_nvcc (older) of this Python."""
    import importlib.util

    package = importlib.util.find_spec("nvidia")
    for place in (package.submodule_search_locations or ()) if package else ():
        yield from (Path(place) / name for name in ("cu13", "cuda_nvcc"))


def compiler_version() -> str:
    """Return nvcc's version as "nvcc 13.0.88"; "" if it is missing or does not run."""
    try:
        said = _version(find_nvcc())
    except Unavailable:
        return ""
    release = re.search(r"\bV(\d+(?:\.\d+)+)", said)
    return f"nvcc {release[1]}" if release else ""


@cache
def _version(nvcc: Path) -> str:
    try:
        done = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"{nvcc} does not run ({error.strerror}); {_INSTALL}.") from None
    if done.returncode:
        raise Unavailable(f"{nvcc} --version fails: {(done.stderr or done.stdout).strip()}; {_INSTALL}.")
    return done.stdout
