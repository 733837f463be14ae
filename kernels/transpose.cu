/*
 * Transpose of a row-major float32 matrix: dst[x][y] = src[y][x], src is rows x cols, dst is cols x rows.
 *
 * A transpose does no arithmetic, so the memory system alone decides its time. A warp's 32 loads or stores
 * go to DRAM in sectors of 32 bytes: 32 neighbouring floats are 4 sectors, 32 floats a row apart are 32.
 * One side of a transpose is always the wrong way round, so the matrix goes through shared memory in square
 * tiles: both global accesses run along rows, and the turn happens on chip.
 *
 * Shared memory has 32 banks of 4 bytes; lanes of a warp that want different words of one bank wait for each
 * other. Reading a column of a 32-wide tile puts all 32 lanes on one bank. One unused column (the +1 below)
 * moves each row on by one bank, and the column then lies in 32 different banks.
 *
 * Grid: x walks over the columns of src, y over its rows, one block a tile, the last ones rounded up. CUDA
 * allows 65,535 blocks in y: up to 1,048,560 rows in tiles of 16, 4,194,240 in tiles of 64.
 */

/* Coalesced loads, stores a column apart: 32 sectors a request. Any two-dimensional block. */
extern "C" __global__ void transpose_naive(const float *src, float *dst, int rows, int cols)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < cols && y < rows)
        dst[(size_t)x * rows + y] = src[(size_t)y * cols + x];
}

/*
 * Block 16x16. A warp covers two rows of the tile, so a request touches two runs of 64 bytes: still 4 sectors.
 * The padding is not enough here: with rows of 17 words, the first word of one row and the last of the next lie
 * on one bank, hence 2 wavefronts for each shared load and store.
 */
extern "C" __global__ void transpose_tile16(const float *src, float *dst, int rows, int cols)
{
    __shared__ float tile[16][16 + 1];
    int x = blockIdx.x * 16 + threadIdx.x;
    int y = blockIdx.y * 16 + threadIdx.y;
    if (x < cols && y < rows)
        tile[threadIdx.y][threadIdx.x] = src[(size_t)y * cols + x];
    __syncthreads();
    x = blockIdx.y * 16 + threadIdx.x;
    y = blockIdx.x * 16 + threadIdx.y;
    if (x < rows && y < cols)
        dst[(size_t)y * rows + x] = tile[threadIdx.x][threadIdx.y];
}

/*
 * The same without padding. Storing a tile is now free of conflicts (two rows of 16 words are the 32 banks),
 * but reading a column takes 8 wavefronts: 16 rows lie on 2 banks, and the warp reads two columns.
 */
extern "C" __global__ void transpose_tile16_unpadded(const float *src, float *dst, int rows, int cols)
{
    __shared__ float tile[16][16];
    int x = blockIdx.x * 16 + threadIdx.x;
    int y = blockIdx.y * 16 + threadIdx.y;
    if (x < cols && y < rows)
        tile[threadIdx.y][threadIdx.x] = src[(size_t)y * cols + x];
    __syncthreads();
    x = blockIdx.y * 16 + threadIdx.x;
    y = blockIdx.x * 16 + threadIdx.y;
    if (x < rows && y < cols)
        dst[(size_t)y * rows + x] = tile[threadIdx.x][threadIdx.y];
}

/*
 * Block 32x8, tile 32x32: a warp is exactly one row, so the padding removes every conflict. Four rows a thread
 * keep four loads in flight at once, which a block of 32x32 threads with one row each cannot.
 */
extern "C" __global__ void transpose_tiled(const float *src, float *dst, int rows, int cols)
{
    __shared__ float tile[32][32 + 1];
    int x = blockIdx.x * 32 + threadIdx.x;
    int y = blockIdx.y * 32 + threadIdx.y;
#pragma unroll
    for (int j = 0; j < 32; j += 8)
        if (x < cols && y + j < rows)
            tile[threadIdx.y + j][threadIdx.x] = src[(size_t)(y + j) * cols + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    y = blockIdx.x * 32 + threadIdx.y;
#pragma unroll
    for (int j = 0; j < 32; j += 8)
        if (x < rows && y + j < cols)
            dst[(size_t)(y + j) * rows + x] = tile[threadIdx.x][threadIdx.y + j];
}

/*
 * transpose_best: 64x64 tiles, 16 bytes a global access, no bank conflicts.
 *
 * Each of 16x16 threads loads four float4, all in flight at once: a quarter of transpose_tiled's global
 * instructions, each moving 512 bytes (16 sectors) a warp. That needs a matrix that starts on a multiple of 16
 * bytes and has rows of a multiple of 4 floats, and a tile that lies inside it; any other tile goes element by
 * element. The two sides decide for themselves, as rows and cols may differ in this.
 *
 * Shared memory takes the four floats one by one, into rows of 64 + 1 words. Thread tx of tile row ty writes
 * its element k to bank (4 tx + k + ty) mod 32, so tx and tx + 8 would meet on one bank. The upper eight
 * therefore begin with their elements 2 and 3: at each step the warp's two rows and two halves then use the
 * offsets 0, 1, 2 and 3 behind each multiple of four, which is every bank once. Reading back, the column takes
 * the place of the row, and the same order does the same.
 */

/* Four elements of a row from column col on; beyond the edge nothing is read. */
static __device__ __forceinline__ float4 load4(const float *m, int row, int col, int rows, int cols)
{
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < 4; ++k)
        if (row < rows && col + k < cols)
            v[k] = m[(size_t)row * cols + col + k];
    return make_float4(v[0], v[1], v[2], v[3]);
}

static __device__ __forceinline__ void store4(float *m, int row, int col, int rows, int cols, float4 value)
{
    float v[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (int k = 0; k < 4; ++k)
        if (row < rows && col + k < cols)
            m[(size_t)row * cols + col + k] = v[k];
}

/* Block 16x16, tile 64x64. */
extern "C" __global__ void transpose_best(const float *src, float *dst, int rows, int cols)
{
    __shared__ float tile[64][64 + 1];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * 64, col = blockIdx.x * 64;
    bool inside = row + 64 <= rows && col + 64 <= cols;
    bool wide_src = inside && cols % 4 == 0 && (size_t)src % 16 == 0;
    bool wide_dst = inside && rows % 4 == 0 && (size_t)dst % 16 == 0;
    bool upper = tx >= 8;
    int first = upper ? 2 : 0, second = upper ? 0 : 2;
    float4 v[4];

#pragma unroll
    for (int j = 0; j < 4; ++j)
        v[j] = wide_src ? *(const float4 *)(src + (size_t)(row + ty + 16 * j) * cols + col + tx * 4)
                        : load4(src, row + ty + 16 * j, col + tx * 4, rows, cols);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float *t = &tile[ty + 16 * j][tx * 4];
        t[first] = upper ? v[j].z : v[j].x;
        t[first + 1] = upper ? v[j].w : v[j].y;
        t[second] = upper ? v[j].x : v[j].z;
        t[second + 1] = upper ? v[j].y : v[j].w;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        int column = ty + 16 * j;
        float a = tile[tx * 4 + first][column];
        float b = tile[tx * 4 + first + 1][column];
        float c = tile[tx * 4 + second][column];
        float d = tile[tx * 4 + second + 1][column];
        float4 out = make_float4(upper ? c : a, upper ? d : b, upper ? a : c, upper ? b : d);
        if (wide_dst)
            *(float4 *)(dst + (size_t)(col + column) * rows + row + tx * 4) = out;
        else
            store4(dst, col + column, row + tx * 4, cols, rows, out);
    }
}

/*
 * transpose_quads: a thread turns 4x4 floats in its registers, so that shared memory, too, is read and written
 * 16 bytes at a time: a quarter of transpose_best's shared instructions, and no padding. 128 threads a tile hold
 * four such quads each, sixteen loads in flight, and a warp loads 512 bytes of one row. Registers for six blocks
 * of them on a multiprocessor are enough as long as tiles at an edge are a function of their own.
 *
 * The tile lies in shared memory turned, a column of src a row of float4. Eight lanes are served at once, and 16
 * bytes are four banks: eight neighbouring lanes must meet eight float4 whose places differ modulo 8. Writing,
 * they hold one row of quads and eight columns of them; reading, eight quads of one column. Quad r of column c
 * lies at r ^ (c / 4 % 16), a different place modulo 8 in both.
 */

/* The quads first, first + 4, ... of columns 4c to 4c + 3. */
static __device__ __forceinline__ void put_turned(float4 (*turned)[16], const float4 (*v)[4], int c, int first)
{
#pragma unroll
    for (int p = 0; p < 4; ++p) {
        int r = (first + 4 * p) ^ (c % 16);
        turned[4 * c][r] = make_float4(v[p][0].x, v[p][1].x, v[p][2].x, v[p][3].x);
        turned[4 * c + 1][r] = make_float4(v[p][0].y, v[p][1].y, v[p][2].y, v[p][3].y);
        turned[4 * c + 2][r] = make_float4(v[p][0].z, v[p][1].z, v[p][2].z, v[p][3].z);
        turned[4 * c + 3][r] = make_float4(v[p][0].w, v[p][1].w, v[p][2].w, v[p][3].w);
    }
}

/* A tile that is not whole, or not of whole float4, element by element. */
static __device__ __noinline__ void transpose_quads_edge(const float *src, float *dst, int rows, int cols, int row,
                                                         int col, float4 (*turned)[16])
{
    int c = threadIdx.x % 32, first = threadIdx.x / 32;
    float4 v[4][4];

#pragma unroll
    for (int p = 0; p < 4; ++p)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            v[p][k] = load4(src, row + 4 * (first + 4 * p) + k, col + 4 * c, rows, cols);
    put_turned(turned, v, c, first);
    __syncthreads();
    c = threadIdx.x % 16;
    for (int column = threadIdx.x / 16; column < 128; column += 8)
        store4(dst, col + column, row + 4 * c, cols, rows, turned[column][c ^ (column / 4 % 16)]);
}

/* Block 128, tile of 64 rows and 128 columns. */
extern "C" __global__ void __launch_bounds__(128, 6) transpose_quads(const float *src, float *dst, int rows, int cols)
{
    __shared__ float4 turned[128][16];
    int row = blockIdx.y * 64, col = blockIdx.x * 128;
    bool whole = row + 64 <= rows && col + 128 <= cols;
    if (!whole || (rows | cols) % 4 || ((size_t)src | (size_t)dst) % 16) {
        transpose_quads_edge(src, dst, rows, cols, row, col, turned);
        return;
    }
    int c = threadIdx.x % 32, first = threadIdx.x / 32;
    const float4 *from = (const float4 *)(src + (size_t)(row + 4 * first) * cols + col) + c;
    float4 v[4][4];

#pragma unroll
    for (int p = 0; p < 4; ++p)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            v[p][k] = from[(size_t)(16 * p + k) * (cols / 4)];
    put_turned(turned, v, c, first);
    __syncthreads();
    c = threadIdx.x % 16;
    first = threadIdx.x / 16;
    float4 *to = (float4 *)(dst + (size_t)(col + first) * rows + row) + c;
#pragma unroll
    for (int j = 0; j < 16; ++j)
        to[(size_t)(8 * j) * (rows / 4)] = turned[first + 8 * j][c ^ ((first + 8 * j) / 4 % 16)];
}
