#pragma once
#include "gpuperf_halves.h"

GPUPERF_HALF(__nv_bfloat16, __nv_bfloat162, 7, 8, __float2bfloat16, __bfloat162float)
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

GPUPERF_INLINE __nv_bfloat16 __double2bfloat16(double x) { return __nv_bfloat16(x); }
GPUPERF_INLINE unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
GPUPERF_INLINE __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { __nv_bfloat16 x; x.bits = bits; return x; }
GPUPERF_INLINE __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
GPUPERF_INLINE __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
GPUPERF_INLINE __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
GPUPERF_INLINE __nv_bfloat162 __float2bfloat162_rn(float x) { return {__nv_bfloat16(x), __nv_bfloat16(x)}; }
GPUPERF_INLINE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
GPUPERF_INLINE float2 __bfloat1622float2(__nv_bfloat162 v) { return {float(v.x), float(v.y)}; }
GPUPERF_INLINE float __low2float(__nv_bfloat162 v) { return float(v.x); }
GPUPERF_INLINE float __high2float(__nv_bfloat162 v) { return float(v.y); }
