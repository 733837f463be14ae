#pragma once
typedef float2 cuFloatComplex;
typedef double2 cuDoubleComplex;
typedef cuFloatComplex cuComplex;
#define GPUPERF_COMPLEX(TYPE, REAL, F, D)                                                                     \
  GPUPERF_INLINE TYPE make_cu##D##Complex(REAL x, REAL y) { return {x, y}; }                                  \
  GPUPERF_INLINE REAL cuCreal##F(TYPE a) { return a.x; }                                                      \
  GPUPERF_INLINE REAL cuCimag##F(TYPE a) { return a.y; }                                                      \
  GPUPERF_INLINE TYPE cuConj##F(TYPE a) { return {a.x, -a.y}; }                                               \
  GPUPERF_INLINE TYPE cuCadd##F(TYPE a, TYPE b) { return {a.x + b.x, a.y + b.y}; }                            \
  GPUPERF_INLINE TYPE cuCsub##F(TYPE a, TYPE b) { return {a.x - b.x, a.y - b.y}; }                            \
  GPUPERF_INLINE TYPE cuCmul##F(TYPE a, TYPE b) { return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x}; }    \
  GPUPERF_INLINE TYPE cuCdiv##F(TYPE a, TYPE b) {                                                             \
    REAL s = REAL(1) / (std::fabs(b.x) + std::fabs(b.y)), bx = b.x * s, by = b.y * s, d = REAL(1) / (bx * bx + by * by); \
    return {(a.x * s * bx + a.y * s * by) * d, (a.y * s * bx - a.x * s * by) * d};                            \
  }                                                                                                           \
  GPUPERF_INLINE REAL cuCabs##F(TYPE a) { return std::hypot(a.x, a.y); }                                      \
  GPUPERF_INLINE TYPE cuCfma##F(TYPE a, TYPE b, TYPE c) {                                                     \
    return {a.x * b.x - a.y * b.y + c.x, a.x * b.y + a.y * b.x + c.y};                                        \
  }
GPUPERF_COMPLEX(cuFloatComplex, float, f, Float)
GPUPERF_COMPLEX(cuDoubleComplex, double, , Double)
GPUPERF_INLINE cuComplex make_cuComplex(float x, float y) { return {x, y}; }
GPUPERF_INLINE cuDoubleComplex cuComplexFloatToDouble(cuFloatComplex a) { return {a.x, a.y}; }
GPUPERF_INLINE cuFloatComplex cuComplexDoubleToFloat(cuDoubleComplex a) { return {float(a.x), float(a.y)}; }
