// A thread's own variables that it reads before it has written them, and what looks like it and is right
// (test_emulated_locals.py). The line that a report must name ends with the kernel's name.

// ---- bugs ----

extern "C" __global__ void last_of_an_array(float *out, int n)
{
    float partial[4], total = 0;
    for (int i = 0; i < n; i++) partial[i] = out[i];
    for (int i = 0; i < 4; i++)
        total += partial[i]; // last_of_an_array
    out[threadIdx.x] = total;
}
extern "C" __global__ void sum_without_zero(float *out, int n)
{
    float sum;
    for (int i = 0; i < n; i++)
        sum += out[i]; // sum_without_zero
    if (n > 0) out[threadIdx.x] = sum;
}
template <int N> __device__ int table_of(int hole)
{
    int table[N][2], found = 0;
    for (int i = 0; i < N; i++)
        if (i != hole) table[i][0] = table[i][1] = i;
    for (int i = 0; i < N; i++)
        found += table[i][1]; // one_thread_of_a_template
    return found;
}
extern "C" __global__ void one_thread_of_a_template(float *out, int n)
{
    out[threadIdx.x] = table_of<6>(n + threadIdx.x);
}
extern "C" __global__ void anew_in_each_turn(float *out, int n)
{
    for (int i = 0; i < n; i++) {
        __attribute__((aligned(16))) unsigned short digits[2];
        if (i == 0) digits[0] = digits[1] = 3;
        out[i] = digits[1]; // anew_in_each_turn
    }
}
__device__ __noinline__ float second(const float *of) { return of[1]; } // in_a_function
extern "C" __global__ void in_a_function(float *out, int n)
{
    float pair[2];
    pair[0] = n;
    if (n > 1) pair[1] = n;
    out[threadIdx.x] = second(pair);
}
extern "C" __global__ void copied(float *out, int n)
{
    float from[2];
    memset(from, 0, n * sizeof(float));
    memcpy(out, from + 1, sizeof(float)); // copied
}
__constant__ float given[4] = {1, 2, 3, 4};
__device__ __noinline__ float next(const float *of) { return of[1]; } // where_an_array_was_read
extern "C" __global__ void where_an_array_was_read(float *out, int n)
{
    float pair[2], sum = 0;
    for (int i = 0; i < 3; i++) sum += next(given + i);
    for (int i = 0; i < n; i++) pair[i] = sum;
    out[threadIdx.x] = next(pair);
}
extern "C" __global__ void behind_a_barrier(float *out, int n)
{
    float mine[2];
    mine[0] = threadIdx.x;
    if (threadIdx.x != n) mine[1] = 1;
    __syncthreads();
    if (mine[0] + mine[1] == 9) out[0] = 9; // behind_a_barrier
}
extern "C" __global__ void at_once_in_a_loop(float *out, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        int difference;
        int other = out[i];
        sum += difference < other ? difference : other; // at_once_in_a_loop
    }
    out[threadIdx.x] = sum;
}

// ---- what is right ----

__device__ __noinline__ void fill(float *x, float value) { x[0] = value; }
extern "C" __global__ void guarded(float *out, int n)
{
    float one[2], value;
    if (n > 2) one[0] = value = 3;
    for (int i = 0; i < 4; i++) out[i] = n > 2 ? one[0] * i + value : 1; // no load may come before the condition
}
extern "C" __global__ void by_other_ways(float *out, int n)
{
    struct alignas(2 * sizeof(float)) Pair { float part[2]; int count; };
    Pair pair;
    pair.part[0] = 1;
    float filled[1], angle[2], whole, *where[2];
    int exponent[1];
    fill(filled, 2);
    sincosf(0, &angle[0], &angle[1]);
    where[1] = &angle[1];
    modff(4.5f, &whole);
    frexp(8.0, exponent);
    float4 parts[1];
    *(float2 *)&parts[0] = make_float2(1, 2);
    float4 copy = parts[0];
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        float again[2], other;
        again[i] = i;
        other = again[i];
        out[i] = other;
    }
    switch (n) {
    case 0: float late[2]; late[1] = 1; break;
    default: late[0] = 5; out[2] = late[0];
    }
    auto body = [&] { int own[2]; own[0] = 7; return own[0]; };
    out[3] = pair.part[0] + filled[0] + *where[1] + whole + exponent[0] + copy.x + body();
}
__device__ int next_of_all(int *counter)
{
    unsigned lanes = __activemask(), below = lanes & ((1u << threadIdx.x % 32) - 1);
    int first;
    if (!below) first = atomicAdd(counter, __popc(lanes));
    first = __shfl_sync(lanes, first, __ffs(lanes) - 1);
    return first + __popc(below);
}
extern "C" __global__ void handed_to_the_others(float *out, int n)
{
    __shared__ int counter;
    counter = 0;
    __syncwarp();
    if (threadIdx.x % 2 == n) out[next_of_all(&counter)] = threadIdx.x;
}
