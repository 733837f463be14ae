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
