// Kernels with a bug, and kernels that look like it and are right (test_emulated_races.py). The line that a
// report must name ends with the kernel's name.

__device__ char small;
__device__ int table[4];
__constant__ int fixed[4] = {1, 2, 3, 4};
static __device__ int filled[4] = {1, 2, 3, 4};
__device__ unsigned arrived, waiting, ticket;

// ---- bugs ----

extern "C" __global__ void histogram(const int *x, int *bins, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        bins[x[i]] += 1; // histogram
}
extern "C" __global__ void merge(const int *x, int *bins, int n)
{
    __shared__ int local[8];
    if (threadIdx.x < 8) local[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[x[i]], 1);
    __syncthreads();
    if (threadIdx.x < 8)
        bins[threadIdx.x] += local[threadIdx.x]; // merge
}
extern "C" __global__ void block_sum(const float *x, float *sum)
{
    float v = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int d = 16; d; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    if (threadIdx.x == 0)
        *sum += v; // block_sum
}
extern "C" __global__ void tree_without_barrier(float *x)
{
    for (int d = blockDim.x; d; d >>= 1)
        if (threadIdx.x < d)
            x[threadIdx.x] += x[threadIdx.x + d]; // tree_without_barrier
}
extern "C" __global__ void stencil_in_place(float *x, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i > 0 && i < n - 1)
        x[i] = (x[i - 1] + x[i + 1]) / 2; // stencil_in_place
}
extern "C" __global__ void swap_from_both_ends(float *x, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float mine = x[i];
    x[i] = x[n - 1 - i];
    x[n - 1 - i] = mine; // swap_from_both_ends
}
extern "C" __global__ void last_block_without_fence(float *parts, float *sum)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = blockIdx.x + 1;
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0)
        for (int i = 0; i < gridDim.x; i++)
            *sum += parts[i]; // last_block_without_fence
}
extern "C" __global__ void lock_missing_once(int *lock, int *sum)
{
    if (blockIdx.x % 2) {
        while (atomicCAS(lock, 0, 1)) { }
        *sum += 1;
        __threadfence();
        atomicExch(lock, 0);
    } else
        *sum += 1; // lock_missing_once
}
extern "C" __global__ void cleared_by_the_first_block(int *sum)
{
    if (blockIdx.x == 0 && threadIdx.x == 0) *sum = 0;
    atomicAdd(sum, 1); // cleared_by_the_first_block
}
extern "C" __global__ void never_filled(const float *x, float *out)
{
    __shared__ float s[64];
    if (threadIdx.x < 32) s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < 32)
        out[threadIdx.x] = fmaxf(s[threadIdx.x], s[threadIdx.x + 32]); // never_filled
}
extern "C" __global__ void counted_without_zero(int *out)
{
    __shared__ int n;
    atomicAdd(&n, 1); // counted_without_zero
    __syncthreads();
    out[threadIdx.x] = n;
}
extern "C" __global__ void words_and_bytes(int *out)
{
    __shared__ unsigned s[64];
    s[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = ((unsigned char *)s)[(63 - threadIdx.x) * 4 + 1]; // words_and_bytes
}
extern "C" __global__ void shorts_and_words(int *out)
{
    __shared__ short s[64];
    s[threadIdx.x] = threadIdx.x;
    if (threadIdx.x < 32)
        out[threadIdx.x] = ((int *)s)[31 - threadIdx.x]; // shorts_and_words
}
extern "C" __global__ void bytes_in_global(unsigned char *x)
{
    x[threadIdx.x] = x[threadIdx.x + 1] + 1; // bytes_in_global
}
extern "C" __global__ void half_a_syncwarp(int *out)
{
    __shared__ int s[16];
    int t = threadIdx.x;
    if (t >= 16) s[t - 16] = t;
    if (t < 16) {
        __syncwarp(0xffff);
        out[t] = s[t]; // half_a_syncwarp
    }
}
extern "C" __global__ void lockstep(volatile float *unused, float *out)
{
    __shared__ volatile float s[64];
    s[threadIdx.x] = threadIdx.x;
    s[threadIdx.x + 32] = 0;
    s[threadIdx.x] += s[threadIdx.x + 16]; // lockstep
    out[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void many_readers(int *out)
{
    __shared__ int s[1];
    int t = threadIdx.x;
    if (t == 0) s[0] = 1;
    __syncthreads();
    int v = s[0];
    if (t == 40)
        s[0] = 2; // many_readers
    out[t] = v;
}
extern "C" __global__ void past_a_device_array(int *out, int i)
{
    table[i] = 9; // past_a_device_array
    out[0] = table[0];
}
extern "C" __global__ void past_a_constant_array(int *out, int i)
{
    out[0] = fixed[i]; // past_a_constant_array
}
extern "C" __global__ void past_a_static_array(int *out, int i)
{
    out[0] = filled[i]; // past_a_static_array
}
extern "C" __global__ void __launch_bounds__(32 * 2, 1) bounded(int *out) // bounded
{
    out[threadIdx.x] = 1;
}
__device__ int seen_by_all;
extern "C" __global__ void device_variable(int *out)
{
    seen_by_all = threadIdx.x; // device_variable
    out[threadIdx.x] = 0;
}
extern "C" __global__ void not_resident(int *out)
{
    if (threadIdx.x == 0) {
        atomicAdd(&waiting, 1u);
        while (atomicAdd(&waiting, 0u) < gridDim.x) { } // not_resident
    }
    out[blockIdx.x] = 1;
}

// ---- right ----

extern "C" __global__ void equal_values(int *level, int *changed)
{
    level[threadIdx.x / 4] = 3;
    *changed = 1;
}
extern "C" __global__ void last_block(float *parts, float *sum)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = blockIdx.x + 1;
        __threadfence();
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float s = 0;
        for (int i = 0; i < gridDim.x; i++) s += parts[i];
        *sum = s;
    }
}
extern "C" __global__ void look_back(const int *x, int *inclusive, volatile int *flags, int *out)
{
    if (threadIdx.x == 0) {
        int before = 0;
        if (blockIdx.x > 0) {
            while (flags[blockIdx.x - 1] == 0) { }
            before = inclusive[blockIdx.x - 1];
        }
        inclusive[blockIdx.x] = before + x[blockIdx.x];
        __threadfence();
        flags[blockIdx.x] = 1;
    }
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = inclusive[blockIdx.x];
}
extern "C" __global__ void spin_lock(int *lock, int *sum)
{
    if (threadIdx.x == 0) {
        while (atomicCAS(lock, 0, 1) != 0) { }
        __threadfence();
        *sum += 1;
        __threadfence();
        atomicExch(lock, 0);
    }
}
extern "C" __global__ void plain_unlock(int *lock, int *sum)
{
    while (atomicCAS(lock, 0, 1) != 0) { }
    *sum += 1;
    __threadfence();
    *(volatile int *)lock = 0;
}
extern "C" __global__ void lock_in_shared_memory(int *out)
{
    __shared__ int lock, sum;
    if (threadIdx.x == 0) lock = 0, sum = 0;
    __syncthreads();
    while (atomicCAS(&lock, 0, 1) != 0) { }
    sum += threadIdx.x;
    __threadfence_block();
    atomicExch(&lock, 0);
    __syncthreads();
    if (threadIdx.x == 0) out[0] = sum;
}
extern "C" __global__ void grid_barrier(int *x, int *out)
{
    x[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x + 1;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&arrived, 1u);
        while (atomicAdd(&arrived, 0u) % gridDim.x != 0) { }
    }
    __syncthreads();
    int other = (blockIdx.x + 1) % gridDim.x;
    out[blockIdx.x * blockDim.x + threadIdx.x] = x[other * blockDim.x + threadIdx.x];
}
extern "C" __global__ void volatile_flag(int *out)
{
    volatile __shared__ int flag;
    if (threadIdx.x == 0) flag = 0;
    __syncthreads();
    if (threadIdx.x == 0) { while (flag == 0) { } out[0] = 1; }
    else if (threadIdx.x == 32) flag = 1;
}
extern "C" __global__ void flag_after_fence(int *data, int *flag, int *out)
{
    if (blockIdx.x == 1) {
        data[threadIdx.x] = threadIdx.x + 1;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) *flag = 1;
    } else {
        if (threadIdx.x == 0) while (*(volatile int *)flag == 0) { }
        __syncthreads();
        out[threadIdx.x] = data[threadIdx.x];
    }
}
extern "C" __global__ void returned_early(int *out, int n)
{
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t >= n) return;
    s[t] = t;
    __syncthreads();
    out[t] = s[n - 1 - t];
}
extern "C" __global__ void relax(volatile int *state, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        if (i > 0) { while (state[i - 1] == 0) { } state[i] = state[i - 1] + 1; }
}
extern "C" __global__ void look_before_atomic(const int *x, int *best)
{
    int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    if (v > *best) atomicMax(best, v);
}
extern "C" __global__ void part_of_a_syncwarp(int *out)
{
    __shared__ int s[32];
    int t = threadIdx.x;
    unsigned mask = t < 16 ? 0xffff : 0xffff0000;
    s[t] = t;
    __syncwarp(mask);
    int v = s[t ^ 1];
    __syncwarp(mask);
    s[t] = v;
    __syncwarp();
    out[t] = s[31 - t];
}
extern "C" __global__ void padded_structs(int *out)
{
    struct Padded { char tag; int value; };
    __shared__ Padded s[32];
    s[threadIdx.x].tag = 1;
    s[threadIdx.x].value = threadIdx.x;
    __syncthreads();
    Padded copy = s[31 - threadIdx.x];
    out[threadIdx.x] = copy.value + copy.tag;
}
extern "C" __global__ void neighbouring_bytes(unsigned char *x)
{
    __shared__ unsigned char s[64];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = s[threadIdx.x] + 1;
}
extern "C" __global__ void large_local(int *out, int n)
{
    int a[100000];
    for (int i = 0; i < n; i++) a[i] = i;
    out[threadIdx.x] = a[n - 1];
}
extern "C" __global__ void polls_without_a_store(const int *flags, int *out)
{
    if (blockIdx.x == 0) {
        for (unsigned i = 0; !flags[i % 2]; i++);
        out[0] = 1;
    } else {
        __threadfence();
        *(volatile int *)flags = 1;
    }
}
extern "C" __global__ void polls_plain_memory(int *flag, int *out)
{
    if (blockIdx.x == 0) {
        for (;;) { out[1] = 0; if (flag[0]) break; }
        out[0] = 1;
    } else {
        __threadfence();
        *(volatile int *)flag = 1;
    }
}
