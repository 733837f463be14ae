"""LoadGen on a GPU: all nodes there, every scenario, what is counted and in which order it comes.

``-s`` prints the figures. How far LoadGen's are from a bare loop's is in docs/studies: a shared host's
percentages prove nothing. LoadGen runs in this process, which is what a child of the plugin does too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpuproject import require_loadgen
from recordedruns import load

from pytest_gpuperf.mlperf import models
from pytest_gpuperf.mlperf.session import Team, open_session
from pytest_gpuperf.mlperf.settings import Scenario

pytestmark = pytest.mark.gpu

BATCH = 128
SECONDS = 1.0


@pytest.fixture(scope="module")
def phases():
    """The module under test, under a name that does not ask the plugin for a child."""
    require_loadgen()
    from pytest_gpuperf.mlperf import loadgen

    return loadgen


@pytest.fixture(scope="module")
def model(phases, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield models.resolve()


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def session(request, model):
    return open_session(model, "cuda", request.param, (1, 8, BATCH))


def test_every_node_is_on_the_cuda_provider(session):
    count, _, total, _, provider = session.description["nodes"].split()
    print(f"\n{session.precision}: {session.description['nodes']}")
    assert count == total
    assert int(count) > 50
    assert provider == "CUDAExecutionProvider"


@pytest.mark.parametrize(("scenario", "size"), [("SingleStream", 1), ("MultiStream", 8)])
def test_a_stream_has_one_query_at_a_time_and_each_is_run_once(session, phases, tmp_path, scenario, size):
    result = phases.performance(session, scenario, log_dir=tmp_path, seconds=SECONDS, warm_up=1.0)
    figures = result.latency.percentiles()
    print(f"\n{session.precision} {scenario}: p50 {figures['p50'] * 1e3:.4f} ms, {result.qps:.1f} queries/s")
    assert result.latency.p90.enough
    assert result.samples == size * result.queries
    assert list(figures.values()) == sorted(figures.values())
    assert result.queries * result.latency.mean <= result.duration  # they follow one another


def test_offline_is_faster_than_a_stream(session, phases, tmp_path):
    offline = phases.performance(session, "Offline", log_dir=tmp_path, seconds=SECONDS, warm_up=1.0)
    stream = phases.performance(session, "SingleStream", log_dir=tmp_path, seconds=SECONDS, warm_up=1.0)
    print(f"\n{session.precision} Offline: {offline.samples_per_second:.1f} images/s")
    assert offline.queries == 1
    assert offline.samples % BATCH == 0
    assert offline.samples_per_second > stream.samples_per_second


# Each size of each stream is a session, which takes seconds to open.
@pytest.mark.parametrize(
    ("team", "sizes"), [(Team(streams=2), (8, BATCH)), (Team(streams=2, qsl="device"), (BATCH,))]
)
def test_several_streams_answer_as_one_does(model, phases, tmp_path, team, sizes):
    several = open_session(model, "cuda", "fp16", sizes, team=team)
    assert len(several.workers) == 2
    for scenario in ("Offline", "Server"):
        phases.accuracy(several, log_dir=tmp_path, scenario=scenario).check()
    result = phases.performance(several, "Offline", log_dir=tmp_path, seconds=SECONDS, warm_up=1.0)
    print(f"\nfp16 Offline, {team}: {result.samples_per_second:.1f} images/s")
    assert (result.contract["streams"], result.contract["qsl"]) == (2, team.qsl)


def test_all_held_out_digits_are_as_stored(session, phases, tmp_path):
    result = phases.accuracy(session, log_dir=tmp_path)
    flips = session.model.reference.flips(result.predictions, result.labels)
    print(
        f"\n{session.precision}: {result.correct} of {result.total}; flips: {[str(flip) for flip in flips]}"
    )
    assert result.total == 797
    result.check()


def test_a_server_answers_as_stored_in_any_batches(session, phases, tmp_path):
    phases.accuracy(session, log_dir=tmp_path, scenario="Server").check()
    # Bounds that hold on a GPU which other processes use, too: what is held here is counts and answers.
    asked = replace(Scenario.of("Server"), qps=200.0, max_latency=1.0)
    result = phases.performance(session, asked, log_dir=tmp_path, seconds=SECONDS, warm_up=1.0)
    p50, p99 = result.latency.p50 * 1e3, result.latency.p99 * 1e3
    print(f"\n{session.precision} Server: p50 {p50:.3f} ms, p99 {p99:.3f}")
    assert result.latency.p99.enough


def test_a_model_with_two_more_blocks_is_seen_to_be_slower(session, phases, tmp_path):
    """By the best of three phases in turn: another process on the device makes some of them slower."""
    model = load("more_work/more_blocks.py").with_blocks(tmp_path / "slower.onnx", (3, 4, 8, 3))
    slower = open_session(model, "cuda", session.precision, (1,))
    medians = [
        [
            phases.performance(each, "SingleStream", log_dir=tmp_path, seconds=0.7, warm_up=0.3).latency.p50
            for each in (slower, session)
        ]
        for _ in range(3)
    ]
    now, was = map(min, zip(*medians, strict=True))
    change = now / was - 1
    print(f"\n{session.precision} SingleStream, two more blocks: {change:+.1%} time")
    assert change > 0.03
