"""What people read: numbers, names within their columns, and the table at 80 columns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_gpuperf.figures import percent, quantity, told_apart
from pytest_gpuperf.measurement import Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.message import elide, reason
from pytest_gpuperf.report.summary import show_percentiles, summarise
from pytest_gpuperf.report.update import to_record
from pytest_gpuperf.rules.decide import OWN_BOUND


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.935e-4, "s", "193.5 µs"),
        (1.2e-8, "s", "12 ns"),
        (0.5640123e-3, "s", "564.0 µs"),
        (12.3456, "s", "12.35 s"),
        (15270.4, "samples/s", "15.27 k samples/s"),
        (1200.0, "tokens/s", "1.2 k tokens/s"),
        (20e9, "B", "20 GB"),
        (1.5e9, "B/s", "1.5 GB/s"),
        (1234.4, "GB/s", "1 234 GB/s"),
        (12345.0, "ms/token", "12 345 ms/token"),
        (1234.0, "1/s", "1234 1/s"),
        (65536.0, "1", "65 536"),
        (4.0, "1", "4"),
        (4.863281, "1", "4.863"),
        (0.0, "1", "0"),
        (0.0, "s", "0 ns"),
        (None, "s", "-"),
        (-1e30, "1", "-1e+30"),
        (1.25e30, "B", "1.25e+15 PB"),
    ],
)
def test_quantity(value, unit, text):
    assert quantity(value, unit) == text


def test_percent():
    assert percent(0.0831) == "+8.31 %"
    assert percent(-0.5) == "-50.00 %"
    assert percent(0.99) == "+99.00 %"
    assert [percent(times - 1) for times in (2, 2.35, 32, 65536)] == ["x2", "x2.35", "x32", "x65 536"]
    assert percent(None) == "-"
    assert percent(1e30) == "x1e+30"
    assert [percent(68.0, of=value) for value in (-3.0, 0.0, 3.0)] == ["+6800.00 %", "x69", "x69"]


@pytest.mark.parametrize(
    ("values", "unit", "texts"),
    [
        ((2e10, 2e10 + 1), "B", ["20 GB", "20.000000001 GB"]),
        ((15270.4, 15270.9), "samples/s", ["15.27 k samples/s", "15.271 k samples/s"]),
        ((1.0, 1.00000001), "s", ["1 s", "1.00000001 s"]),
        ((4.0, 4.0), "1", ["4", "4"]),
    ],
)
def test_figures_that_differ_look_different(values, unit, texts):
    assert told_apart(values, unit) == texts


def test_elided_names_keep_both_ends():
    text = elide("test_something_long[transpose_tiled-8192]", 20)
    assert len(text) == 20
    assert text.startswith("test_some")
    assert text.endswith("tiled-8192]"[-10:])
    assert elide("short", 20) == "short"


class Screen:
    """The few words of pytest's terminal reporter that the summary uses."""

    isatty = True

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
    verdicts = [line.split()[0] for line in screen.lines[2:-2] if line[0] not in " s"]
    assert verdicts == ["regressed", "contract", "equal"]
    assert screen.lines[3].split() == ["regressed", "test_red", "transpose_tiled"]
    assert screen.lines[4].split() == ["193.5", "µs", "█▉│", "+1.84", "%"]
    assert screen.lines[-3].endswith("2775 GB/s  94 %")
    assert screen.lines[-2:] == ["1 regressed, 1 contract changed, 1 equal", "a line"]
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
    assert screen.lines[3].endswith(f"  {shown}")
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
    assert screen.lines[3].split() == ["equal", "test_it:", "4", "metrics"]
    summarise(screen, "", [named(name, Outcome.EQUAL) for name in "abcd"], [], verbosity=1)
    assert [line.split()[:2] for line in screen.lines[9:13]] == [["equal", name] for name in "abcd"]


def test_one_line_counts_its_metrics_and_shows_the_largest_gain():
    screen = Screen()
    gains = [
        replace(found := named(name, Outcome.IMPROVED), verdict=replace(found.verdict, change=change))
        for name, change in {"a": -0.1, "b": -0.5, "c": -0.2, "d": -0.1}.items()
    ]
    summarise(screen, "", [*gains, named("time", Outcome.SHOWN)], [])
    assert [line.split() for line in screen.lines[3:5]] == [
        ["improved", "test_it:", "4", "of", "5", "metrics,", "up", "to", "-50.00", "%"],
        ["shown", "time", "4", "-"],
    ]


def test_what_a_quarantine_excuses_has_a_line_of_its_own():
    screen = Screen()
    found = [named(name, Outcome.EQUAL) for name in "abc"] + [named("d", Outcome.REGRESSED)]
    summarise(screen, "", [replace(row, excuse="quarantined") for row in found], [])
    assert [line.split() for line in screen.lines[3:6]] == [
        ["quarantined", "test_it:", "4", "metrics"],
        ["quarantined", "d", "4", "-"],
        ["quarantined", "3", "metrics"],
    ]


def test_every_red_metric_has_a_line_that_names_it():
    screen = Screen()
    summarise(screen, "", [named("loads", Outcome.REGRESSED), named("stores", Outcome.REGRESSED)], [])
    assert [" ".join(line.split()) for line in screen.lines[2:6]] == [
        "s.py",
        "regressed test_it: 2 metrics",
        "regressed loads 4 -",
        "regressed stores 4 -",
    ]


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
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
    assert all(len(line) <= columns for line in screen.lines)
    text = "".join(screen.lines[1:-1])
    whole = "".join(text.replace("regressed", "").split())
    for key in keys:
        assert whole.count(f"{key.name}:2metrics") == (2 if key.name == "test_traffic" else 1)
        assert whole.count(key.suite) == 1
    assert whole.count("workspacehigh2Bx2workspacelow2Bx2") == len(keys)


SCREEN = """\
verdict       test                         now           change      rate, share
suites/test_reduce.py
regressed     test_sum[warp]          114.2 µs  ██│▊    +2.80 %  2350 GB/s  90 %
inconclusive  test_sum[two]           113.9 µs  ██│▌    +2.50 %
                somewhere from -0.50 % to +4.20 %
                narrower by a higher --gpuperf-blocks or an idle machine
suites/test_traffic.py
regressed     test_tiled: 2 of 5 metrics
regressed       bank_conflicts              31                -
regressed       load.wavefronts         65 536              x32
equal           3 metrics
suites/test_reduce.py
improved      test_sum[naive]         90.00 µs  ░░│░▶  -19.00 %
equal         test_sum[tree]          111.2 µs  ▏ │     +0.10 %
suites/test_llm.py
equal         test_decode            1.2 k t/s          -0.80 %
3 regressed, 1 inconclusive, 1 improved, 5 equal"""


def several() -> list[Row]:
    """A run as a person has it: times on a GPU, counters, a rate of their own."""

    def time(name, outcome, now, change, interval=None, **details):
        metric = Metric(name, "s", "lower", "noisy", "device_time")
        verdict = Verdict(outcome, now, 1.111e-4, change, interval, 0.02)
        return Row(
            TestKey("suites/test_reduce.py", f"test_sum[{name}]"),
            metric,
            replace(verdict, old_code="d34325c9ba"),
            details,
        )

    def counter(name, outcome, now, before):
        metric = Metric(name, "1", "lower", "exact", "counters")
        verdict = Verdict(outcome, now, before, now / before - 1 if before else None, tolerance=0.0)
        return Row(TestKey("suites/test_traffic.py", "test_tiled"), metric, verdict)

    rate = Metric("tokens", "t/s", "higher", "noisy", "record")
    return [
        time("tree", Outcome.EQUAL, 1.112e-4, 0.001),
        time("warp", Outcome.REGRESSED, 1.142e-4, 0.028, bytes_per_second=2.35e12, of_copy=0.9),
        time("naive", Outcome.IMPROVED, 0.9e-4, -0.19),
        time("two", Outcome.INCONCLUSIVE, 1.139e-4, 0.025, (-0.005, 0.042)),
        *(counter(name, Outcome.EQUAL, 4.0, 4.0) for name in "abc"),
        counter("bank_conflicts", Outcome.REGRESSED, 31.0, 0.0),
        counter("load.wavefronts", Outcome.REGRESSED, 65536.0, 2048.0),
        Row(
            TestKey("suites/test_llm.py", "test_decode"), rate, Verdict(Outcome.EQUAL, 1200.0, 1210.0, -0.008)
        ),
    ]


def test_the_whole_table_at_80_columns():
    screen = Screen()
    summarise(screen, "", several(), [])
    assert "\n".join(screen.lines[1:]) == SCREEN


@pytest.mark.parametrize(
    ("metric", "outcome", "verbosity", "name"),
    [
        ("c", Outcome.REGRESSED, 0, "test_exec[size] c"),  # which is in the name, but as no word of it
        ("Size", Outcome.REGRESSED, 0, "test_exec[size]"),
        ("c", Outcome.EQUAL, 0, "test_exec[size]"),
        ("c", Outcome.EQUAL, 1, "test_exec[size] c"),
    ],
)
def test_an_only_metric_is_named_where_somebody_looks(metric, outcome, verbosity, name):
    screen = Screen()
    found = replace(named(metric, outcome), test=TestKey("s.py", "test_exec[size]"))
    summarise(screen, "", [found], [], verbosity=verbosity)
    assert f"  {name}  " in screen.lines[3]


def test_what_fails_nothing_and_may_be_worse_says_why():
    screen = Screen()
    found = replace(
        named("bytes", Outcome.UNFIT), verdict=Verdict(Outcome.UNFIT, 2.0, reason="as slow there")
    )
    summarise(screen, "", [found], [])
    assert screen.lines[-2].strip() == "as slow there"
    screen = Screen()
    summarise(screen, "", [replace(found, cause="infrastructure")], [])
    assert "as slow there" not in "".join(screen.lines)  # the test's failure does


@pytest.mark.parametrize(
    ("outcome", "way", "told"),
    [
        (Outcome.IMPROVED, "lower", True),
        (Outcome.EQUAL, "lower", False),
        (Outcome.EQUAL, "lower: for a rate", True),
    ],
)
def test_which_way_was_taken_is_told_of_what_moved_and_of_rates(outcome: Outcome, way: str, told: bool):
    screen = Screen()
    summarise(screen, "", [replace(named("bytes", outcome), details={"better": way})], [])
    assert ("lower" in screen.lines[-2]) == told


@pytest.mark.parametrize(
    ("count", "command"), [(1, "pytest s.py::t0 --gpuperf --gpuperf-update"), (11, "all")]
)
def test_a_run_says_once_how_a_meant_slowdown_is_recorded(count: int, command: str):
    red = [
        replace(named("m", Outcome.REGRESSED), cause="wrong", command=f"pytest s.py::t{i // 2} --gpuperf")
        for i in range(2 * count)
    ]
    assert to_record(red, "all") == [f"If that is meant, record it as it is now:\n  {command}"]
    bound = Verdict(Outcome.REGRESSED, 2.0, reason=f"above 1, {OWN_BOUND}")
    excused = replace(red[0], excuse="quarantined")
    assert to_record([replace(red[0], verdict=bound), excused], "all") == []


def test_twice_quiet_shows_what_somebody_must_act_on():
    screen = Screen()
    summarise(screen, "", several(), [], verbosity=-1)
    assert "\n".join(screen.lines[1:]) == SCREEN
    screen = Screen()
    summarise(screen, "", several(), [], verbosity=-2)
    assert [line.split()[0] for line in screen.lines[3:5]] == ["regressed", "inconclusive"]
    assert not any(line.startswith(("equal", "improved")) for line in screen.lines)
    summarise(screen, "", several(), [], verbosity=-3)
    assert screen.lines[-2:] == ["gpuperf: ", SCREEN.splitlines()[-1]]


def test_a_terminal_without_unicode_has_a_bar_too(monkeypatch):
    monkeypatch.setattr("sys.__stdout__", type("Ascii", (), {"encoding": "ascii"}))
    screen = Screen()
    summarise(screen, "", several(), [])
    assert all(line.isascii() for line in screen.lines)
    assert "114.2 us  ##|#    +2.80 %" in screen.lines[3]


def test_the_short_summary_tells_the_largest_change_first():
    red = [row for row in several() if row.verdict.outcome is Outcome.REGRESSED]
    assert reason(red[:1]) == "regressed +2.80 %: warp"
    assert reason(red[1:]) == "2 metrics regressed, worst x32: load.wavefronts"


def test_percentiles_without_enough_queries_stand_in_brackets():
    screen = Screen()
    screen.write = lambda text, **markup: screen.lines.append(text)
    percentiles = {"p50": [0.02794, True], "p99_9": [0.0331, False]}
    rows = [row("test_it", Outcome.SHOWN, queries=357, percentiles=percentiles)]
    show_percentiles(screen, rows)
    assert screen.lines[0].split() == ["latency", "queries", "p50", "p99.9"]
    assert [line.strip() for line in screen.lines[2:4]] == ["27.9ms", "(33.1ms)"]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_phases_that_differ_look_different(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Screen()
    screen.write = lambda text, **markup: screen.lines.append(text)
    percentiles = {name: [0.02794, False] for name in ("p50", "p80", "p90", "p95", "p99", "p99_9")}
    keys = [
        TestKey(file, f"test_a_model_with_a_long_name[{name}-fp16]")
        for file in ("a.py", "b.py")
        for name in ("SingleStream", "MultiStream")
    ]
    rows = [replace(row("", Outcome.SHOWN, queries=357, percentiles=percentiles), test=key) for key in keys]
    show_percentiles(screen, rows)
    text = "".join(f"{line}\n" for line in screen.lines)
    assert all(str(key) in text for key in keys)
    assert text.count("(27.9ms)") == 24
    if columns == 40:
        assert "  357 queries, p50 (27.9ms), p80\n  (27.9ms)," in text


@pytest.mark.parametrize(
    ("unit", "now"), [("GB/s", "1 234 GB/s"), ("requests per second and GPU", "1.234 k request… and GPU")]
)
def test_a_figure_stands_in_its_own_unit(unit: str, now: str):
    screen = Screen()
    metric = Metric("bandwidth", unit, "higher", "noisy", "record")
    rows = [Row(TestKey("s.py", "test_it"), metric, Verdict(Outcome.NO_BASELINE, now=1234.4))]
    summarise(screen, "", rows, [])
    assert now in screen.lines[3]


def test_what_lines_of_a_test_share_is_told_once_below_them():
    screen = Screen()
    rows = [named(name, Outcome.NO_BASELINE) for name in "abcd"]
    told = [replace(r, verdict=r.verdict.because("why"), details={"better": "lower"}) for r in rows]
    summarise(screen, "", told, [])
    assert [line.split() for line in screen.lines[4:6]] == [["why"], ["lower"]]
