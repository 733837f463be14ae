"""MLPerf's audits: honest systems pass, those that cache or answer otherwise when it counts do not."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from gpuproject import require_loadgen
from labelled import Labelled
from mlperf_child import shown

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import Sut, audit, models
from pytest_gpuperf.mlperf.datasets import Digits, Part
from pytest_gpuperf.mlperf.scores import same
from pytest_gpuperf.mlperf.session import open_session
from pytest_gpuperf.mlperf.settings import Scenario
from pytest_gpuperf.mlperf.sut import SutSession

SUTS = """
from dataclasses import replace
from pytest_gpuperf.mlperf import Sut, audit, settings
from pytest_gpuperf.mlperf.sut import SutSession

class Many:
    name = "many"
    def __init__(self, count=None):
        self.labels = (np.arange(400) % 10)[:count]
    def __len__(self):
        return len(self.labels)
    def images(self, indices):
        return np.asarray(indices, np.float32)[:, None]

def honest(batch):
    time.sleep(0.005)
    return [int(number) % 10 for number in batch[:, 0]]

known = {}
def caching(batch):
    if any(number not in known for number in batch[:, 0]):
        known.update(zip(batch[:, 0], honest(batch)))
    return [known[number] for number in batch[:, 0]]

batches = [0]
def paused(batch):  # by the host, in each phase of images that differ
    several = len(set(batch[:, 0])) > 1
    batches[0] += several
    time.sleep(0.3 if several and batches[0] % 8 == 0 else 0)
    return honest(batch)

runs, some = [], [0]
def lazy(batch):  # after what an accuracy phase takes
    runs.extend(batch)
    return honest(batch) if len(runs) < some[0] else (time.sleep(0.005), [0] * len(batch))[1]

def audited(test, run, scenario, **more):
    known.clear(), runs.clear()
    asked = settings.Scenario.of(scenario)
    made = SutSession(Sut(name=run.__name__, run=run, dataset=Many, **more), asked.batch(8))
    folder = lambda name: Path(f"{test}-{run.__name__}-{scenario}-{name}")
    loaded = 128 if asked.one_query else 32
    some[0] = loaded + 10
    found = audit.Audit(made, asked, folder, loaded, False, profile="short", seconds=0.1, stall=10)
    result = getattr(found, test.lower())()
    return [len(result.rounds), result.sampled, result.differing, list(result.problems)]
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return the rounds, the sampled and the differing answers, and the problems, of each audit."""
    if find_spec("mlperf_loadgen") is None:
        pytest.skip("LoadGen is not installed: pip install mlcommons-loadgen")
    return shown(
        SUTS
        + """
def words(answers, labels):
    return [answer == f"it is {label}" for answer, label in zip(answers, labels)]
def speaking(batch):
    return [f"it is {answer}" for answer in honest(batch)]
def mumbling(batch):
    return [f"it is {answer}" for answer in lazy(batch)]
show(
    honest={s: audited("TEST04", honest, s) for s in ("SingleStream", "MultiStream", "Offline")},
    caching={s: audited("TEST04", caching, s) for s in ("SingleStream", "MultiStream", "Offline")},
    paused=audited("TEST04", paused, "Offline"),
    sampled={s: audited("TEST01", honest, s) for s in ("SingleStream", "Offline")},
    lazy={s: audited("TEST01", lazy, s) for s in ("SingleStream", "Offline")},
    speaking=audited("TEST01", speaking, "SingleStream", score=words),
    mumbling=audited("TEST01", mumbling, "SingleStream", score=words),
)
""",
        tmp_path_factory.mktemp("audits"),
    )


def test_an_honest_system_is_no_faster_on_the_same_image(found):
    assert {scenario: problems for scenario, (*_, problems) in found["honest"].items() if problems} == {}


def test_a_pause_of_the_host_makes_no_cache(found):
    assert found["paused"][-1] == []


def test_a_system_that_caches_is(found):
    for scenario, (rounds, _, _, (problem,)) in found["caching"].items():
        assert rounds == audit.ROUNDS, scenario
        assert problem.startswith("the same image again and again is faster: are answers cached? (")


def test_both_phases_give_the_same_answers(found):
    for scenario, (_, sampled, differing, problems) in found["sampled"].items():
        assert (differing, problems) == (0, []), scenario
        assert sampled >= 11, scenario
    _, sampled, differing, problems = found["speaking"]
    assert (differing, problems) == (0, [])
    assert sampled >= 11


def test_answers_of_a_performance_phase_that_are_others(found):
    for _, sampled, differing, (problem, *_) in (*found["lazy"].values(), found["mumbling"]):
        assert sampled > differing > 0.8 * sampled
        assert f"{differing} of {sampled} answers sampled in the performance phase are not" in problem
    assert "('it is 0', it was 'it is " in found["mumbling"][-1][0]


class Numbers(Labelled):
    every = range(97)

    def images(self, indices):
        return np.asarray(indices)


def made(scenario, size, loaded=None, profile="short", times=True):
    session = SutSession(Sut(name="s", run=len, dataset=Numbers), size)
    asked = Scenario.of(scenario)
    return audit.Audit(session, asked, lambda name: name, loaded, times, profile=profile, stall=1.0)


@pytest.mark.parametrize(
    ("rates", "times", "rounds", "passes"),
    [
        ([100, 95], True, 1, True),
        ([100, 85, 50, 96], True, 2, True),  # the first was disturbed
        ([100, 85] * 3, True, 3, False),
        ([100, 120] * 3, True, 3, False),
        ([100, 50, 40, 39], True, 2, True),  # all but one phase were disturbed
        ([100, 85], False, 1, True),  # this host's times are not judged
    ],
)
def test_answers_that_are_sampled_cost_no_time(monkeypatch, rates, times, rounds, passes):
    known, phases = SimpleNamespace(predictions=np.arange(97)), iter(rates)
    monkeypatch.setattr(audit, "accuracy", lambda *given, **options: known)
    monkeypatch.setattr(
        audit,
        "performance",
        lambda *given, **options: SimpleNamespace(answered=next(phases), log_dir=None),
    )
    monkeypatch.setattr(audit.logs, "read_sampled", lambda folder, count: ([7], np.array([7])))
    result = made("Offline", 8, times=times).test01()
    assert (len(result.rounds), result.sampled, result.differing) == (rounds, 1, 0)
    if passes:
        result.check()
    else:
        with pytest.raises(
            AssertionError, match=r"^TEST01 in Offline: with answers sampled the rate is another"
        ):
            result.check()


@pytest.mark.parametrize(
    ("rates", "passes"),
    [
        ([346, 244, 200, 1220, 558, 1910], True),  # seen beside four other processes on one GPU
        ([100, 130, 50, 130, 100, 60], True),
        ([100, 130, 50, 130, 100, 121], False),
    ],
)
def test_a_cache_is_faster_in_every_round(monkeypatch, rates, passes):
    phases = iter(rates)

    def performance(*given, **options):
        latency = SimpleNamespace(p50=1 / next(phases))
        return SimpleNamespace(log_dir=None, early_stopping=None, latency=latency)

    monkeypatch.setattr(audit, "performance", performance)
    result = made("SingleStream", 1).test04()
    assert len(result.rounds) == 3
    assert result.problems == () if passes else "are answers cached? (" in result.problems[0]


@pytest.mark.parametrize(
    ("scenario", "size", "loaded", "parts", "warm", "count"),
    [
        ("SingleStream", 1, None, [(0, 32), (32, 32), (64, 32)], [96], 32),
        ("SingleStream", 1, 12, [(0, 12), (12, 12), (24, 12)], [96], 12),
        ("MultiStream", 8, None, [(0, 88)], list(range(89, 97)), 11),
        ("Offline", 8, None, [(0, 24), (24, 24), (48, 24)], list(range(89, 97)), 24),
        ("Offline", 3, 2, [(0, 6), (6, 6), (12, 6)], [94, 95, 96], 6),  # the fourth image is the same one
        ("Offline", 32, None, [(0, 32), (32, 32)], list(range(65, 97)), 32),
    ],
)
def test_no_round_has_images_of_another_or_of_the_warm_up(scenario, size, loaded, parts, warm, count):
    found, heated, queries = made(scenario, size, loaded)._parts()
    assert [(part.images([0])[0], len(part)) for part in found] == parts
    assert heated.images(range(len(heated))).tolist() == warm
    assert queries == count


def test_too_few_images_are_one_sentence():
    with pytest.raises(GpuperfError, match=r"TEST04 in Offline needs 128 images, .* numbers has 97"):
        made("Offline", 64)._parts()


def test_audits_of_mlperfs_lengths_draw_from_what_is_loaded():
    for scenario, profile in (("SingleStream", "valid"), ("Server", "short")):
        parts, warm, count = made(scenario, 1, 50, profile=profile)._parts()
        assert ({len(part) for part in parts}, warm, count) == ({50}, None, 0)


def test_no_more_images_are_loaded_than_there_are():
    total = len(Numbers())
    with pytest.raises(GpuperfError, match=f"performance_sample_count={total + 1}, .* has {total} images"):
        made("SingleStream", 1, total + 1)


def test_a_model_with_state_has_no_audit():
    session = SimpleNamespace(model=SimpleNamespace(name="vad", state={"a": "b"}))
    with pytest.raises(GpuperfError, match="vad carries state from query to query; audits are for others"):
        audit.Audit(session, Scenario.of("SingleStream"), None, None, True, profile="short")


@pytest.mark.parametrize(
    ("given", "expected", "problems"),
    [
        ([0, 1, 2] * 100, [0, 1, 2] * 100, 0),
        ([0, 1, 2] * 99 + [9, 1, 2], [0, 1, 2] * 100, 0),  # one of 300 is within a hundredth
        ([0, 1, 2] * 98 + [9, 1, 9] * 2, [0, 1, 2] * 100, 1),
        ([8] * 300, [7] * 300, 1),  # of which none was right before
    ],
)
def test_a_few_answers_may_differ_if_they_score_as_much(given, expected, problems):
    labels = SimpleNamespace(labels=[0, 1, 2])
    differing, found = made("Offline", 8)._compared(labels, [0, 1, 2] * 100, given, expected)
    assert len(found) == problems
    assert differing == sum(one != other for one, other in zip(given, expected, strict=True))


def test_a_part_of_a_dataset():
    part = Part(Numbers(), 10, 5)
    assert (len(part), part.labels.tolist()) == (5, [10, 11, 12, 13, 14])
    assert part.images([0, 4]).tolist() == [10, 14]


@dataclass
class Boxes:
    corners: np.ndarray
    label: str


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0]), True),
        (np.array([1.0, 2.0]), np.array([1.0, 2.1]), False),
        ({"a": np.zeros(2)}, {"a": np.zeros(2)}, True),
        ({"a": np.zeros(2)}, {"b": np.zeros(2)}, False),
        ([[1], [2, 3]], [[1], [2, 3]], True),
        ("x", "y", False),
        (float("nan"), float("nan"), True),
        ([np.array([1.0, np.nan])], [np.array([1.0, np.nan])], True),
        (np.nan, 0.0, False),
        (Boxes(np.zeros(2), "a"), Boxes(np.zeros(2), "a"), True),
        (Boxes(np.zeros(2), "a"), Boxes(np.ones(2), "a"), False),
    ],
)
def test_answers_of_any_kind_are_the_same_or_not(one, other, equal):
    assert same(one, other) is equal


@pytest.mark.gpu
@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_the_embedded_model_passes_on_a_gpu(tmp_path, cache, scenario):
    require_loadgen()
    asked, model = Scenario.of(scenario), replace(models.digits_model(), dataset=Digits)
    session = open_session(model, "cuda", "fp16", (asked.batch(128),))
    given = {"profile": "short", "seconds": 0.5, "stall": 30}
    audits = audit.Audit(session, asked, tmp_path.joinpath, None, False, **given)
    for test in (audits.test04, audits.test01):
        result = test()
        print(f"\n{result}")
        result.check()
