#pragma once
#include "gpuperf_halves.h"

GPUPERF_HALF(__half, __half2, 10, 5, __float2half, __half2float)
typedef __half half;
typedef __half2 half2;

GPUPERF_INLINE __half __double2half(double x) { return __half(x); }
GPUPERF_INLINE __half __int2half_rn(int x) { return __half(x); }
GPUPERF_INLINE __half __uint2half_rn(unsigned x) { return __half(x); }
GPUPERF_INLINE int __half2int_rn(__half x) { return gpuperf::to_integer<int, gpuperf::kToNearest>(float(x)); }
GPUPERF_INLINE int __half2int_rz(__half x) { return gpuperf::to_integer<int, gpuperf::kToZero>(float(x)); }
GPUPERF_INLINE unsigned short __half_as_ushort(__half x) { return x.bits; }
GPUPERF_INLINE __half __ushort_as_half(unsigned short bits) { __half x; x.bits = bits; return x; }
GPUPERF_INLINE __half2 make_half2(__half x, __half y) { return {x, y}; }
GPUPERF_INLINE __half2 __halves2half2(__half x, __half y) { return {x, y}; }
GPUPERF_INLINE __half2 __half2half2(__half x) { return {x, x}; }
GPUPERF_INLINE __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
GPUPERF_INLINE __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
GPUPERF_INLINE __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
GPUPERF_INLINE float2 __half22float2(__half2 v) { return {float(v.x), float(v.y)}; }
GPUPERF_INLINE __half __low2half(__half2 v) { return v.x; }
GPUPERF_INLINE __half __high2half(__half2 v) { return v.y; }
GPUPERF_INLINE float __low2float(__half2 v) { return float(v.x); }
GPUPERF_INLINE float __high2float(__half2 v) { return float(v.y); }
