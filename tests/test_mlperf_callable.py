"""A Python callable as the system under test: its answers, their score, and LoadGen really around it."""

import json
import re
from collections import UserDict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from labelled import Labelled
from mlperf_child import shown

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import Sut, models
from pytest_gpuperf.mlperf.datasets import Arrays
from pytest_gpuperf.mlperf.raised import described
from pytest_gpuperf.mlperf.scores import scored
from pytest_gpuperf.mlperf.sut import SutSession


class Words(Labelled):
    """Texts for a callable that looks them up: a sample is its text's number."""

    name, texts = "words", ("one", "two", "three", "four")
    every = tuple(text.upper() for text in texts)

    def images(self, indices):
        return np.array(indices)


class Many(Words):
    every = (1 << 63,)  # one more than a class can be


def exact(answers, labels):
    return [bool(np.all(answer == label)) for answer, label in zip(answers, labels, strict=True)]


def upper(batch):
    return [Words.texts[number].upper() for number in batch]


def sut(**changes):
    return Sut(**{"name": "upper", "run": upper, "dataset": Words, "score": exact, **changes})


def test_answers_come_back_in_the_order_of_the_dataset():
    session = SutSession(sut(), 2)
    session.answers.keep(True)
    places = np.concatenate([session.run(np.array([2, 3])), session.run(np.array([0, 1]))])
    places = places[[2, 3, 0, 1]]  # as LoadGen's log has them, by sample
    result = scored(session, places, Words().labels, {"model": "upper"}, Path("logs"), ())
    assert result.answers == ("ONE", "TWO", "THREE", "FOUR")
    assert (result.score, result.scores, result.total) == (1.0, (1.0,) * 4, 4)


def result_of(answers, score=exact, labels=("A", "B")):
    session = SutSession(sut(score=score), 2)
    session.answers.keep(True)
    session.answers.places(answers)
    return scored(session, np.arange(len(answers)), labels, {}, Path("logs"), ())


@pytest.mark.parametrize(
    ("score", "value", "each"),
    [
        (exact, 0.5, (1.0, 0.0)),
        (lambda answers, labels: 0.25, 0.25, ()),  # one for all, as of a corpus
        (lambda answers, labels: np.array([0.5, 1.0]), 0.75, (0.5, 1.0)),
        (lambda answers, labels: (np.float32(1) for _ in answers), 1.0, (1.0, 1.0)),
    ],
)
def test_a_score_is_one_for_each_or_one_for_all(score, value, each):
    result = result_of(["A", "C"], score)
    assert (result.score, result.scores) == (value, each)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda answers, labels: [True], r"score\(\) returned \[True\]; it must return a number for each of"),
        (lambda answers, labels: "good", r"score\(\) returned 'good'"),
        (lambda answers, labels: None, r"score\(\) returned None"),
        (
            lambda answers, labels: [-1e31, 0],
            r"score\(\) comes to -5e\+30; give one of another scale, 0 or from",
        ),
        (lambda answers, labels: float("nan"), r"score\(\) returned nan, which is not finite"),
        (lambda answers, labels: dict.fromkeys([7, 8], 0.5), r"score\(\) returned {7: 0.5, 8: 0.5}; it must"),
        (lambda answers, labels: b"ab", r"score\(\) returned b'ab'; it must"),
        (lambda answers, labels: [np.inf, -np.inf], r"score\(\) returned \[inf, -inf\], which is not finite"),
        (lambda answers, labels: [1e308, 1e308], r"score\(\) returned .*, which is not finite"),
        (lambda answers, labels: 1 / 0, r"score\(\) failed: ZeroDivisionError"),
        (lambda answers, labels: (1 / 0 for _ in answers), r"score\(\) failed: ZeroDivisionError"),
    ],
)
def test_a_score_that_is_none_is_one_sentence(score, said):
    with pytest.raises(GpuperfError, match=f"^upper: {said}"):
        result_of(["A", "C"], score)


def test_what_a_suite_raised_is_named_with_its_line():
    class Speechless(Exception):
        def __str__(self):
            raise ValueError

    def raised(call):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call()
        return described(caught.value).replace(str(Path(__file__)), "here")

    here = described.__code__.co_filename
    assert re.fullmatch(r"KeyError: 'a' \(here:\d+\)", raised(lambda: {}["a"]))
    assert re.fullmatch(r"JSONDecodeError: .* \(here:\d+\)", raised(lambda: json.loads("{")))  # not in json
    assert re.fullmatch(r"Speechless \(here:\d+\)", raised(lambda: (_ for _ in ()).throw(Speechless())))
    assert described(MemoryError()) == "MemoryError"
    exec(compile("def ours(): raise ValueError('x')", here, "exec"), names := {})
    assert re.fullmatch(r"ValueError: x \(here:\d+\)", raised(names["ours"]))  # the line that called us


def test_as_good_other_answers_are_told_unless_they_are_rounded():
    stored = [
        [m.metric.name for m in result_of(a).measurements()] for a in ("AC", [1, 1.5], [np.ones(2)] * 2)
    ]
    assert stored == [["score", "answers"], ["score"], ["score"]]
    prints = [
        result_of(answers, labels=labels).measurements()[1].value
        for answers, labels in (
            (["A", "C"], "AB"),
            (["A", "D"], "AB"),
            ([b"A", b"C"], "AB"),
            (["A", "C"], "AC"),
        )
    ]
    assert prints[0] == prints[3]  # of the answers alone
    assert len(set(prints)) == 3


def printed(*answers):
    return [m.value for m in result_of(answers, lambda a, labels: 1, answers).measurements()[1:]]


@pytest.mark.parametrize(
    ("answers", "other"),
    [
        (("a", "b"), ("a", None)),
        (("a", "b"), ("a", float("nan"))),  # a text that is lacking, as pandas has it
        (("a", ("b", b"c")), ("a", ("b", b"d"))),
        (([np.int64(1)], []), ([np.int64(2)], [])),
        (({"text": "a", "ids": np.arange(2)}, {}), ({"text": "a", "ids": np.arange(1, 3)}, {})),
        ((None, "a"), (None, "b")),
    ],
)
def test_whole_answers_are_told_apart_however_they_are_nested(answers, other):
    assert printed(*answers) != printed(*other) != []
    assert printed({"a": 1, "b": [2]}) == printed({"b": (np.int8(2),), "a": np.int64(1)})


@pytest.mark.parametrize(
    "answers", [(1, 0.99), (None, (0.5, "a")), ([], [0.5]), ({"label": "a", "sure": 1}, {"sure": 0.5})]
)
def test_what_another_machine_may_round_is_no_answer(answers):
    assert printed(*answers) == []


def test_a_table_is_no_sequence_of_answers():
    class Table:  # as pandas has it: its length is that of its rows, and its parts are the columns' names
        def __len__(self):
            return 2

        def __iter__(self):
            return iter(["label"])

    session = SutSession(sut(run=lambda batch: Table()), 2)
    session.run(np.array([0, 1]))  # of a performance phase, whose answers nobody looks at
    session.answers.keep(True)
    with pytest.raises(
        GpuperfError, match=r"^Table is no sequence of answers: it has 2, and going .* gives 1;"
    ):
        session.run(np.array([0, 1]))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda batch: UserDict(start=1, end=2), r"run\(\) returned {'start': 1, 'end': 2} for 2 samples"),
        (lambda batch: 3, r"run\(\) returned 3 for 2 samples; it must return a sequence"),
        (lambda batch: ["a"], r"run\(\) returned 1 answers for 2 samples"),
        (lambda batch: {"start": 1, "end": 2}, r"run\(\) returned {'start': 1, 'end': 2} for 2 samples; it"),
        (lambda batch: {1, 2}, r"run\(\) returned {1, 2} for 2 samples"),
        (lambda batch: "ab", r"run\(\) returned 'ab' for 2 samples"),
    ],
)
def test_answers_that_are_not_one_each(run, said):
    with pytest.raises(GpuperfError, match=f"^upper: {said}"):
        SutSession(sut(run=run), 2).run(np.array([0, 1]))


def test_no_more_samples_come_at_a_time_than_it_takes():
    batches = []
    session = SutSession(sut(run=lambda batch: batches.append(len(batch)) or upper(batch % 4)), 8, 3)
    session.answers.keep(True)
    places = session.run(np.arange(8))
    assert batches == [3, 3, 2]
    assert session.answers.at(places) == tuple(map(str.upper, Words.texts)) * 2


class Named(NamedTuple):
    row: np.ndarray


@dataclass(frozen=True)
class Held:
    row: np.ndarray


@pytest.mark.parametrize(
    ("form", "row_of"),
    [
        (lambda rows: rows, lambda answer: answer),
        (list, lambda answer: answer),
        (lambda rows: [{"row": (row,)} for row in rows], lambda answer: answer["row"][0]),
        (lambda rows: list(map(Named, rows)), lambda answer: answer.row),
        (lambda rows: list(map(Held, rows)), lambda answer: answer.row),
        (lambda rows: rows.view([("x", float)])[:, 0], lambda answer: [answer["x"]]),
    ],
)
def test_answers_in_a_buffer_that_is_used_again_are_kept(form, row_of):
    buffer = np.zeros((2, 1))

    def run(batch):
        buffer[:, 0] = batch
        return form(buffer)

    session = SutSession(sut(run=run), 2)
    session.answers.keep(True)
    first = session.run(np.array([1, 2]))
    session.run(np.array([8, 9]))
    assert [float(row_of(answer)[0]) for answer in session.answers.at(first)] == [1, 2]


@pytest.mark.parametrize("several", [False, True])
def test_a_run_that_changes_the_loaded_samples_is_found_out(several):
    images = np.full((100, 2), np.nan)
    session = SutSession(sut(), 2)
    session.hold(Arrays({"x": images}) if several else images)()
    release = session.hold(Arrays({"x": images}) if several else images)
    images[0] += 1  # still NaN
    release()
    images[0] = 0
    with pytest.raises(GpuperfError, match=r"^upper: run\(\) changed its batch.*let it work on a copy"):
        release()


def test_without_a_score_answers_are_classes():
    session = SutSession(sut(score=None, run=lambda batch: batch.tolist()), 2)
    assert session.run(np.array([3, 1])).tolist() == [3, 1]
    with pytest.raises(
        GpuperfError, match=r"run\(\) returned <U3 \[2\]; without a score= an answer is a whole"
    ):
        SutSession(sut(score=None), 2).run(np.array([0, 1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": 3}, "run and score must be callables"),
        ({"score": "f1"}, "run and score must be callables"),
        ({"name": 3}, "name=3; give a text"),
        ({"name": ""}, "name=''; give a text of one line"),
        ({"name": "a\nb"}, r"name='a\\nb'; give a text of one line"),  # no file of the test could be recorded
        ({"recipe": "\ud800"}, r"recipe='\\ud800'; give a text of one line"),
        ({"max_batchsize": 0}, "max_batchsize=0; give a whole number of 1 to 1,048,576"),
        ({"max_batchsize": 2.5}, "max_batchsize=2.5; give a whole number"),
        ({"max_batchsize": 10**9}, "max_batchsize=1000000000; give a whole number of 1 to"),
        ({"dataset": lambda count: SimpleNamespace(labels=[])}, "does not fit: TypeError"),
        (
            {"dataset": lambda count: Path("none").read_bytes()},
            r"does not fit: FileNotFoundError: .*\(.*:\d+\)",
        ),
        ({"score": None}, "a whole number for each"),  # the labels are texts
        ({"score": None, "dataset": Many}, "1 labels, .* a whole number for each"),
    ],
)
def test_a_sut_that_cannot_be_used_is_one_sentence(change, said):
    models.require_usable(sut(max_batchsize=np.int64(4)))  # of any library
    with pytest.raises(GpuperfError, match=said):
        models.require_usable(sut(**change))


needs_loadgen = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: pip install mlcommons-loadgen"
)


@needs_loadgen
def test_a_callable_under_loadgen(tmp_path):
    found = shown(
        """
        from dataclasses import replace
        from pytest_gpuperf.mlperf import Sut, settings
        from pytest_gpuperf.mlperf.sut import SutSession
        class Pairs(Numbers):
            def __init__(self, count=None):
                self.labels = [str(i % 10) * 2 for i in range(100)][:count]
            def images(self, indices):
                return np.asarray(indices, np.int32)
        seen = set()
        def run(batch):
            seen.add((str(batch.dtype), len(batch)))
            time.sleep(0.001)
            return [str(i % 10) * 2 if i != 7 else "?" for i in batch.tolist()]
        def same(answers, labels):
            return [a == b for a, b in zip(answers, labels)]
        pairs = SutSession(Sut(name="pairs", run=run, dataset=Pairs, score=same, recipe="2"), 8)
        out = {}
        for scenario in ("SingleStream", "MultiStream", "Offline", "Server"):
            asked = replace(settings.Scenario.of(scenario), qps=1500.0, max_latency=0.5)
            r = loadgen.performance(pairs, asked, log_dir=Path("p"), seconds=0.2)
            a = loadgen.accuracy(pairs, log_dir=Path("a"), scenario=scenario, count=61)
            out[scenario] = [a.score, a.total, a.answers[7], list(a.answers[:3]), r.samples > 11]
        def shift(batch):
            batch += 1
            return run(batch)
        shifts = SutSession(Sut(name="shifts", run=shift, dataset=Pairs, score=same), 8)
        told = error_of(loadgen.accuracy, shifts, log_dir=Path("a"))
        slow = error_of(loadgen.performance, shifts, "SingleStream", log_dir=Path("p"), seconds=0.2)
        show(out=out, contract=dict(a.contract), seen=sorted(seen), kept=len(pairs.answers._kept),
             told=[told, slow])
        """,
        tmp_path,
    )
    assert all("shifts: run() changed its batch" in told for told in found["told"])
    assert all(entry == [60 / 61, 61, "?", ["00", "11", "22"], True] for entry in found["out"].values())
    assert (found["contract"]["model"], found["contract"]["recipe"]) == ("pairs", "2")
    assert {kind for kind, _ in found["seen"]} == {"int32"}  # as the dataset has it
    assert {1, 8} <= {size for _, size in found["seen"]} <= set(range(1, 9))
    assert found["kept"] < 100  # of the last accuracy phase alone


@needs_loadgen
def test_a_callable_in_a_suite(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import numpy as np
        from pathlib import Path
        from pytest_gpuperf.mlperf import Sut

        class Words:
            name, texts = "words", ["one", "two", "three", "four"]
            def __init__(self, count=None): self.labels = self.texts[:count]
            def __len__(self): return len(self.labels)
            def images(self, indices): return np.array(indices)

        def echo(batch):
            worse = Path("worse").exists()
            return ["" if worse and number == 2 else Words.texts[number] for number in batch]

        def exact(answers, labels): return [a == b for a, b in zip(answers, labels)]

        mine = Sut(name="echo", run=echo, dataset=Words, score=exact)

        def test_speed(loadgen):
            assert loadgen(mine, "SingleStream", seconds=0.2).latency.p50 < 1

        def test_score(loadgen):
            loadgen(mine, mode="accuracy")
        """
    )
    (pytester.path / "baselines").mkdir()
    flags = ("-p", "no:cacheprovider", "--gpuperf")
    pytester.runpytest_subprocess(*flags, "--gpuperf-update", "--gpuperf-runs=1").assert_outcomes(passed=2)
    (pytester.path / "worse").touch()
    result = pytester.runpytest_subprocess(*flags, "-k", "test_score")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*regressed: score -25.00 %*"])
