// The check of an access where it has nothing to find out anew; memory.cpp has the rest.
#pragma once

#include <string.h>

#include "races.hpp"

namespace simt {

// memory.cpp
// Checks and traces one access; does not return where the access must not happen. `site` may know more next time.
template <AccessKind kKind>
void touch_slowly(Attempt attempt, bool whole, bool reads_value, Site *site = nullptr);
template <AccessKind kKind, uint32_t kSize>
__attribute__((noinline)) void touch_closely(uint64_t address, uint64_t pc, Site &site, bool reads_value);

inline bool aligned(uint64_t address, uint32_t size) { return (address & (size - 1)) == 0; }

// The cells of an aligned access, as loops over words of 4 bytes that the compiler unrolls.
constexpr uint32_t words_of(uint32_t size) { return size <= 4 ? 1 : size / 4; }
inline uint64_t bytes_within(uint64_t address, uint32_t size) {
  return (size >= 4 ? 0xf : ((1u << size) - 1) << (address & 3)) << kBytesShift;
}
constexpr uint64_t initialised_by(uint64_t mine) { return (mine & kBytes) >> (kBytesShift - kInitialisedShift); }

// What nearly every access to a word finds: nobody has touched it in this phase, or it is a load that has nothing to
// leave, or others did atomics as well. False where it has to be looked at.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT bool shared_at_once(const Worker &worker, uint64_t word, uint64_t mine) {
  if (kKind == AccessKind::kLoad && kSize >= 4) {
    uint32_t settled = worker.settled[word];
    if (settled == worker.phase_epoch || settled == worker.warp_epoch) return true;
  }
  uint64_t &write = worker.writes[word], &read = worker.reads[word];
  if (read >= worker.phase_first || (write >= worker.phase_first && !(kKind == AccessKind::kAtomic && write & kAtomic))) return false;
  if (kKind != AccessKind::kStore && (write < worker.block_first || !(write & initialised_by(mine)))) return false;
  if (kKind == AccessKind::kLoad) return read = mine, true;
  if (kSize < 4) return false;
  return write = mine | initialised_by(mine), true;
}

template <AccessKind kKind>
GPUPERF_HOT bool global_at_once(const Worker &worker, const Shadow &shadow, uint64_t index, uint64_t mine) {
  uint64_t &write = shadow.writes[index], &read = shadow.reads[index], writer = peek(write);
  if (writer >= worker.launch_first && !(kKind == AccessKind::kAtomic && writer & kAtomic)) return false;
  if ((kKind == AccessKind::kLoad || shadow.any_reader) && peek(read) >= worker.launch_first) return false;
  poke(kKind == AccessKind::kLoad ? read : write, mine);
  return true;
}

// Checks the access that nearly all are: at a place in the code that went to the same array before. False where it
// has to be looked at; to have done a part of it does no harm.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT bool at_once(const Worker &worker, uint64_t address, const Site &site) {
  if (worker.attention.load(std::memory_order_relaxed) || address - site.begin >= site.room || !aligned(address, kSize)) return false;
  if (site.way == Way::kFree) return true;
  if (kKind == AccessKind::kAtomic && worker.launch->fences) return false;
  uint64_t mine = worker.mark | site.number | (kKind == AccessKind::kAtomic ? kAtomic : 0) | bytes_within(address, kSize);
  bool done = true;
  if (site.way == Way::kShared) {
    for (uint32_t i = 0; i < words_of(kSize); i++) done &= shared_at_once<kKind, kSize>(worker, (address >> 2) + i, mine);
    return done;
  }
  const Shadow &shadow = *site.shadow;
  if (shadow.shift != 2 || (kKind == AccessKind::kLoad && !shadow.any_reader)) return false;
  uint64_t index = (address >> 2) - (shadow.begin >> 2);
  for (uint32_t i = 0; i < words_of(kSize); i++) done &= global_at_once<kKind>(worker, shadow, index + i, mine);
  return done;
}

// The same of an access to the thread's own stack.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT bool own_at_once(const Worker &worker, uint64_t address) {
  if (worker.attention.load(std::memory_order_relaxed) || address - worker.stack_begin > kStack - kSize) return false;
  if (!worker.watches_locals) return true;
  uint8_t *marks = mark_at(address);
  if (kKind != AccessKind::kStore && *marks) return false;
  if (kKind != AccessKind::kLoad) memset(marks, 0, kSize);
  return true;
}

// An access at a place that the kernel's code numbers (hooks.py).
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void touch_at(Site &site, uint64_t address, uint64_t pc) {
  const Worker &worker = *active;
  if (__builtin_expect(!at_once<kKind, kSize>(worker, address, site), 0) && !own_at_once<kKind, kSize>(worker, address)) touch_closely<kKind, kSize>(address, pc, site, kKind == AccessKind::kLoad);
}

// One at any other place.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void touch(uint64_t address, uint64_t pc, bool reads_value = kKind == AccessKind::kLoad) {
  Site &site = active->other_sites[(pc >> 1) % Worker::kPlaces];
  const Worker &worker = *active;
  bool done = site.pc == pc && at_once<kKind, kSize>(worker, address, site);
  if (__builtin_expect(!done, 0) && !own_at_once<kKind, kSize>(worker, address)) touch_closely<kKind, kSize>(address, pc, site, reads_value);
}

}  // namespace simt
