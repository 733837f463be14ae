"""A calibration as a picture: how often red, against how much slower."""

from __future__ import annotations

from pathlib import Path

from pytest_gpuperf.report.format import elide
from pytest_gpuperf.rules.calibration import Calibration, Rate

INSTALL = "For a plot of it: pip install 'pytest-gpuperf[report]'"
_LABELLED = 12


def write_plot(calibration: Calibration, path: Path) -> str:
    """Draw the power of each metric into a PNG; return what to install first, "" if nothing.

    At 0 % stand the false reds; the bar is the bound on red runs. More metrics than a legend holds share
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
        label = f"{elide(name.partition('::')[2], 40)} {metric}, θ {100 * found.tolerance:g} %"
        axes.plot(
            shifts, [100 * r.draws.share for r in reds], marker="o", markersize=3, label=label, color=colour
        )
    runs = calibration.reds.runs
    axes.plot([0, 0], [100 * runs.at_least, 100 * runs.at_most], color="black", linewidth=3, label=_bar(runs))
    axes.set(
        xlabel="planted slowdown, %",
        ylabel="red, % of draws",
        ylim=(-3, 103),
        title=f"{elide(calibration.pool, 50)}: {calibration.runs} runs of identical code",
    )
    axes.grid(alpha=0.3)
    axes.legend(handles=axes.lines if few else axes.lines[-1:], fontsize="x-small", loc="lower right")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return ""


def _bar(runs: Rate) -> str:
    return f"red runs {runs.reds} of {runs.trials}: 95 % bounds"
