"""A calibration in words: the report at 80 columns, and the header's line."""

from __future__ import annotations

import textwrap
from io import BytesIO
from pathlib import Path

from pytest_gpuperf.files import replace_file
from pytest_gpuperf.report.message import elide
from pytest_gpuperf.rules.calibration import CONFIDENCE, Calibration, MetricResult, Rate
from pytest_gpuperf.text import counted, inert

_NAME = 28
_WIDTH = 80
_CAVEAT = (
    "A run's own luck is in these figures; a shift that all of the runs share (a day, a unit, a "
    "driver) is not. Each bound takes a run, once as the screen, for one trial; draws from one set "
    "of runs are not independent, so rates over draws have no bound of their own. All but the line "
    "on the old code is by the stored runs alone."
)


def expectation(calibration: Calibration) -> str:
    """Say how many false alarms to expect of a run of the suite, for the header."""
    rate = calibration.reds.runs
    return inert(
        f"{elide(calibration.pool, 30)}: {calibration.expected_reds:.2g} false failures expected a run\n"
        f"  ({_of(rate)} runs red, at most {_percent(rate.at_most)}; "
        f"{counted(len(calibration.tests), 'test')}, {calibration.last[:10] or 'undated'})"
    )


def report(calibration: Calibration) -> str:
    """Write the report: false alarms per run and per test with their bounds, then each metric's power."""
    runs = calibration.reds.runs
    tests = [test.reds.runs for test in calibration.tests.values()]
    pooled = Rate(sum(rate.reds for rate in tests), sum(rate.trials for rate in tests))
    lines = [
        f"calibration: {calibration.pool}, {calibration.runs} runs of identical code",
        f"  {calibration.first[:10]} to {calibration.last[:10]}, {_units(calibration)}",
        f"  each run once as the screen: {calibration.baseline_runs} others its baseline, "
        f"{calibration.replicas} its replicas",
        f"  {calibration.reds.draws.trials} draws in all, seed {calibration.seed}",
        "",
        f"red runs   {_of(runs)}, at most {_percent(runs.at_most)} ({CONFIDENCE:.0%} confidence)",
        *_asked(calibration),
        f"red tests  {_of(pooled)}; {calibration.expected_reds:.2g} expected a run, over all draws",
        "",
        *_table(calibration),
        "",
        *textwrap.wrap(_CAVEAT, _WIDTH),
    ]
    return inert("\n".join(lines))


def _asked(calibration: Calibration) -> list[str]:
    if calibration.asked is None:
        return []
    rate = calibration.asked.runs
    return [f"  where the old code is asked: {_of(rate)}, at most {_percent(rate.at_most)}"]


def _table(calibration: Calibration) -> list[str]:
    shifts = next((m.power for t in calibration.tests.values() for m in t.metrics.values()), {})
    titles = "".join(f"{f'+{shift}%':>6}" for shift in shifts)
    head = [f"{'test':<{_NAME}}{'theta':>7}{'spread':>8}{'reds':>7}{titles}"]
    if shifts:
        head.insert(0, " " * (_NAME + 22) + f"{'red in % of draws, slower by':>{6 * len(shifts)}}")
    lines = []
    for name, test in calibration.tests.items():
        reds = f"{test.reds.runs.reds}/{test.reds.runs.trials}"
        if not test.metrics:
            lines += _named(name, f"{'exact':>7}{'-':>8}{reds:>7}")
        for metric, found in test.metrics.items():
            label = name if len(test.metrics) == 1 else f"{name} {metric}"
            lines += _named(label, _metric(found, reds))
    return head + lines


def _metric(found: MetricResult, reds: str) -> str:
    power = "".join(f"{100 * figure.draws.share:>6.0f}" for figure in found.power.values())
    return f"{f'{100 * found.tolerance:g}%':>7}{f'{100 * found.spread:.2f}%':>8}{reds:>7}{power}"


def _named(name: str, figures: str) -> list[str]:
    """Return a test's line; a name that leaves no room has its figures below, since names differ anywhere."""
    label = name.partition("::")[2] or name
    return [f"{label:<{_NAME}}{figures}"] if len(label) < _NAME else [label, " " * _NAME + figures]


def _units(calibration: Calibration) -> str:
    count = len(calibration.devices)
    return "no device named" if not count else counted(count, "unit")


def _of(rate: Rate) -> str:
    return f"{rate.reds} of {rate.trials}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# --------------------------------------------------------------------------- the plot

INSTALL = "For a plot of it: pip install 'pytest-gpuperf[report]'"
_LABELLED = 12


def write_plot(calibration: Calibration, path: Path) -> str:
    """Draw the power of each metric into a PNG; return what to install first, "" if nothing.

    At 0 % stand the false failures; the bar is the bound on red runs. More metrics than a legend holds share
    one grey.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return INSTALL
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curves = [
        (name, metric, found)
        for name, test in calibration.tests.items()
        for metric, found in test.metrics.items()
    ]
    few = len(curves) <= _LABELLED
    for name, metric, found in curves:
        shifts = [0.0, *(float(shift) for shift in found.power)]
        reds = [calibration.tests[name].reds, *found.power.values()]
        colour = None if few else "0.6"
        label = f"{name.partition('::')[2]} {metric}, θ {100 * found.tolerance:g} %"
        axes.plot(
            shifts, [100 * r.draws.share for r in reds], marker="o", markersize=3, label=label, color=colour
        )
    runs = calibration.reds.runs
    bounds, label = [100 * runs.at_least, 100 * runs.at_most], f"red runs {_of(runs)}: 95 % bounds"
    axes.plot([0, 0], bounds, color="black", linewidth=3, label=label)
    axes.set(
        xlabel="planted slowdown, %",
        ylabel="red, % of draws",
        ylim=(-3, 103),
        title=f"{elide(calibration.pool, 50)}: {calibration.runs} runs of identical code",
    )
    axes.grid(alpha=0.3)
    axes.legend(handles=axes.lines if few else axes.lines[-1:], fontsize="x-small", loc="lower right")
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
    replace_file(path, drawn.getvalue(), path.parent)
    return ""
