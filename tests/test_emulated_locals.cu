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
extern "C" __global__ void summed_by_shuffles(float *out, int n)
{
    float sum;
    for (int i = 0; i < n; i++)
        sum += out[i]; // summed_by_shuffles
    if (n > 0) out[0] = __shfl_down_sync(1, sum, 0);
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
extern "C" __global__ void part_of_a_vector(float *out, int n)
{
    float4 part;
    part.x = 1;
    if (n > 1) part.y = 2;
    out[0] = part.x + part.y; // part_of_a_vector
}
struct Sum { int count; float total; };
extern "C" __global__ void part_of_a_structure(float *out, int n)
{
    struct Sum sum, sums[2];
    sum.count = sums[0].count = n;
    for (int i = 1; i < n; i++) sum.total = sums[1].total = i;
    sums[0].total = sum.count;
    out[0] = sums[n > 0].total; // part_of_a_structure
}
extern "C" __global__ void view_of_a_union(float *out, int n)
{
    union { float2 pair; float parts[2]; unsigned char bytes[8]; } view;
    if (n > 1) view.pair = make_float2(1, 2);
    else view.parts[0] = 1;
    out[0] = view.bytes[7]; // view_of_a_union
}
__device__ __noinline__ void set(float *x, int n) { if (n > 1) *x = n; }
extern "C" __global__ void by_pointer(float *out, int n)
{
    float x;
    set(&x, n);
    out[0] = x; // by_pointer
}
template <class T> __device__ void refer(T &x, int n) { if (n > 1) x = n; }
extern "C" __global__ void by_reference(float *out, int n)
{
    float x;
    refer(x, n);
    out[0] = x; // by_reference
}
extern "C" __global__ void loop_of_no_turns(float *out, int n)
{
    bool found;
    for (int i = 1; i < n; i++) found = i > 3;
    if (found) out[0] = 2; // loop_of_no_turns
}
struct Taps
{
    int taps;
    __device__ float operator()(int n) const
    {
        float weights[3];
        for (int i = 0; i < n; i++) weights[i] = i;
        return weights[taps]; // in_a_member
    }
};
extern "C" __global__ void in_a_member(float *out, int n) { out[0] = Taps{2}(n); }
__device__ __noinline__ float4 grey(float x) { return make_float4(x, x, x, x); }
extern "C" __global__ void returned_elsewhere(float *out, int n)
{
    float4 colours[2];
    colours[n & 1] = grey(2);
    out[0] = colours[1].x; // returned_elsewhere
}
__device__ __noinline__ float grey_of(float4 colour) { return colour.x + colour.y + colour.z; }
extern "C" __global__ void passed_by_value(float *out, int n)
{
    float4 colour;
    if (n > 1) colour = grey(1);
    out[0] = grey_of(colour); // passed_by_value
}

// ---- overruns ----

extern "C" __global__ void behind_its_array(float *out, int n)
{
    float a[4];
    for (int i = 0; i <= n; i++)
        a[i] = i; // behind_its_array
    out[0] = a[n & 3];
}
extern "C" __global__ void before_its_array(float *out, int n)
{
    const float weights[3] = {1, 2, 3};
    for (int i = 0; i < 3; i++)
        out[0] += weights[n - i]; // before_its_array
}
#define ENTRY(i, j) table[i][j]
extern "C" __global__ void inner_index(float *out, int n)
{
    float table[4][3] = {};
    out[0] = (out == NULL) + ENTRY(1, n); // inner_index
}
struct Row { float of[3]; int used; };
template <int N> __device__ float last_of(int n)
{
    Row rows[N];
    for (int i = 0; i < N; i++) rows[i].of[n] = i; // in_a_structure
    return rows[N - 1].of[n];
}
extern "C" __global__ void in_a_structure(float *out, int n) { out[0] = last_of<2>(n) + last_of<4>(n); }
extern "C" __global__ void a_full_stack(float *out, int n)
{
    int stack[4], top = 0;
    auto push = [&](int value) { stack[top++] = value; }; // a_full_stack
    for (int i = 0; i < n; i++) push(i);
    out[0] = stack[--top];
}
extern "C" __global__ void always(float *out, int n)
{
    float a[4];
    if (n) return;
    for (int i = 0; i < 5; i++)
        a[i] = out[i]; // always
    out[0] = a[0] + a[3];
}

// ---- what is right ----

__device__ float item(const float (&of)[3], int i) { return of[i]; }
extern "C" __global__ void indices_inside(float *out, int n)
{
    __shared__ float a[4][4]; // the name of own arrays elsewhere
    float flat[4][4], own[3] = {1, 2, 3}, sum = 0;
    for (int i = 0; i < 16 * n; i++) a[n - 1][i] = flat[0][i] = i; // all of it, by its first row
    for (const float *p = own, *end = &own[n * 3]; p != end; p++) sum += *p;
    unsigned char of[256], index = n * 200;
    of[index] = n;
    out[0] = flat[0][n] + a[n][1] + sum + of[index] + item(own, n) + 2[own - 1 + n];
    float *alias = own + n; // an array's overrun by a pointer is not seen
    out[1] = sizeof(own[n + 7]) + (n > 7 ? alias[7] : 0);
}

struct Padded { char kind; int index; short size; double weight; };
extern "C" __global__ void copied_whole(float *out, int n)
{
    Padded one, other, all[3];
    one.kind = 1, one.index = n, one.size = 3, one.weight = 4;
    if (n) all[1] = all[2] = other = one;
    all[0] = one;
    struct { unsigned low : 3, high : 5; } bits;
    bits.low = 5;
    if (n) bits.high = 4;
    struct Hit { bool hit; float at; };
    Hit hit, best;
    hit.hit = n > 7;
    if (hit.hit) hit.at = n;
    best = hit; // a part of it is not written, and not used
    float4 rgb;
    rgb.x = rgb.y = 1;
    if (n) rgb.z = 3;
    reinterpret_cast<float4 *>(out)[1] = rgb;
    out[0] = n ? all[n].index + other.weight + bits.high : best.hit;
}
__device__ __noinline__ float4 scaled(float4 by, float x) { by.x *= x, by.w *= x; return by; }
struct Table { float row[8]; };
__device__ __noinline__ Table table(int n)
{
    Table made;
    for (int i = 0; i < n; i++) made.row[i] = i;
    return made;
}
__device__ __noinline__ float sum_of(const float (&a)[4]) { float sum = 0; for (float x : a) sum += x; return sum; }
extern "C" __global__ void filled_elsewhere(float *out, int n)
{
    float4 vectors[2], zero;
    memset(&zero, 0, sizeof zero);
    vectors[n & 1] = scaled(zero, 2);
    vectors[0] = {};
    Table tables[2], last;
    tables[n & 1] = last = table(8);
    auto quad = [&](int i) { float4 v; for (int k = 0; k < 4; k++) (&v.x)[k] = i + out[k]; return v; };
    float4 a, b;
    a = quad(n);
    b = quad(2);
    float own[4];
    for (int i = 0; i < 4; i++) reinterpret_cast<int *>(own)[i] = __float_as_int(n);
    out[0] = vectors[n & 1].w + tables[n & 1].row[n] + last.row[2] + sum_of(own) + a.x * 0 + b.y * 0;
}
struct Started { float x, y; __device__ Started() : x(0) {} };
struct Nothing {};
extern "C" __global__ void given_values(float *out, int n)
{
    float4 a = {}, b{}, c = {1};
    float d[3] = {}, e[2]{1};
    Started started, more[2]; // its constructor leaves y as it is, and what constructors leave is not looked at
    Nothing nothing, other;
    other = nothing;
    out[0] = a.w + b.x + c.y + d[n] + e[1] + started.x + more[1].x;
    out[1] = n ? 0 : started.y * 0;
}
extern "C" __global__ void written_on_every_path(float *out, int n)
{
    float4 v;
    int mine, other, i = 0;
    float x, low, high;
    mine = threadIdx.x;
    do x = i; while (++i < n);
    if (n > 1) v = make_float4(1, 2, 3, 4); else v.y = 1;
    for (int k = 0; k < 3; k++)
        if (k == 0) low = high = out[k];
        else low = fminf(low, out[k]), high = fmaxf(high, out[k]);
    refer(other, 2);
    switch (n) { case 0: v.x = 3; break; default: float4 w; w.z = 4; out[1] = w.z; }
    out[0] = v.y + mine + x + low + high + other;
}

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

// ---- bugs that are not seen (docs/emulator.md) ----

extern "C" __global__ void not_seen(float *out, int n)
{
    float own[3] = {1, 2, 3}, *p = own + 2;
    out[0] = p[n]; // an overrun by a pointer
    Started started;
    out[1] = started.y; // which a constructor has left
    float4 part, copy;
    part.x = n;
    copy = part;
    out[2] = copy.y; // copied with what was written
}
