"""Kernels that tests of the CUDA backend launch on a device."""

import pytest

from pytest_gpuperf.backends.kernels import Kernels

KERNELS = """
extern "C" __global__ void scale(const float* src, float* dst, int n, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dst[i] = src[i] * factor;
}
extern "C" __global__ void mixed(signed char a, double b, short c, float* out, bool d, long long e) {
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e;
}
extern "C" __global__ void reversed(const float* src, float* dst) {
    extern __shared__ float tile[];
    for (int i = threadIdx.x; i < 16384; i += blockDim.x) tile[i] = src[i];
    __syncthreads();
    for (int i = threadIdx.x; i < 16384; i += blockDim.x) dst[i] = tile[16383 - i];
}
extern "C" __global__ __launch_bounds__(64) void narrow(float* x) { x[threadIdx.x] = threadIdx.x; }
extern "C" __global__ void astray(float* x) { x[1ll << 40] = 1; }
extern "C" __global__ void nothing() {}
"""


@pytest.fixture(scope="module", name="kernels")
def sample_kernels(gpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "sample.cu").write_text(KERNELS)
    return Kernels(folder, gpu)["sample.cu"]
