"""Time launches and take a test's other numbers, to be judged when it ends: the ``gpuperf`` fixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import is_rate, is_time_or_rate, number, numbers, short, text
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.measurement import Better, Bounds, Kind, Measurement, Metric
from pytest_gpuperf.questions import question, rates, timed
from pytest_gpuperf.session import GpuperfSession, recorder_of
from pytest_gpuperf.storage.documents import LARGEST, SMALLEST
from pytest_gpuperf.unchanged import look

if TYPE_CHECKING:
    from pytest_gpuperf.instruments.device_time import Timing
    from pytest_gpuperf.passes import Pass


class _NotGiven(str):
    """An argument's default that can be told from the same value where somebody gave it."""


TRACED = 11
"""Calls in a trace of what would be timed: the first, which may include set-up, and others to average."""
_LOWER = cast(Better, _NotGiven("lower"))
_EXACT = cast(Kind, _NotGiven("exact"))


class Gpuperf:
    """The object behind the ``gpuperf`` fixture, one per test."""

    def __init__(self, session: GpuperfSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        launch: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        bytes: float | None = None,
        flops: float | None = None,
        max: float | None = None,
        min: float | None = None,
        check: Callable[..., Any] | None = None,
        mode: Any = None,
        **keywords: Any,
    ) -> Timing:
        """Time ``launch(*args, **keywords)`` on the device and return its samples, in seconds.

        With ``mode="graph"`` it is captured in a CUDA graph, whose replays are timed: the metric is called
        ``NAME graph_time``. Any other word but "launch" is an argument of the callable's own.

        ``bytes`` moved and ``flops`` done per launch give the rates that are shown. ``name`` is the
        metric's; by default the kernel's or function's own. ``max`` and ``min`` are bounds of the time,
        in seconds: beyond them the test fails, with a baseline or without, wherever times are judged.
        ``check`` is called after the times, with what the last call returned if it needs an argument; what it
        raises, or False, fails the test. A callable's own argument of one of these names goes through
        ``functools.partial``.
        """
        from pytest_gpuperf.instruments.callables import (
            mode_of,
            name_of,
            needs_result,
            run_check,
            with_keywords,
        )
        from pytest_gpuperf.instruments.device_time import Timing, check_possible

        if not callable(launch):
            raise GpuperfError(f"gpuperf times a launch or another callable, not {type(launch).__name__}")
        bounds = Bounds.of("gpuperf(...)", min, max)
        work = {"bytes": _work("bytes", bytes), "flops": _work("flops", flops)}
        mode, given = mode_of(launch, mode, keywords)
        own = {**work, "name": name, "max": max, "min": min, "check": check, "mode": mode}
        enqueue = with_keywords(launch, args, given, own)
        if check is not None and not callable(check):
            raise GpuperfError(f"gpuperf(...): check={short(check)}; give what is called after the times")
        if check is not None:
            needs_result(check)  # before it is timed
        graph = {"mode": mode} if mode == "graph" else {}
        default = f"{name_of(launch)} graph_time" if graph else name_of(launch)
        name = default if name is None else text("gpuperf(...)", "name", name)
        checked = None if check is None else partial(run_check, check, name)
        session, item, planning = self._session, self._item, self._session.options.plan is not None
        if not session.options.active and not planning:
            return self._once(enqueue, args, checked, bool(graph))
        reached = replace(
            question(session, item, name, enqueue, args, {**work, **graph}, given), bounds=bounds
        )
        same, why = look(session, item, reached)
        if same or planning or not session.measures(item):
            done = self._once(enqueue, args, None if planning else checked, False)
            return Timing((same.value,), {"unchanged": True}) if same else done
        taken = timed(session, item, enqueue, args, reached, check=checked, watched=True)
        check_possible(session.gpu().device, name, taken.value, work["bytes"], work["flops"])
        shown = {} if session.options.child is not None else rates(session.gpu(), taken.value, **work)
        details = {**taken.details, **shown, **why}  # which are to be shown, and so the session's own
        recorder_of(item).add(replace(taken, details=details))
        return Timing(taken.samples, taken.details)

    def energy(
        self,
        launch: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        max: float | None = None,
        min: float | None = None,
        **keywords: Any,
    ) -> float:
        """Measure the joules of ``launch(*args, **keywords)`` by NVML's counter, over a second of launches.

        NaN where that is not measured. A GPU without the counter skips the test, unless the ini key
        ``gpuperf_require`` names energy.
        """
        from pytest_gpuperf.passes import energy

        given = {"name": name, "max": max, "min": min}
        return energy(self._pass("energy", launch, args, keywords, given))

    def peak_memory(
        self,
        launch: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        max: float | None = None,
        min: float | None = None,
        kind: Kind = _EXACT,
        **keywords: Any,
    ) -> float:
        """Find the most bytes of the device that ``launch(*args, **keywords)`` allocates at once.

        It is called twice and looked at the second time. ``kind`` "noisy" is for what does not allocate alike
        in each process. Without CUPTI the test is skipped, unless ``gpuperf_require`` names peak_memory.
        """
        from pytest_gpuperf.passes import peak_memory

        given = {"name": name, "max": max, "min": min, "kind": None if kind is _EXACT else kind}
        kind = cast(Kind, _choice("gpuperf.peak_memory(...)", "kind", kind, ("exact", "noisy", "shown")))
        return peak_memory(self._pass("peak_memory", launch, args, keywords, given), kind)

    def first_launch(
        self,
        launch: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        max: float | None = None,
        min: float | None = None,
        **keywords: Any,
    ) -> float:
        """Time the first launch of a kernel that was just loaded, until it is done, in seconds.

        Of another callable the first call in a test of its own process (``isolated=True``).
        """
        from pytest_gpuperf.passes import first_launch

        given = {"name": name, "max": max, "min": min}
        return first_launch(self._pass("first_launch", launch, args, keywords, given))

    def compile_time(
        self, kernels: Any, /, *, name: str | None = None, max: float | None = None, min: float | None = None
    ) -> float:
        """Time compiling and loading a kernel file, or that of a launch, with an empty cache, in seconds."""
        from pytest_gpuperf.passes import compile_time

        given = {"name": name, "max": max, "min": min}
        return compile_time(self._pass("compile_time", kernels, (), {}, given))

    def _pass(
        self,
        what: str,
        launch: Any,
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> Pass:
        from pytest_gpuperf.passes import Pass

        return Pass(self._session, self._item, what, launch, args, keywords, given)

    def _once(
        self,
        enqueue: Callable[..., Any],
        args: Sequence[Any],
        checked: Callable[[Any], None] | None,
        graph: bool,
    ) -> Timing:
        """Run what would be timed, and look at its result; only a trace has replays of a ``graph``."""
        from pytest_gpuperf.instruments.callables import ran
        from pytest_gpuperf.instruments.device_time import Timing

        gpu, session = self._session.gpu(), self._session
        if session.options.trace is not None:
            from pytest_gpuperf.instruments.device_time import repeat

            result = repeat(gpu, enqueue, args, TRACED, session.untraced, graph=graph)
        else:
            result = ran(enqueue, enqueue(*args))
        if checked:
            gpu.synchronize()
            checked(result)
        return Timing((), {})

    def record(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str = "1",
        better: Better = _LOWER,
        *,
        kind: Kind = "noisy",
        max: float | None = None,
        min: float | None = None,
    ) -> None:
        """Judge a number that the test took itself, or several samples of it.

        ``better`` is "lower" or "higher", by default "lower". ``kind`` "exact" compares it directly; a
        "noisy" one is measured again in fresh processes before it fails the test, and a time or a rate is
        only shown on a machine without a GPU that is not dedicated to measuring. ``max`` and ``min`` are
        bounds in its unit: beyond them the test fails, with a baseline or without, wherever it is judged.
        """
        name = text("gpuperf.record(...)", "name", name)
        call = f'gpuperf.record("{name}")'
        unit = text(call, "unit", unit)
        details = {"better": _which_way(unit)} if better is _LOWER else {}
        better = cast(Better, _choice(call, "better", better, ("lower", "higher")))
        kind = cast(Kind, _choice(call, "kind", kind, ("noisy", "exact", "shown")))
        bounds = Bounds.of(call, min, max, kind)
        samples = _samples(f'gpuperf.record("{name}", {short(value)})', value, kind)
        if not self._session.options.active and self._session.options.plan is None:
            return
        if kind == "shown":
            details["kind"] = "shown by the test"
        elif kind == "noisy" and is_time_or_rate(unit) and not self._session.judges_host_time():
            kind = "shown"
        metric = Metric(name, unit, better, kind, "record")
        contract = test_options(self._item).versioned({})
        taken = Measurement(metric, contract, samples, details=details, bounds=bounds)
        if self._session.options.plan is None or kind != "shown":
            recorder_of(self._item).add(taken)


def _choice(call: str, what: str, given: Any, choices: Sequence[str]) -> str:
    if not isinstance(given, str) or given not in choices:
        *most, last = (f'"{choice}"' for choice in choices)
        raise GpuperfError(f"{call}: {what}={short(given)}; say {', '.join(most)} or {last}")
    return str.__str__(given)


def _samples(call: str, value: Any, kind: Kind) -> tuple[float, ...]:
    """Return what was recorded as floats, of an exact number one; raises GpuperfError."""
    samples = numbers(call, value)
    if not samples or not all(math.isfinite(v) and (v > 0 or kind != "noisy") for v in samples):
        raise GpuperfError(
            f"{call}: noisy values must be finite and positive, exact values finite "
            '(kind="exact" takes a count that may be 0)'
        )
    if not all(SMALLEST <= abs(v) <= LARGEST for v in samples if v):
        raise GpuperfError(f"{call}: give it in another unit: a figure lies from {SMALLEST:g} to {LARGEST:g}")
    if kind == "exact" and len(set(samples)) > 1:
        raise GpuperfError(f"{call}: an exact number has one value, and these differ")
    return samples[:1] if kind == "exact" else samples


def _which_way(unit: str) -> str:
    """Say which way is better where the test did not, louder where that is likely to be wrong."""
    hint = f': for a rate such as {unit} say better="higher"' if is_rate(unit) else ""
    return f"lower is better (better= not given){hint}"


def _work(what: str, given: Any) -> int | float | None:
    """Return the bytes or operations of a launch as a plain number; raises GpuperfError."""
    found = None if given is None else number(given)
    if given is not None and (found is None or not 0 <= found <= LARGEST):
        raise GpuperfError(
            f"gpuperf(...): {what}={short(given)}; give the {what} of one launch, from 0 to {LARGEST:g}"
        )
    return int(found) if found is not None and found.is_integer() else found
