/*
 * n vectors of m floats, one vector a thread, in two storages.
 *
 * Linear: vector v is contiguous, its element i at v * m + i. Natural on a CPU; on a GPU the 32 lanes of a warp
 * read 32 places m floats apart, 32 sectors a request as soon as m >= 8.
 *
 * Coalesced: block by block, with bd = blockDim.x and bx = blockIdx.x, element i of the vector of thread tx is
 *
 *     m * bd * bx + i * bd + tx
 *
 * so that the lanes of a warp read neighbours: 4 sectors. The storage has ceil(n / bd) * bd * m floats: where n
 * is no multiple of bd, the last block's missing vectors are zeros. Every kernel here takes one-dimensional
 * blocks and ceil(n / bd) of them, and the layout belongs to that bd.
 */

static __device__ __forceinline__ size_t coalesced_index(int i, int m)
{
    return (size_t)m * blockDim.x * blockIdx.x + (size_t)i * blockDim.x + threadIdx.x;
}

extern "C" __global__ void linear_to_coalesced(const float *linear, float *coalesced, int n, int m)
{
    int v = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = 0; i < m; ++i)
        coalesced[coalesced_index(i, m)] = v < n ? linear[(size_t)v * m + i] : 0.0f;
}

extern "C" __global__ void coalesced_to_linear(const float *coalesced, float *linear, int n, int m)
{
    int v = blockIdx.x * blockDim.x + threadIdx.x;
    if (v < n)
        for (int i = 0; i < m; ++i)
            linear[(size_t)v * m + i] = coalesced[coalesced_index(i, m)];
}

/* sums[v] = the sum of vector v, added from its first element to its last: both storages give equal bits. */
extern "C" __global__ void row_sums_linear(const float *linear, float *sums, int n, int m)
{
    int v = blockIdx.x * blockDim.x + threadIdx.x;
    if (v >= n)
        return;
    float sum = 0.0f;
    for (int i = 0; i < m; ++i)
        sum += linear[(size_t)v * m + i];
    sums[v] = sum;
}

extern "C" __global__ void row_sums_coalesced(const float *coalesced, float *sums, int n, int m)
{
    int v = blockIdx.x * blockDim.x + threadIdx.x;
    if (v >= n)
        return;
    float sum = 0.0f;
    for (int i = 0; i < m; ++i)
        sum += coalesced[coalesced_index(i, m)];
    sums[v] = sum;
}
