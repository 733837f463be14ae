"""Write traces as Chrome's trace events, a file that Perfetto (ui.perfetto.dev) opens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_gpuperf.traces import Event, Trace

BEGINNING = b'{"traceEvents": ['
"""What a file begins with that ``render`` made: any other is somebody's."""

# Numbers of processes and threads that no system has. Perfetto takes a thread 0 for the kernel's.
_DEVICES = 10_000_000  # and from there on a device is a process
_TESTS = 9_999_999


def render(traces: Mapping[str, Trace]) -> bytes:
    """Return the file; times are in µs from the first test's start.

    A process has its tests in one lane and its API calls in one for each thread; each device that it uses is
    a process of its own, with its work by stream. Arrows lead from a call to the work that it caused.
    """
    zero = min((trace.start for trace in traces.values()), default=0)
    devices: dict[tuple[int, int], int] = {}
    lanes: dict[tuple[int, int], str] = {}
    arrows: dict[tuple[int, int], int] = {}
    events: list[dict[str, Any]] = []
    for number, (nodeid, trace) in enumerate(traces.items()):
        lanes[trace.process, _TESTS] = "tests"
        test = Event("call", nodeid, trace.start, trace.end, _TESTS)
        events.append(_slice(test, trace.process, zero) | {"cat": "test"})
        linked = _linked(trace)
        for event in trace.events:
            process, name = trace.process, f"thread {event.lane}"
            if event.what != "call":
                of = trace.process, event.device
                process, name = devices.setdefault(of, _DEVICES + len(devices)), f"stream {event.lane}"
                event = event._replace(lane=event.lane + 1)
            lanes[process, event.lane] = name
            events.append(_slice(event, process, zero))
            if event.link in linked:
                arrow = arrows.setdefault((number, event.link), len(arrows) + 1)
                events.append(_arrow(event, process, zero, arrow))
    return json.dumps({"traceEvents": [*_names(devices, lanes), *events], "displayTimeUnit": "ns"}).encode()


def _linked(trace: Trace) -> set[int]:
    """Return the links that a call and some work share."""
    calls = {event.link for event in trace.events if event.what == "call"}
    return (calls & {event.link for event in trace.events if event.what != "call"}) - {0}


def _slice(event: Event, process: int, zero: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": event.name,
        "cat": event.what,
        "pid": process,
        "tid": event.lane,
        "ts": (event.start - zero) / 1e3,
        "dur": (event.end - event.start) / 1e3,
    }


def _arrow(event: Event, process: int, zero: int, arrow: int) -> dict[str, Any]:
    """Return the arrow's tail at a call, its head at work; both within their slices, which have it then."""
    end = {"ph": "s"} if event.what == "call" else {"ph": "f", "bp": "e"}
    at = {"pid": process, "tid": event.lane, "ts": (event.start - zero) / 1e3}
    return {"name": "causes", "cat": "flow", "id": arrow, **end, **at}


def _names(
    devices: Mapping[tuple[int, int], int], lanes: Mapping[tuple[int, int], str]
) -> Iterator[dict[str, Any]]:
    named = {process: f"device {device} of process {owner}" for (owner, device), process in devices.items()}
    for process in dict.fromkeys(process for process, _ in lanes):
        args = {"name": named.get(process, f"process {process}")}
        yield {"ph": "M", "name": "process_name", "pid": process, "args": args}
    for (process, lane), name in lanes.items():
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": lane, "args": {"name": name}}
        order = {"sort_index": -1 if name == "tests" else lane}
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": lane, "args": order}
