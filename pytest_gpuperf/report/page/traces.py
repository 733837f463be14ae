"""Show on the page what tests asked of CUDA, where they were traced."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pytest_gpuperf.figures import quantity
from pytest_gpuperf.report.results import Document, Traced


def section(document: Document) -> str:
    """Return a table of CUDA calls and device work for each test that was traced."""
    names = ("call", "calls", "total", "first", "mean of rest")
    headers = "".join(f'<th scope="col" class="number">{name}</th>' for name in names)
    tables = []
    for test in document.tests:
        rows = "".join(_row(each, names[1:]) for each in test.calls)
        table = f'<table class="list"><thead><tr>{headers}</tr></thead><tbody>{rows}</tbody></table>'
        if rows:
            tables.append(f'<details><summary class="wrap">{escape(test.nodeid)}</summary>{table}</details>')
    return "<h2>CUDA calls and the device's work</h2>" + "".join(tables) if tables else ""


def _row(traced: Traced, names: Sequence[str]) -> str:
    where = ' <span class="soft">on the device</span>' if traced.where == "device" else ""
    times = (quantity(seconds, "s") for seconds in (traced.total, traced.first, traced.rest))
    cells = "".join(
        f'<td class="number" data-name="{name}">{escape(text)}</td>'
        for name, text in zip(names, (str(traced.count), *times), strict=True)
    )
    return f'<tr><th scope="row" class="wrap">{escape(traced.name)}{where}</th>{cells}</tr>'
