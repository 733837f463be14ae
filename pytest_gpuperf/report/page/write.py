"""Write the page of a run from its results. Every name, reason and value is escaped: they are data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pytest_gpuperf.figures import quantity
from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.report.message import percent
from pytest_gpuperf.report.page import charts, traces
from pytest_gpuperf.report.results import Document, Machine, MetricResult, Percentile, TestResult

MOST_CHARTS = 500
"""Metrics whose samples and runs are drawn, what failed first: more would not open on a phone."""
Earlier = Mapping[tuple[str, str, str, str], Sequence[tuple[str, float]]]
"""Dates and figures of earlier runs by suite, test, metric and pool."""
_ORDER = [outcome.value for outcome in Outcome]
_GOOD = {"equal", "improved", "unchanged"}
_BAD = {"regressed", "environment moved"}
_ROLES = {
    "<table": "table",
    "<thead": "rowgroup",
    "<tbody": "rowgroup",
    "<tr": "row",
    "<td": "cell",
    '<th scope="col"': "columnheader",
    '<th scope="row"': "rowheader",
}
"""What a screen reader would no longer know where the style makes blocks of a table's parts, on a phone."""
Each = tuple[TestResult, MetricResult]


def render(document: Document, earlier: Earlier) -> bytes:
    """Return the page."""
    metrics = sorted(document.metrics(), key=lambda each: _rank(each[1]))
    sections = (
        _failed(document),
        _verdicts(document, metrics, earlier),
        _light(metrics),
        _loadgen(metrics),
        _counters(metrics),
        traces.section(document),
        _machines(document),
        _listed("Of the run as a whole", [*document.findings, *document.notes]),
    )
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    title, head = _head(document)
    main = "\n".join(filter(None, sections))
    for tag, role in _ROLES.items():
        main = main.replace(tag, f'{tag} role="{role}"')
    page = template.substitute(title=title, head=head, main=main)
    return page.encode(errors="backslashreplace")


def _rank(metric: MetricResult) -> tuple[bool, int]:
    known = metric.outcome in _ORDER and not metric.excuse
    return metric.cause is None, _ORDER.index(metric.outcome) if known else len(_ORDER)


def _head(document: Document) -> tuple[str, str]:
    failed = sum(test.outcome == "failed" for test in document.tests)
    counts = Counter(metric.label for _, metric in document.metrics())
    told = ", ".join(f"{count} {label}" for label, count in sorted(counts.items(), key=_by_rank))
    tests = f"{_count(failed, 'test')} failed" if failed else "no test failed"
    title = f"{tests}: {told or 'nothing was measured'}"
    changed = " with changes" if document.dirty else ""
    commit = f", commit {document.commit[:10]}{changed}" if document.commit else ""
    against = f", against {document.against}" if document.against else ""
    names = ", ".join(dict.fromkeys(machine.name for machine in document.machines))
    about = f"{document.date[:16].replace('T', ' ')} UTC{commit}{against}; exit code {document.exit_code}"
    return _text(title), (
        f"<h1>{_text(title)}</h1>"
        f'<p class="soft wrap">{_text(names)}{". " if names else ""}{_text(about)}</p>'
        f'<p class="wrap"><code>{_text(document.command)}</code></p>'
    )


def _by_rank(counted: tuple[str, int]) -> int:
    return _ORDER.index(counted[0]) if counted[0] in _ORDER else len(_ORDER)


# --------------------------------------------------------------------------- verdicts


def _verdicts(document: Document, metrics: Sequence[Each], earlier: Earlier) -> str:
    if not metrics:
        return ""
    counts = Counter(metric.label for _, metric in metrics)
    boxes = "".join(
        f'<label><input type="checkbox" value="{_text(label)}" checked> {_text(label)} ({count})</label>'
        for label, count in sorted(counts.items(), key=_by_rank)
    )
    bodies = []
    for number, (test, metric) in enumerate(metrics):
        machine = document.machine(test)
        pool = machine.pool if machine else ""
        before = earlier.get((test.suite, test.name, metric.name, pool), ())
        bodies.append(_body(test, metric, [*before, (document.date, metric.value)], number < MOST_CHARTS))
    left = len(metrics) - MOST_CHARTS
    note = f'<p class="soft">The last {left} metrics are without pictures.</p>' if left > 0 else ""
    names = ("verdict", "test", "metric", "now", "baseline", "change", "tolerance")
    plain = "".join(f'<th scope="col">{name}</th>' for name in names[:3])
    headers = plain + "".join(f'<th scope="col" class="number">{name}</th>' for name in names[3:])
    return (
        f'<h2 id="verdicts">Verdicts</h2><form hidden aria-label="Filter the verdicts">{boxes}'
        '<label>Find <input type="search" name="text" placeholder="test, metric or kernel"></label>'
        f'<span id="told" role="status" class="soft"></span></form>{note}'
        f'<table aria-labelledby="verdicts"><thead><tr>{headers}</tr></thead>{"".join(bodies)}</table>'
    )


def _body(test: TestResult, metric: MetricResult, history: Sequence[tuple[str, Any]], drawn: bool) -> str:
    searched = f"{test.suite}::{test.name} {metric.name}".lower()
    numbers = (
        ("now", quantity(metric.value, metric.unit)),
        ("baseline", quantity(metric.baseline, metric.unit)),
        ("change", percent(metric.change, metric.baseline)),
        ("tolerance", "-" if metric.tolerance is None else f"{100 * metric.tolerance:g} %"),
    )
    cells = "".join(f'<td class="number" data-name="{name}">{_text(value)}</td>' for name, value in numbers)
    more = "".join(_more(metric, history, drawn))
    opened = " open" if metric.cause and drawn else ""
    details = f"<details{opened}><summary>samples, runs and reason</summary>{more}</details>" if more else ""
    return (
        f'<tbody data-label="{_text(metric.label)}" data-text="{_text(searched)}"><tr>'
        f'<td class="verdict {_colour(metric)}">{_text(metric.label)}</td>'
        f'<th scope="row" class="wrap">{_text(test.name)}<br>'
        f'<span class="soft">{_text(test.suite)}</span></th>'
        f'<td class="wrap" data-name="metric">{_text(metric.name)}</td>{cells}</tr>'
        f'<tr class="more"><td colspan="7">{details}</td></tr></tbody>'
    )


def _colour(metric: MetricResult) -> str:
    if metric.excuse or metric.outcome in ("shown", "no baseline"):
        return "soft"
    return "bad" if metric.outcome in _BAD else "good" if metric.outcome in _GOOD else "warn"


def _more(metric: MetricResult, history: Sequence[tuple[str, Any]], drawn: bool) -> Iterator[str]:
    told = [
        metric.reason,
        *(str(metric.details[key]) for key in ("warning", "better") if key in metric.details),
    ]
    yield from (f'<p class="wrap">{_text(text)}</p>' for text in told if text)
    if metric.interval and metric.interval[0] is not None:
        low, high = metric.interval
        yield f"<p>The change lies between {percent(low)} and {percent(high)}.</p>"
    for name, bound in (("min", metric.min), ("max", metric.max)):
        if bound is not None:
            yield f"<p>The test's own {name} is {_text(quantity(bound, metric.unit))}.</p>"
    if drawn:
        yield charts.runs(metric)
        points = [(date, value) for date, value in history if value is not None]
        if len(points) > 1:
            yield "<h3>Trend</h3>" + charts.trend(metric, [d for d, _ in points], [v for _, v in points])
    if metric.cause and metric.differs:
        yield f'<p class="wrap">Differs: {_text("; ".join(metric.differs))}</p>'
    if metric.command and metric.cause:
        yield f"<p>Again: <code>{_text(metric.command)}</code></p>"


def _failed(document: Document) -> str:
    """Return the tests that failed for something else than a verdict."""
    failed = [t for t in document.tests if t.outcome == "failed" and not any(m.cause for m in t.metrics)]
    return _listed(
        "Failed for another reason than a verdict",
        [": ".join(filter(None, (test.nodeid, test.reason))) for test in failed],
    )


def _listed(title: str, lines: Iterable[str]) -> str:
    items = "".join(f'<li class="wrap">{_text(line)}</li>' for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


# --------------------------------------------------------------------------- rates, LoadGen, counters


def _light(metrics: Sequence[Each]) -> str:
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
                head = f"{_text(test.name)} {_text(metric.name)}, {_text(str(rate))}"
                bars.append(f'<h3 class="wrap">{head}</h3>{charts.share(name, share)}')
    return "<h2>Speed of light</h2>" + "".join(bars[:MOST_CHARTS]) if bars else ""


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _loadgen(metrics: Sequence[Each]) -> str:
    """Return a picture and a table of each model's phases, its scenarios side by side."""
    models: dict[str, list[Each]] = defaultdict(list)
    for test, metric in metrics:
        if metric.percentiles:
            models[str(metric.contract.get("model", test.suite))].append((test, metric))
    parts = []
    for model, phases in models.items():
        named = [(f"{m.contract.get('scenario', m.name)}, {t.name}", m.percentiles) for t, m in phases]
        names = list(dict.fromkeys(name for _, found in named for name in found))
        headers = "".join(f'<th scope="col" class="number">{_text(n.replace("_", "."))}</th>' for n in names)
        rows = "".join(
            f'<tr><th scope="row" class="wrap">{_text(label)}</th>{_phase(m, names)}</tr>'
            for (label, _), (_, m) in zip(named, phases, strict=True)
        )
        parts.append(
            f'<h3 class="wrap">{_text(model)}</h3>{charts.latencies(named)}<table class="list">'
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
        cells.append(f'<td class="number" data-name="{_text(name.replace("_", "."))}">{_text(shown)}</td>')
    return "".join(cells)


def _counters(metrics: Sequence[Each]) -> str:
    found = [(test, metric) for test, metric in metrics if metric.instrument == "counters"]
    rows = "".join(
        f'<tr><th scope="row" class="wrap">{_text(test.name)}</th><td class="wrap">{_text(metric.name)}</td>'
        f'<td class="number" data-name="now">{_text(quantity(metric.value, metric.unit))}</td>'
        f'<td class="number" data-name="baseline">{_text(quantity(metric.baseline, metric.unit))}</td>'
        f'<td class="{_colour(metric)}">{_text(metric.label)}</td></tr>'
        for test, metric in sorted(found, key=lambda each: (each[0].suite, each[0].name, each[1].name))
    )
    names = ("test", "counter", "now", "baseline", "verdict")
    headers = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f'<table class="list"><thead><tr>{headers}</tr></thead><tbody>{rows}</tbody></table>'
    told = f"<details><summary>{_count(len(found), 'counter')}</summary>{table}</details>"
    return f"<h2>Counters</h2>{told}" if rows else ""


# --------------------------------------------------------------------------- machines


def _machines(document: Document) -> str:
    differs = Counter(text for _, metric in document.metrics() for text in metric.differs)
    told = [(text, _count(count, "metric")) for text, count in differs.most_common()]
    changed = "".join(
        f'<li class="wrap">{_text(text)} <span class="soft">({count})</span></li>' for text, count in told
    )
    parts = [f"<h3>Not as it was when the baselines were recorded</h3><ul>{changed}</ul>" if changed else ""]
    parts += [_machine(machine) for machine in document.machines]
    return "<h2>Machine</h2>" + "".join(parts) if document.machines else ""


def _machine(machine: Machine) -> str:
    entries = {"pool": machine.pool, **_flat({**machine.device, **machine.host, **machine.environment})}
    if machine.unfit:
        entries = {"not fit": machine.unfit, **entries}
    items = "".join(f"<dt>{_text(key)}</dt><dd>{_text(str(value))}</dd>" for key, value in entries.items())
    return f"<details><summary>{_text(machine.name)}</summary><dl>{items}</dl></details>"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key} {k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(text: str) -> str:
    return escape(text)
