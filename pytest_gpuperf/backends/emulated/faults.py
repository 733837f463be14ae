"""Describe what a kernel did wrong: file and line, block and thread, and the array that was meant."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.backends.base import Dim3
from pytest_gpuperf.backends.emulated.runtime import Fault, FaultKind
from pytest_gpuperf.backends.emulated.source import shown

_VERBS = ("reads", "writes", "updates")
# Arrays keep at least this far apart, so an address nearer to a live one means that one, even where the
# system has handed out the pages of a freed array again.
_NEAR = 1 << 16
_FAR = 1 << 24  # the widest gap behind an array: further away, no array was meant


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of memory with the name a person knows it by."""

    begin: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Launched:
    """A launch, as far as a message needs it. ``shared`` regions count from the shared anchor."""

    path: Path
    kernel: str
    library: Path
    base: int
    block: Dim3
    seconds: float
    regions: Sequence[Region]
    freed: Sequence[Region]
    shared: Sequence[Region]


def describe(fault: Fault, launched: Launched) -> str:
    """Return one sentence: "kernels/x.cu:12: kernel k, block (0, 0, 0), thread (1, 2, 0): writes ..."."""
    where = _where(fault, launched)
    block = (fault.block.x, fault.block.y, fault.block.z)
    thread = (fault.thread.x, fault.thread.y, fault.thread.z)
    return f"{where}: kernel {launched.kernel}, block {block}, thread {thread}: {_what(fault, launched)}"


def _where(fault: Fault, launched: Launched) -> str:
    if fault.line:
        return f"{shown(fault.file.decode(errors='replace'))}:{fault.line}"
    places = [fault.pc, fault.address] if fault.kind == FaultKind.STOPPED else [fault.pc]
    found = (_source_line(place - launched.base, launched) for place in places if place > launched.base)
    return next(filter(None, found), shown(launched.path))


def _source_line(offset: int, launched: Launched) -> str:
    """Return "file:line" of the kernel's call that returns to ``offset`` in the library, or ""."""
    # One less is inside the call.
    command = ["addr2line", "-i", "-e", str(launched.library), hex(offset - 1)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    for frame in done.stdout.splitlines():
        file, _, line = frame.split(" (")[0].rpartition(":")
        if line.isdigit() and int(line) and Path(file).parent.name != "simt":
            return f"{shown(file)}:{line}"
    return ""


def _what(fault: Fault, launched: Launched) -> str:
    kind = FaultKind(fault.kind)
    text = fault.text.decode(errors="replace")
    x, y, _ = launched.block
    other = (fault.other % x, fault.other // x % y, fault.other // (x * y))
    access = f"{_VERBS[fault.access]} {fault.size} byte{'' if fault.size == 1 else 's'}"
    match kind:
        case FaultKind.OUT_OF_BOUNDS:
            return f"{access} {_beside(fault, launched)}"
        case FaultKind.MISALIGNED:
            return f"{access} at address {fault.address:#x}, which is no multiple of {fault.size}"
        case FaultKind.FOREIGN_STACK:
            return f"{access} of another thread's local memory"
        case FaultKind.SHARED_RACE:
            offset = fault.address - fault.shared_anchor
            name = next((r.name for r in launched.shared if r.begin <= offset < r.end), "shared memory")
            line = _source_line(fault.other_pc, launched).rpartition(":")[2] or "?"
            verb = "writes" if fault.other_stores else "reads"
            return f"{access} of {name} that thread {other} {verb} in line {line}: no barrier between (race)"
        case FaultKind.DIVERGENT_BARRIER if text:
            return f"waits at __syncthreads while thread {other} waits at the one in line {text}"
        case FaultKind.DIVERGENT_BARRIER:
            return f"waits at __syncthreads, which thread {other} never reaches: it has returned"
        case FaultKind.SIGNAL if text == "stack":
            return "uses more local memory than the emulated thread's stack of 124 KiB"
        case FaultKind.SIGNAL if fault.signal == signal.SIGFPE:
            return "divides an integer by zero"
        case FaultKind.SIGNAL:
            return f"crashes with {signal.Signals(fault.signal).name}"
        case FaultKind.STOPPED:
            return f"still running after {launched.seconds:g} s; is there an endless loop?"
        case FaultKind.NO_MEMORY:
            return "the block's stacks do not fit into memory; use fewer threads a block"
        case _:
            return text


def _beside(fault: Fault, launched: Launched) -> str:
    """Place an address that is in no array: relative to the nearest one."""
    begin = fault.address
    if begin < 4096:
        return f"at address {begin:#x} (a null pointer)"
    anchor = fault.shared_anchor
    shared = [Region(r.begin + anchor, r.end + anchor, r.name) for r in launched.shared]
    nearest = min([*launched.regions, *shared], key=lambda r: _distance(begin, r), default=None)
    distance = _distance(begin, nearest) if nearest else _FAR + 1
    for region in launched.freed if distance > _NEAR else ():
        if region.begin <= begin < region.end:
            return f"of memory that was freed: {region.name}"
    if nearest is None or distance > _FAR:
        return f"at address {begin:#x}, which is in no array of this device"
    length = nearest.end - nearest.begin
    if begin < nearest.begin:
        return f"before the start of {nearest.name}: at byte {begin - nearest.begin} of {length}"
    side = "past" if begin >= nearest.end else "across"
    return f"{side} the end of {nearest.name}: at byte {begin - nearest.begin} of {length}"


def _distance(address: int, region: Region) -> int:
    return max(region.begin - address, address - region.end, 0)
