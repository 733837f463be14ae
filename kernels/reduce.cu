/*
 * The sum of n floats, as one partial sum a block; summing the partial sums with a second launch of one block
 * gives the total. Blocks of 256 threads or a smaller power of two (the tree halves the block until 1 is left).
 *
 * All kernels give every thread the same number of values. They differ in which: neighbouring threads take
 * neighbouring values (coalesced, 4 sectors a request), or each thread takes a contiguous chunk as a CPU thread
 * would (strided, 32 sectors a request as soon as a chunk is 8 floats long), or neighbouring threads take
 * neighbouring quadruples (vectorized, 16 sectors a request, and a quarter of the requests).
 */

/* Sums the block's values in shared memory; the result is thread 0's. Active threads are neighbours: no conflicts. */
static __device__ __forceinline__ void store_block_sum(float value, float *sums, float *partial)
{
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sums[0];
}

extern "C" __global__ void sum_coalesced(const float *values, float *partial, int n)
{
    __shared__ float sums[256];
    size_t threads = (size_t)blockDim.x * gridDim.x;
    float sum = 0.0f;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads)
        sum += values[i];
    store_block_sum(sum, sums, partial);
}

extern "C" __global__ void sum_strided(const float *values, float *partial, int n)
{
    __shared__ float sums[256];
    size_t threads = (size_t)blockDim.x * gridDim.x;
    size_t chunk = (n + threads - 1) / threads;
    size_t first = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * chunk;
    float sum = 0.0f;
    for (size_t i = first; i < n && i < first + chunk; ++i)
        sum += values[i];
    store_block_sum(sum, sums, partial);
}

/* values starts at a multiple of 16 bytes. Four sums a thread wait for nothing but their own last addition. */
extern "C" __global__ void sum_vectorized(const float *values, float *partial, int n)
{
    __shared__ float sums[256];
    const float4 *quads = (const float4 *)values;
    size_t threads = (size_t)blockDim.x * gridDim.x, first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t whole = n / 4;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
    for (size_t i = first; i < whole; i += threads) {
        float4 quad = quads[i];
        sum.x += quad.x;
        sum.y += quad.y;
        sum.z += quad.z;
        sum.w += quad.w;
    }
    for (size_t i = 4 * whole + first; i < n; i += threads)
        sum.x += values[i];
    store_block_sum((sum.x + sum.y) + (sum.z + sum.w), sums, partial);
}
