import pytest


@pytest.fixture(scope="session")
def side(gpu):
    """The side of the square matrices that are timed; other suites take as many elements.

    8192 x 8192 floats are 256 MiB, far beyond any L2 cache, and take a GPU long enough to time well. An
    emulated GPU checks every access of every thread, so there it is as much as stays quick.
    """
    return 8192 if gpu.backend == "cuda" else 256


def pytest_generate_tests(metafunc):
    """Models run in fp32 everywhere and in fp16 on a GPU; a CPU only imitates it."""
    if "precision" in metafunc.fixturenames:
        from pytest_gpuperf import on_gpu

        metafunc.parametrize("precision", ["fp32", "fp16"] if on_gpu(metafunc.config) else ["fp32"])
