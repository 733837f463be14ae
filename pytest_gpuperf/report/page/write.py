"""Write the page of a run from its results. Every name, reason and value is escaped: they are data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pytest_gpuperf.figures import percent, quantity
from pytest_gpuperf.git import of_commit
from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.report.page import charts, traces
from pytest_gpuperf.report.page.parts import MOST_CHARTS, Each, colour
from pytest_gpuperf.report.page.sections import counters, light, loadgen
from pytest_gpuperf.report.results import Document, Machine, MetricResult, TestResult
from pytest_gpuperf.text import counted

Earlier = Mapping[tuple[str, str, str, str], Sequence[tuple[str, float]]]
"""Dates and figures of earlier runs by suite, test, metric and pool."""
_ORDER = [outcome.value for outcome in Outcome]
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


def render(document: Document, earlier: Earlier) -> bytes:
    """Return the page."""
    metrics = sorted(document.metrics(), key=lambda each: _rank(each[1]))
    sections = (
        _failed(document),
        _verdicts(document, metrics, earlier),
        light(metrics),
        loadgen(metrics),
        counters(metrics),
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
    tests = f"{counted(failed, 'test')} failed" if failed else "no test failed"
    title = f"{tests}: {told or 'nothing was measured'}"
    commit = of_commit(document.commit, document.dirty)
    against = f", against {document.against}" if document.against else ""
    names = ", ".join(dict.fromkeys(machine.name for machine in document.machines))
    about = f"{document.date[:16].replace('T', ' ')} UTC{commit}{against}; exit code {document.exit_code}"
    return escape(title), (
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft wrap">{escape(names)}{". " if names else ""}{escape(about)}</p>'
        f'<p class="wrap"><code>{escape(document.command)}</code></p>'
    )


def _by_rank(label: tuple[str, int]) -> int:
    return _ORDER.index(label[0]) if label[0] in _ORDER else len(_ORDER)


# --------------------------------------------------------------------------- verdicts


def _verdicts(document: Document, metrics: Sequence[Each], earlier: Earlier) -> str:
    if not metrics:
        return ""
    shown = [(test, metric) for test, metric in metrics if not _is_equal_counter(metric)]
    counts = Counter(metric.label for _, metric in shown)
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(label)}" checked> {escape(label)} ({count})</label>'
        for label, count in sorted(counts.items(), key=_by_rank)
    )
    bodies = []
    for number, (test, metric) in enumerate(shown):
        machine = document.machine(test)
        pool = machine.pool if machine else ""
        before = earlier.get((test.suite, test.name, metric.name, pool), ())
        bodies.append(_body(test, metric, [*before, (document.date, metric.value)], number < MOST_CHARTS))
    left, equal = len(shown) - MOST_CHARTS, len(metrics) - len(shown)
    notes = [f"The last {left} metrics are without pictures."] if left > 0 else []
    notes += [f"{counted(equal, 'equal counter')}: under Counters."] if equal else []
    told = "".join(f'<p class="soft">{note}</p>' for note in notes)
    names = ("verdict", "test", "metric", "now", "baseline", "change", "tolerance")
    plain = "".join(f'<th scope="col">{name}</th>' for name in names[:3])
    headers = plain + "".join(f'<th scope="col" class="number">{name}</th>' for name in names[3:])
    return (
        f'<h2 id="verdicts">Verdicts</h2><form hidden aria-label="Filter the verdicts">{boxes}'
        '<label>Find <input type="search" name="text" placeholder="test, metric or kernel"></label>'
        f'<span id="told" role="status" class="soft"></span></form>{told}'
        f'<table aria-labelledby="verdicts"><thead><tr>{headers}</tr></thead>{"".join(bodies)}</table>'
    )


def _is_equal_counter(metric: MetricResult) -> bool:
    """Say whether a metric is one of the many that need no row of their own."""
    return metric.instrument == "counters" and metric.outcome == "equal" and not metric.excuse


def _body(test: TestResult, metric: MetricResult, history: Sequence[tuple[str, Any]], drawn: bool) -> str:
    searched = f"{test.suite}::{test.name} {metric.name}".lower()
    numbers = (
        ("now", quantity(metric.value, metric.unit)),
        ("baseline", quantity(metric.baseline, metric.unit)),
        ("change", percent(metric.change, metric.baseline)),
        ("tolerance", "-" if metric.tolerance is None else f"{100 * metric.tolerance:g} %"),
    )
    cells = "".join(f'<td class="number" data-name="{name}">{escape(value)}</td>' for name, value in numbers)
    more = "".join(_more(metric, history, drawn))
    opened = " open" if metric.cause and drawn else ""
    details = f"<details{opened}><summary>details</summary>{more}</details>" if more else ""
    return (
        f'<tbody data-label="{escape(metric.label)}" data-text="{escape(searched)}"><tr>'
        f'<td class="verdict {colour(metric)}">{escape(metric.label)}</td>'
        f'<th scope="row" class="wrap">{escape(test.name)}<br>'
        f'<span class="soft">{escape(test.suite).replace("/", "/<wbr>")}</span></th>'
        f'<td class="wrap" data-name="metric">{escape(metric.name)}</td>{cells}</tr>'
        f'<tr class="more"><td colspan="7">{details}</td></tr></tbody>'
    )


def _more(metric: MetricResult, history: Sequence[tuple[str, Any]], drawn: bool) -> Iterator[str]:
    told = [
        metric.reason,
        *(str(metric.details[key]) for key in ("warning", "better") if key in metric.details),
    ]
    yield from (f'<p class="wrap">{escape(text)}</p>' for text in told if text)
    if metric.interval and metric.interval[0] is not None:
        low, high = metric.interval
        yield f"<p>The change lies between {percent(low)} and {percent(high)}.</p>"
    for name, bound in (("min", metric.min), ("max", metric.max)):
        if bound is not None:
            yield f"<p>The test's own {name} is {escape(quantity(bound, metric.unit))}.</p>"
    if drawn:
        yield charts.runs(metric)
        points = [(date, value) for date, value in history if value is not None]
        if len(points) > 1:
            yield "<h3>Trend</h3>" + charts.trend(metric, [d for d, _ in points], [v for _, v in points])
    if metric.cause and metric.differs:
        yield f'<p class="wrap">Differs: {escape("; ".join(metric.differs))}</p>'
    if metric.command and metric.cause:
        yield f"<p>Again: <code>{escape(metric.command)}</code></p>"


def _failed(document: Document) -> str:
    """Return the tests that failed for something else than a verdict."""
    failed = [t for t in document.tests if t.outcome == "failed" and not any(m.cause for m in t.metrics)]
    return _listed(
        "Failed for another reason than a verdict",
        [": ".join(filter(None, (test.nodeid, test.reason))) for test in failed],
    )


def _listed(title: str, lines: Iterable[str]) -> str:
    items = "".join(f'<li class="wrap">{escape(line)}</li>' for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


# --------------------------------------------------------------------------- machines


def _machines(document: Document) -> str:
    differs = Counter(text for _, metric in document.metrics() for text in metric.differs)
    told = [(text, counted(count, "metric")) for text, count in differs.most_common()]
    changed = "".join(
        f'<li class="wrap">{escape(text)} <span class="soft">({count})</span></li>' for text, count in told
    )
    parts = [f"<h3>Not as it was when the baselines were recorded</h3><ul>{changed}</ul>" if changed else ""]
    parts += [_machine(machine) for machine in document.machines]
    return "<h2>Machine</h2>" + "".join(parts) if document.machines else ""


def _machine(machine: Machine) -> str:
    entries = {"pool": machine.pool, **_flat({**machine.device, **machine.host, **machine.environment})}
    if machine.unfit:
        entries = {"not fit": machine.unfit, **entries}
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in entries.items())
    return f"<details><summary>{escape(machine.name)}</summary><dl>{items}</dl></details>"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key} {k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat
