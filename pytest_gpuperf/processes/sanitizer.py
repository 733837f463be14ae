"""NVIDIA's compute-sanitizer: where it is, how a process runs under it, and what it says of kernels."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.backends.cuda.launches import without_parameters
from pytest_gpuperf.backends.emulated.faults import FAR
from pytest_gpuperf.backends.emulated.source import shown
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.text import counted

LOG = "PYTEST_GPUPERF_SANITIZER_LOG"
"""The variable that names to a process the file in which the tool that watches it writes."""
_NAME, _TOOLKIT = "compute-sanitizer", "/usr/local/cuda"
_FOLDERS = ("bin", "compute-sanitizer", "extras/compute-sanitizer")
_FLAGS = (
    "--target-processes=application-only",  # and not the compilers that it starts
    "--destroy-on-device-error=kernel",  # the context lives on, for the test's own end
    "--report-api-errors=no",  # a test that cares for them sees them itself
    "--require-cuda-init=no",
    "--show-backtrace=device",  # the kernel, where a function of it is at fault
    "--strip-paths=no",
    "--nvtx=no",
)
_OF_TOOLS: Mapping[str, tuple[str, ...]] = {
    # An array that ends where the next begins would hide an overrun.
    "memcheck": ("--padding=1024",),
    # Copying an array back of which a kernel wrote a part is no fault of the kernel's.
    "initcheck": ("--check-api-memory-access=no",),
}


@dataclass(frozen=True, slots=True)
class Sanitizer:
    """A tool, "memcheck" or another, of the program at ``path``, which writes to ``log``."""

    path: Path
    tool: str
    log: Path

    @property
    def command(self) -> list[str]:
        """Return what stands before the command that it watches."""
        more = _OF_TOOLS.get(self.tool, ())
        return [str(self.path), f"--tool={self.tool}", f"--log-file={self.log}", *_FLAGS, *more]

    def environment(self) -> dict[str, str]:
        """Return variables of the watched process: kernels are compiled with their lines."""
        flags = f"{os.environ.get('NVCC_APPEND_FLAGS', '')} -lineinfo".strip()
        return {LOG: str(self.log), "NVCC_APPEND_FLAGS": flags}

    def troubles(self) -> str:
        """Return what the tool says of itself, once the process has ended; "" if it watched that."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            text = ""
        said = "; ".join(filter(None, (found["said"] for found in _TROUBLE.finditer(text))))
        return said or ("" if _HEADER in text else "it has written nothing")


def find() -> Path:
    """Find compute-sanitizer on PATH, in $CUDA_HOME or in /usr/local/cuda; raises Unavailable."""
    if on_path := shutil.which(_NAME):
        return Path(on_path)
    for toolkit in filter(None, (os.environ.get("CUDA_HOME"), _TOOLKIT)):
        for folder in _FOLDERS:
            path = Path(toolkit) / folder / _NAME
            if os.access(path, os.X_OK):
                return path
    raise Unavailable(
        f"{_NAME} is not on PATH, in CUDA_HOME or in /usr/local/cuda: install the CUDA toolkit, or of it "
        "the package cuda-sanitizer (conda: cuda-sanitizer-api), and put its folder on PATH"
    )


# --------------------------------------------------------------------------- what it says

_PREFIX = re.compile(r"^=========( (?P<text>.*))?$")
_AT = re.compile(
    r"(?:at |Device Frame: ?)(?P<kernel>.+?)(?:\+0x[0-9a-f]+)?(?: in (?P<file>.+?):(?P<line>\d+))?$"
)
_OF_CUDA = re.compile(r"/(sm_\d+_|device_|cuda_|crt/|cooperative_groups)[^/]*\.hp?p?$")
"""Headers in which CUDA's own functions are: who called them is meant."""
_BY = re.compile(r"by threads? (?P<thread>\(.+?\)).* in blocks? (?P<block>\(.+?\))")
_ACCESS = re.compile(r"Invalid (?P<where>__\w+__)(?: atomic)? (?P<verb>\w+) of size (?P<size>\d+) bytes?")
_UNINITIALISED = re.compile(r"Uninitialized (?P<where>__\w+__) memory read of size (?P<size>\d+) bytes?")
_BARRIER = re.compile(r"Barrier error detected\. Divergent thread\(s\) in (?P<where>block|warp)")
_RACE = re.compile(r"Race reported between (?P<first>\w+) access (?P<at>at .+)")
_OTHER = re.compile(r"and (?P<verb>\w+) access (?P<at>at .+?)(?: \[(?P<count>\d+) hazards?\])?$")
_NEAREST = re.compile(
    r"and is (?:(?P<far>[\d,]+) bytes )?(?P<side>after|before|inside) the nearest allocation at "
    r"(?P<begin>0x[0-9a-f]+) of size (?P<length>[\d,]+) bytes"
)
_ADDRESS = re.compile(r"(?:Access (?:at|to)|Address) (?P<address>0x[0-9a-f]+)(?P<more>.*)")
_NOT_OF_KERNELS = re.compile(
    r"COMPUTE-SANITIZER|\w+ SUMMARY:|Error: (process didn't|Target application)|Target application|"
    r"Error: No attachable|Warning: (Unable|Device)|Saved|Program hit"
)
_HEADER = "COMPUTE-SANITIZER"
_TROUBLE = re.compile(r"^========= (?:Error: )?(?P<said>No attachable process.*)$", re.MULTILINE)
_VERBS = {"write": "writes", "read": "reads", "atomic": "updates", "reduction": "updates"}
_SPACES = {"__global__": "memory", "__shared__": "shared memory", "__local__": "local memory"}


def findings(text: str) -> list[str]:
    """Return what the tool has found, in the emulator's words: of each access its first thread's sentence."""
    found: dict[tuple[str, ...], list[str]] = {}
    for head, *more in _records(text):
        access = head, *filter(_AT.match, more)
        found.setdefault(access, []).append(_sentence(head, more))
    return [
        first + (f" (and {len(others)} more like it)" if others else "") for first, *others in found.values()
    ]


def _records(text: str) -> Iterator[list[str]]:
    """Yield the lines of each record that is of a kernel: its head, and what is indented below."""
    record: list[str] = []
    for line in text.splitlines():
        if not (found := _PREFIX.match(line)):
            continue
        words = found["text"] or ""
        if words.startswith("    "):
            record += [words.strip()] if record else []  # else it belongs to a head that is no kernel's
            continue
        if record:
            yield record
        record = [words.strip()] if words.strip() and not _NOT_OF_KERNELS.match(words) else []
    if record:
        yield record


def _sentence(head: str, more: Sequence[str]) -> str:
    """Say what a record does: "k.cu:12: kernel k, block (0, 0, 0), thread (1, 0, 0): writes ...".

    What is not known keeps the tool's own words.
    """
    head = re.sub(r"^(Error|Warning|Info): ", "", head)
    if race := _RACE.match(head):
        return _race(race, more)
    frames = [*filter(None, map(_AT.match, more))]  # the function's own, then who called it, up to the kernel
    who = next(filter(None, map(_BY.search, more)), None)
    said = next(filter(None, (make(head, more) for make in (_access, _uninitialised, _barrier))), head)
    place = f", block {_index(who['block'])}, thread {_index(who['thread'])}" if who else ""
    rest = "" if said != head else "".join(f"; {line}" for line in more if not _known(line))
    if not frames and not who:
        return f"compute-sanitizer says: {said}{rest}"
    return f"{_place(frames)}kernel {_kernel(frames)}{place}: {said}{rest}"


def _known(line: str) -> bool:
    return bool(_AT.match(line) or _BY.search(line))


def _place(frames: Sequence[re.Match[str]]) -> str:
    placed = [frame for frame in frames if frame["file"] and not _OF_CUDA.search(frame["file"])]
    return f"{shown(placed[0]['file'])}:{placed[0]['line']}: " if placed else ""


def _kernel(frames: Sequence[re.Match[str]]) -> str:
    """Return the kernel's name, without its parameters and what it returns."""
    return without_parameters(frames[-1]["kernel"]) if frames else "?"


def _index(written: str) -> str:
    return written.replace(",", ", ").replace("  ", " ")


def _access(head: str, more: Sequence[str]) -> str:
    access = _ACCESS.match(head)
    at = next(filter(None, map(_ADDRESS.match, more)), None)
    if not access or not at:
        return ""
    size, address = int(access["size"]), int(at["address"], 16)
    does = f"{_VERBS.get(access['verb'], access['verb'])} {counted(size, 'byte')}"
    if "misaligned" in at["more"]:
        return f"{does} at address {address:#x}, which is no multiple of {size}"
    space = _SPACES.get(access["where"], access["where"])
    if address < 4096 and space == "memory":
        return f"{does} at address {address:#x} (a null pointer)"
    nearest = next(filter(None, map(_NEAREST.match, more)), None)
    if not nearest or space != "memory":
        return f"{does} out of the bounds of {space}: at address {address:#x}"
    length = int(nearest["length"].replace(",", ""))
    byte = address - int(nearest["begin"], 16)
    if not -FAR <= byte < length + FAR:
        return f"{does} at address {address:#x}, which is in no array of this device"
    side = {"after": "past the end", "before": "before the start"}.get(nearest["side"], "across the end")
    return f"{does} {side} of an array: at byte {byte} of {length}"


def _uninitialised(head: str, more: Sequence[str]) -> str:
    found = _UNINITIALISED.match(head)
    if not found:
        return ""
    space = _SPACES.get(found["where"], found["where"])
    size = int(found["size"])
    return f"reads {counted(size, 'byte')} of {space} that nothing has written"


def _barrier(head: str, more: Sequence[str]) -> str:
    found = _BARRIER.match(head)
    return f"waits at a barrier that other threads of the {found['where']} do not reach" if found else ""


def _race(race: re.Match[str], more: Sequence[str]) -> str:
    """Say which lines access shared memory without a barrier between."""
    first = [*filter(None, [_AT.match(race["at"])])]
    others = [_elsewhere(other, first) for other in filter(None, map(_OTHER.match, more))]
    did = " and ".join(dict.fromkeys(others)) or "accesses"
    verb = _VERBS.get(race["first"].lower(), race["first"])
    what = f"{verb} shared memory that another thread {did}: no barrier between (race)"
    return f"{_place(first)}kernel {_kernel(first)}: {what}"


def _elsewhere(other: re.Match[str], first: Sequence[re.Match[str]]) -> str:
    """Say what the other thread does, and where: of a file of its own, the file too."""
    does, at = _VERBS.get(other["verb"].lower(), other["verb"]), _AT.match(other["at"])
    if not at or not at["line"]:
        return does
    same = any(at["file"] == frame["file"] for frame in first)
    return f"{does} in line {at['line']}" if same else f"{does} at {shown(at['file'])}:{at['line']}"


def reader(path: Path) -> Callable[[], list[str]]:
    """Return what gives the findings that were written since it was last called."""
    place = 0

    def read() -> list[str]:
        nonlocal place
        try:
            with path.open("rb") as file:
                file.seek(place)
                data = file.read()
        except OSError:  # not written yet
            return []
        data = data[: data.rfind(b"\n") + 1]  # the rest of a line comes later
        place += len(data)
        return findings(data.decode(errors="replace"))

    return read
