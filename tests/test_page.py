"""The page of a run: what it shows, that names are data, and how it is used in a browser."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_gpuperf.report.page.write import render
from pytest_gpuperf.report.results import (
    Document,
    Machine,
    MetricResult,
    Percentile,
    Rates,
    Samples,
    StoredRun,
    TestResult,
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
EVIL = '<script>alert("x")</script>&\'"'


def metric(name: str, outcome: str, now: float, base: float, **more: object) -> MetricResult:
    runs = [
        StoredRun(base * f, [base * f * s for s in (0.998, 1.0, 1.003)], f"2026-11-0{i}T00:00:00")
        for i, f in enumerate((0.999, 1.0, 1.001, 1.0, 1.002), 1)
    ]
    known = {
        "value": now,
        "baseline": base,
        "change": now / base - 1,
        "interval": (now / base - 1.004, now / base - 0.996),
        "tolerance": 0.02,
        "samples": Samples(40, now, now / 99, [now * (1 + i / 3000) for i in range(-20, 21)]),
        "stored": runs,
    }
    return MetricResult(name, "s", "lower", "noisy", "device_time", outcome, **{**known, **more})  # type: ignore[arg-type]


def document() -> Document:
    latency = {
        name: Percentile(seconds, name != "p99_9")
        for name, seconds in zip(
            ("p50", "p80", "p90", "p95", "p99", "p99_9"), (1, 1.1, 1.2, 1.4, 2, 4), strict=True
        )
    }
    slower = {name: Percentile((p.seconds or 0) * 3, p.enough) for name, p in latency.items()}
    red = metric(
        "sum_coalesced", "regressed", 1.2e-4, 1e-4, cause="wrong", reason="slower", here=[1.19e-4, 1.2e-4],
        there=[1e-4, 1.01e-4], differs=["driver 570 -> 580"], command="pytest s.py",
    )  # fmt: skip
    rates = Rates(2.7e12, 0.91, 3e13, 0.44)
    counter = MetricResult(
        "transpose global_load.sectors", "1", "lower", "exact", "counters", "equal", value=4.0, baseline=4.0
    )
    phases = [
        TestResult(
            "suites/test_resnet50.py", f"test_{name}", f"test_{name}", "passed", "", 0,
            [metric("latency_p50", "equal", 1.0, 1.0, queries=900, percentiles=found,
                    contract={"model": "resnet50", "scenario": name})],
        )
        for name, found in (("SingleStream", latency), ("MultiStream", slower))
    ]  # fmt: skip
    return Document(
        schema=1,
        version="1",
        run="r",
        date="2026-11-27T06:00:00+00:00",
        exit_code=1,
        strict=False,
        command="pytest suites --gpuperf",
        commit="0554d46" * 5,
        machines=[Machine("h100", {"backend": "cuda"}, {}, {"device_name": "NVIDIA H100", "driver": "580"})],
        tests=[
            TestResult("suites/test_reduce.py", "test_latency[sum]", "n", "failed", "", 0, [red]),
            TestResult("suites/test_copy.py", "test_copy", "n", "passed", "", 0, [
                metric("copy", "equal", 2e-4, 2e-4, rates=rates), counter]),
            TestResult(EVIL, EVIL, EVIL, "failed", "", None, 
                [metric(EVIL, "improved", 1.0, 2.0, reason=EVIL)]),
            *phases,
        ],
        notes=[EVIL],
    )  # fmt: skip


EARLIER = {
    ("suites/test_reduce.py", "test_latency[sum]", "sum_coalesced", "h100"): [
        (f"2026-11-{day}T00:00:00", value) for day, value in ((20, 1e-4), (21, 1.01e-4), (22, 1.19e-4))
    ]
}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(render(document(), EARLIER))
    return path


def test_names_are_data_and_nothing_is_loaded(page):
    text = page.read_text()
    assert "<script>alert" not in text
    assert text.count("<script") == 1
    assert not re.search(r"(src|href)=|url\(|@import|https?:", text)


def test_every_element_is_closed_and_every_picture_named(page):
    class Checker(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.pictures: list[str | None] = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "input", "br", "wbr"):
                self.open.append(tag)
            if tag == "svg":
                self.pictures.append(dict(attrs).get("aria-label"))

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(page.read_text())
    assert checker.open == []
    assert '<th scope="row" role="rowheader"' in page.read_text()
    assert len(checker.pictures) >= 8
    assert all(checker.pictures)


def test_the_page_shows_what_was_found(page):
    text = page.read_text()
    for shown in (
        "<h1>2 tests failed: 1 regressed, 1 improved, 4 equal</h1>", "driver 570 -&gt; 580", "Trend",
        "Speed of light", "SingleStream", "p99.9", "(4 s)", "global_load.sectors", "NVIDIA H100",
        "commit 0554d46055", "exit code 1", "1 equal counter: under Counters.",
        "<summary>1 counter</summary>",
    ):  # fmt: skip
        assert shown in text, shown
    assert text.index(">regressed<") < text.index(">equal<")


def test_a_page_of_ten_thousand_metrics_stays_small():
    tests = [TestResult("s.py", f"test_{i}", metrics=[metric("t", "equal", 1.0, 1.0)]) for i in range(10_000)]
    many = render(Document(1, "1", "r", "d", 0, False, "pytest", tests=tests), {})
    assert len(many) < 12 << 20


_CLICKS = """<script>
addEventListener("load", function () {
  var form = document.querySelector("form"), seen = [], shown = function () {
    return document.querySelectorAll("tbody[data-label]:not([hidden])").length; };
  seen.push(form.hidden, shown());
  document.querySelector("input[value=equal]").click();
  seen.push(shown());
  form.elements.text.value = "SUM reduce";
  form.elements.text.dispatchEvent(new Event("input", {bubbles: true}));
  seen.push(shown(), document.getElementById("told").textContent);
  seen.push(document.documentElement.scrollWidth <= innerWidth);
  document.title = JSON.stringify(seen);
});
</script></body>"""


def test_the_filter_works_in_a_browser_and_nothing_is_too_wide(page, tmp_path):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", _CLICKS))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}/profile", f"file://{clicked}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert '<title>[false,5,2,1,"1 of 5 shown",true]</title>' in done.stdout
