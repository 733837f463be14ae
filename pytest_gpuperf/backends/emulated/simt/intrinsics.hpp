// CUDA's intrinsics in plain C++. The fast ones (__expf, ...) are the accurate functions: results differ
// from a GPU's in the last digits, as the Programming Guide says they may between devices.
#pragma once

template <class T>
GPUPERF_INLINE uint64_t gpuperf_bits(T value) {
  using Bits = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
  return __builtin_bit_cast(Bits, value);
}
template <class T>
GPUPERF_INLINE T gpuperf_value(uint64_t bits) {
  using Bits = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
  return __builtin_bit_cast(T, static_cast<Bits>(bits));
}

// ---- loads and stores with a cache hint: the hint has no effect on sectors or wavefronts ----

#define GPUPERF_LOAD(NAME) \
  template <class T> GPUPERF_INLINE T NAME(const T *address) { return *address; }
#define GPUPERF_STORE(NAME) \
  template <class T> GPUPERF_INLINE void NAME(T *address, T value) { *address = value; }
GPUPERF_LOAD(__ldg)
GPUPERF_LOAD(__ldca)
GPUPERF_LOAD(__ldcg)
GPUPERF_LOAD(__ldcs)
GPUPERF_LOAD(__ldcv)
GPUPERF_LOAD(__ldlu)
GPUPERF_STORE(__stcg)
GPUPERF_STORE(__stcs)
GPUPERF_STORE(__stwb)
GPUPERF_STORE(__stwt)

// ---- min and max of mixed types, which std::min does not take ----

template <class A, class B>
GPUPERF_INLINE typename std::common_type<A, B>::type min(A a, B b) {
  using T = typename std::common_type<A, B>::type;
  if constexpr (std::is_floating_point<T>::value) return fmin(T(a), T(b));
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
GPUPERF_INLINE typename std::common_type<A, B>::type max(A a, B b) {
  using T = typename std::common_type<A, B>::type;
  if constexpr (std::is_floating_point<T>::value) return fmax(T(a), T(b));
  return T(a) < T(b) ? T(b) : T(a);
}

// ---- arithmetic ----

// Macros, because glibc's math.h declares functions of these names that no library defines.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __tanhf(x) tanhf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)

// ---- conversions ----

GPUPERF_INLINE int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
GPUPERF_INLINE unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
GPUPERF_INLINE float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
GPUPERF_INLINE float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
GPUPERF_INLINE long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
GPUPERF_INLINE double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }

// ---- integers and bits ----

GPUPERF_INLINE int __mul24(int a, int b) { return ((a << 8) >> 8) * ((b << 8) >> 8); }
GPUPERF_INLINE unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
GPUPERF_INLINE int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
GPUPERF_INLINE unsigned __umulhi(unsigned a, unsigned b) { return (static_cast<unsigned long long>(a) * b) >> 32; }
GPUPERF_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (static_cast<unsigned __int128>(a) * b) >> 64;
}
GPUPERF_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
GPUPERF_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
GPUPERF_INLINE int __clz(int x) { return x ? __builtin_clz(x) : 32; }
GPUPERF_INLINE int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
GPUPERF_INLINE int __ffs(int x) { return __builtin_ffs(x); }
GPUPERF_INLINE int __ffsll(long long x) { return __builtin_ffsll(x); }
GPUPERF_INLINE unsigned __brev(unsigned x) {
  x = __builtin_bswap32(x);
  x = ((x & 0x0f0f0f0fu) << 4) | ((x >> 4) & 0x0f0f0f0fu);
  x = ((x & 0x33333333u) << 2) | ((x >> 2) & 0x33333333u);
  return ((x & 0x55555555u) << 1) | ((x >> 1) & 0x55555555u);
}
GPUPERF_INLINE unsigned long long __brevll(unsigned long long x) {
  return (static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32) | __brev(static_cast<unsigned>(x >> 32));
}
GPUPERF_INLINE unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  unsigned long long bytes = (static_cast<unsigned long long>(b) << 32) | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= ((bytes >> (((selector >> (4 * i)) & 7) * 8)) & 0xff) << (8 * i);
  return result;
}
// Where in `mask`, from bit `base` on (down, if `offset` is negative), the `offset`th one is.
GPUPERF_INLINE unsigned __fns(unsigned mask, unsigned base, int offset) {
  int step = offset < 0 ? -1 : 1, left = offset < 0 ? -offset : offset;
  if (offset == 0) return base < 32 && mask >> base & 1 ? base : ~0u;
  for (int at = base; at >= 0 && at < 32; at += step)
    if (mask >> at & 1 && --left == 0) return at;
  return ~0u;
}
GPUPERF_INLINE unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return ((((static_cast<unsigned long long>(high) << 32) | low) << (shift & 31)) >> 32);
}
GPUPERF_INLINE unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return (((static_cast<unsigned long long>(high) << 32) | low) >> (shift & 31));
}

#define __prof_trigger(counter) ((void)(counter))

// Cycle counters exist on both, but only differences within one thread mean anything here.
GPUPERF_INLINE long long clock64() { return static_cast<long long>(__builtin_ia32_rdtsc()); }
// A macro, because time.h may declare a function of this name.
#define clock() static_cast<clock_t>(clock64())
