// What people write in CUDA C++; test_emulated_language.py compares each kernel with NumPy.

#include <cuda_runtime.h>
#include <stdint.h>
#include <assert.h>
#include <memory>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <math_constants.h>
#include <cuComplex.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <nvtx3/nvToolsExt.h>
#include <nvtx3/nvToolsExtCudaRt.h>
#include <cublasLt.h>
#include "parts/scale.cuh"

__constant__ float weights[4] = {1, 10, 100, 1000};
static __constant__ const int offsets[2] = {3, 5};
__device__ int visits = 0;
extern __shared__ float dynamic[];

extern "C" __global__ void indices(int *out)
{
    dim3 b = blockDim;
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int thread = (threadIdx.z * b.y + threadIdx.y) * b.x + threadIdx.x;
    out[block * b.x * b.y * b.z + thread] = block * 1000 + thread;
}
extern "C" __global__ void scalars(double *out, bool a, signed char b, unsigned short c, long long d, float e, double f, size_t g)
{
    out[0] = a, out[1] = b, out[2] = c, out[3] = d, out[4] = e, out[5] = f, out[6] = g;
}
extern "C" __global__ void vectors(const float2 *two, const float3 *three, const int4 *four, float *out)
{
    int i = threadIdx.x;
    float3 t = three[i];
    int4 f = four[i];
    out[i] = two[i].x + 10 * two[i].y + 100 * t.z + 1000 * f.w + make_uint2(1, 2).y;
}
__launch_bounds__(64) extern "C" __global__ void reversed(
    const float *__restrict__ in, float *__restrict__ out, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) dynamic[i] = __ldg(&in[i]);
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += blockDim.x) __stcs(&out[i], dynamic[n - 1 - i]);
}
template <class T, int N> __device__ T block_sum(T value)
{
    __shared__ T sums[N];
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int k = N / 2; k > 0; k /= 2) {
        if (threadIdx.x < k) sums[threadIdx.x] += sums[threadIdx.x + k];
        __syncthreads();
    }
    return sums[0];
}
extern "C" __global__ void block_sums(const double *in, double *out)
{
    double s = block_sum<double, 64>(in[threadIdx.x]);
    if (!threadIdx.x) *out = s;
}
extern "C" __global__ void block_sums_int(const int *in, int *out)
{
    int s = block_sum<int, 64>(in[threadIdx.x]);
    if (!threadIdx.x) *out = s;
}
extern "C" __global__ void warp_sums(const float *in, float *out)
{
    float v = in[blockIdx.x * blockDim.x + threadIdx.x];
    for (int d = 16; d; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    if (threadIdx.x % 32 == 0) out[(blockIdx.x * blockDim.x + threadIdx.x) / 32] = v;
}
extern "C" __global__ void shuffles(int *out)
{
    int i = threadIdx.x;
    out[i] = __shfl_sync(0xffffffffu, i, 3);
    out[32 + i] = __shfl_up_sync(0xffffffffu, i, 2);
    out[64 + i] = __shfl_down_sync(0xffffffffu, i, 2, 8);
    out[96 + i] = __shfl_xor_sync(0xffffffffu, i, 5);
    out[128 + i] = __shfl_sync(0xffffffffu, i, 1, 4);
    out[160 + i] = (int)__shfl_xor_sync(0xffffffffu, (double)i / 2, 1);
}
extern "C" __global__ void votes(unsigned *out)
{
    int i = threadIdx.x;
    out[i] = __ballot_sync(0xffffffffu, i % 3 == 0);
    out[32 + i] = __any_sync(0xffffffffu, i == 31) + 2 * __all_sync(0xffffffffu, i < 32);
    out[32 + i] += 4 * __all_sync(0xffffffffu, i);
    if (i % 2)
        out[64 + i] = __activemask();
    else
        out[64 + i] = __popc(__activemask());
    out[96 + i] = __match_any_sync(0xffffffffu, i / 8);
    out[128 + i] = i < 8 ? __ballot_sync(0xffu, i > 3) : __ballot_sync(0xffffff00u, 1);
    out[160 + i] = __syncthreads_count(i < 5) + 100 * __syncthreads_or(i == 9);
    out[160 + i] += 1000 * __syncthreads_and(i < 31);
}
extern "C" __global__ void warp_synchronous(float *out)
{
    __shared__ volatile float s[64];
    int i = threadIdx.x;
    s[i] = i;
    __syncwarp();
    for (int d = 16; d; d >>= 1) {
        float other = s[i + d];
        __syncwarp();
        s[i] += other;
        __syncwarp();
    }
    if (i == 0) out[0] = s[0];
}
extern "C" __global__ void agreed_flag(const int *in, int *out)
{
    __shared__ int found;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    if (in[threadIdx.x] > 5) found = 1;
    __syncthreads();
    out[threadIdx.x] = found;
}
extern "C" __global__ void atomics(int *i, unsigned *u, unsigned long long *l, float *f, double *d)
{
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&i[0], 1), atomicMax(&i[1], t), atomicMin(&i[2], -t), atomicSub(&i[3], 2);
    atomicOr(&i[4], 1 << (t % 31));
    atomicAnd(&u[0], ~(1u << (t % 32))), atomicXor(&u[1], t), atomicInc(&u[2], 99u);
    atomicMax(&u[3], 4000000000u + t), atomicDec(&u[4], 9u);
    atomicAdd(&l[0], 1ull << 33), atomicMin(&l[1], (unsigned long long)t + 7);
    atomicAdd(f, 0.5f); atomicAdd(d, 0.25);
    int old = i[5], seen;
    do { seen = old; old = atomicCAS(&i[5], seen, seen + 3); } while (old != seen);
    if (t == 17) atomicExch(&i[6], 42);
}
extern "C" __global__ void shared_histogram(const int *in, int *out, int n)
{
    __shared__ int bins[8];
    if (threadIdx.x < 8) bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&bins[in[i]], 1);
    __syncthreads();
    if (threadIdx.x < 8) atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
}
extern "C" __global__ void handshake(int *flag, int *out)
{
    if (threadIdx.x == 0) { while (atomicAdd(flag, 0) == 0) { } out[0] = 7; }
    else atomicExch(flag, 1);
}
extern "C" __global__ void mathematics(const float *x, float *out)
{
    float v = x[0];
    float r[] = {rsqrtf(v), fmaf(v, v, 1), __expf(v), __logf(v), fminf(v, 1), max(v, 9.0f),
                 __saturatef(v), __fdividef(v, 2), (float)min(3, 7u), (float)max(2ll, 1), __sinf(v),
                 powf(v, 2), __frcp_rn(v), fabsf(-v), (float)abs(-3), erff(v)};
    for (int i = 0; i < sizeof r / sizeof *r; i++) out[i] = r[i];
}
extern "C" __global__ void bits(unsigned *out, unsigned x)
{
    int counts[] = {__popc(x), __clz(x), __ffs(x), __popcll(~0ull), __clzll(1), __mul24(3, 4)};
    unsigned r[] = {__brev(x), __byte_perm(x, 0, 0x0123), __umulhi(x, 16), __float_as_uint(1.0f),
                    __funnelshift_l(x, 1, 4)};
    for (int i = 0; i < sizeof counts / sizeof *counts; i++) out[5 + i] = counts[i];
    for (int i = 0; i < sizeof r / sizeof *r; i++) out[i] = r[i];
}
extern "C" __global__ void tables(float *out) { int i = threadIdx.x; out[i] = weights[i] * scale() + offsets[i % 2]; }
extern "C" __global__ void visited(int *out) { out[0] = visits; if (threadIdx.x == 0) visits += 1; }
extern "C" __global__ void prints(int n) { if (threadIdx.x < n) printf("thread %d of %s\n", threadIdx.x, "prints"); }
extern "C" __global__ void defined(int *out) { out[0] = VALUE; }
extern "C" __global__ void nothing() { }

namespace cg = cooperative_groups;
extern "C" __global__ void groups(int *out)
{
    cg::thread_block block = cg::this_thread_block();
    auto warp = cg::tiled_partition<32>(block);
    auto tile = cg::tiled_partition<8>(warp);
    int i = block.thread_rank();
    out[i] = cg::reduce(warp, i, cg::plus<int>());
    out[64 + i] = cg::reduce(tile, i, cg::greater<int>()) + 100 * tile.meta_group_rank() + 1000 * warp.meta_group_rank();
    out[128 + i] = tile.shfl_down(i, 3) + tile.size();
    out[192 + i] = cg::inclusive_scan(tile, 1) * 10 + cg::exclusive_scan(tile, 1);
    out[256 + i] = tile.ballot(i % 2) + tile.any(i == 9);
    if (i % 2) {
        cg::coalesced_group odd = cg::coalesced_threads();
        out[320 + i] = odd.shfl(i, 0) + 100 * odd.size() + 10000 * odd.thread_rank();
    } else
        out[320 + i] = 0;
    cg::sync(block);
    block.sync();
}
static cudaDeviceProp device;
struct Work { cublasHandle_t blas; cublasLtHandle_t light; cudaStream_t stream; cudaEvent_t done; };
cudaError_t submit(Work *work, cudaStream_t stream = NULL);
__device__ int rank_in(cg::thread_block_tile<8> tile) { return tile.thread_rank() + 100 * tile.meta_group_rank(); }
extern "C" __global__ void tiles_as_parameters(int *out)
{
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(cg::this_thread_block());
    out[threadIdx.x] = rank_in(cg::tiled_partition<8>(cg::this_thread_block())) + 10000 * tile.thread_rank();
}
extern "C" __global__ void warp_functions(int *out)
{
    int i = threadIdx.x, agree;
    short s = i;
    bool b = i == 4;
    out[i] = __shfl_sync(~0u, s, 3) + 10 * __shfl_sync(~0u, b, 4);
    out[32 + i] = __reduce_add_sync(~0u, i) + __reduce_max_sync(~0u, -i) + (int)__reduce_or_sync(~0u, 1u << (i % 3));
    out[64 + i] = (int)__match_all_sync(~0u, i / 32, &agree) + agree;
}
extern "C" __global__ void conversions(float large, double tiny, double *out)
{
    float nan = large - large + CUDART_NAN_F;
    double r[] = {(double)__float2int_rz(large), (double)__float2int_rn(-large), (double)__float2int_rn(nan),
                  (double)__float2uint_rz(-1.0f), (double)__float2uint_rz(large), (double)__double2int_rn(2.5),
                  (double)__double2int_ru(2.1), (double)__float2ll_rd(-2.5f),
                  __fadd_rz(1.0f, 1e-9f), __fadd_ru(1.0f, 1e-9f), __fmul_rd(1.1f, 1.1f), __dadd_ru(1.0, tiny),
                  __ddiv_rn(1.0, 3.0), __dsqrt_rn(2.0), __double2float_rd(0.1), __hiloint2double(0x40000000, 0),
                  (double)__double2int_rn(nan), (double)__float2ull_rz(nan)};
    for (int i = 0; i < sizeof r / sizeof *r; i++) out[i] = r[i];
}
extern "C" __global__ void more_mathematics(double x, double *out)
{
    const float floats[] = {3, 4};
    float pair[] = {1, 2};
    alignas(16) float quad[] = {1, 2, 3, 4};
    atomicAdd((float2 *)pair, make_float2(0, 0.5f)), atomicAdd((float4 *)quad, make_float4(0, 0, 0, -1));
    out[0] = 2, out[1] = 3, out[2] = 6;
    double r[] = {fdividef(1, 4), norm3df(2, 3, 6), rhypot(3, 4), erfinv(x), erfinvf(0.5f), sinpi(0.5), cospif(1), normcdf(0),
                  erfcx(x), rcbrt(8), normcdfinv(0.5), CUDART_PI, norm(3, out), normf(2, floats), rnormf(2, floats), cyl_bessel_i0(x),
                  cyl_bessel_i1f(-x), __fma_rz(x, x, 1), __fma_ru(x, x, 1), __fma_rd(-x, x, -1), __tanhf(0.5f), pair[1], quad[3]};
    for (int i = 0; i < sizeof r / sizeof *r; i++) out[i] = r[i];
}
extern "C" __global__ void simd(unsigned a, unsigned b, unsigned *out)
{
    unsigned r[] = {__vadd4(a, b), __vsub2(a, b), __vmaxu4(a, b), __vmins2(a, b), __vabsdiffu4(a, b), __vsadu4(a, b), __vcmpeq4(a, b),
                    __vaddus4(a, b), __vaddss2(a, b), (unsigned)__dp4a((int)a, (int)b, 1), __dp4a(a, b, 1u), umin(a, b), __usad(a, b, 2),
                    (unsigned)__hadd(-3, 6), __funnelshift_rc(a, b, 40), (unsigned)__mul64hi(1ll << 62, 8)};
    for (int i = 0; i < sizeof r / sizeof *r; i++) out[i] = r[i];
}
extern "C" __global__ void more_integers(unsigned a, unsigned b, unsigned *out)
{
    bool high, low;
    unsigned pair = __vibmax_s16x2(a, b, &high, &low);
    unsigned r[] = {__vsetgts4(a, b), __vsads4(a, b), __vabsss2(0x80007fffu), __vnegss4(0x80ff0001u), __byte_perm(a, b, 0xfb3c),
                    __fns(0xf0f0u, 4, 3), __fns(0xf0f0u, 15, -2), __fns(1, 0, 2), (unsigned)__vimax3_s32(-5, 7, 3),
                    (unsigned)__viaddmin_s32_relu(4, -9, 2), __vimin3_u16x2(a, b, 0x00ff00ff), __vimax3_s16x2_relu(0x80008000u, 0xffff0002u, 0),
                    __viaddmax_u16x2(a, b, 5), pair, (unsigned)high + 2 * low};
    for (int i = 0; i < sizeof r / sizeof *r; i++) out[i] = r[i];
}
// The undefined value of a lane that is not in the mask is not looked at.
extern "C" __global__ void guarded_shuffles(int n, int *out)
{
    int lane = threadIdx.x;
    unsigned lanes = __ballot_sync(~0u, lane < n);
    if (lane >= n) return;
    int sum = 1;
    for (int d = 16; d > 0; d /= 2) {
        const int other = __shfl_down_sync(lanes, sum, d);
        if (lane + d < n) sum += other;
    }
    int next = __shfl_sync(lanes, lane, lane + 1);
    out[lane] = lane == 0 ? sum : lane + 1 < n ? next : -1;
}
extern "C" __global__ void complex_numbers(const cuComplex *in, cuComplex *out)
{
    out[threadIdx.x] = cuCdivf(cuCmulf(in[threadIdx.x], make_cuComplex(0, 2)), cuConjf(in[threadIdx.x]));
}
extern "C" __global__ void scopes(int *o) { atomicCAS_block(o, 0, 1); atomicCAS_system(o, 1, 2); atomicSub_block(o, 1); }
extern "C" __global__ void times(int *out) { clock_t t = clock(); out[0] = clock() - t >= 0; }
#if __CUDA_ARCH__ < 600
extern "C" __global__ void of_the_device(int *out) { out[0] = 0; }
#else
extern "C" __global__ void of_the_device(int *out) { out[0] = __CUDA_ARCH__; }
#endif
typedef float real;
using index_t = unsigned int;
extern "C" __global__ void aliased(real *out, real a, index_t n, uint step = 1) { if (threadIdx.x < n) out[threadIdx.x] = a * step; }
__host__ __device__ int shared_with_the_host(int x) { return x + 1; }
int main() { float *p = (float *)malloc(4); aliased<<<1, 1>>>(p, 1, 1); cudaDeviceSynchronize(); return 0; }
extern "C" __global__ void halves(const half *a, const half *b, half *out, int n)
{
    int i = threadIdx.x;
    half r[] = {a[i] + b[i], a[i] - b[i], __hmul(a[i], b[i]), a[i] / b[i], __hfma(a[i], b[i], a[i]), hsqrt(__habs(a[i])),
                __hmax(a[i], b[i]), -a[i], __shfl_xor_sync(~0u, a[i], 1), (half)(a[i] < b[i])};
    for (int k = 0; k < sizeof r / sizeof *r; k++) out[k * n + i] = r[k];
    half2 p = __hfma2(make_half2(a[i], b[i]), __float2half2_rn(2.0f), __half2half2(a[i]));
    out[10 * n + i] = __low2half(p) - __high2half(p);
}
template <class T, class P> __device__ void rounded(const float *x, int *out, T (*to[])(float), int (*from[])(T))
{
    for (int k = 0; k < 4; k++) {
        T value = to[k](x[threadIdx.x]);
        out[64 * k + threadIdx.x] = *(unsigned short *)&value;
        out[64 * (4 + k) + threadIdx.x] = from[k](T(x[threadIdx.x]));
    }
}
extern "C" __global__ void rounded_halves(const float *x, int *out)
{
    half (*to[])(float) = {__float2half_rn, __float2half_rz, __float2half_rd, __float2half_ru};
    int (*from[])(half) = {__half2int_rn, __half2int_rz, __half2int_rd, __half2int_ru};
    rounded<half, half2>(x, out, to, from);
}
extern "C" __global__ void rounded_brain_floats(const float *x, int *out)
{
    __nv_bfloat16 (*to[])(float) = {__float2bfloat16_rn, __float2bfloat16_rz, __float2bfloat16_rd, __float2bfloat16_ru};
    int (*from[])(__nv_bfloat16) = {__bfloat162int_rn, __bfloat162int_rz, __bfloat162int_rd, __bfloat162int_ru};
    rounded<__nv_bfloat16, __nv_bfloat162>(x, out, to, from);
}
template <class T, class P> __device__ void of_pairs(P a, P b, float *out)
{
    P nothing(T(NAN), T(2)), r[] = {a + b, h2exp2(b), h2rcp(b), __hadd2_sat(a, b), __hfma2_relu(a, b, -a), __heq2(a, b), __hneu2(nothing, a),
                                    __hne2(nothing, a), __hmax2_nan(nothing, a), __hmax2(nothing, a), __lowhigh2highlow(a), __highs2(a, b),
                                    h2floor(a), h2rint(a), __habs2(a), __hcmadd(a, b, a)};
    int i = 0;
    for (P each : r) out[i++] = each.x, out[i++] = each.y;
    P c = a;
    c += b, c *= b, c -= a, c /= b, ++c;
    T d = c.x;
    d++, --d;
    float more[] = {c.x, c.y, d, float(a == a), float(a != b), float(a < b), float(nothing == nothing), float(__hgt2_mask(a, b) == 0xffff0000u),
                    float(__hbltu2(nothing, b)), float(__hisinf(T(-INFINITY)))};
    for (float each : more) out[i++] = each;
}
__device__ half2 __highs2(half2 a, half2 b) { return __highs2half2(a, b); }
__device__ __nv_bfloat162 __highs2(__nv_bfloat162 a, __nv_bfloat162 b) { return __highs2bfloat162(a, b); }
extern "C" __global__ void pairs_of_halves(float *out)
{
    of_pairs<half>(make_half2(1.5f, -0.25f), half2(half(2.0f), half(-1.0f)), out);
    of_pairs<__nv_bfloat16>(__floats2bfloat162_rn(1.5f, -0.25f), __float22bfloat162_rn(make_float2(2, -1)), out + 42);
    out[84] = __hfma(half(1 + 0x1p-10f), half(1 + 0x1p-10f), half(0x1p-24f)); // the product is a tie
    out[85] = __hfma(__nv_bfloat16(1.5f), __nv_bfloat16(1 + 0x1p-7f), __nv_bfloat16(0x1p-100f));
    out[86] = __ll2bfloat16_rn((1ll << 62) + (1ll << 54) + 1);
}
struct Slot {
    int value;
    __device__ Slot() {}
    __device__ Slot(int value) : value(value) {}
};
__shared__ Slot at_file_scope[4];
extern "C" __global__ void shared_classes(int *out)
{
    __shared__ half numbers[8][2];
    __shared__ half2 pair;
    __shared__ Slot slots[8];
    int t = threadIdx.x;
    numbers[t][1] = __int2half_rn(t);
    slots[t] = Slot(10 * t);
    if (t < 4) at_file_scope[t] = Slot(100);
    if (t == 0) pair = half2(half(1000), half(0));
    __syncthreads();
    out[8 * blockIdx.x + t] = __half2int_rn(numbers[7 - t][1]) + slots[t ^ 1].value + at_file_scope[t / 2].value + __half2int_rn(pair.x);
}
extern "C" __global__ void narrowed(const float *x, half *out) { out[threadIdx.x] = __float2half(x[threadIdx.x]); }
extern "C" __global__ void brain_floats(const float *x, unsigned short *out)
{
    out[threadIdx.x] = __bfloat16_as_ushort(__float2bfloat16(x[threadIdx.x]) * __float2bfloat16(3.0f));
}
typedef unsigned short half_word;
using longest = unsigned long long;
template <class T, class F> __device__ __noinline__ T cast_to(F x) { return (T)x; }
template <class T, class F> __device__ __forceinline__ T cast_here(F x) { return (T)x; }
template <class F> __device__ void cast_all(F x, long long *out, int n)
{
    out[0] = cast_to<unsigned char>(x);
    out[n] = cast_to<signed char>(x);
    out[2 * n] = cast_to<half_word>(x);
    out[3 * n] = cast_to<short>(x);
    out[4 * n] = cast_to<unsigned>(x);
    out[5 * n] = cast_to<int>(x);
    out[6 * n] = cast_to<longest>(x);
    out[7 * n] = cast_to<long long>(x);
    out[8 * n] = (long long)(unsigned)(long long)x;
}
extern "C" __global__ void casts(const double *x, const float *f, long long *out, int n)
{
    int i = threadIdx.x;
    cast_all(x[i], out + i, n);
    cast_all(f[i], out + 9 * n + i, n);
    out[18 * n + i] = x[i] > 1 ? (int)(x[i] * 0.5) : (int)-f[i];
    out[19 * n + i] = cast_here<unsigned>(f[i]) + cast_here<long long>(x[i] * 0.5);
    half_word word = x[i] * 0.5;
    unsigned named = x[i] * 0.25;
    out[20 * n + i] = (unsigned)(f[i] * 0.5f) + 1ull + word + named;
    out[21 * n + i] = (int)(f[i] * 2) + (long long)(unsigned char)(f[i] * 2); // one instruction: as signed
}
extern "C" __global__ void atomics_of_16_bits(half *h, __half2 *pair, __nv_bfloat16 *b, unsigned short *s)
{
    atomicAdd(h, __half(0.5f)), atomicAdd(pair, __floats2half2_rn(1, 0.25f)), atomicAdd_block(b, __nv_bfloat16(2));
    unsigned short old = s[1], seen;
    do { seen = old; old = atomicCAS(&s[1], seen, (unsigned short)(seen + 3)); } while (old != seen);
}
