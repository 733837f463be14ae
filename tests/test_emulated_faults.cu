// One kernel for each thing that a kernel may not do; the line that does it ends with the kernel's name.

extern "C" __global__ void good(float *dst) { dst[threadIdx.x] = threadIdx.x; }

extern "C" __global__ void past_the_end(const float *src, float *dst, int rows, int cols)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < cols)
        dst[x * rows + y] = src[y * cols + x]; // past_the_end
}
extern "C" __global__ void before_the_start(const float *src, float *dst)
{
    dst[threadIdx.x] = src[(int)threadIdx.x - 1]; // before_the_start
}
extern "C" __global__ void across_the_end(const float4 *src, float *dst)
{
    float4 v = src[threadIdx.x]; // across_the_end
    dst[threadIdx.x] = v.x + v.w;
}
extern "C" __global__ void null_pointer(float *dst, long long address)
{
    dst[0] = *(const float *)address; // null_pointer
}
extern "C" __global__ void through_table(const unsigned long long *table, float *dst)
{
    dst[threadIdx.x] = ((const float *)table[0])[threadIdx.x]; // through_table
}
extern "C" __global__ void block_copy(float *dst, int n)
{
    memset(dst, 0, n * sizeof(float)); // block_copy
}
extern "C" __global__ void atomic(int *counts, int i)
{
    atomicAdd(counts + i, 1); // atomic
}
extern "C" __global__ void misaligned(const float *src, float4 *dst)
{
    dst[0] = *(const float4 *)(src + 1); // misaligned
}
extern "C" __global__ void through_ldg(const float *src, float *dst)
{
    dst[threadIdx.x] = __ldg(src + threadIdx.x + 2); // through_ldg
}

extern "C" __global__ void after_many(const char *src, float *dst, const int *at, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += *(const float *)(src + at[i]); // after_many
    dst[0] = sum;
}
extern "C" __global__ void bytes_after_many(const char *src, float *dst, const int *at, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += src[at[i]]; // bytes_after_many
    dst[0] = sum;
}

extern "C" __global__ void shared_overrun(float *dst, int i)
{
    __shared__ float first[32];
    __shared__ float second[32];
    first[threadIdx.x] = 1;
    second[threadIdx.x] = 2;
    __syncthreads();
    dst[threadIdx.x] = first[(int)threadIdx.x + i] + second[threadIdx.x]; // shared_overrun
}
extern "C" __global__ void dynamic_overrun(float *dst)
{
    extern __shared__ float buffer[];
    buffer[threadIdx.x + 1] = 1; // dynamic_overrun
    __syncthreads();
    dst[threadIdx.x] = buffer[threadIdx.x];
}

extern "C" __global__ void lost_barrier(const float *src, float *dst)
{
    __shared__ float tile[8][8];
    tile[threadIdx.y][threadIdx.x] = src[threadIdx.y * 8 + threadIdx.x]; // lost_barrier
    dst[threadIdx.y * 8 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}
extern "C" __global__ void lost_second_barrier(const float *src, float *dst, int steps)
{
    __shared__ float row[64];
    float sum = 0;
    for (int i = 0; i < steps; i++) {
        row[threadIdx.x] = src[i * 64 + threadIdx.x];
        __syncthreads();
        sum += row[63 - threadIdx.x]; // lost_second_barrier
    }
    dst[threadIdx.x] = sum;
}
extern "C" __global__ void lost_warp_barrier(float *dst)
{
    __shared__ float s[32];
    s[threadIdx.x] = threadIdx.x; // lost_warp_barrier
    dst[threadIdx.x] = s[31 - threadIdx.x];
}
extern "C" __global__ void unequal_stores(int *dst)
{
    __shared__ int winner;
    winner = threadIdx.x / 2; // unequal_stores
    __syncthreads();
    dst[threadIdx.x] = winner;
}
extern "C" __global__ void atomic_and_plain(int *dst)
{
    __shared__ int sum;
    sum = 0; // atomic_and_plain
    atomicAdd(&sum, 1);
    dst[threadIdx.x] = 0;
}

extern "C" __global__ void two_barriers(float *dst, int n)
{
    if (threadIdx.x < n)
        __syncthreads(); // two_barriers
    else
        __syncthreads();
    dst[threadIdx.x] = 1;
}

extern "C" __global__ void lane_elsewhere(float *dst)
{
    float v = 1;
    if (threadIdx.x < 16)
        v = __shfl_down_sync(0xffffffffu, v, 1); // lane_elsewhere
    __syncthreads();
    dst[threadIdx.x] = v;
}
extern "C" __global__ void lane_returned(float *dst)
{
    if (threadIdx.x == 7) return;
    dst[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.0f, 1); // lane_returned
}
extern "C" __global__ void lane_missing(float *dst)
{
    dst[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.0f, 16); // lane_missing
}
extern "C" __global__ void width_no_power(float *dst)
{
    int width = dst[0] == 1 ? 32 : 12;
    dst[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1, width); // width_no_power
}
extern "C" __global__ void lane_not_in_mask(float *dst)
{
    __syncwarp(0xfu); // lane_not_in_mask
    dst[threadIdx.x] = 1;
}

extern "C" __global__ void endless_quiet(int *dst, unsigned step)
{
    unsigned i = threadIdx.x;
    while (i != 1000001)
        i = i * 2 * step; // endless_quiet
    dst[threadIdx.x] = i;
}
extern "C" __global__ void endless_busy(volatile int *dst)
{
    while (dst[0] != 5) // endless_busy
        dst[1] = 0;
}
extern "C" __global__ void endless_barrier(int *dst)
{
    while (true)
        __syncthreads(); // endless_barrier
}
extern "C" __global__ void endless_lock(int *lock)
{
    while (atomicCAS(lock, 0, 1) != 0) { } // endless_lock
}

extern "C" __global__ void division(int *dst, int by)
{
    dst[threadIdx.x] = 7 / (by - (int)threadIdx.x); // division
}
extern "C" __global__ void shifted(int *dst, int by)
{
    dst[threadIdx.x] = 3 << by - (int)threadIdx.x; // shifted
}
__device__ __noinline__ int deep(int n, volatile char *above)
{
    volatile char here[1024];
    here[0] = *above; // deep_recursion
    return n ? deep(n - 1, here) + here[0] : 0;
}
extern "C" __global__ void deep_recursion(int *dst, int n, int first)
{
    volatile char *top = (volatile char *)__builtin_alloca(first);
    top[0] = 1;
    dst[0] = deep(n, top);
}
extern "C" __global__ void wild_jump(long long address)
{
    ((void (*)())address)();
}
extern "C" __global__ void asserted(const int *src)
{
    assert(src[threadIdx.x] < 5); // asserted
}
extern "C" __global__ void trapped(int n)
{
    if (threadIdx.x == n) __trap(); // trapped
}
extern "C" __global__ void local_of_another(int *dst)
{
    __shared__ int *pointer;
    int mine = threadIdx.x;
    if (threadIdx.x == 0) pointer = &mine;
    __syncthreads();
    dst[threadIdx.x] = *pointer; // local_of_another
}
