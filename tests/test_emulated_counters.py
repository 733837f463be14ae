"""The warp model agrees, to the digit, with what Nsight Compute counted on an H100 for the same kernels."""

import numpy as np
import pytest

from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.emulated.device import EmulatedBackend
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments.counters import count

pytestmark = pytest.mark.usefixtures("kernel_cache")

TRANSPOSES = r"""
extern "C" __global__ void naive(const float *in, float *out, int rows, int cols)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < cols && y < rows)
        out[(size_t)x * rows + y] = in[(size_t)y * cols + x];
}

template <int TILE, int WIDTH>
static __device__ __forceinline__ void through_tile(const float *in, float *out, int rows, int cols)
{
    __shared__ float tile[TILE][WIDTH];
    int x = blockIdx.x * TILE + threadIdx.x;
    int y = blockIdx.y * TILE + threadIdx.y;
    for (int j = 0; j < TILE; j += blockDim.y)
        if (x < cols && y + j < rows)
            tile[threadIdx.y + j][threadIdx.x] = in[(size_t)(y + j) * cols + x];
    __syncthreads();
    x = blockIdx.y * TILE + threadIdx.x;
    y = blockIdx.x * TILE + threadIdx.y;
    for (int j = 0; j < TILE; j += blockDim.y)
        if (x < rows && y + j < cols)
            out[(size_t)(y + j) * rows + x] = tile[threadIdx.x][threadIdx.y + j];
}
extern "C" __global__ void tiled(const float *in, float *out, int rows, int cols)
{ through_tile<32, 33>(in, out, rows, cols); }
extern "C" __global__ void unpadded(const float *in, float *out, int rows, int cols)
{ through_tile<32, 32>(in, out, rows, cols); }
extern "C" __global__ void tile16x17(const float *in, float *out, int rows, int cols)
{ through_tile<16, 17>(in, out, rows, cols); }
extern "C" __global__ void tile16x16(const float *in, float *out, int rows, int cols)
{ through_tile<16, 16>(in, out, rows, cols); }
"""

OTHERS = r"""
#define T 16
extern "C" __global__ void matmul(const float *A, const float *B, float *C, int M, int N, int K)
{
    __shared__ float As[T][T];
    __shared__ float Bs[T][T];
    int row = blockIdx.y * T + threadIdx.y, col = blockIdx.x * T + threadIdx.x;
    float acc = 0.0f;
    for (int t = 0; t < (K + T - 1) / T; ++t) {
        int ka = t * T + threadIdx.x, kb = t * T + threadIdx.y;
        As[threadIdx.y][threadIdx.x] = (row < M && ka < K) ? A[(size_t)row * K + ka] : 0.0f;
        Bs[threadIdx.y][threadIdx.x] = (kb < K && col < N) ? B[(size_t)kb * N + col] : 0.0f;
        __syncthreads();
        for (int k = 0; k < T; ++k)
            acc = fmaf(As[threadIdx.y][k], Bs[k][threadIdx.x], acc);
        __syncthreads();
    }
    if (row < M && col < N)
        C[(size_t)row * N + col] = acc;
}

static __device__ void finish(float acc, float *s, float *partial)
{
    s[threadIdx.x] = acc;
    __syncthreads();
    for (int k = blockDim.x / 2; k > 0; k >>= 1) {
        if (threadIdx.x < k)
            s[threadIdx.x] += s[threadIdx.x + k];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        partial[blockIdx.x] = s[0];
}
extern "C" __global__ void coalesced(const float *v, float *partial, int n)
{
    __shared__ float s[256];
    float acc = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x)
        acc += v[i];
    finish(acc, s, partial);
}
extern "C" __global__ void strided(const float *v, float *partial, int n)
{
    __shared__ float s[256];
    int threads = blockDim.x * gridDim.x, per = (n + threads - 1) / threads;
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    float acc = 0.0f;
    for (int i = t * per; i < n && i < (t + 1) * per; ++i)
        acc += v[i];
    finish(acc, s, partial);
}

extern "C" __global__ void copy4(const float4 *in, float4 *out)
{
    __shared__ float4 s[64];
    s[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    float4 v = s[63 - threadIdx.x];
    out[blockIdx.x * blockDim.x + threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
}
extern "C" __global__ void copy2(const float2 *in, float2 *out, int stride)
{
    __shared__ float2 s[512];
    s[threadIdx.x * stride] = in[threadIdx.x];
    out[threadIdx.x] = s[threadIdx.x * stride];
}
extern "C" __global__ void bytes(const unsigned char *in, unsigned char *out)
{
    __shared__ unsigned char s[64];
    s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void histogram(const int *in, int *counts)
{
    atomicAdd(counts + in[threadIdx.x], 1);
}
extern "C" __global__ void one_lane_an_iteration(const float *in, float *out, int n)
{
    float sum = 0;
    for (int k = 0; k < n; k++)
        if ((threadIdx.x & 1) == k) sum += in[threadIdx.x * 8 + k];
    out[threadIdx.x] = sum;
}
extern "C" __global__ void uneven_loops(const float *in, float *out, int n)
{
    float sum = 0;
    for (int k = 0; k < n; k++) {
        for (int j = 0; j <= threadIdx.x % 4; j++) sum += in[j * 32 + threadIdx.x];
        sum += in[threadIdx.x];
    }
    out[threadIdx.x] = sum;
}
extern "C" __global__ void copy3(const float3 *in, float3 *out) { out[threadIdx.x] = in[threadIdx.x]; }
__device__ int launches;
extern "C" __global__ void numbered(int *out) { if (!threadIdx.x) launches++; out[threadIdx.x] = launches; }
extern "C" __global__ void idle(float *out, int n)
{
    if (n) out[0] = n;
}
extern "C" __global__ void nothing() { }
"""


@pytest.fixture(scope="module")
def programs(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("counters")
    (folder / "transposes.cu").write_text(TRANSPOSES)
    (folder / "others.cu").write_text(OTHERS)
    return {name: backend.load(read(folder / f"{name}.cu")) for name in ("transposes", "others")}


def transposed(backend, program, name, rows, cols, block, tile):
    host = np.random.default_rng(0).random((rows, cols), np.float32)
    src, dst = backend.to_device(host), backend.empty((cols, rows), np.float32)
    grid = (-(-cols // tile), -(-rows // tile), 1)
    found = count(program, name, Geometry.of(grid, (*block, 1)), [src, dst, np.int32(rows), np.int32(cols)])
    assert np.array_equal(dst.get(), host.T)
    return found


@pytest.mark.parametrize(
    ("name", "rows", "cols", "block", "tile", "load", "store"),
    [
        ("naive", 256, 256, (32, 32), 32, "4.00", "32.00"),
        ("tiled", 256, 256, (32, 8), 32, "4.00", "4.00"),
        ("unpadded", 256, 256, (32, 8), 32, "4.00", "4.00"),
        ("tiled", 257, 255, (32, 8), 32, "4.86", "4.44"),
        ("tile16x17", 256, 256, (16, 16), 16, "4.00", "4.00"),
        ("tile16x16", 256, 256, (16, 16), 16, "4.00", "4.00"),
    ],
)
def test_sectors_of_the_transposes(backend, programs, name, rows, cols, block, tile, load, store):
    found = transposed(backend, programs["transposes"], name, rows, cols, block, tile)
    assert f"{found.global_load.sectors_per_request:.2f}" == load
    assert f"{found.global_store.sectors_per_request:.2f}" == store


@pytest.mark.parametrize(
    ("name", "rows", "cols", "block", "tile", "load", "store", "conflicts"),
    [
        ("tiled", 256, 256, (32, 8), 32, 1, 1, 0),
        ("tiled", 257, 255, (32, 8), 32, 1, 1, 0),
        ("unpadded", 256, 256, (32, 8), 32, 32, 1, 63_488),
        ("tile16x17", 256, 256, (16, 16), 16, 2, 2, 2048),
        ("tile16x16", 256, 256, (16, 16), 16, 8, 1, 7 * 2048),
    ],
)
def test_wavefronts_of_the_transposes(
    backend, programs, name, rows, cols, block, tile, load, store, conflicts
):
    found = transposed(backend, programs["transposes"], name, rows, cols, block, tile)
    assert found.shared_load.wavefronts_per_request == load
    assert found.shared_store.wavefronts_per_request == store
    assert found.shared_load.bank_conflicts == conflicts
    if (rows, cols) == (256, 256):
        assert found.shared_load.requests == 2048


def test_a_kernel_without_shared_memory_has_no_shared_ratios(backend, programs):
    found = transposed(backend, programs["transposes"], "naive", 256, 256, (32, 32), 32)
    assert found.shared_load.bank_conflicts == found.shared_load.requests == 0
    assert found.shared_load.wavefronts_per_request is None
    assert sorted(found.ratios()) == ["global_load.sectors_per_request", "global_store.sectors_per_request"]


def test_matmul(backend, programs):
    a, b = (np.random.default_rng(seed).random((64, 64), np.float32) for seed in (1, 2))
    c, sizes = backend.empty((64, 64), np.float32), [np.int32(64)] * 3
    arguments = [backend.to_device(a), backend.to_device(b), c, *sizes]
    found = count(programs["others"], "matmul", Geometry.of((4, 4, 1), (16, 16, 1)), arguments)
    assert np.allclose(c.get(), a @ b, rtol=1e-5)
    assert found.global_load.sectors_per_request == found.global_store.sectors_per_request == 4
    assert found.shared_load.bank_conflicts == found.shared_store.bank_conflicts == 0


@pytest.mark.parametrize(("name", "load"), [("coalesced", 4), ("strided", 32)])
def test_sums(backend, programs, name, load):
    values = np.random.default_rng(0).random(1 << 16, np.float32)
    partial = backend.empty((8,), np.float32)
    arguments = [backend.to_device(values), partial, np.int32(1 << 16)]
    found = count(programs["others"], name, Geometry.of((8, 1, 1), (256, 1, 1)), arguments)
    assert partial.get().sum() == pytest.approx(values.sum(), rel=1e-5)
    assert found.global_load.sectors_per_request == load
    assert found.global_store.sectors_per_request == 1
    assert found.shared_load.bank_conflicts == 0


def test_a_vector_access_is_one_request(backend, programs):
    """32 lanes of 16 bytes: 16 sectors, and 4 wavefronts, which is the least and hence no conflict."""
    host = np.arange(512, dtype=np.float32)
    src, dst = backend.to_device(host), backend.empty((512,), np.float32)
    found = count(programs["others"], "copy4", Geometry.of((2, 1, 1), (64, 1, 1)), [src, dst])
    assert np.array_equal(dst.get().reshape(2, -1), host.reshape(2, -1)[:, ::-1])
    assert found.global_load.requests == found.global_store.requests == 4
    assert found.global_load.sectors_per_request == found.global_store.sectors_per_request == 16
    assert found.shared_load.wavefronts_per_request == 4
    assert found.shared_load.bank_conflicts == found.shared_store.bank_conflicts == 0


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 2), (2, 4), (16, 32)])
def test_wide_shared_accesses_go_in_halves_of_a_warp(backend, programs, stride, wavefronts):
    src, dst = backend.to_device(np.zeros(64, np.float32)), backend.empty((64,), np.float32)
    arguments = [src, dst, np.int32(stride)]
    found = count(programs["others"], "copy2", Geometry.of((1, 1, 1), (32, 1, 1)), arguments)
    assert found.shared_load.wavefronts_per_request == wavefronts
    assert found.shared_load.bank_conflicts == wavefronts - 2


def test_bytes_of_one_word_share_its_bank(backend, programs):
    src, dst = backend.to_device(np.arange(64, dtype=np.uint8)), backend.empty((64,), np.uint8)
    found = count(programs["others"], "bytes", Geometry.of((1, 1, 1), (64, 1, 1)), [src, dst])
    assert found.global_load.sectors_per_request == 1
    assert found.shared_load.wavefronts_per_request == found.shared_store.wavefronts_per_request == 1


def test_atomics_are_neither_loads_nor_stores(backend, programs):
    src, counts = backend.to_device(np.zeros(32, np.int32)), backend.to_device(np.zeros(4, np.int32))
    found = count(programs["others"], "histogram", Geometry.of((1, 1, 1), (32, 1, 1)), [src, counts])
    assert (found.global_load.requests, found.global_store.requests) == (1, 0)
    assert counts.get()[0] == 32


def test_counters_do_not_depend_on_the_number_of_threads(programs, tmp_path):
    (tmp_path / "transposes.cu").write_text(TRANSPOSES)
    found = set()
    for threads in (1, 2, 3):
        backend = EmulatedBackend(threads=threads)
        program = backend.load(read(tmp_path / "transposes.cu"))
        for _ in range(2):
            found.add(transposed(backend, program, "unpadded", 257, 255, (32, 8), 32))
    assert len(found) == 1


def test_counting_nothing_is_an_error(backend, programs):
    """A kernel that had arrays and was seen to touch none: tracing was lost, or there was no work."""
    out = backend.empty((4,), np.float32)
    with pytest.raises(KernelError, match="kernel idle was given arrays and touched none of them"):
        count(programs["others"], "idle", Geometry.of((1, 1, 1), (32, 1, 1)), [out, np.int32(0)])
    assert count(programs["others"], "nothing", Geometry.of((1, 1, 1), (32, 1, 1)), []).ratios() == {}


def test_loads_of_different_iterations_are_different_requests(backend, programs):
    given = [backend.to_device(np.zeros(256, np.float32)), backend.empty((32,), np.float32), np.int32(2)]
    found = count(programs["others"], "one_lane_an_iteration", Geometry.of((1, 1, 1), (32, 1, 1)), given)
    assert (found.global_load.requests, found.global_load.sectors) == (2, 32)


def test_lanes_that_leave_a_loop_early_rejoin_behind_it(backend, programs):
    given = [backend.to_device(np.zeros(128, np.float32)), backend.empty((32,), np.float32), np.int32(3)]
    found = count(programs["others"], "uneven_loops", Geometry.of((1, 1, 1), (32, 1, 1)), given)
    assert found.global_load.requests == 3 * (4 + 1)


def test_a_structure_of_12_bytes_is_moved_in_three_requests(backend, programs):
    given = [backend.to_device(np.zeros(96, np.float32)), backend.empty((96,), np.float32)]
    found = count(programs["others"], "copy3", Geometry.of((1, 1, 1), (32, 1, 1)), given)
    assert (found.global_load.requests, found.global_load.sectors) == (3, 36)
    assert (found.global_store.requests, found.global_store.sectors) == (3, 36)


def test_counted_launches_share_variables_with_the_others(backend, programs):
    """Counters have a build of their own."""
    out, one = backend.to_device(np.zeros(1, np.int32)), Geometry.of((1, 1, 1), (1, 1, 1))
    programs["others"].launch("numbered", one, [out])
    first = int(out.get()[0])
    count(programs["others"], "numbered", one, [out])
    assert int(out.get()[0]) == first + 1
    programs["others"].launch("numbered", one, [out])
    assert int(out.get()[0]) == first + 2
