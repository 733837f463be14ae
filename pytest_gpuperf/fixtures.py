"""Give suites ``gpu``, ``kernels``, ``gpuperf`` and ``counters``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.gpuperf import Gpuperf
from pytest_gpuperf.session import SESSION

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels
    from pytest_gpuperf.instruments.counters import Counters


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> Gpu:
    """Open the device: ``empty(shape, dtype)``, ``random(shape, dtype, seed=)``, ``to_device(host)``.

    Also ``synchronize()``, ``name``, ``backend`` ("cuda" or "emulated"), ``compute_capability``, and PyCUDA's
    own ``context`` and ``stream``. If there is neither a device nor a compiler to emulate one, the test is
    skipped.
    """
    return pytestconfig.stash[SESSION].gpu()


@pytest.fixture(scope="module")
def kernels(gpu: Gpu, request: pytest.FixtureRequest) -> Kernels:
    """Open the kernel files: ``kernels["transpose.cu"].transpose_tiled[grid, block](src, dst, ...)``.

    Files come from the folder that the ini key ``gpuperf_kernels`` names (default ``kernels``), beside
    the suite or above it. Also ``[grid, block, shared_bytes, stream]``.
    """
    from pytest_gpuperf.backends.kernels import Kernels

    session = request.config.stash[SESSION]
    folder = session.options.kernels
    return Kernels(session.project.owner(request.path, folder) / folder, gpu.device)


@pytest.fixture
def gpuperf(request: pytest.FixtureRequest) -> Gpuperf:
    """Time a launch and judge it when the test ends: ``gpuperf(launch, *args, bytes=, flops=, check=)``.

    ``launch`` is a kernel bound to its grid, or any callable that enqueues work on ``gpu.stream`` or
    the default stream; it gets other keyword arguments too. ``gpuperf.record(name, value, unit, better)``
    judges any other number. Without ``--gpuperf`` the callable runs once and nothing is timed.
    """
    return Gpuperf(request.config.stash[SESSION], request.node)


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
    session, item = request.config.stash[SESSION], request.node

    def count(launch: Callable[..., Any], *args: Any, name: str | None = None, **keywords: Any) -> Counters:
        from pytest_gpuperf.counting import take

        return take(session, item, launch, args, name, keywords)

    return count
