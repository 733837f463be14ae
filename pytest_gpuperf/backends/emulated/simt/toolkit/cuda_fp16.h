#pragma once
#include "gpuperf_half_functions.h"

GPUPERF_HALF(__half, __half2, 10, 5, __float2half, __half2float)
GPUPERF_HALF_FUNCTIONS(__half, __half2, half, half2)
typedef __half half;
typedef __half2 half2;
typedef __half nv_half;
typedef __half2 nv_half2;
