// The C library's functions that write through a pointer, where no hook would see it: the build sends a kernel's
// calls here (compiler.py).
#include <math.h>

#include "touch.hpp"

namespace simt {
namespace {

template <class T>
inline __attribute__((always_inline)) void store(T *to, T value, uint64_t pc) {
  touch<AccessKind::kStore, sizeof(T)>(reinterpret_cast<uint64_t>(to), pc);
  *to = value;
}

}  // namespace
}  // namespace simt

#define GPUPERF_POINTERS(T, SUFFIX)                                              \
  void gpuperf_sincos##SUFFIX(T x, T *sine, T *cosine) {                         \
    uint64_t pc = reinterpret_cast<uint64_t>(__builtin_return_address(0));       \
    simt::store(sine, sin##SUFFIX(x), pc);                                       \
    simt::store(cosine, cos##SUFFIX(x), pc);                                     \
  }                                                                              \
  T gpuperf_modf##SUFFIX(T x, T *whole) {                                        \
    T found, rest = modf##SUFFIX(x, &found);                                     \
    simt::store(whole, found, reinterpret_cast<uint64_t>(__builtin_return_address(0))); \
    return rest;                                                                 \
  }                                                                              \
  T gpuperf_frexp##SUFFIX(T x, int *exponent) {                                  \
    int found;                                                                   \
    T rest = frexp##SUFFIX(x, &found);                                           \
    simt::store(exponent, found, reinterpret_cast<uint64_t>(__builtin_return_address(0))); \
    return rest;                                                                 \
  }                                                                              \
  T gpuperf_remquo##SUFFIX(T x, T y, int *quotient) {                            \
    int found;                                                                   \
    T rest = remquo##SUFFIX(x, y, &found);                                       \
    simt::store(quotient, found, reinterpret_cast<uint64_t>(__builtin_return_address(0))); \
    return rest;                                                                 \
  }

extern "C" {
GPUPERF_POINTERS(float, f)
GPUPERF_POINTERS(double, )
}
