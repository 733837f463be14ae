"""Count the memory traffic of launches, to be judged when the test ends: the ``counters`` fixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.figures import text
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.questions import contract
from pytest_gpuperf.session import GpuperfSession, recorder_of
from pytest_gpuperf.unchanged import reach_counters

if TYPE_CHECKING:
    from pytest_gpuperf.instruments.counters import Counters


def take(
    session: GpuperfSession,
    item: pytest.Item,
    launch: Callable[..., Any],
    args: Sequence[Any],
    name: str | None,
    keywords: Mapping[str, Any],
) -> Counters:
    """Count a launch, or all that a callable launches, and add its figures to the test's."""
    from pytest_gpuperf.instruments.callables import is_kernel, name_of, with_keywords

    if not callable(launch):
        raise GpuperfError(f"counters takes a launch or another callable, not {type(launch).__name__}")
    enqueue = with_keywords(launch, args, keywords, {"name": name}, "counters")
    label = name_of(launch) if name is None else text("counters(...)", "name", name)
    gpu, options = session.gpu(), session.options
    if not options.active and options.plan is None:
        return _counted(session, enqueue, label, args)
    kind = {"counters": "modelled" if gpu.device.models_traffic else "measured"}
    asked = contract(gpu, args, test_options(item), kind, keywords)
    # before it is launched, which writes to its arrays
    code = launch.work_hash(*args) if is_kernel(launch) else None
    if options.plan is not None:
        return reach_counters(session, item, label, asked, code)
    found = _counted(session, enqueue, label, args)
    for figure, value in {**found.ratios(), **found.totals()}.items():
        metric = Metric(f"{label} {figure}", "1", "lower", "exact", "counters")
        recorder_of(item).add(Measurement(metric, asked, (value,), code))
    return found


def _counted(
    session: GpuperfSession, launch: Callable[..., Any], label: str, args: Sequence[Any]
) -> Counters:
    """Return the counters; skips the test where none can be had, unless they are required."""
    from pytest_gpuperf.backends.arguments import check
    from pytest_gpuperf.backends.kernels import Launch
    from pytest_gpuperf.instruments.callables import ran
    from pytest_gpuperf.instruments.counters import count, count_all

    if session.options.sanitize is not None and session.expects_device():
        launch(*args)
        pytest.skip("checked up to here: nothing is counted under compute-sanitizer")
    device = session.gpu().device
    try:
        with session.untraced():  # CUPTI runs a kernel several times to count it
            if isinstance(launch, Launch):
                checked = check(launch.declaration, args, launch.backend)
                return count(launch.program, launch.name, launch.geometry, checked, device.models_traffic)
            return count_all(device, lambda: ran(launch, launch(*args)), label)
    except Unavailable as error:
        if "counters" in session.options.require:
            raise
        pytest.skip(str(error))
