"""What people read: numbers, names within their columns, and the table at 80 columns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_gpuperf.figures import quantity
from pytest_gpuperf.measurement import Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.message import elide, percent
from pytest_gpuperf.report.summary import show_percentiles, summarise


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.935e-4, "s", "193.5 µs"),
        (1.2e-8, "s", "12 ns"),
        (0.5640123e-3, "s", "564.0 µs"),
        (12.3456, "s", "12.35 s"),
        (15270.4, "samples/s", "15 270 samples/s"),
        (4.0, "1", "4"),
        (4.863281, "1", "4.863"),
        (0.0, "1", "0"),
        (0.0, "s", "0 ns"),
        (None, "s", "-"),
    ],
)
def test_quantity(value, unit, text):
    assert quantity(value, unit) == text


def test_percent():
    assert percent(0.0831) == "+8.31 %"
    assert percent(-0.5) == "-50.00 %"
    assert percent(None) == "-"


def test_elided_names_keep_both_ends():
    text = elide("test_something_long[transpose_tiled-8192]", 20)
    assert len(text) == 20
    assert text.startswith("test_some")
    assert text.endswith("tiled-8192]"[-10:])
    assert elide("short", 20) == "short"


class Screen:
    """The few words of pytest's terminal reporter that the summary uses."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_sep(self, sep: str, title: str) -> None:
        self.lines.append(title)

    def write_line(self, text: str, **markup: bool) -> None:
        self.lines.append(text)


def row(name: str, outcome: Outcome, **details: object) -> Row:
    metric = Metric("transpose_tiled", "s", "lower", "noisy", "device_time")
    verdict = Verdict(outcome, now=1.935e-4, baseline=1.9e-4, change=0.0184, tolerance=0.02)
    return Row(TestKey("suites/test_transpose.py", name), metric, verdict, details)


def test_red_stands_first_and_every_line_fits_80_columns():
    screen = Screen()
    rows = [
        row("test_equal", Outcome.EQUAL, bytes_per_second=2.775e12, of_copy=0.94),
        row("test_changed" + "[x]" * 30, Outcome.CONTRACT_CHANGED, bytes_per_second=2.775e12, of_copy=0.94),
        row("test_red", Outcome.REGRESSED),
    ]
    summarise(screen, "NVIDIA H200 (cuda)", rows, ["a line"])
    assert [line.split()[0] for line in screen.lines[2:5]] == ["regressed", "contract", "equal"]
    assert screen.lines[2].split() == ["regressed", "test_red", "193.5", "µs", "+1.84", "%"]
    assert screen.lines[4].endswith("2775 GB/s  94 %")
    assert screen.lines[5] == "1 regressed, 1 contract changed, 1 equal"
    assert screen.lines[6] == "a line"
    assert all(len(line) <= 80 for line in screen.lines)


BYTES = {"bytes_per_second": 1.1e11, "of_copy": 0.04}


@pytest.mark.parametrize(
    ("details", "shown"),
    [
        (BYTES, "110 GB/s   4 %"),
        ({**BYTES, "flops_per_second": 3.76e13, "of_fp32": 0.56}, "37.6 TFLOP/s  56 %"),
        ({**BYTES, "flops_per_second": 1e10, "of_fp32": 0.001}, "110 GB/s   4 %"),
        ({"flops_per_second": 6.5e14, "of_fp32": 9.7}, "650 TFLOP/s"),  # by tensor cores
        ({"flops_per_second": 6.5e14}, "650 TFLOP/s"),  # of a GPU whose peak is not known
    ],
)
def test_a_rate_is_shown_with_its_share_of_the_nearer_limit(details, shown):
    screen = Screen()
    summarise(screen, "", [row("test_it", Outcome.EQUAL, **details)], [])
    assert screen.lines[2].endswith(f"  {shown}")
    assert screen.lines[1].split()[-2:] == ["rate,", "share"]


def named(metric: str, outcome: Outcome) -> Row:
    return Row(
        TestKey("s.py", "test_it"),
        Metric(metric, "1", "lower", "exact", "counters"),
        Verdict(outcome, now=4.0),
    )


def test_several_metrics_that_nobody_must_act_on_are_one_line():
    screen = Screen()
    summarise(screen, "", [named(name, Outcome.EQUAL) for name in "abcd"], [])
    assert screen.lines[2].split() == ["equal", "test_it", "4", "metrics"]


def test_every_red_metric_has_a_line_that_names_it():
    screen = Screen()
    summarise(screen, "", [named("loads", Outcome.REGRESSED), named("stores", Outcome.REGRESSED)], [])
    assert [line.split()[:3] for line in screen.lines[2:4]] == [
        ["regressed", "test_it", "loads"],
        ["regressed", "test_it", "stores"],
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_no_two_lines_name_the_same(monkeypatch, columns):
    """Tests of one name in two files, and long names whose middle is what differs."""
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Screen()
    long = "test_convolution_forward_workspace_{}_of_every_layer[{}-nhwc]"
    keys = [TestKey(f"suites/{name}/test_{name}.py", "test_traffic") for name in ("conv", "gemm")]
    keys += [
        TestKey("suites/test_a.py", long.format(a, b)) for a in ("peak", "mean") for b in ("gemm", "fft")
    ]
    metrics = [Metric(f"workspace {name}", "B", "lower", "exact", "record") for name in ("high", "low")]
    verdict = Verdict(Outcome.REGRESSED, now=2.0, baseline=1.0, change=1.0)
    summarise(screen, "", [Row(key, metric, verdict) for key in keys for metric in metrics], [])
    table = "\n".join(screen.lines[2:-1])
    rows = [" ".join(row.split()) for row in table.split("regressed")[1:]]
    assert len(set(rows)) == len(keys) * len(metrics)
    assert all(len(line) <= columns for line in screen.lines)
    assert all("2 B +100.00 %" in row for row in rows)
    for name in ("conv", "gemm"):
        assert any(f"{name}/test_{name}.py::test_traffic" in row for row in rows)


def test_percentiles_without_enough_queries_stand_in_brackets():
    screen = Screen()
    screen.write = lambda text, **markup: screen.lines.append(text)
    percentiles = {"p50": [0.02794, True], "p99_9": [0.0331, False]}
    rows = [row("test_it", Outcome.SHOWN, queries=357, percentiles=percentiles)]
    show_percentiles(screen, rows)
    assert screen.lines[0].split() == ["latency", "queries", "p50", "p99.9"]
    assert [line.strip() for line in screen.lines[2:4]] == ["27.9ms", "(33.1ms)"]


@pytest.mark.parametrize(
    ("unit", "now"), [("GB/s", "1 234 GB/s"), ("requests per second and GPU", "1 234 request… and GPU")]
)
def test_a_figure_stands_in_its_own_unit(unit: str, now: str):
    screen = Screen()
    metric = Metric("bandwidth", unit, "higher", "noisy", "record")
    rows = [Row(TestKey("s.py", "test_it"), metric, Verdict(Outcome.NO_BASELINE, now=1234.4))]
    summarise(screen, "", rows, [])
    assert now in screen.lines[2]


def test_what_lines_of_a_test_share_is_told_once_below_them():
    screen = Screen()
    rows = [named(name, Outcome.NO_BASELINE) for name in "abcd"]
    told = [replace(r, verdict=r.verdict.because("why"), details={"better": "lower"}) for r in rows]
    summarise(screen, "", told, [])
    assert [line.split() for line in screen.lines[3:5]] == [["why"], ["lower"]]
