"""What a timed kernel leaves in the caller's arrays: what one launch makes of them."""

from __future__ import annotations

import pytest

KERNELS = """
extern "C" __global__ void accumulate(const float *x, float *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] += x[i];
}

extern "C" __global__ void stops(float *y, int *calls)
{
    if (calls[0]++ < 1)
        y[0] += 1;
}
"""
SUITE = """
    import numpy as np
    import pytest

    def test_in_place(gpu, kernels, gpuperf):
        x, y = gpu.to_device(np.full(256, 2, "f4")), gpu.to_device(np.full(256, 5, "f4"))
        gpuperf(kernels["k.cu"].accumulate[1, 256], x, y, 256)
        assert (y.get() == 7).all()

    def test_the_same_array_twice(gpu, kernels, gpuperf):
        y = gpu.to_device(np.full(256, 3, "f4"))
        gpuperf(kernels["k.cu"].accumulate[1, 256], y, y, 256)
        assert (y.get() == 6).all()

    def test_stateful(gpu, kernels, gpuperf):
        y, calls = gpu.to_device(np.zeros(1, "f4")), gpu.to_device(np.zeros(1, "i4"))
        gpuperf(kernels["k.cu"].stops[1, 1], y, calls)
        assert (y.get()[0], calls.get()[0]) == (1, 1)
"""


@pytest.mark.parametrize("backend", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("flags", [(), ("--gpuperf", "--gpuperf-strict=off")], ids=["once", "timed"])
def test_an_assertion_sees_one_launch(pytester: pytest.Pytester, backend: str, flags: tuple[str, ...]):
    (pytester.mkdir("kernels") / "k.cu").write_text(KERNELS)
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess(f"--gpuperf-backend={backend}", *flags)
    result.assert_outcomes(passed=3)
