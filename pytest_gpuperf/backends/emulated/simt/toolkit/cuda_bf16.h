#pragma once
#include "gpuperf_half_functions.h"

GPUPERF_HALF(__nv_bfloat16, __nv_bfloat162, 7, 8, __float2bfloat16, __bfloat162float)
GPUPERF_HALF_FUNCTIONS(__nv_bfloat16, __nv_bfloat162, bfloat16, bfloat162)
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;
