// What cuda_fp16.h and cuda_bf16.h have in common: a number of 16 bits and a pair of them. Results are computed as
// float or double and rounded once, which gives the nearest number as the GPU does: float has more than twice the bits.
#pragma once

namespace gpuperf {

// What holds every value of a type, for numbers of 64 bits to be rounded once.
template <class N>
GPUPERF_INLINE typename std::conditional<std::is_integral<N>::value && sizeof(N) == 8, long double, double>::type wide(N x) {
  return x;
}

// The bits of a number with FRACTION bits behind the point; a float's exponent bias less BIAS.
template <int kFraction, int kExponent, Rounding kTo = kToNearest, class Wide>
GPUPERF_INLINE unsigned short narrowed(Wide wide) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  constexpr unsigned kInfinity = ((1 << kExponent) - 1) << kFraction;
  bool negative = std::signbit(wide), up = kTo == (negative ? kToBelow : kToAbove), nearest = kTo == kToNearest;
  unsigned short sign = negative ? 0x8000 : 0;
  if (std::isnan(wide)) return 0x7fff;
  Wide size = std::fabs(wide);
  int exponent = size == 0 ? 1 - kBias : std::max(std::ilogb(size), 1 - kBias);
  if (std::isinf(size)) return sign | kInfinity;
  if (exponent > kBias) return sign | (kInfinity - !(nearest || up));
  // In units of the last place; a carry goes into the exponent, and beyond the largest number to infinity.
  Wide units = std::scalbn(size, kFraction - exponent);
  units = nearest ? std::nearbyint(units) : up ? std::ceil(units) : std::floor(units);
  unsigned bits = static_cast<unsigned>(units) + (static_cast<unsigned>(exponent + kBias - 1) << kFraction);
  return sign | static_cast<unsigned short>(bits > kInfinity ? kInfinity : bits);
}

// a * b + c, of which the last bit says whether more was lost, so that it can be rounded once more.
GPUPERF_INLINE double fused(double a, double b, double c) {
  double product = a * b, sum = product + c, of_c = sum - product;
  double lost = (product - (sum - of_c)) + (c - of_c);
  uint64_t bits = __builtin_bit_cast(uint64_t, sum);
  if (std::isfinite(sum) && lost != 0 && !(bits & 1)) bits += (lost > 0) == (sum > 0) ? 1 : -1;
  return __builtin_bit_cast(double, bits);
}

template <int kFraction, int kExponent>
GPUPERF_INLINE float widened(unsigned short bits) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  int exponent = bits >> kFraction & ((1 << kExponent) - 1), fraction = bits & ((1 << kFraction) - 1);
  float size = exponent == (1 << kExponent) - 1 ? (fraction ? NAN : INFINITY)
               : exponent                       ? std::scalbn(float(fraction | 1 << kFraction), exponent - kBias - kFraction)
                                                : std::scalbn(float(fraction), 1 - kBias - kFraction);
  return bits & 0x8000 ? -size : size;
}

// atomicAdd on a number of 16 bits, or on both of a pair.
template <class T>
GPUPERF_INLINE T added(T *address, T value) {
  using Bits = typename std::conditional<sizeof(T) == 2, uint16_t, uint32_t>::type;
  auto add = [](uint32_t old, uint32_t value, uint32_t) -> uint32_t {
    return __builtin_bit_cast(Bits, __builtin_bit_cast(T, Bits(old)) + __builtin_bit_cast(T, Bits(value)));
  };
  return __builtin_bit_cast(T, Bits(gpuperf_atomic_by(address, sizeof(T), add, __builtin_bit_cast(Bits, value), 0)));
}

}  // namespace gpuperf

#define GPUPERF_HALF(T, T2, FRACTION, EXPONENT, TO, FROM)                                                              \
  struct T##_raw { unsigned short x; };                                                                               \
  struct alignas(4) T2##_raw { unsigned short x, y; };                                                                \
  struct T {                                                                                                          \
    unsigned short bits;                                                                                              \
    static constexpr int kFraction = FRACTION, kExponent = EXPONENT;                                                  \
    T() = default;                                                                                                    \
    T(T##_raw raw) : bits(raw.x) {}                                                                                   \
    operator T##_raw() const { return {bits}; }                                                                       \
    template <class N, class = typename std::enable_if<std::is_arithmetic<N>::value>::type>                           \
    T(N x) : bits(gpuperf::narrowed<FRACTION, EXPONENT>(gpuperf::wide(x))) {}                                         \
    operator float() const { return gpuperf::widened<FRACTION, EXPONENT>(bits); }                                     \
    T &operator+=(T b) { return *this = T(float(*this) + float(b)); }                                                 \
    T &operator-=(T b) { return *this = T(float(*this) - float(b)); }                                                 \
    T &operator*=(T b) { return *this = T(float(*this) * float(b)); }                                                 \
    T &operator/=(T b) { return *this = T(float(*this) / float(b)); }                                                 \
  };                                                                                                                  \
  struct alignas(4) T2 {                                                                                              \
    T x, y;                                                                                                           \
    T2() = default;                                                                                                   \
    T2(T x, T y) : x(x), y(y) {}                                                                                      \
    T2(T2##_raw raw) { x.bits = raw.x, y.bits = raw.y; }                                                              \
    operator T2##_raw() const { return {x.bits, y.bits}; }                                                            \
  };                                                                                                                  \
  GPUPERF_INLINE T operator+(T a, T b) { return T(float(a) + float(b)); }                                             \
  GPUPERF_INLINE T operator-(T a, T b) { return T(float(a) - float(b)); }                                             \
  GPUPERF_INLINE T operator*(T a, T b) { return T(float(a) * float(b)); }                                             \
  GPUPERF_INLINE T operator/(T a, T b) { return T(float(a) / float(b)); }                                             \
  GPUPERF_INLINE T operator-(T a) { a.bits ^= 0x8000; return a; }                                                     \
  GPUPERF_INLINE bool operator<(T a, T b) { return float(a) < float(b); }                                             \
  GPUPERF_INLINE bool operator>(T a, T b) { return float(a) > float(b); }                                             \
  GPUPERF_INLINE bool operator<=(T a, T b) { return float(a) <= float(b); }                                           \
  GPUPERF_INLINE bool operator>=(T a, T b) { return float(a) >= float(b); }                                           \
  GPUPERF_INLINE bool operator==(T a, T b) { return float(a) == float(b); }                                           \
  GPUPERF_INLINE bool operator!=(T a, T b) { return float(a) != float(b); }                                           \
  GPUPERF_INLINE T TO(float x) { return T(x); }                                                                       \
  GPUPERF_INLINE float FROM(T x) { return float(x); }                                                                 \
  GPUPERF_INLINE T __hadd(T a, T b) { return a + b; }                                                                 \
  GPUPERF_INLINE T __hsub(T a, T b) { return a - b; }                                                                 \
  GPUPERF_INLINE T __hmul(T a, T b) { return a * b; }                                                                 \
  GPUPERF_INLINE T __hdiv(T a, T b) { return a / b; }                                                                 \
  GPUPERF_INLINE T __hfma(T a, T b, T c) { return T(gpuperf::fused(float(a), float(b), float(c))); }                  \
  GPUPERF_INLINE T __hneg(T a) { return -a; }                                                                         \
  GPUPERF_INLINE T __habs(T a) { a.bits &= 0x7fff; return a; }                                                        \
  GPUPERF_INLINE T __hmax(T a, T b) { return T(fmaxf(float(a), float(b))); }                                          \
  GPUPERF_INLINE T __hmin(T a, T b) { return T(fminf(float(a), float(b))); }                                          \
  GPUPERF_INLINE bool __hisnan(T a) { return isnan(float(a)); }                                                       \
  GPUPERF_INLINE T2 operator+(T2 a, T2 b) { return {a.x + b.x, a.y + b.y}; }                                          \
  GPUPERF_INLINE T2 operator-(T2 a, T2 b) { return {a.x - b.x, a.y - b.y}; }                                          \
  GPUPERF_INLINE T2 operator*(T2 a, T2 b) { return {a.x * b.x, a.y * b.y}; }                                          \
  GPUPERF_INLINE T2 operator/(T2 a, T2 b) { return {a.x / b.x, a.y / b.y}; }                                          \
  GPUPERF_INLINE T2 __hadd2(T2 a, T2 b) { return a + b; }                                                             \
  GPUPERF_INLINE T2 __hsub2(T2 a, T2 b) { return a - b; }                                                             \
  GPUPERF_INLINE T2 __hmul2(T2 a, T2 b) { return a * b; }                                                             \
  GPUPERF_INLINE T2 __h2div(T2 a, T2 b) { return a / b; }                                                             \
  GPUPERF_INLINE T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }              \
  GPUPERF_INLINE T2 __hmax2(T2 a, T2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                              \
  GPUPERF_INLINE T2 __hmin2(T2 a, T2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                              \
  GPUPERF_INLINE T atomicAdd(T *address, T value) { return gpuperf::added(address, value); }                          \
  GPUPERF_INLINE T2 atomicAdd(T2 *address, T2 value) { return gpuperf::added(address, value); }                       \
  GPUPERF_INLINE T atomicAdd_block(T *address, T value) { return gpuperf::added(address, value); }                    \
  GPUPERF_INLINE T2 atomicAdd_block(T2 *address, T2 value) { return gpuperf::added(address, value); }                 \
  GPUPERF_INLINE T atomicAdd_system(T *address, T value) { return gpuperf::added(address, value); }                   \
  GPUPERF_INLINE T2 atomicAdd_system(T2 *address, T2 value) { return gpuperf::added(address, value); }
