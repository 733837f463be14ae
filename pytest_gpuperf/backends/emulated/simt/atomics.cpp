// CUDA's atomics, atomic between the OS threads that run the blocks as well.
#include <string.h>

#include "runtime.hpp"

namespace simt {
namespace {

enum Operation { kAdd, kMin, kMax, kExchange, kCompareAndSwap, kAnd, kOr, kXor, kIncrement, kDecrement };
enum Type { kInt32, kUint32, kInt64, kUint64, kFloat, kDouble };

// A thread that tries this often in one turn is waiting for another one: let that run.
constexpr unsigned kSpins = 1024;

template <class Value, class Bits>
Bits combine(int operation, Bits old_bits, Bits value_bits, Bits compare) {
  Value old, value, result;
  memcpy(&old, &old_bits, sizeof old);
  memcpy(&value, &value_bits, sizeof value);
  switch (operation) {
    case kAdd: result = old + value; break;
    case kMin: result = value < old ? value : old; break;
    case kMax: result = old < value ? value : old; break;
    case kIncrement: result = old >= value ? Value(0) : Value(old + 1); break;
    case kDecrement: result = (old == Value(0) || old > value) ? value : Value(old - 1); break;
    case kAnd: return old_bits & value_bits;
    case kOr: return old_bits | value_bits;
    case kXor: return old_bits ^ value_bits;
    case kCompareAndSwap: return old_bits == compare ? value_bits : old_bits;
    default: return value_bits;
  }
  Bits bits;
  memcpy(&bits, &result, sizeof bits);
  return bits;
}

template <class Value, class Bits>
uint64_t apply(void *address, int operation, uint64_t value, uint64_t compare) {
  Bits *word = static_cast<Bits *>(address);
  Bits old = __atomic_load_n(word, __ATOMIC_SEQ_CST);
  Bits changed;
  do {
    changed = combine<Value, Bits>(operation, old, Bits(value), Bits(compare));
  } while (!__atomic_compare_exchange_n(word, &old, changed, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return old;
}

}  // namespace
}  // namespace simt

extern "C" uint64_t gpuperf_atomic(void *address, int operation, int type, uint64_t value, uint64_t compare) {
  using namespace simt;
  bool narrow = type == kInt32 || type == kUint32 || type == kFloat;
  touch_atomic(reinterpret_cast<uint64_t>(address), narrow ? 4 : 8, reinterpret_cast<uint64_t>(__builtin_return_address(0)));
  Worker &worker = *self;
  if (++worker.spins % kSpins == 0) yield(worker, State::kReady);
  switch (type) {
    case kInt32: return apply<int32_t, uint32_t>(address, operation, value, compare);
    case kUint32: return apply<uint32_t, uint32_t>(address, operation, value, compare);
    case kInt64: return apply<int64_t, uint64_t>(address, operation, value, compare);
    case kUint64: return apply<uint64_t, uint64_t>(address, operation, value, compare);
    case kFloat: return apply<float, uint32_t>(address, operation, value, compare);
    default: return apply<double, uint64_t>(address, operation, value, compare);
  }
}
