"""Lay out the table of a run's traces, for a terminal of 80 columns and for the page."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pytest_gpuperf.figures import quantity
from pytest_gpuperf.text import counted, printable
from pytest_gpuperf.traces import MOST, Calls, Trace

_WIDTH = 80
_COLUMNS = (("calls", 8), ("total", 12), ("first", 12), ("mean of rest", 14))
_LONG = 3 * 76  # characters of a name: three lines
_ROOM = _WIDTH - sum(width for _, width in _COLUMNS)
_TOLD = re.compile(
    r"alloc|free|memcpy|memset|launch|synchronize|^cu(module|library)load|^cu(ctxcreate|deviceprimaryctxretain)"
)


def is_told(calls: Calls) -> bool:
    """Say whether calls have a line of their own: memory, copies, launches, waits, modules, contexts."""
    return calls.on_device or bool(_TOLD.search(calls.name.lower()))


def shown(calls: Sequence[Calls]) -> list[Calls]:
    """Return what a table has of a test: calls that matter one by one, the others as one line between."""
    told = [each for each in calls if is_told(each)]
    rest = [each for each in calls if not is_told(each)]
    of_api = [each for each in told if not each.on_device]
    if rest:
        count, total = sum(each.count for each in rest), sum(each.total for each in rest)
        name = counted(len(rest), "other function")
        of_api.append(Calls(name, count, total, None, None, False))
    return [*of_api, *(each for each in told if each.on_device)]


def table(traces: Mapping[str, Trace]) -> Iterator[str]:
    """Yield the lines of the table, 80 columns wide; a name that is longer has lines of its own."""
    yield f"{'':<{_ROOM}}" + "".join(f"{title:>{width}}" for title, width in _COLUMNS)
    for nodeid, trace in traces.items():
        yield printable(nodeid)
        told, before = shown(trace.calls), False
        for calls, name in zip(told, _names(told), strict=True):
            if calls.on_device and not before:
                yield "  on the device"
            before = calls.on_device
            yield from _lines(calls, name)
        if not trace.calls:
            yield "  nothing"


def _names(told: Sequence[Calls]) -> list[str]:
    """Return each line's name, of three lines at most unless another would then be the same."""
    names = [printable(calls.name) for calls in told]
    short = [abbreviated(name, _LONG) for name in names]
    alike = Counter(short)
    return [name if alike[made] > 1 else made for name, made in zip(names, short, strict=True)]


def _lines(calls: Calls, name: str) -> Iterator[str]:
    indent = "    " if calls.on_device else "  "
    cells = (
        str(calls.count),
        *(quantity(seconds, "s") for seconds in (calls.total, calls.first, calls.rest)),
    )
    figures = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    *above, last = textwrap.wrap(indent + name, _WIDTH, subsequent_indent=indent) or [indent]
    yield from above
    if len(last) >= _ROOM:
        yield last
        last = ""
    yield f"{last:<{_ROOM}}{figures}"


def abbreviated(name: str, most: int) -> str:
    """Return a C++ name without its innermost template arguments, as many as make it that short.

    A kernel of PyTorch's can have thousands of characters; the file for Perfetto has them all.
    """
    shorter, gone = name, 1
    while len(shorter) + 4 * shorter.count("\0") > most and gone:
        shorter, gone = re.subn("<[^<>]+>", "\0", shorter)
    shorter = shorter.replace("\0", "<...>")
    return shorter if len(shorter) <= most else shorter[: most - 3] + "..."


def notes(traces: Mapping[str, Trace], file: str, real: bool) -> Iterator[str]:
    """Yield what is to be known of a run's traces; ``real``: a device's and not the emulator's."""
    if not real:
        yield "Emulated: launches in this host's times; there are no CUDA calls to trace."
    yield "Nothing was measured: tracing slows calls, so no figure is judged or recorded."
    if left := sum(trace.left_out for trace in traces.values()):
        yield f"{left} events are in the table alone: the file has {MOST} of a test."
    yield f"{file}: open it in Perfetto (ui.perfetto.dev)"
