"""Give suites ``gpu``, ``kernels``, ``gpuperf``, ``counters``, ``resnet50`` and ``loadgen``.

Every pytest session loads this: what they are made of is loaded by the first test that uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.waking import session_of

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels
    from pytest_gpuperf.gpuperf import Gpuperf
    from pytest_gpuperf.instruments.counters import Counters
    from pytest_gpuperf.mlperf.fixtures import LoadGen
    from pytest_gpuperf.mlperf.models import Model


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> Gpu:
    """Open the device: ``empty(shape, dtype)``, ``random(shape, dtype, seed=)``, ``to_device(host)``.

    Also ``synchronize()``, ``name``, ``backend`` ("cuda" or "emulated"), ``compute_capability``, and PyCUDA's
    or cuda.core's own ``context`` and ``stream``. If there is neither a device nor a compiler to emulate one,
    the test is skipped.
    """
    return session_of(pytestconfig).gpu()


@pytest.fixture(scope="module")
def kernels(gpu: Gpu, request: pytest.FixtureRequest) -> Kernels:
    """Open the kernel files: ``kernels["transpose.cu"].transpose_tiled[grid, block](src, dst, ...)``.

    Files come from the folder that the ini key ``gpuperf_kernels`` names (default ``kernels``), beside
    the suite or above it. Also ``[grid, block, shared_bytes, stream]``.
    """
    from pytest_gpuperf.backends.kernels import Kernels

    session = session_of(request.config)
    folder = session.options.kernels
    return Kernels(session.project.owner(request.path, folder) / folder, gpu.device)


@pytest.fixture
def gpuperf(request: pytest.FixtureRequest) -> Gpuperf:
    """Time a launch and judge it when the test ends: ``gpuperf(launch, *args, bytes=, flops=, check=)``.

    ``launch`` is a kernel bound to its grid, or any callable that enqueues work on ``gpu.stream`` or
    the default stream; it gets other keyword arguments too. ``mode="graph"`` times a CUDA graph of it.
    ``gpuperf.energy``, ``.peak_memory``, ``.first_launch`` and ``.compile_time`` take a launch in the same
    way, and ``gpuperf.record(name, value, unit, better)`` judges any other number. Without ``--gpuperf`` the
    callable runs once and nothing is timed.
    """
    from pytest_gpuperf.gpuperf import Gpuperf

    return Gpuperf(session_of(request.config), request.node)


@pytest.fixture
def counters(gpu: Gpu, request: pytest.FixtureRequest) -> Callable[..., Counters]:
    """Count the memory traffic of a launch, or of all that a callable launches: ``counters(launch, *args)``.

    ``.global_load`` and ``.global_store`` have ``sectors_per_request``; ``.shared_load`` and
    ``.shared_store`` have ``wavefronts_per_request`` and ``bank_conflicts``. The ratios and, where the
    baseline's compiler is this one, the totals are judged as exact metrics. A GPU counts them itself
    (CUPTI), and DRAM bytes, occupancy, instructions and registers beside them; without one they are the
    emulator's warp model's, which knows this plugin's kernels alone. Of a callable, which is called twice and
    counted the second time, ``.kernels`` has them by name. Where a GPU does not let this user count, the test
    is skipped, unless the ini key ``gpuperf_require`` names counters.
    """
    session, item = session_of(request.config), request.node

    def count(
        launch: Callable[..., Any], /, *args: Any, name: str | None = None, **keywords: Any
    ) -> Counters:
        from pytest_gpuperf.counting import take

        return take(session, item, launch, args, name, keywords)

    return count


@pytest.fixture
def resnet50(request: pytest.FixtureRequest) -> Model:
    """Give ResNet-50: MLPerf's own if ``--gpuperf-model-dir`` or MODEL_DIR holds it, else the embedded one.

    That is ``resnet50-digits``: ResNet-50 v1.5's graph with seeded weights and a head fitted to handwritten
    digits.
    """
    from pytest_gpuperf.mlperf.models import resolve
    from pytest_gpuperf.mlperf.which import folders

    return resolve(getattr(request, "param", None), *folders(request.config))


@pytest.fixture
def loadgen(request: pytest.FixtureRequest) -> Iterator[LoadGen]:
    """Run a model under MLPerf's LoadGen: ``loadgen(resnet50, "SingleStream", seconds=10)``.

    The model is one of the fixture ``resnet50``, or a ``Model`` or a ``Sut`` of ``pytest_gpuperf.mlperf``.
    ``scenario`` "SingleStream", "MultiStream" (``samples_per_query`` 8), "Server" (``qps`` queries a second,
    answered within ``max_latency``; see ``loadgen.find_peak``) or "Offline"; ``mode`` "performance" or
    "accuracy"; ``max_batchsize`` of Server and Offline, ``max_wait`` seconds for a fuller one; ``threads`` of
    the CPU for one batch; ``streams`` of a device, so many batches at a time, and ``devices``, of Server and
    Offline; ``qsl`` "host" or "device", where the images lie; ``backend`` "tensorrt" or "cpu" where there is
    a GPU; ``performance_sample_count`` images in memory, from which queries are drawn; ``precision`` "fp32",
    "fp16" or "int8"; ``profile`` "short" or "valid" (MLPerf's durations); ``seconds`` of the phase; ``tails``
    such as ("p99",) to judge as well as p50 and throughput; ``count`` images of an accuracy phase; ``stall``
    seconds without progress after which it is given up; ``keep_trace=True`` leaves LoadGen's trace beside its
    logs; ``mlperf_conf``, ``user_conf`` and ``audit_conf`` are files of MLPerf's configuration, over
    LoadGen's own; ``output`` a folder for ``results.json``; ``dataset_list`` another list of ImageNet's
    images than val_map.txt. The result has ``.latency.p50`` ... ``.latency.p99_9`` (seconds), ``.qps``,
    ``.samples_per_second``, or ``.accuracy``; an INVALID phase or a wrong prediction fails the test. On a GPU
    the device time of a batch is judged too. The whole test runs in a process of its own. ``loadgen.audit``
    runs MLPerf's TEST01 and TEST04. Without ``--gpuperf`` a phase lasts a second and is not judged.
    """
    from pytest_gpuperf.mlperf.fixtures import LoadGen

    fixture = LoadGen(session_of(request.config), request.node)
    yield fixture
    fixture.close()
