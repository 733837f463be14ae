from itertools import pairwise

import pytest


@pytest.fixture(scope="session")
def side(gpu):
    """The side of the square matrices that are timed; other suites take as many elements.

    8192 x 8192 floats are 256 MiB, far beyond any L2 cache, and take a GPU long enough to time well. An
    emulated GPU checks every access of every thread, so there it is as much as stays quick.
    """
    return 8192 if gpu.backend == "cuda" else 256


@pytest.fixture
def climb(gpu, gpuperf):
    """climb({name: (launch, *arguments)}, most): each rung takes at most that share of the one before.

    The shares leave room for other GPUs than the H100 that docs/ladder.md has the figures of.
    """

    def hold(rungs, most):
        taken = {name: gpuperf(*rung, name=f"ladder {name}").median for name, rung in rungs.items()}
        if gpu.backend == "cuda" and all(seconds > 0 for seconds in taken.values()):
            for (before, then), (name, now) in pairwise(taken.items()):
                assert now <= most[name] * then, f"{name} takes {now / then:.2f} of {before}"

    return hold


def pytest_generate_tests(metafunc):
    """Models run in fp32 everywhere and in fp16 on a GPU; a CPU only imitates it."""
    if "precision" in metafunc.fixturenames:
        from pytest_gpuperf import on_gpu

        metafunc.parametrize("precision", ["fp32", "fp16"] if on_gpu(metafunc.config) else ["fp32"])
