// CUDA's atomics.
#include <string.h>

#include "operations.hpp"
#include "touch.hpp"

namespace simt {
namespace {

using namespace gpuperf;

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
    case kXorBits: return old_bits ^ value_bits;
    case kCompareAndSwap: return old_bits == compare ? value_bits : old_bits;
    default: return value_bits;
  }
  Bits bits;
  memcpy(&bits, &result, sizeof bits);
  return bits;
}

template <class Value, class Bits>
uint64_t apply(void *address, int operation, uint64_t value, uint64_t compare) {
  // Kernel files with atomics run on one OS thread (program.py), so nobody comes between.
  Bits *word = static_cast<Bits *>(address);
  Bits old = *word, changed = combine<Value, Bits>(operation, old, Bits(value), Bits(compare));
  *word = changed;
  if (changed != old) active->changes++;
  return old;
}

// Before an atomic: a thread that tries again and again gives way.
void count_spin(uint64_t pc) {
  Worker &worker = *active;
  if (++worker.spins % kSpins) return;
  worker.waiting_pc = pc;
  give_way(worker);
}

}  // namespace
}  // namespace simt

// An atomic on 2 or 4 bytes whose new value `combine` makes of the old one.
extern "C" uint32_t gpuperf_atomic_by(void *address, int size, uint32_t (*combine)(uint32_t, uint32_t, uint32_t), uint32_t value, uint32_t compare) {
  using namespace simt;
  uint64_t pc = reinterpret_cast<uint64_t>(__builtin_return_address(0)), place = reinterpret_cast<uint64_t>(address);
  count_spin(pc);
  size == 2 ? touch<AccessKind::kAtomic, 2>(place, pc, true) : touch<AccessKind::kAtomic, 4>(place, pc, true);
  uint32_t old = 0;
  memcpy(&old, address, size);
  uint32_t changed = combine(old, value, compare);
  memcpy(address, &changed, size);
  if (changed != old) active->changes++;
  return old;
}

extern "C" uint64_t gpuperf_atomic(void *address, int operation, int type, uint64_t value, uint64_t compare) {
  using namespace simt;
  bool narrow = type == kInt32 || type == kUint32 || type == kFloat;
  uint64_t pc = reinterpret_cast<uint64_t>(__builtin_return_address(0));
  count_spin(pc);
  uint64_t place = reinterpret_cast<uint64_t>(address);
  narrow ? touch<AccessKind::kAtomic, 4>(place, pc, operation != kExchange) : touch<AccessKind::kAtomic, 8>(place, pc, operation != kExchange);
  switch (type) {
    case kInt32: return apply<int32_t, uint32_t>(address, operation, value, compare);
    case kUint32: return apply<uint32_t, uint32_t>(address, operation, value, compare);
    case kInt64: return apply<int64_t, uint64_t>(address, operation, value, compare);
    case kUint64: return apply<uint64_t, uint64_t>(address, operation, value, compare);
    case kFloat: return apply<float, uint32_t>(address, operation, value, compare);
    default: return apply<double, uint64_t>(address, operation, value, compare);
  }
}
