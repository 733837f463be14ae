// Barriers, warp operations and atomics: each is a call into the runtime, which knows the other threads.
#pragma once

#include "operations.hpp"

extern "C" {
void gpuperf_block_barrier(int predicate, const char *file, int line);
int gpuperf_barrier_sum();
uint64_t gpuperf_warp(int operation, uint32_t mask, uint64_t value, int operand, int width, const char *file, int line);
uint64_t gpuperf_atomic(void *address, int operation, int type, uint64_t value, uint64_t compare);
uint32_t gpuperf_atomic_by(void *address, int size, uint32_t (*combine)(uint32_t, uint32_t, uint32_t), uint32_t value, uint32_t compare);
void gpuperf_pause();
void gpuperf_fence();
void gpuperf_grid_barrier();
void gpuperf_copy_later(void *to, const void *from, size_t size, size_t zeros);
void gpuperf_copies_commit();
void gpuperf_copies_wait(unsigned but);
}

GPUPERF_INLINE void __syncthreads(GPUPERF_SITE) { gpuperf_block_barrier(0, gpuperf_file, gpuperf_line); }
GPUPERF_INLINE int __syncthreads_count(int predicate, GPUPERF_SITE) {
  gpuperf_block_barrier(predicate != 0, gpuperf_file, gpuperf_line);
  return gpuperf_barrier_sum();
}
GPUPERF_INLINE int __syncthreads_or(int predicate, GPUPERF_SITE) {
  return __syncthreads_count(predicate, gpuperf_file, gpuperf_line) != 0;
}
GPUPERF_INLINE int __syncthreads_and(int predicate, GPUPERF_SITE) {
  return __syncthreads_count(!predicate, gpuperf_file, gpuperf_line) == 0;
}

GPUPERF_INLINE void __threadfence() { gpuperf_fence(); }
GPUPERF_INLINE void __threadfence_block() { __threadfence(); }
GPUPERF_INLINE void __threadfence_system() { __threadfence(); }
GPUPERF_INLINE void __nanosleep(unsigned int) { gpuperf_pause(); }

// ---- warps ----

namespace gpuperf {
template <class T>
GPUPERF_INLINE T exchange(WarpOperation operation, unsigned mask, T value, int operand, int width, const char *file, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
  using Bits = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
  if constexpr (sizeof(T) < 4) {
    // A register holds 4 bytes.
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = gpuperf_warp(operation, mask, bits, operand, width, file, line);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  } else {
    uint64_t bits = gpuperf_warp(operation, mask, __builtin_bit_cast(Bits, value), operand, width, file, line);
    return __builtin_bit_cast(T, static_cast<Bits>(bits));
  }
}
}  // namespace gpuperf

GPUPERF_INLINE void __syncwarp(unsigned mask = 0xffffffffu, GPUPERF_SITE) {
  gpuperf_warp(gpuperf::kSync, mask, 0, 0, 32, gpuperf_file, gpuperf_line);
}
#define GPUPERF_SHUFFLES(EXTRA)                                                                                          \
  GPUPERF_SHUFFLE(__shfl_sync, kShuffle, int, EXTRA)                                                                    \
  GPUPERF_SHUFFLE(__shfl_up_sync, kUp, unsigned, EXTRA)                                                                 \
  GPUPERF_SHUFFLE(__shfl_down_sync, kDown, unsigned, EXTRA)                                                             \
  GPUPERF_SHUFFLE(__shfl_xor_sync, kXor, int, EXTRA)
#define GPUPERF_SHUFFLE(NAME, OPERATION, OPERAND, EXTRA)                                                                \
  template <class T>                                                                                                    \
  GPUPERF_INLINE T NAME(unsigned mask, T value, OPERAND operand, int width = 32, GPUPERF_SITE) {                        \
    return gpuperf::exchange(gpuperf::OPERATION, mask, value, operand, width + (EXTRA), gpuperf_file, gpuperf_line);       \
  }
GPUPERF_SHUFFLES(0)
// Those whose result is looked at under a condition only (source.py): it may come from no lane.
namespace gpuperf_guarded {
GPUPERF_SHUFFLES(1 << 16)
}
GPUPERF_INLINE unsigned __ballot_sync(unsigned mask, int predicate, GPUPERF_SITE) {
  return gpuperf_warp(gpuperf::kBallot, mask, predicate != 0, 0, 32, gpuperf_file, gpuperf_line);
}
GPUPERF_INLINE int __any_sync(unsigned mask, int predicate, GPUPERF_SITE) {
  return __ballot_sync(mask, predicate, gpuperf_file, gpuperf_line) != 0;
}
GPUPERF_INLINE int __all_sync(unsigned mask, int predicate, GPUPERF_SITE) {
  return __ballot_sync(mask, !predicate, gpuperf_file, gpuperf_line) == 0;
}
template <class T>
GPUPERF_INLINE unsigned __match_any_sync(unsigned mask, T value, GPUPERF_SITE) {
  return static_cast<unsigned>(
      gpuperf::exchange<uint64_t>(gpuperf::kMatch, mask, gpuperf_bits(value), 0, 32, gpuperf_file, gpuperf_line));
}
template <class T>
GPUPERF_INLINE unsigned __match_all_sync(unsigned mask, T value, int *agree, GPUPERF_SITE) {
  *agree = __match_any_sync(mask, value, gpuperf_file, gpuperf_line) == mask;
  return *agree ? mask : 0;
}

// ---- reductions of a warp, in the order of the lanes ----

namespace gpuperf {
template <class T, class Combine>
GPUPERF_INLINE T reduce(unsigned mask, T value, Combine combine, const char *file, int line) {
  T result = value;
  bool first = true;
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    T other = exchange(kShuffle, mask, value, lane, 32, file, line);
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}
}  // namespace gpuperf

#define GPUPERF_REDUCE(NAME, TYPE, EXPRESSION)                                          \
  GPUPERF_INLINE TYPE __reduce_##NAME##_sync(unsigned mask, TYPE value, GPUPERF_SITE) { \
    return gpuperf::reduce(mask, value, [](TYPE a, TYPE b) -> TYPE { return EXPRESSION; }, gpuperf_file, gpuperf_line); \
  }
GPUPERF_REDUCE(add, unsigned, a + b)
GPUPERF_REDUCE(add, int, int(unsigned(a) + unsigned(b)))
GPUPERF_REDUCE(min, unsigned, b < a ? b : a)
GPUPERF_REDUCE(min, int, b < a ? b : a)
GPUPERF_REDUCE(max, unsigned, a < b ? b : a)
GPUPERF_REDUCE(max, int, a < b ? b : a)
GPUPERF_REDUCE(and, unsigned, a & b)
GPUPERF_REDUCE(or, unsigned, a | b)
GPUPERF_REDUCE(xor, unsigned, a ^ b)

GPUPERF_INLINE unsigned __activemask(GPUPERF_SITE) {
  return gpuperf_warp(gpuperf::kActive, 0, 0, 0, 32, gpuperf_file, gpuperf_line);
}

// ---- atomics, for the types CUDA has them for ----

#define GPUPERF_ATOMIC(NAME, OPERATION, TYPE, TAG)                                                       \
  GPUPERF_INLINE TYPE NAME(TYPE *address, TYPE value) {                                                  \
    return gpuperf_value<TYPE>(gpuperf_atomic(address, gpuperf::OPERATION, gpuperf::TAG, gpuperf_bits(value), 0)); \
  }                                                                                                      \
  GPUPERF_INLINE TYPE NAME##_block(TYPE *address, TYPE value) { return NAME(address, value); }           \
  GPUPERF_INLINE TYPE NAME##_system(TYPE *address, TYPE value) { return NAME(address, value); }
#define GPUPERF_ATOMIC_INTEGERS(NAME, OPERATION)          \
  GPUPERF_ATOMIC(NAME, OPERATION, int, kInt32)            \
  GPUPERF_ATOMIC(NAME, OPERATION, unsigned int, kUint32)  \
  GPUPERF_ATOMIC(NAME, OPERATION, unsigned long long, kUint64)

GPUPERF_ATOMIC_INTEGERS(atomicAdd, kAdd)
GPUPERF_ATOMIC(atomicAdd, kAdd, float, kFloat)
GPUPERF_ATOMIC(atomicAdd, kAdd, double, kDouble)
// Of a vector each component by itself, as a GPU does.
#define GPUPERF_ATOMIC_VECTORS(NAME)                                                    \
  GPUPERF_INLINE float2 NAME(float2 *address, float2 value) {                           \
    return {NAME(&address->x, value.x), NAME(&address->y, value.y)};                    \
  }                                                                                     \
  GPUPERF_INLINE float4 NAME(float4 *address, float4 value) {                           \
    return {NAME(&address->x, value.x), NAME(&address->y, value.y),                     \
            NAME(&address->z, value.z), NAME(&address->w, value.w)};                    \
  }
GPUPERF_ATOMIC_VECTORS(atomicAdd)
GPUPERF_ATOMIC_VECTORS(atomicAdd_block)
GPUPERF_ATOMIC_VECTORS(atomicAdd_system)
GPUPERF_ATOMIC_INTEGERS(atomicMin, kMin)
GPUPERF_ATOMIC(atomicMin, kMin, long long, kInt64)
GPUPERF_ATOMIC_INTEGERS(atomicMax, kMax)
GPUPERF_ATOMIC(atomicMax, kMax, long long, kInt64)
GPUPERF_ATOMIC_INTEGERS(atomicExch, kExchange)
GPUPERF_ATOMIC(atomicExch, kExchange, float, kFloat)
GPUPERF_ATOMIC(atomicAnd, kAnd, long long, kInt64)
GPUPERF_ATOMIC(atomicOr, kOr, long long, kInt64)
GPUPERF_ATOMIC(atomicXor, kXorBits, long long, kInt64)
GPUPERF_ATOMIC_INTEGERS(atomicAnd, kAnd)
GPUPERF_ATOMIC_INTEGERS(atomicOr, kOr)
GPUPERF_ATOMIC_INTEGERS(atomicXor, kXorBits)
GPUPERF_ATOMIC(atomicInc, kIncrement, unsigned int, kUint32)
GPUPERF_ATOMIC(atomicDec, kDecrement, unsigned int, kUint32)
#define GPUPERF_ATOMIC_SUB(NAME)                                                                                      \
  GPUPERF_INLINE int NAME(int *address, int value) { return atomicAdd(address, int(0u - unsigned(value))); }          \
  GPUPERF_INLINE unsigned NAME(unsigned *address, unsigned value) { return atomicAdd(address, 0u - value); }
GPUPERF_ATOMIC_SUB(atomicSub)
GPUPERF_ATOMIC_SUB(atomicSub_block)
GPUPERF_ATOMIC_SUB(atomicSub_system)

#define GPUPERF_ATOMIC_CAS_AS(NAME, TYPE, TAG)                                                \
  GPUPERF_INLINE TYPE NAME(TYPE *address, TYPE compare, TYPE value) {                         \
    return gpuperf_value<TYPE>(gpuperf_atomic(address, gpuperf::kCompareAndSwap, gpuperf::TAG, \
                                              gpuperf_bits(value), gpuperf_bits(compare)));   \
  }
#define GPUPERF_ATOMIC_CAS(TYPE, TAG)                \
  GPUPERF_ATOMIC_CAS_AS(atomicCAS, TYPE, TAG)        \
  GPUPERF_ATOMIC_CAS_AS(atomicCAS_block, TYPE, TAG)  \
  GPUPERF_ATOMIC_CAS_AS(atomicCAS_system, TYPE, TAG)
GPUPERF_ATOMIC_CAS(int, kInt32)
GPUPERF_ATOMIC_CAS(unsigned int, kUint32)
GPUPERF_ATOMIC_CAS(unsigned long long, kUint64)
#define GPUPERF_ATOMIC_CAS_16(NAME)                                                                                   \
  GPUPERF_INLINE unsigned short NAME(unsigned short *address, unsigned short compare, unsigned short value) {         \
    auto swap = [](uint32_t old, uint32_t value, uint32_t compare) { return old == compare ? value : old; };          \
    return static_cast<unsigned short>(gpuperf_atomic_by(address, 2, swap, value, compare));                          \
  }
GPUPERF_ATOMIC_CAS_16(atomicCAS)
GPUPERF_ATOMIC_CAS_16(atomicCAS_block)
GPUPERF_ATOMIC_CAS_16(atomicCAS_system)
