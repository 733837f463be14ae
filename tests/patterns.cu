// Accesses to hold the emulator's warp model to a GPU's counters with. Indices come from parameters or from memory,
// and barriers stand between stores to shared memory and loads, so that no compiler can merge, vectorise or leave out
// an access: nvcc 13.0's code for compute capability 9.0 has one instruction for each access that is written here.

template <class T>
static __device__ __forceinline__ void load(const T *in, T *out, int stride, int offset)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i * stride + offset];
}
template <class T>
static __device__ __forceinline__ void store(const T *in, T *out, int stride, int offset)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i * stride + offset] = in[i];
}
extern "C" __global__ void load_char(const unsigned char *in, unsigned char *out, int stride, int offset) { load(in, out, stride, offset); }
extern "C" __global__ void load_short(const short *in, short *out, int stride, int offset) { load(in, out, stride, offset); }
extern "C" __global__ void load_float(const float *in, float *out, int stride, int offset) { load(in, out, stride, offset); }
extern "C" __global__ void load_double(const double *in, double *out, int stride, int offset) { load(in, out, stride, offset); }
extern "C" __global__ void load_float2(const float2 *in, float2 *out, int stride, int offset) { load(in, out, stride, offset); }
extern "C" __global__ void load_float4(const float4 *in, float4 *out, int stride, int offset) { load(in, out, stride, offset); }
extern "C" __global__ void store_char(const unsigned char *in, unsigned char *out, int stride, int offset) { store(in, out, stride, offset); }
extern "C" __global__ void store_short(const short *in, short *out, int stride, int offset) { store(in, out, stride, offset); }
extern "C" __global__ void store_float(const float *in, float *out, int stride, int offset) { store(in, out, stride, offset); }
extern "C" __global__ void store_double(const double *in, double *out, int stride, int offset) { store(in, out, stride, offset); }
extern "C" __global__ void store_float2(const float2 *in, float2 *out, int stride, int offset) { store(in, out, stride, offset); }
extern "C" __global__ void store_float4(const float4 *in, float4 *out, int stride, int offset) { store(in, out, stride, offset); }

extern "C" __global__ void gather(const float *in, const int *index, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[index[i]];
}
extern "C" __global__ void scatter(const float *in, const int *index, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[index[i]] = in[i];
}

// Some lanes only: those whose number, by the mask, is the rest.
extern "C" __global__ void some_lanes(const float *in, float *out, int mask, int rest)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if ((threadIdx.x & mask) == rest)
        out[i] = in[i];
}
extern "C" __global__ void bounded(const float *in, float *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = in[i];
}
extern "C" __global__ void grid_stride(const float *in, float *out, int n)
{
#pragma unroll 1
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x)
        out[i] = in[i];
}

// Lanes loop different counts, one lane once and the last as often as there are lanes.
extern "C" __global__ void different_counts(const float *in, float *out)
{
    int lane = threadIdx.x;
    float sum = 0;
#pragma unroll 1
    for (int k = 0; k <= lane; ++k)
        sum += in[k * blockDim.x + lane];
    out[lane] = sum;
}
// Each lane loads in every other iteration: odd lanes in odd ones.
extern "C" __global__ void different_iterations(const float *in, float *out, int n)
{
    int lane = threadIdx.x;
    float sum = 0;
#pragma unroll 1
    for (int k = 0; k < n; ++k)
        if (((k ^ lane) & 1) == 0)
            sum += in[k * blockDim.x + lane];
    out[lane] = sum;
}

// Fields of structures, one by one: their alignment, 4, keeps them apart.
struct Two { float x, y; };
struct Three { float x, y, z; };
struct Four { float x, y, z, w; };
struct Six { float x, y, z, u, v, w; };
extern "C" __global__ void fields_8(const Two *in, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i].x + in[i].y;
}
extern "C" __global__ void fields_12(const Three *in, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i].x + in[i].y + in[i].z;
}
extern "C" __global__ void fields_16(const Four *in, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i].x + in[i].y + in[i].z + in[i].w;
}
extern "C" __global__ void fields_24(const Six *in, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i].x + in[i].y + in[i].z + in[i].u + in[i].v + in[i].w;
}
extern "C" __global__ void one_field_24(const Six *in, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i].z;
}
// Whole structures: a GPU has no instruction for 12 or 24 bytes, and none for 8 or 16 at an address of 4 bytes.
extern "C" __global__ void copy_12(const Three *in, Three *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i];
}

// Shared memory: thread t stores at t * into and loads at t * from.
#define SPAN 1024
template <class T> static __device__ __forceinline__ void banks(T *out, T value, int into, int from)
{
    __shared__ T tile[SPAN];
    tile[threadIdx.x * into] = value;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x * from];
}
extern "C" __global__ void banks_char(unsigned char *out, int into, int from) { banks(out, (unsigned char)into, into, from); }
extern "C" __global__ void banks_short(short *out, int into, int from) { banks(out, (short)into, into, from); }
extern "C" __global__ void banks_float(float *out, int into, int from) { banks(out, (float)into, into, from); }
extern "C" __global__ void banks_double(double *out, int into, int from) { banks(out, (double)into, into, from); }
extern "C" __global__ void banks_float2(float2 *out, int into, int from) { banks(out, make_float2(into, from), into, from); }
extern "C" __global__ void banks_float4(float4 *out, int into, int from)
{
    banks(out, make_float4(into, from, into, from), into, from);
}
extern "C" __global__ void banks_by_index(const int *index, float *out)
{
    __shared__ float tile[SPAN];
    tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = tile[index[threadIdx.x]];
}
// Stores and loads of lanes that are on in the mask, at places that an index gives; threads of a place store alike.
template <class T> static __device__ __forceinline__ void places(const int *index, T *out, T value, unsigned mask)
{
    __shared__ T tile[SPAN];
    bool on = mask >> (threadIdx.x & 31) & 1;
    int place = index[threadIdx.x];
    if (on)
        tile[place] = value;
    __syncthreads();
    if (on)
        out[threadIdx.x] = tile[place];
}
extern "C" __global__ void places_float2(const int *index, float2 *out, int mask) { places(index, out, make_float2(mask, mask), mask); }
extern "C" __global__ void places_float4(const int *index, float4 *out, int mask)
{
    places(index, out, make_float4(mask, mask, mask, mask), mask);
}

// Branches that some warps of a block do not enter, with more or less in them.
extern "C" __global__ void tree(float *out)
{
    __shared__ float s[256];
    int t = threadIdx.x;
    s[t] = t;
    __syncthreads();
#pragma unroll 1
    for (int d = blockDim.x / 2; d > 0; d >>= 1) {
        if (t < d)
            s[t] += s[t + d];
        __syncthreads();
    }
    if (t == 0)
        out[blockIdx.x] = s[0];
}
template <class Body> static __device__ __forceinline__ void guarded(float *out, int m, Body body)
{
    __shared__ float s[512];
    int t = threadIdx.x;
    for (int i = 0; i < 512; i += blockDim.x)
        s[i + t] = m;
    __syncthreads();
    body(s, t);
    __syncthreads();
    out[t] = s[t ^ 1];
}
extern "C" __global__ void guarded_two_stores(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t < m) { s[t] = 1; s[t + 64] = 2; } });
}
extern "C" __global__ void guarded_eight_stores(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t < m) {
        s[t] = 1; s[t + 64] = 2; s[t + 128] = 3; s[t + 192] = 4;
        s[t + 256] = 5; s[t + 320] = 6; s[t + 384] = 7; s[t + 448] = 8;
    } });
}
extern "C" __global__ void guarded_load_to_shared(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t < m) s[t] = in[t]; });
}
extern "C" __global__ void guarded_either(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t < m) s[t] = in[t]; else s[t] = 0; });
}
extern "C" __global__ void guarded_division(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t % 32 == 0) s[t / 32] = t / (m + 1); });
}
extern "C" __global__ void guarded_leaders(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t % 32 == 0 && t < m) s[t / 32] = m; });
}
extern "C" __global__ void guarded_swap(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t < m) { float a = s[t]; s[t] = s[t + 64]; s[t + 64] = a; } });
}
extern "C" __global__ void guarded_global_store(const float *in, float *out, int m)
{
    guarded(out, m, [=](float *s, int t) { if (t < m) out[t + 64] = s[t]; });
}

extern "C" __global__ void banks_of_some_lanes(float *out, int mask, int rest)
{
    __shared__ float tile[SPAN];
    if ((threadIdx.x & mask) == rest)
        tile[threadIdx.x] = rest;
    __syncthreads();
    if ((threadIdx.x & mask) == rest)
        out[threadIdx.x] = tile[threadIdx.x];
}

// A tile is written by rows and read by columns.
template <int TILE, int WIDTH> static __device__ __forceinline__ void transposed(const float *in, float *out, int n)
{
    __shared__ float tile[TILE][WIDTH];
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    tile[threadIdx.y][threadIdx.x] = in[y * n + x];
    __syncthreads();
    out[(blockIdx.x * TILE + threadIdx.y) * n + blockIdx.y * TILE + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}
extern "C" __global__ void tile_32x32(const float *in, float *out, int n) { transposed<32, 32>(in, out, n); }
extern "C" __global__ void tile_32x33(const float *in, float *out, int n) { transposed<32, 33>(in, out, n); }
extern "C" __global__ void tile_16x16(const float *in, float *out, int n) { transposed<16, 16>(in, out, n); }
extern "C" __global__ void tile_16x17(const float *in, float *out, int n) { transposed<16, 17>(in, out, n); }
extern "C" __global__ void tile_8x8(const float *in, float *out, int n) { transposed<8, 8>(in, out, n); }
