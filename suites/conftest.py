from itertools import pairwise

import pytest

from pytest_gpuperf.instruments.device_time import measure


@pytest.fixture(scope="session")
def side(gpu):
    """The side of the square matrices that are timed; other suites take as many elements.

    8192 x 8192 floats are 256 MiB, far beyond any L2 cache, and take a GPU long enough to time well. An
    emulated GPU checks every access of every thread, so there it is as much as stays quick.
    """
    return 8192 if gpu.backend == "cuda" else 256


@pytest.fixture
def climb(gpu, gpuperf, pytestconfig):
    """climb({name: (launch, *arguments)}, most): each rung takes at most that share of the one before.

    The shares leave room for other GPUs than the H100 that docs/ladder.md has the figures of. They are shown
    and not stored: the rungs' own times are what baselines are for.
    """

    def hold(rungs, most):
        if gpu.backend != "cuda" or not pytestconfig.getoption("gpuperf"):
            for launch, *arguments in rungs.values():
                launch(*arguments)
            return
        taken = {name: measure(gpu, launch, rest).median for name, (launch, *rest) in rungs.items()}
        for (before, then), (name, now) in pairwise(taken.items()):
            gpuperf.record(f"{name} of {before}", now / then, kind="shown")
            assert now <= most[name] * then, f"{name} takes {now / then:.2f} of {before}"

    return hold


def pytest_generate_tests(metafunc):
    """Models run in fp32 everywhere and in fp16 on a GPU; a CPU only imitates it."""
    if "precision" in metafunc.fixturenames:
        from pytest_gpuperf import on_gpu

        metafunc.parametrize("precision", ["fp32", "fp16"] if on_gpu(metafunc.config) else ["fp32"])
