"""The page's sections on rates, on LoadGen's phases and on counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from pytest_gpuperf.figures import quantity
from pytest_gpuperf.report.page import charts
from pytest_gpuperf.report.page.parts import MOST_CHARTS, Each, colour
from pytest_gpuperf.report.results import MetricResult, Percentile
from pytest_gpuperf.text import counted


def light(metrics: Sequence[Each]) -> str:
    bars = []
    for test, metric in metrics:
        rates = metric.rates
        for name, share, rate in (
            (
                "of a copy",
                rates and rates.of_copy,
                rates and quantity(_scaled(rates.bytes_per_second, 1e9), "GB/s"),
            ),
            (
                "of fp32",
                rates and rates.of_fp32,
                rates and quantity(_scaled(rates.flops_per_second, 1e12), "TFLOP/s"),
            ),
        ):
            if share:
                head = f"{escape(test.name)} {escape(metric.name)}, {escape(str(rate))}"
                bars.append(f'<h3 class="wrap">{head}</h3>{charts.share(name, share)}')
    return "<h2>Speed of light</h2>" + "".join(bars[:MOST_CHARTS]) if bars else ""


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def loadgen(metrics: Sequence[Each]) -> str:
    """Return a picture and a table of each model's phases, its scenarios side by side."""
    models: dict[str, list[Each]] = defaultdict(list)
    for test, metric in metrics:
        if metric.percentiles:
            models[str(metric.contract.get("model", test.suite))].append((test, metric))
    parts = []
    for model, phases in models.items():
        named = [(f"{m.contract.get('scenario', m.name)}, {t.name}", m.percentiles) for t, m in phases]
        names = list(dict.fromkeys(name for _, found in named for name in found))
        headers = "".join(f'<th scope="col" class="number">{escape(n.replace("_", "."))}</th>' for n in names)
        rows = "".join(
            f'<tr><th scope="row" class="wrap">{escape(label)}</th>{_phase(m, names)}</tr>'
            for (label, _), (_, m) in zip(named, phases, strict=True)
        )
        parts.append(
            f'<h3 class="wrap">{escape(model)}</h3>{charts.latencies(named)}<table class="list">'
            "<caption>Latency; in brackets: too few queries for it to be judged</caption>"
            f'<thead><tr><th scope="col">phase</th><th scope="col" class="number">queries</th>{headers}'
            f"</tr></thead><tbody>{rows}</tbody></table>"
        )
    return "<h2>LoadGen</h2>" + "".join(parts) if parts else ""


def _phase(metric: MetricResult, names: Sequence[str]) -> str:
    cells = [f'<td class="number" data-name="queries">{metric.queries}</td>']
    for name in names:
        found = metric.percentiles.get(name, Percentile(None, True))
        text = quantity(found.seconds, "s", 3)
        shown = text if found.enough else f"({text})"
        cells.append(f'<td class="number" data-name="{escape(name.replace("_", "."))}">{escape(shown)}</td>')
    return "".join(cells)


def counters(metrics: Sequence[Each]) -> str:
    found = [(test, metric) for test, metric in metrics if metric.instrument == "counters"]
    rows = "".join(
        f'<tr><th scope="row" class="wrap">{escape(test.name)}</th>'
        f'<td class="wrap">{escape(metric.name)}</td>'
        f'<td class="number" data-name="now">{escape(quantity(metric.value, metric.unit))}</td>'
        f'<td class="number" data-name="baseline">{escape(quantity(metric.baseline, metric.unit))}</td>'
        f'<td class="{colour(metric)}">{escape(metric.label)}</td></tr>'
        for test, metric in sorted(found, key=lambda each: (each[0].suite, each[0].name, each[1].name))
    )
    names = ("test", "counter", "now", "baseline", "verdict")
    headers = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f'<table class="list"><thead><tr>{headers}</tr></thead><tbody>{rows}</tbody></table>'
    told = f"<details><summary>{counted(len(found), 'counter')}</summary>{table}</details>"
    return f"<h2>Counters</h2>{told}" if rows else ""
