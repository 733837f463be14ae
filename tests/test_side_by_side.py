"""How others judge, and how this package does: each rule gives its known answers, and the table tells all."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
from recordedruns import load, process, runs_of, steady, with_record, write
from scipy.stats import ttest_ind

rules, side_by_side = load("rules.py"), load("side_by_side.py")


# Each tool's rule


@pytest.mark.parametrize(("field", "percent"), [("median", 5), ("mean", 2)])
def test_pytest_benchmark_compares_one_statistic(field, percent):
    red = rules.pytest_benchmark(field, percent)
    old = [1.0, 2.0, 9.0]
    scaled = lambda factor: [sample * factor for sample in old]  # noqa: E731
    assert red(old, scaled(1 + (percent + 0.1) / 100))
    assert not red(old, scaled(1 + (percent - 0.1) / 100))
    assert not red(old, scaled(0.5))
    outlier = [1.0, 2.0, 99.0]
    assert red(old, outlier) == (field == "mean")


def test_nvbench_holds_the_change_against_the_smaller_noise():
    old = [0.99, 1.01] * 5  # relative deviation 1.054 %
    noisy = [0.9, 1.1] * 5
    assert rules.nvbench(old, [sample * 1.0106 for sample in old])
    assert not rules.nvbench(old, [sample * 1.0105 for sample in old])
    assert rules.nvbench(noisy, [sample * 1.02 for sample in old])
    assert not rules.nvbench(old, [sample * 0.9 for sample in old])


def test_nvbench_has_no_noise_below_5_samples_or_scatter():
    assert not rules.nvbench([1.0, 1.01, 0.99, 1.0], [2.0, 2.01, 1.99, 2.0])
    assert not rules.nvbench([1.0] * 10, [2.0] * 10)


def test_nvbench_robust_wants_a_gap_from_minimum_to_quartile():
    try:
        rules._nvbench_robust()
    except ImportError as missing:
        pytest.skip(str(missing))
    old = np.linspace(1.0, 1.1, 101).tolist()  # third quartile 1.075
    assert rules.nvbench_robust(old, [sample * 1.075 * 1.006 for sample in old])
    assert not rules.nvbench_robust(old, [sample * 1.075 * 1.004 for sample in old])
    assert not rules.nvbench_robust(old, [sample * 0.5 for sample in old])
    assert not rules.nvbench_robust(old, old)


def test_the_robust_rule_is_left_out_without_its_package(monkeypatch):
    def missing():
        raise ImportError

    monkeypatch.setattr(rules, "_nvbench_robust", missing)
    names = [rule.name for rule in rules.pair_rules()]
    assert "NVBench compare (legacy)" in names
    assert "NVBench compare (robust)" not in names


def test_google_benchmark_needs_separation_and_repetitions():
    old, new = np.arange(1.0, 10.0).tolist(), np.arange(11.0, 20.0).tolist()
    assert rules.google_benchmark(old, new)
    assert not rules.google_benchmark(new, old)  # significant, and faster
    assert not rules.google_benchmark(old, (np.arange(1.0, 10.0) + 0.5).tolist())
    assert not rules.google_benchmark(old[:3], new[:3])  # three of three: p is 0.1 at best
    assert not rules.google_benchmark([1.0], [2.0])


def test_google_benchmark_repeats_in_one_process():
    # Two processes of identical code whose luck differs by 0.1 %: the U test takes it for the code's.
    assert rules.google_benchmark(process(spread=0.0005), process(1.001, spread=0.0005, seed=2))


def test_criterion_wants_significance_beyond_its_noise():
    assert rules.criterion(process(), process(1.02, seed=2))
    assert not rules.criterion(process(), process(1.005, seed=2))  # significant, below 1 %
    assert not rules.criterion(process(), process(0.98, seed=2))
    assert not rules.criterion(process(spread=0.5), process(1.02, spread=0.5, seed=2))
    assert not rules.criterion([1.0] * 100, [1.0] * 100)


def test_criterions_p_value_is_welchs_where_that_holds():
    for shift in (0.0, 0.0005, 0.0008):
        a, b = np.array(process(1 + shift, seed=3, count=100)), np.array(process(seed=4, count=100))
        found = rules._criterion_p(a, b, np.random.default_rng(1))
        assert found == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue, abs=0.05)


def test_blocks_are_means_of_neighbours():
    assert rules.blocks([1, 2, 3, 4, 5, 6], 3) == [1.5, 3.5, 5.5]
    assert rules.blocks([1, 2], 3) == [1, 2]


# Side by side


def test_a_process_is_never_compared_with_itself():
    (case,) = side_by_side.cases(runs_of(steady()))
    pairs = []
    judge = side_by_side.pairwise(lambda old, new: pairs.append((tuple(old), tuple(new))) or False)
    found = side_by_side.count(judge, [case])
    assert len(pairs) == len(found.tests) == len(found.runs) == 12
    assert all(old != new for old, new in pairs)
    assert {new for _, new in pairs} == set(steady())


def test_a_planted_slowdown_lengthens_every_new_sample():
    (case,) = side_by_side.cases(runs_of(steady()))
    news = []
    side_by_side.count(
        side_by_side.pairwise(lambda _, new: news.append(new) or new > [9]), [case], percent=100
    )
    assert news[0] == [2 * sample for sample in steady()[0]]


def test_rates_are_compared_as_times():
    (case,) = side_by_side.cases(runs_of([(2.0, 4.0)] * 12, "rate", "1/s", "higher"))
    assert case.new_samples[0] == (0.5, 0.25)


def test_the_table_of_steady_processes_sees_10_percent():
    text = side_by_side.table(side_by_side.cases(runs_of(steady())), {})
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines()[2:]}
    assert {"pytest-gpuperf", "criterion", "Google Benchmark U test"} <= set(rows)
    first, bound, _, *power = (cell.strip() for cell in rows["pytest-gpuperf"])
    assert (first, bound) == ("0 of 12", "22.1 %")
    assert power == ["0 %", "0 %", "100 %", "100 %", "100 %"]
    assert [cell.strip() for cell in rows["pytest-gpuperf, tolerance 1 %"]][3:5] == ["0 %", "100 %"]


def test_files_of_other_units_and_of_real_work_are_judged(tmp_path: Path, capsys):
    identical = write(tmp_path / "identical.jsonl", runs_of(steady()))
    other = write(tmp_path / "other.jsonl", runs_of(steady(level=1.001)))
    slow = write(tmp_path / "slow.jsonl", runs_of(steady(level=1.05)))
    side_by_side.main([identical, "--baseline", other, "--slower", f"+5 %={slow}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("| red tests | +5 % |")
    ours = next(line for line in lines if line.startswith("| pytest-gpuperf |"))
    assert ours.split("|")[2].strip() == "0 of 12"
    assert ours.split("|")[5].strip() == "100 %"


def on_unit(runs, uuid: str, compute: float = 1e-3):
    """The runs as a GPU's own, whose arithmetic takes so long."""
    environment = {"device_uuid": uuid, "sentinels": {"compute_s": compute, "code": "c0de"}}
    return with_record(runs, environment=environment)


def test_every_unit_is_compared_with_its_own_work(tmp_path: Path, capsys):
    """A file each, compressed or not; runs with more work find theirs by the GPU that they name."""
    first = write(tmp_path / "a.jsonl", on_unit(runs_of(steady()), "GPU-a"))
    plain = write(tmp_path / "b.jsonl", on_unit(runs_of(steady(level=1.5)), "GPU-b"))
    second = tmp_path / "b.jsonl.xz"
    second.write_bytes(lzma.compress(Path(plain).read_bytes()))
    slow = [
        "+5 %=" + write(tmp_path / f"{unit}5.jsonl", on_unit(runs_of(steady(level=level)), f"GPU-{unit}"))
        for unit, level in (("a", 1.05), ("b", 1.5 * 1.05))
    ]
    side_by_side.main([first, str(second), "--slower", *slow])
    lines = capsys.readouterr().out.splitlines()
    ours = next(line for line in lines if line.startswith("| pytest-gpuperf |"))
    assert [cell.strip() for cell in ours.split("|")[2:6]] == ["0 of 24", "11.7 %", "0 of 24", "100 %"]
    assert "unfit" not in lines[-1]
    with pytest.raises(SystemExit):
        side_by_side.main([first, "--slower", *slow])
    assert "none of the runs of identical code is of GPU-b" in capsys.readouterr().err


def test_what_the_machine_excused_is_said(tmp_path: Path, capsys):
    identical = write(tmp_path / "a.jsonl", on_unit(runs_of(steady()), "GPU-a"))
    slow = write(tmp_path / "slow.jsonl", on_unit(runs_of(steady(level=1.05)), "GPU-a", compute=1.05e-3))
    side_by_side.main([identical, "--slower", f"+5 %={slow}"])
    lines = capsys.readouterr().out.splitlines()
    assert "pytest-gpuperf, tolerance 1 %, stored runs alone: unfit in 12 of 12 (+5 %)" in lines


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (runs_of(steady(), contract={"version": 2}), "measured other things"),
        (runs_of(steady(3)), "no metric has 10 runs"),
        (runs_of(steady(), metric="other"), "no metric has 10 runs"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(new, words):
    with pytest.raises(SystemExit, match=words):
        side_by_side.cases(runs_of(steady()), new)


def test_simulated_runs_have_the_stated_spread_and_share():
    quiet = side_by_side.simulate("device_time", 0.02, 0.0)
    logs = np.log([run["simulated"].record.measurements[0].value for run in quiet])
    assert np.std(logs) == pytest.approx(0.02, rel=0.15)
    bimodal = side_by_side.simulate("device_time", 0.0006, 0.15)
    slow = sum(run["simulated"].record.measurements[0].value > 1.06 for run in bimodal)
    assert 15 <= slow <= 45  # of 200
