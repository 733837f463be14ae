"""LoadGen on a GPU: all nodes there, every scenario, and LoadGen's figures beside a bare loop's.

``-s`` prints the figures. LoadGen runs in this process, which is what a child of the plugin does too.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from time import perf_counter

import numpy as np
import pytest
from gpuproject import require_loadgen
from recordedruns import load

from pytest_gpuperf.mlperf import models
from pytest_gpuperf.mlperf.session import open_session
from pytest_gpuperf.mlperf.settings import Scenario

pytestmark = pytest.mark.gpu

BATCH = 128
SECONDS = 2.0
ROUNDS = 3
# LoadGen adds to a query, and takes nothing away: by how much is a host's matter, and the studies'.
QUERY, RATE = (-0.05, 0.5), (-0.33, 0.05)


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


def bare_loop(session, batch, seconds=1.5):
    """The median seconds of ``session.run`` over its host images, copy included, and images per second."""
    count = 768
    images = session.model.dataset(None).images(np.arange(count)).astype(session.dtype)
    release = session.hold(images)
    for start in range(0, min(count, 50 * batch), batch):
        session.run(images[start : start + batch])
    times: list[float] = []
    end = perf_counter() + seconds
    begin = perf_counter()
    while (now := perf_counter()) < end:
        start = len(times) * batch % count
        session.run(images[start : start + batch])
        times.append(perf_counter() - now)
    rate = len(times) * batch / (perf_counter() - begin)
    release()
    return median(times), rate


def test_every_node_is_on_the_cuda_provider(session):
    count, _, total, _, provider = session.description["nodes"].split()
    print(f"\n{session.precision}: {session.description['nodes']}")
    assert count == total
    assert int(count) > 50
    assert provider == "CUDAExecutionProvider"


def beside(session, phases, tmp_path, scenario, batch, figure):
    """LoadGen's figure over the bare loop's, less 1: the median of rounds in turn, since a machine drifts."""
    ratios = []
    for _ in range(ROUNDS):
        result = phases.performance(session, scenario, log_dir=tmp_path, seconds=SECONDS)
        ratios.append(figure(result, *bare_loop(session, batch)) - 1)
    shown = " ".join(f"{ratio:+.2%}" for ratio in ratios)
    print(
        f"\n{session.precision} {scenario}: p50 {result.latency.p50 * 1e3:.4f} ms, "
        f"p90 {result.latency.p90 * 1e3:.4f}, p99 {result.latency.p99 * 1e3:.4f} of {result.queries} "
        f"queries, {result.samples_per_second:.1f} images/s ({session.description['images']}); "
        f"beside the bare loop: {shown}"
    )
    return result, median(ratios)


def test_single_stream_beside_the_bare_loop(session, phases, tmp_path):
    result, ratio = beside(
        session, phases, tmp_path, "SingleStream", 1, lambda result, bare, _: result.latency.p50 / bare
    )
    assert result.latency.p99.enough
    assert QUERY[0] < ratio < QUERY[1]


def test_multi_stream_beside_the_bare_loop(session, phases, tmp_path):
    result, ratio = beside(
        session, phases, tmp_path, "MultiStream", 8, lambda result, bare, _: result.latency.p50 / bare
    )
    assert result.samples == 8 * result.queries
    assert QUERY[0] < ratio < QUERY[1]


def test_offline_beside_the_bare_loop(session, phases, tmp_path):
    _, ratio = beside(
        session,
        phases,
        tmp_path,
        "Offline",
        BATCH,
        lambda result, _, rate: result.samples_per_second / rate,
    )
    assert RATE[0] < ratio < RATE[1]


def test_all_held_out_digits_are_as_stored(session, phases, tmp_path):
    result = phases.accuracy(session, log_dir=tmp_path)
    flips = session.model.reference.flips(result.predictions, result.labels)
    print(
        f"\n{session.precision}: {result.correct} of {result.total}; flips: {[str(flip) for flip in flips]}"
    )
    assert result.total == 797
    result.check()


def test_a_server_answers_as_stored_whatever_batches_come_together(session, phases, tmp_path):
    phases.accuracy(session, log_dir=tmp_path, scenario="Server").check()
    asked = replace(Scenario.of("Server"), qps=200.0, max_latency=0.1)
    result = phases.performance(session, asked, log_dir=tmp_path, seconds=SECONDS)
    p50, p99 = result.latency.p50 * 1e3, result.latency.p99 * 1e3
    print(f"\n{session.precision} Server: p50 {p50:.3f} ms, p99 {p99:.3f}")
    assert result.latency.p99.enough


def test_a_model_with_two_more_blocks_is_seen_to_be_slower(session, phases, tmp_path):
    model = load("more_work/more_blocks.py").with_blocks(tmp_path / "slower.onnx", (3, 4, 8, 3))
    slower = open_session(model, "cuda", session.precision, (1, BATCH))
    for scenario in ("SingleStream", "Offline"):
        now = phases.performance(slower, scenario, log_dir=tmp_path / "slower", seconds=SECONDS)
        was = phases.performance(session, scenario, log_dir=tmp_path / "original", seconds=SECONDS)
        change = was.samples_per_second / now.samples_per_second - 1
        print(f"\n{session.precision} {scenario}, two more blocks: {change:+.1%} time")
        assert change > 0.03
