/*
 * Two kernels that never change: where their times move, the machine moved, and not the code under test.
 *
 * Change neither the code nor the sizes in sentinels.py: stored baselines hold their times.
 */

/* Bandwidth-bound: one float4 in, one out. Grid x block covers the arrays exactly. */
extern "C" __global__ void sentinel_bandwidth(const float4 *src, float4 *dst)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    dst[i] = src[i];
}

static __device__ __forceinline__ unsigned long long nanoseconds()
{
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

/*
 * Compute-bound: four independent chains of fused multiply-adds a thread, 4 x rounds of them, and no memory
 * until the end. The factors are arguments, so that no compiler can shorten the chains. Each converges to
 * add / (1 - factor), which is finite.
 *
 * clocks gets what the first warp saw from start to end: cycles of its SM and nanoseconds, whose ratio is the
 * SM's clock under load.
 */
extern "C" __global__ void sentinel_compute(float *dst, unsigned long long *clocks, float factor, float add,
                                            int rounds)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long time = nanoseconds();
    long long cycle = clock64();
    float a = threadIdx.x, b = a + 1.0f, c = a + 2.0f, d = a + 3.0f;
#pragma unroll 16
    for (int round = 0; round < rounds; ++round) {
        a = a * factor + add;
        b = b * factor + add;
        c = c * factor + add;
        d = d * factor + add;
    }
    dst[i] = a + b + c + d;
    if (i == 0) {
        clocks[0] = clock64() - cycle;
        clocks[1] = nanoseconds() - time;
    }
}
