"""Describe what a kernel did wrong: file and line, block and thread, and the array that was meant."""

from __future__ import annotations

import math
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.backends.emulated.runtime import Fault, FaultKind
from pytest_gpuperf.backends.emulated.source import MARK, shown
from pytest_gpuperf.backends.geometry import Dim3
from pytest_gpuperf.text import counted

_SIMT = Path(__file__).parent / "simt"
_VERBS = ("reads", "writes", "updates")
# Arrays keep at least this far apart, so an address nearer to a live one means that one, even where the
# system has handed out the pages of a freed array again.
_NEAR = 1 << 16
GAP = 1024  # bytes around every variable of a library (compiler.py leaves them); simt/memory.cpp knows it too
FAR = 1 << 24  # the widest gap behind an array: further away, no array was meant


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
    variables: Sequence[Region]
    grid: Dim3


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
        file, _, line = frame.split(" (discriminator ")[0].rpartition(":")
        if line.isdigit() and int(line) and not Path(file).is_relative_to(_SIMT):
            return f"{shown(file)}:{line}"
    return ""


def _what(fault: Fault, launched: Launched) -> str:
    kind = FaultKind(fault.kind)
    text = fault.text.decode(errors="replace")
    other = f"thread {_index(fault.other, launched.block)}"
    access = f"{_VERBS[fault.access]} {counted(fault.size, 'byte')}"
    match kind:
        case FaultKind.OUT_OF_BOUNDS if text:
            return f"uses {text} (out of bounds)"
        case FaultKind.OUT_OF_BOUNDS:
            return f"{access} {_beside(fault, launched)}"
        case FaultKind.MISALIGNED:
            return f"{access} at address {fault.address:#x}, which is no multiple of {fault.size}"
        case FaultKind.FOREIGN_STACK:
            return f"{access} of another thread's local memory"
        case FaultKind.RACE:
            return f"{access} of {_within(fault, launched)} that {_race(fault, launched)} (race)"
        case FaultKind.UNINITIALISED if text:
            return f"{access} of its own {text}, which it has not written"
        case FaultKind.UNINITIALISED:
            return f"{access} of {_within(fault, launched)}, which no thread of the block has written"
        case FaultKind.DIVERGENT_BARRIER:
            return f"waits at __syncthreads while {other} waits at the one in line {text}"
        case FaultKind.NOT_RESIDENT:
            return _not_resident(fault, math.prod(launched.grid), text)
        case FaultKind.SIGNAL if text == "stack":
            return "uses more local memory than the 512 KiB that CUDA allows a thread"
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


def _not_resident(fault: Fault, blocks: int, cooperative: str) -> str:
    if fault.unsupported:
        return (
            f"synchronises a grid of {blocks} blocks, and the emulated backend has room for {fault.resident} "
            f"of them side by side; launch fewer, run it on a GPU, {MARK}"
        )
    where = "the 132 SMs of an H100" if cooperative else "one SM of a GPU"
    return (
        f"waits for a block that has not begun: {fault.resident} blocks run side by side here, as on "
        f"{where}, and the {blocks} of this launch are not co-resident; launch fewer blocks"
    )


def _index(number: int, size: Dim3) -> Dim3:
    x, y, _ = size
    return number % x, number // x % y, number // (x * y)


def _race(fault: Fault, launched: Launched) -> str:
    """Say who else accesses the word, where, and what would have to be between."""
    place = _source_line(fault.other_pc, launched)
    line = place.rpartition(":")[2] or "?"
    other = f"thread {_index(fault.other, launched.block)}"
    mine = (fault.block.x, fault.block.y, fault.block.z)
    block = _index(fault.other_block, launched.grid)
    did = f"{_VERBS[fault.other_stores]} in line {line}"
    if block == mine:
        return f"{other} {did}: no barrier between"
    return f"block {block}, {other} {did}: nothing orders the two blocks"


def _within(fault: Fault, launched: Launched) -> str:
    """Name the array that an address lies in."""
    everything = [*_arrays(fault, launched), *launched.variables]
    return next((r.name for r in everything if r.begin <= fault.address < r.end), "memory")


def _arrays(fault: Fault, launched: Launched) -> list[Region]:
    """Return the device's arrays, and the block's in shared memory."""
    anchor = fault.shared_anchor
    return [
        *launched.regions,
        *(Region(r.begin + anchor, r.end + anchor, r.name) for r in launched.shared),
    ]


def _beside(fault: Fault, launched: Launched) -> str:
    """Place an address that is in no array: relative to the nearest one."""
    begin = fault.address
    if begin < 4096:
        return f"at address {begin:#x} (a null pointer)"
    nearest = min(_arrays(fault, launched), key=lambda r: _distance(begin, r), default=None)
    distance = _distance(begin, nearest) if nearest else FAR + 1
    for region in launched.freed if distance > _NEAR else ():
        if region.begin <= begin < region.end:
            return f"of memory that was freed: {region.name}"
    # Around every variable of the library is a gap, and what comes after that was not meant.
    around = [r for r in launched.variables if _distance(begin, r) <= GAP]
    nearest = min(around, key=lambda r: _distance(begin, r), default=nearest)
    if nearest is None or _distance(begin, nearest) > FAR:
        return f"at address {begin:#x}, which is in no array of this device"
    length = nearest.end - nearest.begin
    if begin < nearest.begin:
        return f"before the start of {nearest.name}: at byte {begin - nearest.begin} of {length}"
    side = "past" if begin >= nearest.end else "across"
    return f"{side} the end of {nearest.name}: at byte {begin - nearest.begin} of {length}"


def _distance(address: int, region: Region) -> int:
    return max(region.begin - address, address - region.end, 0)
