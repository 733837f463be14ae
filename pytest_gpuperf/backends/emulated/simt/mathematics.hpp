// CUDA's math API beyond what the C library has, its integer and SIMD intrinsics and its conversions. Intrinsics
// that round in a direction of their own (_rd, _ru, _rz) take the nearest number and step once.
#pragma once

// ---- rounded arithmetic ----

namespace gpuperf {

enum Rounding { kToNearest, kToZero, kToBelow, kToAbove };

// `exact` rounded to T: a double for float, a long double for double.
template <Rounding kTo, class T, class Wide>
GPUPERF_INLINE T rounded(Wide exact) {
  T near = static_cast<T>(exact);
  if (kTo == kToNearest || near == exact || isnan(near)) return near;
  bool low = kTo == kToBelow || (kTo == kToZero && exact > 0), high = kTo == kToAbove || (kTo == kToZero && exact < 0);
  if (low && near > exact) return std::nextafter(near, static_cast<T>(-INFINITY));
  if (high && near < exact) return std::nextafter(near, static_cast<T>(INFINITY));
  return near;
}

// `near` is the nearest number to a result, and `error` how much more that was.
template <Rounding kTo, class T>
GPUPERF_INLINE T stepped(T near, T error) {
  if (kTo == kToNearest || !(error > 0 || error < 0) || std::isinf(near)) return near;
  bool low = kTo == kToBelow || (kTo == kToZero && near > 0), high = kTo == kToAbove || (kTo == kToZero && near < 0);
  if (low && error < 0) return std::nextafter(near, static_cast<T>(-INFINITY));
  if (high && error > 0) return std::nextafter(near, static_cast<T>(INFINITY));
  return near;
}
template <Rounding kTo, class T>
GPUPERF_INLINE T sum(T a, T b) {
  T near = a + b, of_b = near - a;
  return stepped<kTo>(near, T((a - (near - of_b)) + (b - of_b)));
}
template <Rounding kTo, class T>
GPUPERF_INLINE T quotient(T a, T b) {
  T near = a / b, left = std::fma(-near, b, a);
  return stepped<kTo>(near, b < 0 ? -left : left);
}

// To an integer: out of range gives the nearest one, and what is no number 0, or the highest bit alone from a
// double and to 64 bits.
template <class To, Rounding kTo, class From>
GPUPERF_INLINE To to_integer(From x) {
  if (isnan(x)) return sizeof(From) < 8 && sizeof(To) < 8 ? 0 : To(1ull << (8 * sizeof(To) - 1));
  From whole = kTo == kToNearest ? std::nearbyint(x) : kTo == kToZero ? std::trunc(x) : kTo == kToBelow ? std::floor(x) : std::ceil(x);
  constexpr To kMost = std::numeric_limits<To>::max(), kLeast = std::numeric_limits<To>::min();
  if (whole >= static_cast<From>(kMost / 2 + 1) * 2) return kMost;
  if (whole <= static_cast<From>(kLeast)) return kLeast;
  return static_cast<To>(whole);
}

}  // namespace gpuperf

#define GPUPERF_ROUNDED(DO) DO(rn, kToNearest) DO(rz, kToZero) DO(rd, kToBelow) DO(ru, kToAbove)
#define GPUPERF_ARITHMETIC_OF(T, P, MODE, TO)                                                                     \
  GPUPERF_INLINE T __##P##add_##MODE(T a, T b) { return gpuperf::sum<gpuperf::TO>(a, b); }                        \
  GPUPERF_INLINE T __##P##sub_##MODE(T a, T b) { return gpuperf::sum<gpuperf::TO>(a, -b); }                       \
  GPUPERF_INLINE T __##P##mul_##MODE(T a, T b) { return gpuperf::stepped<gpuperf::TO>(T(a * b), std::fma(a, b, -(a * b))); } \
  GPUPERF_INLINE T __##P##div_##MODE(T a, T b) { return gpuperf::quotient<gpuperf::TO>(a, b); }                   \
  GPUPERF_INLINE T __##P##rcp_##MODE(T a) { return gpuperf::quotient<gpuperf::TO>(T(1), a); }                     \
  GPUPERF_INLINE T __##P##sqrt_##MODE(T a) { return gpuperf::stepped<gpuperf::TO>(std::sqrt(a), std::fma(-std::sqrt(a), std::sqrt(a), a)); }
#define GPUPERF_ARITHMETIC(MODE, TO)                                                                              \
  GPUPERF_ARITHMETIC_OF(float, f, MODE, TO)                                                                       \
  GPUPERF_ARITHMETIC_OF(double, d, MODE, TO)                                                                      \
  GPUPERF_INLINE float __fmaf_##MODE(float a, float b, float c) {                                                  \
    return gpuperf::rounded<gpuperf::TO, float>((long double)(double(a) * b) + c);                                 \
  }                                                                                                                \
  GPUPERF_INLINE float __double2float_##MODE(double x) { return gpuperf::rounded<gpuperf::TO, float>(x); }         \
  GPUPERF_INLINE float __int2float_##MODE(int x) { return gpuperf::rounded<gpuperf::TO, float>(double(x)); }       \
  GPUPERF_INLINE float __uint2float_##MODE(unsigned x) { return gpuperf::rounded<gpuperf::TO, float>(double(x)); } \
  GPUPERF_INLINE float __ll2float_##MODE(long long x) { return gpuperf::rounded<gpuperf::TO, float>((long double)x); } \
  GPUPERF_INLINE float __ull2float_##MODE(unsigned long long x) { return gpuperf::rounded<gpuperf::TO, float>((long double)x); } \
  GPUPERF_INLINE double __ll2double_##MODE(long long x) { return gpuperf::rounded<gpuperf::TO, double>((long double)x); } \
  GPUPERF_INLINE double __ull2double_##MODE(unsigned long long x) { return gpuperf::rounded<gpuperf::TO, double>((long double)x); }
GPUPERF_ROUNDED(GPUPERF_ARITHMETIC)

#define GPUPERF_TO_INTEGER(MODE, TO)                                                                              \
  GPUPERF_INLINE int __float2int_##MODE(float x) { return gpuperf::to_integer<int, gpuperf::TO>(x); }             \
  GPUPERF_INLINE unsigned __float2uint_##MODE(float x) { return gpuperf::to_integer<unsigned, gpuperf::TO>(x); }  \
  GPUPERF_INLINE long long __float2ll_##MODE(float x) { return gpuperf::to_integer<long long, gpuperf::TO>(x); }  \
  GPUPERF_INLINE unsigned long long __float2ull_##MODE(float x) { return gpuperf::to_integer<unsigned long long, gpuperf::TO>(x); } \
  GPUPERF_INLINE int __double2int_##MODE(double x) { return gpuperf::to_integer<int, gpuperf::TO>(x); }           \
  GPUPERF_INLINE unsigned __double2uint_##MODE(double x) { return gpuperf::to_integer<unsigned, gpuperf::TO>(x); } \
  GPUPERF_INLINE long long __double2ll_##MODE(double x) { return gpuperf::to_integer<long long, gpuperf::TO>(x); } \
  GPUPERF_INLINE unsigned long long __double2ull_##MODE(double x) { return gpuperf::to_integer<unsigned long long, gpuperf::TO>(x); }
GPUPERF_ROUNDED(GPUPERF_TO_INTEGER)

#define GPUPERF_FUSED(MODE, DIRECTION)                                           \
  GPUPERF_INLINE double __fma_##MODE(double a, double b, double c) {             \
    int usual = fegetround();                                                    \
    fesetround(DIRECTION);                                                       \
    __asm__ volatile("" : "+x"(a)); /* what is computed stays between */         \
    double result = fma(a, b, c);                                                \
    __asm__ volatile("" : "+x"(result));                                         \
    fesetround(usual);                                                           \
    return result;                                                               \
  }                                                                              \
  GPUPERF_INLINE float __fmaf_ieee_##MODE(float a, float b, float c) { return __fmaf_##MODE(a, b, c); }
GPUPERF_FUSED(rn, FE_TONEAREST)
GPUPERF_FUSED(rz, FE_TOWARDZERO)
GPUPERF_FUSED(rd, FE_DOWNWARD)
GPUPERF_FUSED(ru, FE_UPWARD)
GPUPERF_INLINE double __int2double_rn(int x) { return x; }
GPUPERF_INLINE double __uint2double_rn(unsigned x) { return x; }
GPUPERF_INLINE float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }

// ---- mathematics ----

GPUPERF_INLINE float fdividef(float a, float b) { return a / b; }
GPUPERF_INLINE float __fdividef(float a, float b) { return a / b; }
GPUPERF_INLINE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
GPUPERF_INLINE double rsqrt(double x) { return 1.0 / sqrt(x); }
GPUPERF_INLINE float rcbrtf(float x) { return 1.0f / cbrtf(x); }
GPUPERF_INLINE double rcbrt(double x) { return 1.0 / cbrt(x); }
GPUPERF_INLINE double sinpi(double x) { return sin(M_PI * fmod(x, 2.0)); }
GPUPERF_INLINE double cospi(double x) { return cos(M_PI * fmod(x, 2.0)); }
GPUPERF_INLINE float sinpif(float x) { return static_cast<float>(sinpi(x)); }
GPUPERF_INLINE float cospif(float x) { return static_cast<float>(cospi(x)); }
GPUPERF_INLINE void sincospi(double x, double *s, double *c) { *s = sinpi(x), *c = cospi(x); }
GPUPERF_INLINE void sincospif(float x, float *s, float *c) { *s = sinpif(x), *c = cospif(x); }
GPUPERF_INLINE double norm3d(double a, double b, double c) { return sqrt(a * a + b * b + c * c); }
GPUPERF_INLINE double norm4d(double a, double b, double c, double d) { return sqrt(a * a + b * b + c * c + d * d); }
GPUPERF_INLINE double rnorm3d(double a, double b, double c) { return 1 / norm3d(a, b, c); }
GPUPERF_INLINE double rnorm4d(double a, double b, double c, double d) { return 1 / norm4d(a, b, c, d); }
GPUPERF_INLINE double rhypot(double a, double b) { return 1 / hypot(a, b); }
GPUPERF_INLINE float norm3df(float a, float b, float c) { return static_cast<float>(norm3d(a, b, c)); }
GPUPERF_INLINE float norm4df(float a, float b, float c, float d) { return static_cast<float>(norm4d(a, b, c, d)); }
GPUPERF_INLINE float rnorm3df(float a, float b, float c) { return static_cast<float>(rnorm3d(a, b, c)); }
GPUPERF_INLINE float rnorm4df(float a, float b, float c, float d) { return static_cast<float>(rnorm4d(a, b, c, d)); }
GPUPERF_INLINE float rhypotf(float a, float b) { return static_cast<float>(rhypot(a, b)); }
template <class T>
GPUPERF_INLINE T gpuperf_norm(int count, const T *values) {
  long double sum = 0;
  for (int i = 0; i < count; i++) sum += static_cast<long double>(values[i]) * values[i];
  return static_cast<T>(std::sqrt(sum));
}
GPUPERF_INLINE double norm(int count, const double *values) { return gpuperf_norm(count, values); }
GPUPERF_INLINE float normf(int count, const float *values) { return gpuperf_norm(count, values); }
GPUPERF_INLINE double rnorm(int count, const double *values) { return 1 / norm(count, values); }
GPUPERF_INLINE float rnormf(int count, const float *values) { return 1 / normf(count, values); }
GPUPERF_INLINE double cyl_bessel_i0(double x) { return std::cyl_bessel_i(0, std::fabs(x)); }
GPUPERF_INLINE float cyl_bessel_i0f(float x) { return static_cast<float>(cyl_bessel_i0(x)); }
GPUPERF_INLINE double cyl_bessel_i1(double x) { return std::copysign(std::cyl_bessel_i(1, std::fabs(x)), x); }
GPUPERF_INLINE float cyl_bessel_i1f(float x) { return static_cast<float>(cyl_bessel_i1(x)); }
GPUPERF_INLINE double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
GPUPERF_INLINE float normcdff(float x) { return static_cast<float>(normcdf(x)); }
GPUPERF_INLINE double erfcx(double x) { return x < 25 ? exp(x * x) * erfc(x) : (1 - 0.5 / (x * x)) / (x * 1.7724538509055160273); }
GPUPERF_INLINE float erfcxf(float x) { return static_cast<float>(erfcx(x)); }
// Winitzki's approximation, then Newton's steps on the side where little is lost.
GPUPERF_INLINE double erfinv(double y) {
  if (!(fabs(y) < 1)) return fabs(y) == 1 ? copysign(INFINITY, y) : NAN;
  double a = fabs(y), w = log((1 - a) * (1 + a)), t = 2 / (M_PI * 0.147) + w / 2, x = sqrt(sqrt(t * t - w / 0.147) - t);
  for (int i = 0; i < 4; i++) x -= (a < 0.5 ? erf(x) - a : (1 - a) - erfc(x)) / (M_2_SQRTPI * exp(-x * x));
  return copysign(x, y);
}
GPUPERF_INLINE float erfinvf(float y) { return static_cast<float>(erfinv(y)); }
GPUPERF_INLINE double erfcinv(double y) { return erfinv(1 - y); }
GPUPERF_INLINE float erfcinvf(float y) { return static_cast<float>(erfcinv(y)); }
GPUPERF_INLINE double normcdfinv(double y) { return M_SQRT2 * erfinv(2 * y - 1); }
GPUPERF_INLINE float normcdfinvf(float y) { return static_cast<float>(normcdfinv(y)); }
GPUPERF_INLINE float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// ---- integers ----

#define GPUPERF_MIN_MAX(NAME, TYPE)                                                  \
  GPUPERF_INLINE TYPE NAME##min(TYPE a, TYPE b) { return b < a ? b : a; }            \
  GPUPERF_INLINE TYPE NAME##max(TYPE a, TYPE b) { return a < b ? b : a; }
GPUPERF_MIN_MAX(u, unsigned)
GPUPERF_MIN_MAX(ll, long long)
GPUPERF_MIN_MAX(ull, unsigned long long)
GPUPERF_INLINE long long __mul64hi(long long a, long long b) { return (static_cast<__int128>(a) * b) >> 64; }
GPUPERF_INLINE int __hadd(int a, int b) { return (static_cast<long long>(a) + b) >> 1; }
GPUPERF_INLINE int __rhadd(int a, int b) { return (static_cast<long long>(a) + b + 1) >> 1; }
GPUPERF_INLINE unsigned __uhadd(unsigned a, unsigned b) { return (static_cast<unsigned long long>(a) + b) >> 1; }
GPUPERF_INLINE unsigned __urhadd(unsigned a, unsigned b) { return (static_cast<unsigned long long>(a) + b + 1) >> 1; }
GPUPERF_INLINE unsigned __usad(unsigned a, unsigned b, unsigned c) { return (a < b ? b - a : a - b) + c; }
GPUPERF_INLINE unsigned __sad(int a, int b, unsigned c) { return (a < b ? unsigned(b) - unsigned(a) : unsigned(a) - unsigned(b)) + c; }
GPUPERF_INLINE unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned shift) {
  return shift >= 32 ? low : ((((static_cast<unsigned long long>(high) << 32) | low) << shift) >> 32);
}
GPUPERF_INLINE unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
  return shift >= 32 ? high : (((static_cast<unsigned long long>(high) << 32) | low) >> shift);
}
GPUPERF_INLINE int __double2hiint(double x) { return static_cast<int>(__builtin_bit_cast(uint64_t, x) >> 32); }
GPUPERF_INLINE int __double2loint(double x) { return static_cast<int>(__builtin_bit_cast(uint64_t, x)); }
GPUPERF_INLINE double __hiloint2double(int high, int low) {
  return __builtin_bit_cast(double, static_cast<uint64_t>(static_cast<unsigned>(high)) << 32 | static_cast<unsigned>(low));
}
GPUPERF_INLINE int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<signed char>(a >> i) * static_cast<signed char>(b >> i);
  return c;
}
GPUPERF_INLINE unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
  return c;
}
GPUPERF_INLINE int __dp2a_lo(int a, int b, int c) { return c + short(a) * static_cast<signed char>(b) + short(a >> 16) * static_cast<signed char>(b >> 8); }
GPUPERF_INLINE int __dp2a_hi(int a, int b, int c) { return c + short(a) * static_cast<signed char>(b >> 16) + short(a >> 16) * static_cast<signed char>(b >> 24); }

// ---- SIMD within a word: lanes of BITS, of the type that the expression wants ----

#define GPUPERF_SIMD(NAME, BITS, TYPE, EXPRESSION)                             \
  GPUPERF_INLINE unsigned NAME(unsigned a, unsigned b) {                       \
    unsigned result = 0;                                                       \
    for (int i = 0; i < 32; i += BITS) {                                       \
      int x = static_cast<TYPE>(a >> i), y = static_cast<TYPE>(b >> i);        \
      result |= (static_cast<unsigned>(EXPRESSION) & ((1u << BITS) - 1)) << i; \
    }                                                                          \
    return result;                                                             \
  }
#define GPUPERF_SIMD_OF(BITS, N, SIGNED, UNSIGNED, LEAST, MOST, UMOST)         \
  GPUPERF_SIMD(__vadd##N, BITS, UNSIGNED, x + y)                               \
  GPUPERF_SIMD(__vsub##N, BITS, UNSIGNED, x - y)                               \
  GPUPERF_SIMD(__vaddss##N, BITS, SIGNED, x + y > MOST ? MOST : x + y < LEAST ? LEAST : x + y) \
  GPUPERF_SIMD(__vsubss##N, BITS, SIGNED, x - y > MOST ? MOST : x - y < LEAST ? LEAST : x - y) \
  GPUPERF_SIMD(__vaddus##N, BITS, UNSIGNED, x + y > UMOST ? UMOST : x + y)     \
  GPUPERF_SIMD(__vsubus##N, BITS, UNSIGNED, x < y ? 0 : x - y)                 \
  GPUPERF_SIMD(__vmaxs##N, BITS, SIGNED, x < y ? y : x)                        \
  GPUPERF_SIMD(__vmins##N, BITS, SIGNED, x < y ? x : y)                        \
  GPUPERF_SIMD(__vmaxu##N, BITS, UNSIGNED, x < y ? y : x)                      \
  GPUPERF_SIMD(__vminu##N, BITS, UNSIGNED, x < y ? x : y)                      \
  GPUPERF_SIMD(__vavgs##N, BITS, SIGNED, (x + y + (x + y >= 0)) >> 1)          \
  GPUPERF_SIMD(__vavgu##N, BITS, UNSIGNED, (x + y + 1) >> 1)                   \
  GPUPERF_SIMD(__vhaddu##N, BITS, UNSIGNED, (x + y) >> 1)                      \
  GPUPERF_SIMD(__vabsdiffs##N, BITS, SIGNED, x < y ? y - x : x - y)            \
  GPUPERF_SIMD(__vabsdiffu##N, BITS, UNSIGNED, x < y ? y - x : x - y)          \
  GPUPERF_SIMD(__vcmpeq##N, BITS, UNSIGNED, x == y ? -1 : 0)                   \
  GPUPERF_SIMD(__vcmpne##N, BITS, UNSIGNED, x != y ? -1 : 0)                   \
  GPUPERF_SIMD(__vcmpgts##N, BITS, SIGNED, x > y ? -1 : 0)                     \
  GPUPERF_SIMD(__vcmpges##N, BITS, SIGNED, x >= y ? -1 : 0)                    \
  GPUPERF_SIMD(__vcmplts##N, BITS, SIGNED, x < y ? -1 : 0)                     \
  GPUPERF_SIMD(__vcmples##N, BITS, SIGNED, x <= y ? -1 : 0)                    \
  GPUPERF_SIMD(__vcmpgtu##N, BITS, UNSIGNED, x > y ? -1 : 0)                   \
  GPUPERF_SIMD(__vcmpgeu##N, BITS, UNSIGNED, x >= y ? -1 : 0)                  \
  GPUPERF_SIMD(__vcmpltu##N, BITS, UNSIGNED, x < y ? -1 : 0)                   \
  GPUPERF_SIMD(__vcmpleu##N, BITS, UNSIGNED, x <= y ? -1 : 0)                  \
  GPUPERF_SIMD(__vseteq##N, BITS, UNSIGNED, x == y)                            \
  GPUPERF_SIMD(__vsetne##N, BITS, UNSIGNED, x != y)                            \
  GPUPERF_SIMD(__vsetgts##N, BITS, SIGNED, x > y)                              \
  GPUPERF_SIMD(__vsetges##N, BITS, SIGNED, x >= y)                             \
  GPUPERF_SIMD(__vsetlts##N, BITS, SIGNED, x < y)                              \
  GPUPERF_SIMD(__vsetles##N, BITS, SIGNED, x <= y)                             \
  GPUPERF_SIMD(__vsetgtu##N, BITS, UNSIGNED, x > y)                            \
  GPUPERF_SIMD(__vsetgeu##N, BITS, UNSIGNED, x >= y)                           \
  GPUPERF_SIMD(__vsetltu##N, BITS, UNSIGNED, x < y)                            \
  GPUPERF_SIMD(__vsetleu##N, BITS, UNSIGNED, x <= y)                           \
  GPUPERF_INLINE unsigned __vabs##N(unsigned a) { return __vabsdiffs##N(a, 0); } \
  GPUPERF_INLINE unsigned __vneg##N(unsigned a) { return __vsub##N(0, a); }    \
  GPUPERF_INLINE unsigned __vnegss##N(unsigned a) { return __vsubss##N(0, a); } \
  GPUPERF_INLINE unsigned __vabsss##N(unsigned a) { return __vmaxs##N(a, __vnegss##N(a)); } \
  GPUPERF_SUM_OF_DIFFERENCES(__vsadu##N, __vabsdiffu##N, BITS)                 \
  GPUPERF_SUM_OF_DIFFERENCES(__vsads##N, __vabsdiffs##N, BITS)
#define GPUPERF_SUM_OF_DIFFERENCES(NAME, DIFFERENCES, BITS)                    \
  GPUPERF_INLINE unsigned NAME(unsigned a, unsigned b) {                       \
    unsigned d = DIFFERENCES(a, b), sum = 0;                                   \
    for (int i = 0; i < 32; i += BITS) sum += d >> i & ((1u << BITS) - 1);     \
    return sum;                                                                \
  }
GPUPERF_SIMD_OF(8, 4, signed char, unsigned char, -128, 127, 255)
GPUPERF_SIMD_OF(16, 2, short, unsigned short, -32768, 32767, 65535)

// ---- where a pointer points ----

#define __builtin_assume(condition) ((void)0)
