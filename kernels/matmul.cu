/*
 * C = A B in float32, row-major: a is m x k, b is k x n, c is m x n. k may be 0: c is then all zeros.
 *
 * The naive kernel reads each element of A n times and each of B m times from global memory. The tiled one
 * brings a 32x32 square of each into shared memory once per block and uses every element 32 times there.
 */

/* A thread an element; x walks over columns, so B and C are coalesced and A is one word for the whole row. */
extern "C" __global__ void matmul_naive(const float *a, const float *b, float *c, int m, int n, int k)
{
    int col = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row >= m || col >= n)
        return;
    float sum = 0.0f;
    for (int i = 0; i < k; ++i)
        sum += a[(size_t)row * k + i] * b[(size_t)i * n + col];
    c[(size_t)row * n + col] = sum;
}

/*
 * Block 32x8, a 32x32 square of C each: a thread sums four rows of one column, so that each element of B it
 * fetches from shared memory serves four products. No padding is needed: a warp reads one row of B (32 banks)
 * and one single element of A (a broadcast). Beyond the edges the tiles hold zeros, which add nothing.
 */
extern "C" __global__ void matmul_tiled(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ float a_tile[32][32];
    __shared__ float b_tile[32][32];
    int tx = threadIdx.x, ty = threadIdx.y;
    int col = blockIdx.x * 32 + tx;
    int row = blockIdx.y * 32 + ty;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int first = 0; first < k; first += 32) {
#pragma unroll
        for (int j = 0; j < 32; j += 8) {
            bool a_inside = row + j < m && first + tx < k;
            bool b_inside = first + ty + j < k && col < n;
            a_tile[ty + j][tx] = a_inside ? a[(size_t)(row + j) * k + first + tx] : 0.0f;
            b_tile[ty + j][tx] = b_inside ? b[(size_t)(first + ty + j) * n + col] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 32; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                sum[j] += a_tile[ty + 8 * j][i] * b_tile[i][tx];
        __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (row + 8 * j < m && col < n)
            c[(size_t)(row + 8 * j) * n + col] = sum[j];
}
