// What is more than the language: barriers of a grid, asynchronous copies, CUB (test_emulated_toolkit.py).
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cub/cub.cuh>
#include <cuda_pipeline.h>
#include <cuda/functional>

namespace cg = cooperative_groups;

extern "C" __global__ void smoothed(float *a, float *b, int n, int steps, int forget)
{
    cg::grid_group grid = cg::this_grid();
    for (int s = 0; s < steps; s++) {
        for (int i = grid.thread_rank(); i < n; i += grid.size())
            b[i] = 0.5f * (a[(i + 1) % n] + a[(i + n - 1) % n]);
        grid.sync(); // smoothed
        for (int i = grid.block_rank() * blockDim.x + threadIdx.x; i < n; i += grid.num_blocks() * blockDim.x)
            a[i] = b[i]; // forgotten
        if (!forget) cg::sync(grid);
    }
}

extern "C" __global__ void doubled(const float *x, float *o, int n, int forget)
{
    __shared__ alignas(16) float tile[2][64];
    auto block = cg::this_thread_block();
    cg::memcpy_async(block, tile[0], x, sizeof(float) * 64);
    for (int i = 0; i < n; i++) {
        if (i + 1 < n) {
            cg::memcpy_async(block, tile[(i + 1) % 2], x + (i + 1) * 64, 256);
            if (!forget) cg::wait_prior<1>(block);
        } else {
            cg::wait(block);
        }
        o[i * 64 + threadIdx.x] = 2 * tile[i % 2][63 - threadIdx.x]; // doubled
        block.sync();
    }
}
extern "C" __global__ void staged(const float *x, float *o, int n, int forget)
{
    __shared__ alignas(16) float4 mine[2][32];
    int t = threadIdx.x;
    for (int s = 0; s < 2; s++) {
        __pipeline_memcpy_async(&mine[s][t], x + s * 128 + 4 * t, 16, t == 31 ? 8 : 0); // beyond
        __pipeline_commit();
    }
    for (int s = 0; s < 2; s++) {
        if (!forget) s ? __pipeline_wait_prior(0) : __pipeline_wait_prior(1);
        float4 v = mine[s][t]; // staged
        o[s * 32 + t] = v.x + v.y + v.z + v.w;
    }
}

template <class T, class Operation>
__device__ void of_a_block(const int *x, int *o, Operation operation, typename cub::BlockReduce<T, 64>::TempStorage &storage)
{
    int t = threadIdx.x, pair[2] = {x[t], x[t] + 1};
    int found = cub::BlockReduce<T, 64>(storage).Reduce(pair, operation);
    if (t == 0) o[0] = found;
    __syncthreads();
    found = cub::BlockReduce<T, 64>(storage).Sum(x[t], 10);
    if (t == 0) o[1] = found;
}
extern "C" __global__ void reduced_and_scanned(const int *x, int *o)
{
    __shared__ union {
        cub::BlockReduce<int, 64>::TempStorage reduce;
        cub::BlockScan<int, 64>::TempStorage scan;
    } storage;
    int t = threadIdx.x, total, pair[2] = {x[t], 1};
    of_a_block<int>(x, o, cuda::maximum<>(), storage.reduce);
    __syncthreads();
    cub::BlockScan<int, 64>(storage.scan).InclusiveSum(x[t], o[64 + t], total);
    o[128 + t] = total;
    __syncthreads();
    cub::BlockScan<int, 64>(storage.scan).ExclusiveScan(x[t], o[192 + t], 5, cuda::maximum<>());
    __syncthreads();
    cub::BlockScan<int, 64>(storage.scan).ExclusiveSum(pair, pair);
    o[256 + t] = pair[1];
    __shared__ cub::WarpReduce<int>::TempStorage warp[2];
    __shared__ cub::WarpScan<int, 8>::TempStorage eight[8];
    int sum = cub::WarpReduce<int>(warp[t / 32]).Sum(x[t]);
    if (t % 32 == 0) o[2 + t / 32] = sum;
    cub::WarpScan<int, 8>(eight[t / 8]).ExclusiveSum(x[t], o[320 + t]);
    cub::WarpScan<int, 8>(eight[t / 8]).InclusiveScan(x[t], o[384 + t], cuda::minimum<>());
}
extern "C" __global__ void storage_used_again(const int *x, int *o)
{
    __shared__ cub::BlockReduce<int, 64>::TempStorage storage;
    int first = cub::BlockReduce<int, 64>(storage).Sum(x[threadIdx.x]);
    int second = cub::BlockReduce<int, 64>(storage).Sum(x[threadIdx.x] + 1);
    if (threadIdx.x == 0) o[0] = first + second;
}
extern "C" __global__ void elected(int *o)
{
    int t = threadIdx.x;
    auto warp = cg::tiled_partition<32>(cg::this_thread_block());
    auto group = cg::labeled_partition(warp, t % 3);
    o[t] = 100 * group.size() + cg::thread_rank(group) + 10000 * cg::this_thread().size();
    cg::invoke_one(group, [&](int more) { atomicAdd(&o[32 + t % 3], t % 3 + more); }, 5);
    o[35 + t] = cg::invoke_one_broadcast(group, [&] { return 7 + t % 3; });
}
