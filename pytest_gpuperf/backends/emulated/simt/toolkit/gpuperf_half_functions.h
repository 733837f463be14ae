// More of what cuda_fp16.h and cuda_bf16.h have in common: conversions that round as they say, saturating arithmetic,
// comparisons of pairs, and functions of both numbers of a pair.
#pragma once
#include "gpuperf_halves.h"

#define GPUPERF_HALF_TO(T, NAME, TO, TYPE)                                                                                      \
  GPUPERF_INLINE TYPE __##NAME##2##TO##_rn(T x) { return gpuperf::to_integer<TYPE, gpuperf::kToNearest>(float(x)); }             \
  GPUPERF_INLINE TYPE __##NAME##2##TO##_rz(T x) { return gpuperf::to_integer<TYPE, gpuperf::kToZero>(float(x)); }                \
  GPUPERF_INLINE TYPE __##NAME##2##TO##_rd(T x) { return gpuperf::to_integer<TYPE, gpuperf::kToBelow>(float(x)); }               \
  GPUPERF_INLINE TYPE __##NAME##2##TO##_ru(T x) { return gpuperf::to_integer<TYPE, gpuperf::kToAbove>(float(x)); }               \
  GPUPERF_HALF_OF(T, NAME, TO, TYPE)
#define GPUPERF_HALF_OF(T, NAME, FROM, TYPE)                                                                                    \
  GPUPERF_HALF_OF_AS(T, NAME, FROM, TYPE, rn, kToNearest)                                                                        \
  GPUPERF_HALF_OF_AS(T, NAME, FROM, TYPE, rz, kToZero)                                                                           \
  GPUPERF_HALF_OF_AS(T, NAME, FROM, TYPE, rd, kToBelow)                                                                          \
  GPUPERF_HALF_OF_AS(T, NAME, FROM, TYPE, ru, kToAbove)
#define GPUPERF_HALF_OF_AS(T, NAME, FROM, TYPE, MODE, ROUNDING)                                                                 \
  GPUPERF_INLINE T __##FROM##2##NAME##_##MODE(TYPE x) {                                                                           \
    T half;                                                                                                                      \
    half.bits = gpuperf::narrowed<T::kFraction, T::kExponent, gpuperf::ROUNDING>(gpuperf::wide(x));                               \
    return half;                                                                                                                 \
  }

// Of one number, and of each of a pair.
#define GPUPERF_HALF_FUNCTION(T, T2, NAME, EXPRESSION)                                  \
  GPUPERF_INLINE T h##NAME(T a) {                                                       \
    double x = float(a);                                                                \
    return T(EXPRESSION);                                                               \
  }                                                                                     \
  GPUPERF_INLINE T2 h2##NAME(T2 a) { return {h##NAME(a.x), h##NAME(a.y)}; }
#define GPUPERF_HALF_MATHEMATICS(T, T2)                     \
  GPUPERF_HALF_FUNCTION(T, T2, sqrt, std::sqrt(x))          \
  GPUPERF_HALF_FUNCTION(T, T2, rsqrt, 1 / std::sqrt(x))     \
  GPUPERF_HALF_FUNCTION(T, T2, rcp, 1 / x)                  \
  GPUPERF_HALF_FUNCTION(T, T2, exp, std::exp(x))            \
  GPUPERF_HALF_FUNCTION(T, T2, exp2, std::exp2(x))          \
  GPUPERF_HALF_FUNCTION(T, T2, exp10, ::exp10(x))           \
  GPUPERF_HALF_FUNCTION(T, T2, log, std::log(x))            \
  GPUPERF_HALF_FUNCTION(T, T2, log2, std::log2(x))          \
  GPUPERF_HALF_FUNCTION(T, T2, log10, std::log10(x))        \
  GPUPERF_HALF_FUNCTION(T, T2, sin, std::sin(x))            \
  GPUPERF_HALF_FUNCTION(T, T2, cos, std::cos(x))            \
  GPUPERF_HALF_FUNCTION(T, T2, tanh, std::tanh(x))          \
  GPUPERF_HALF_FUNCTION(T, T2, tanh_approx, std::tanh(x))   \
  GPUPERF_HALF_FUNCTION(T, T2, ceil, std::ceil(x))          \
  GPUPERF_HALF_FUNCTION(T, T2, floor, std::floor(x))        \
  GPUPERF_HALF_FUNCTION(T, T2, trunc, std::trunc(x))        \
  GPUPERF_HALF_FUNCTION(T, T2, rint, std::nearbyint(x))

// `u` after the name says that a comparison with what is no number holds.
#define GPUPERF_HALF_COMPARISON(T, T2, NAME, HOLDS)                                                                     \
  GPUPERF_INLINE bool __h##NAME(T x, T y) {                                                                             \
    float a = x, b = y;                                                                                                 \
    return HOLDS;                                                                                                       \
  }                                                                                                                     \
  GPUPERF_INLINE T2 __h##NAME##2(T2 a, T2 b) { return {T(int(__h##NAME(a.x, b.x))), T(int(__h##NAME(a.y, b.y)))}; }     \
  GPUPERF_INLINE bool __hb##NAME##2(T2 a, T2 b) { return __h##NAME(a.x, b.x) && __h##NAME(a.y, b.y); }                  \
  GPUPERF_INLINE unsigned __h##NAME##2_mask(T2 a, T2 b) {                                                               \
    return (__h##NAME(a.x, b.x) ? 0xffffu : 0u) | (__h##NAME(a.y, b.y) ? 0xffff0000u : 0u);                             \
  }
#define GPUPERF_HALF_COMPARISONS(T, T2)                                \
  GPUPERF_HALF_COMPARISON(T, T2, eq, a == b)                           \
  GPUPERF_HALF_COMPARISON(T, T2, ne, a < b || a > b)                   \
  GPUPERF_HALF_COMPARISON(T, T2, lt, a < b)                            \
  GPUPERF_HALF_COMPARISON(T, T2, le, a <= b)                           \
  GPUPERF_HALF_COMPARISON(T, T2, gt, a > b)                            \
  GPUPERF_HALF_COMPARISON(T, T2, ge, a >= b)                           \
  GPUPERF_HALF_COMPARISON(T, T2, equ, !(a < b || a > b))               \
  GPUPERF_HALF_COMPARISON(T, T2, neu, a != b)                          \
  GPUPERF_HALF_COMPARISON(T, T2, ltu, !(a >= b))                       \
  GPUPERF_HALF_COMPARISON(T, T2, leu, !(a > b))                        \
  GPUPERF_HALF_COMPARISON(T, T2, gtu, !(a <= b))                       \
  GPUPERF_HALF_COMPARISON(T, T2, geu, !(a < b))

#define GPUPERF_HALF_PAIRWISE(T2, ARITY, PAIR, NAME) GPUPERF_HALF_PAIRWISE_##ARITY(T2, PAIR, NAME)
#define GPUPERF_HALF_PAIRWISE_1(T2, PAIR, NAME) \
  GPUPERF_INLINE T2 PAIR(T2 a) { return {NAME(a.x), NAME(a.y)}; }
#define GPUPERF_HALF_PAIRWISE_2(T2, PAIR, NAME) \
  GPUPERF_INLINE T2 PAIR(T2 a, T2 b) { return {NAME(a.x, b.x), NAME(a.y, b.y)}; }
#define GPUPERF_HALF_PAIRWISE_3(T2, PAIR, NAME) \
  GPUPERF_INLINE T2 PAIR(T2 a, T2 b, T2 c) { return {NAME(a.x, b.x, c.x), NAME(a.y, b.y, c.y)}; }
#define GPUPERF_HALF_ARITHMETIC(T, T2)                                                                        \
  GPUPERF_INLINE T __hadd_rn(T a, T b) { return a + b; }                                                      \
  GPUPERF_INLINE T __hsub_rn(T a, T b) { return a - b; }                                                      \
  GPUPERF_INLINE T __hmul_rn(T a, T b) { return a * b; }                                                      \
  GPUPERF_INLINE T __hadd_sat(T a, T b) { return T(__saturatef(a + b)); }                                     \
  GPUPERF_INLINE T __hsub_sat(T a, T b) { return T(__saturatef(a - b)); }                                     \
  GPUPERF_INLINE T __hmul_sat(T a, T b) { return T(__saturatef(a * b)); }                                     \
  GPUPERF_INLINE T __hfma_sat(T a, T b, T c) { return T(__saturatef(__hfma(a, b, c))); }                      \
  GPUPERF_INLINE T __hfma_relu(T a, T b, T c) {                                                               \
    float f = __hfma(a, b, c);                                                                                \
    return T(f <= 0 ? 0.0f : f);                                                                              \
  }                                                                                                           \
  GPUPERF_INLINE T __hmax_nan(T a, T b) { return __hisnan(a) || __hisnan(b) ? T(NAN) : __hmax(a, b); }        \
  GPUPERF_INLINE T __hmin_nan(T a, T b) { return __hisnan(a) || __hisnan(b) ? T(NAN) : __hmin(a, b); }        \
  GPUPERF_INLINE int __hisinf(T a) { return isinf(float(a)) ? (float(a) < 0 ? -1 : 1) : 0; }                  \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hadd2_rn, __hadd)                                                            \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hsub2_rn, __hsub)                                                            \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hmul2_rn, __hmul)                                                            \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hadd2_sat, __hadd_sat)                                                       \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hsub2_sat, __hsub_sat)                                                       \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hmul2_sat, __hmul_sat)                                                       \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hmax2_nan, __hmax_nan)                                                       \
  GPUPERF_HALF_PAIRWISE(T2, 2, __hmin2_nan, __hmin_nan)                                                       \
  GPUPERF_HALF_PAIRWISE(T2, 3, __hfma2_sat, __hfma_sat)                                                       \
  GPUPERF_HALF_PAIRWISE(T2, 3, __hfma2_relu, __hfma_relu)                                                     \
  GPUPERF_HALF_PAIRWISE(T2, 1, __habs2, __habs)                                                               \
  GPUPERF_HALF_PAIRWISE(T2, 1, __hneg2, __hneg)                                                               \
  GPUPERF_INLINE T2 __hisnan2(T2 a) { return {T(int(__hisnan(a.x))), T(int(__hisnan(a.y)))}; }                \
  GPUPERF_INLINE T2 __hcmadd(T2 a, T2 b, T2 c) {                                                              \
    return {__hfma(-a.y, b.y, __hfma(a.x, b.x, c.x)), __hfma(a.y, b.x, __hfma(a.x, b.y, c.y))};               \
  }

#define GPUPERF_HALF_OPERATORS(T, T2)                                             \
  GPUPERF_INLINE T operator+(T a) { return a; }                                   \
  GPUPERF_INLINE T &operator++(T &a) { return a += T(1); }                        \
  GPUPERF_INLINE T &operator--(T &a) { return a -= T(1); }                        \
  GPUPERF_INLINE T operator++(T &a, int) { T old = a; ++a; return old; }          \
  GPUPERF_INLINE T operator--(T &a, int) { T old = a; --a; return old; }          \
  GPUPERF_INLINE T2 operator+(T2 a) { return a; }                                 \
  GPUPERF_INLINE T2 operator-(T2 a) { return {-a.x, -a.y}; }                      \
  GPUPERF_INLINE T2 &operator+=(T2 &a, T2 b) { return a = a + b; }                \
  GPUPERF_INLINE T2 &operator-=(T2 &a, T2 b) { return a = a - b; }                \
  GPUPERF_INLINE T2 &operator*=(T2 &a, T2 b) { return a = a * b; }                \
  GPUPERF_INLINE T2 &operator/=(T2 &a, T2 b) { return a = a / b; }                \
  GPUPERF_INLINE T2 &operator++(T2 &a) { return a += T2(T(1), T(1)); }            \
  GPUPERF_INLINE T2 &operator--(T2 &a) { return a -= T2(T(1), T(1)); }            \
  GPUPERF_INLINE T2 operator++(T2 &a, int) { T2 old = a; ++a; return old; }       \
  GPUPERF_INLINE T2 operator--(T2 &a, int) { T2 old = a; --a; return old; }       \
  GPUPERF_INLINE bool operator==(T2 a, T2 b) { return __hbeq2(a, b); }            \
  GPUPERF_INLINE bool operator!=(T2 a, T2 b) { return __hbneu2(a, b); }           \
  GPUPERF_INLINE bool operator<(T2 a, T2 b) { return __hblt2(a, b); }             \
  GPUPERF_INLINE bool operator>(T2 a, T2 b) { return __hbgt2(a, b); }             \
  GPUPERF_INLINE bool operator<=(T2 a, T2 b) { return __hble2(a, b); }            \
  GPUPERF_INLINE bool operator>=(T2 a, T2 b) { return __hbge2(a, b); }

// NAME and PAIR are the types' in the names of functions.
#define GPUPERF_HALF_FUNCTIONS(T, T2, NAME, PAIR)                                                             \
  GPUPERF_HALF_COMPARISONS(T, T2)                                                                             \
  GPUPERF_HALF_ARITHMETIC(T, T2)                                                                              \
  GPUPERF_HALF_OPERATORS(T, T2)                                                                               \
  GPUPERF_HALF_MATHEMATICS(T, T2)                                                                             \
  GPUPERF_HALF_TO(T, NAME, int, int)                                                                          \
  GPUPERF_HALF_TO(T, NAME, uint, unsigned int)                                                                \
  GPUPERF_HALF_TO(T, NAME, short, short)                                                                      \
  GPUPERF_HALF_TO(T, NAME, ushort, unsigned short)                                                            \
  GPUPERF_HALF_TO(T, NAME, ll, long long)                                                                     \
  GPUPERF_HALF_TO(T, NAME, ull, unsigned long long)                                                           \
  GPUPERF_HALF_OF(T, NAME, float, float)                                                                      \
  GPUPERF_INLINE signed char __##NAME##2char_rz(T x) { return gpuperf::to_integer<signed char, gpuperf::kToZero>(float(x)); }       \
  GPUPERF_INLINE unsigned char __##NAME##2uchar_rz(T x) { return gpuperf::to_integer<unsigned char, gpuperf::kToZero>(float(x)); }  \
  GPUPERF_INLINE short __##NAME##_as_short(T x) { return static_cast<short>(x.bits); }                        \
  GPUPERF_INLINE unsigned short __##NAME##_as_ushort(T x) { return x.bits; }                                  \
  GPUPERF_INLINE T __ushort_as_##NAME(unsigned short bits) { T x; x.bits = bits; return x; }                  \
  GPUPERF_INLINE T __short_as_##NAME(short bits) { return __ushort_as_##NAME(static_cast<unsigned short>(bits)); } \
  GPUPERF_INLINE T __double2##NAME(double x) { return T(x); }                                                 \
  GPUPERF_INLINE T2 make_##PAIR(T x, T y) { return {x, y}; }                                                  \
  GPUPERF_INLINE T2 __halves2##PAIR(T x, T y) { return {x, y}; }                                              \
  GPUPERF_INLINE T2 __##NAME##2##PAIR(T x) { return {x, x}; }                                                 \
  GPUPERF_INLINE T2 __float2##PAIR##_rn(float x) { return {T(x), T(x)}; }                                     \
  GPUPERF_INLINE T2 __floats2##PAIR##_rn(float x, float y) { return {T(x), T(y)}; }                           \
  GPUPERF_INLINE T2 __float22##PAIR##_rn(float2 v) { return {T(v.x), T(v.y)}; }                               \
  GPUPERF_INLINE float2 __##PAIR##2float2(T2 v) { return {float(v.x), float(v.y)}; }                          \
  GPUPERF_INLINE T __low2##NAME(T2 v) { return v.x; }                                                         \
  GPUPERF_INLINE T __high2##NAME(T2 v) { return v.y; }                                                        \
  GPUPERF_INLINE T2 __low2##PAIR(T2 v) { return {v.x, v.x}; }                                                 \
  GPUPERF_INLINE T2 __high2##PAIR(T2 v) { return {v.y, v.y}; }                                                \
  GPUPERF_INLINE T2 __lows2##PAIR(T2 a, T2 b) { return {a.x, b.x}; }                                          \
  GPUPERF_INLINE T2 __highs2##PAIR(T2 a, T2 b) { return {a.y, b.y}; }                                         \
  GPUPERF_INLINE T2 __lowhigh2highlow(T2 v) { return {v.y, v.x}; }                                            \
  GPUPERF_INLINE float __low2float(T2 v) { return float(v.x); }                                               \
  GPUPERF_INLINE float __high2float(T2 v) { return float(v.y); }
