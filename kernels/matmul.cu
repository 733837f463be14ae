/*
 * C = A B in float32, row-major: a is m x k, b is k x n, c is m x n. k may be 0: c is then all zeros.
 *
 * The naive kernel reads each element of A n times and each of B m times from global memory. The tiled one
 * brings a 32x32 square of each into shared memory once per block and uses every element 32 times there. The
 * blocked one uses each word that it fetches from shared memory eight times more, in registers.
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

/*
 * Block 256, a 128x128 square of C each: a thread sums 8x8 elements, in four squares of 4x4 that lie 64 apart, so
 * that a warp's four-word fetches from shared memory meet no bank twice. 16 words of A and B give 64 products. The
 * next tiles are on their way from global memory while these are used. A's tile lies transposed, its rows padded
 * by four words. Tiles that lie within the matrices are loaded without checks, which were a tenth of the time.
 */
#define EDGE 128
#define DEPTH 16
#define THREADS 256
#define EACH (EDGE * DEPTH / THREADS) /* words of each tile that a thread brings */

extern "C" __global__ void __launch_bounds__(THREADS, 2)
matmul_blocked(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ float a_tile[DEPTH][EDGE + 4];
    __shared__ float b_tile[DEPTH][EDGE];
    int thread = threadIdx.x;
    int top = blockIdx.y * EDGE, left = blockIdx.x * EDGE;
    int tx = thread % 16 * 4, ty = thread / 16 * 4;
    /* A warp brings 8 columns of 4 rows: a sector each from global memory, and no bank twice. */
    int a_col = thread % 8 + thread / 32 % 2 * 8, a_row = thread % 32 / 8 + thread / 64 * 4;
    int b_col = thread % EDGE, b_row = thread / EDGE;
    bool inside = top + EDGE <= m && left + EDGE <= n;
    float a_next[EACH], b_next[EACH];
    float sum[8][8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
            sum[i][j] = 0.0f;

    for (int first = -DEPTH; first < k; first += DEPTH) {
        int next = first + DEPTH;
        if (inside && next + DEPTH <= k) {
#pragma unroll
            for (int j = 0; j < EACH; ++j) {
                a_next[j] = a[(size_t)(top + a_row + j * (THREADS / DEPTH)) * k + next + a_col];
                b_next[j] = b[(size_t)(next + b_row + j * (THREADS / EDGE)) * n + left + b_col];
            }
        } else {
#pragma unroll
            for (int j = 0; j < EACH; ++j) {
                int row = top + a_row + j * (THREADS / DEPTH), inner = next + b_row + j * (THREADS / EDGE);
                a_next[j] = row < m && next + a_col < k ? a[(size_t)row * k + next + a_col] : 0.0f;
                b_next[j] = inner < k && left + b_col < n ? b[(size_t)inner * n + left + b_col] : 0.0f;
            }
        }
        if (first >= 0)
#pragma unroll
            for (int i = 0; i < DEPTH; ++i) {
                float p[8], q[8];
#pragma unroll
                for (int j = 0; j < 8; j += 4) {
                    *(float4 *)&p[j] = *(const float4 *)&a_tile[i][ty + 16 * j];
                    *(float4 *)&q[j] = *(const float4 *)&b_tile[i][tx + 16 * j];
                }
#pragma unroll
                for (int r = 0; r < 8; ++r)
#pragma unroll
                    for (int s = 0; s < 8; ++s)
                        sum[r][s] += p[r] * q[s];
            }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            a_tile[a_col][a_row + j * (THREADS / DEPTH)] = a_next[j];
            b_tile[b_row + j * (THREADS / EDGE)][b_col] = b_next[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int row = top + ty + i % 4 + i / 4 * 64;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            int col = left + tx + j % 4 + j / 4 * 64;
            if (row < m && col < n)
                c[(size_t)row * n + col] = sum[i][j];
        }
    }
}
