// CUDA's built-in vector types, with CUDA's alignments (CUDA C++ Programming Guide, table "Alignment
// Requirements"): that of the whole for 2 and 4 components up to 16 bytes, that of a component for 1 and 3.
#pragma once

#define GPUPERF_VECTORS(NAME, TYPE, ALIGN2, ALIGN4)                                                  \
  struct NAME##1 { TYPE x; };                                                                        \
  struct alignas(ALIGN2) NAME##2 { TYPE x, y; };                                                     \
  struct NAME##3 { TYPE x, y, z; };                                                                  \
  struct alignas(ALIGN4) NAME##4 { TYPE x, y, z, w; };                                               \
  GPUPERF_INLINE NAME##1 make_##NAME##1(TYPE x) { return {x}; }                                      \
  GPUPERF_INLINE NAME##2 make_##NAME##2(TYPE x, TYPE y) { return {x, y}; }                           \
  GPUPERF_INLINE NAME##3 make_##NAME##3(TYPE x, TYPE y, TYPE z) { return {x, y, z}; }                \
  GPUPERF_INLINE NAME##4 make_##NAME##4(TYPE x, TYPE y, TYPE z, TYPE w) { return {x, y, z, w}; }

GPUPERF_VECTORS(char, signed char, 2, 4)
GPUPERF_VECTORS(uchar, unsigned char, 2, 4)
GPUPERF_VECTORS(short, short, 4, 8)
GPUPERF_VECTORS(ushort, unsigned short, 4, 8)
GPUPERF_VECTORS(int, int, 8, 16)
GPUPERF_VECTORS(uint, unsigned int, 8, 16)
GPUPERF_VECTORS(long, long, 16, 16)
GPUPERF_VECTORS(ulong, unsigned long, 16, 16)
GPUPERF_VECTORS(longlong, long long, 16, 16)
GPUPERF_VECTORS(ulonglong, unsigned long long, 16, 16)
GPUPERF_VECTORS(float, float, 8, 16)
GPUPERF_VECTORS(double, double, 16, 16)

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
