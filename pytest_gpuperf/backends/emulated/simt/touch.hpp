// The check of an access where it has nothing to find out anew; memory.cpp has the rest.
#pragma once

#include "races.hpp"

namespace simt {

// memory.cpp
template <AccessKind kKind>
void touch_slowly(Attempt attempt, Site *site, bool whole, bool reads_value);
template <AccessKind kKind>
void check_global(Worker &worker, Shadow &shadow, const Attempt &attempt, uint64_t mine);
template <AccessKind kKind>
void check_shared_word(Worker &worker, const Attempt &attempt, uint64_t word, uint64_t mine, bool *initialised);
template <AccessKind kKind>
void check_global_word(Worker &worker, Shadow &shadow, const Attempt &attempt, uint64_t index, uint64_t mine);
void poll(Worker &worker, const Attempt &attempt);

inline bool aligned(uint64_t address, uint32_t size) { return (address & (size - 1)) == 0; }

// The cells of an aligned access, as loops over words of 4 bytes that the compiler unrolls.
constexpr uint32_t words_of(uint32_t size) { return size <= 4 ? 1 : size / 4; }
inline uint64_t bytes_within(uint64_t address, uint32_t size) {
  return (size >= 4 ? 0xf : ((1u << size) - 1) << (address & 3)) << kBytesShift;
}
constexpr uint64_t initialised_by(uint64_t mine) { return (mine & kBytes) >> (kBytesShift - kInitialisedShift); }

// What nearly every access to a word finds: nobody has touched it since it was written or read last in an earlier
// phase, or it is a load that has nothing to leave. False where it has to be looked at.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT bool shared_at_once(const Worker &worker, uint64_t word, uint64_t mine) {
  if (kKind == AccessKind::kAtomic) return false;
  if (kKind == AccessKind::kLoad && kSize >= 4) {
    uint32_t settled = worker.settled[word];
    if (settled == worker.phase_epoch || settled == worker.warp_epoch) return true;
  }
  uint64_t &write = worker.writes[word], &read = worker.reads[2 * word];
  if (write >= worker.phase_first || read >= worker.phase_first) return false;
  if (kKind == AccessKind::kLoad) {
    if (write < worker.block_first || !(write & initialised_by(mine))) return false;
    read = mine;
    return true;
  }
  if (kSize < 4) return false;
  write = mine | initialised_by(mine);
  return true;
}

template <AccessKind kKind>
GPUPERF_HOT bool global_at_once(const Worker &worker, Shadow &shadow, uint64_t index, uint64_t mine) {
  if (kKind == AccessKind::kAtomic) return false;
  uint64_t &write = shadow.writes[index], *read = shadow.reads + 2 * index;
  if (peek(write) >= worker.launch_first) return false;
  if ((kKind == AccessKind::kLoad || shadow.any_reader) && peek(*read) >= worker.launch_first) return false;
  poke(kKind == AccessKind::kLoad ? *read : write, mine);
  return true;
}

template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void check_shared_words(Worker &worker, const Attempt &attempt, uint64_t mine, bool reads_value) {
  uint64_t word = attempt.address >> 2;
  bool initialised = !reads_value;
  mine |= bytes_within(attempt.address, kSize);
  for (uint32_t i = 0; i < words_of(kSize); i++, word++) {
    if (__builtin_expect(!shared_at_once<kKind, kSize>(worker, word, mine), 0))
      check_shared_word<kKind>(worker, attempt, word, mine, &initialised);
    else
      initialised = true;
  }
  if (__builtin_expect(!initialised, 0)) note_unwritten(worker, attempt);
}

template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void check_global_words(Worker &worker, Shadow &shadow, const Attempt &attempt, uint64_t mine) {
  if (kKind == AccessKind::kLoad && !shadow.any_reader) shadow.any_reader = true;
  uint64_t index = (attempt.address >> 2) - (shadow.begin >> 2);
  mine |= bytes_within(attempt.address, kSize);
  for (uint32_t i = 0; i < words_of(kSize); i++, index++)
    if (__builtin_expect(!global_at_once<kKind>(worker, shadow, index, mine), 0)) check_global_word<kKind>(worker, shadow, attempt, index, mine);
}

// Checks the access that nearly all are: at a place in the code that went to the same array before.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void touch(uint64_t address, uint64_t pc, Site &site, bool reads_value = kKind == AccessKind::kLoad) {
  Worker &worker = *active;
  bool usual = !worker.attention.load(std::memory_order_relaxed) && site.pc == pc && address - site.begin <= site.room;
  if (__builtin_expect(!usual || !aligned(address, kSize), 0)) return touch_slowly<kKind>({address, pc, kSize, kKind, false, false}, &site, true, reads_value);
  if (site.way == Way::kFree) return;
  Attempt attempt = {address, pc, kSize, kKind, false, site.way == Way::kShared};
  if (kKind == AccessKind::kAtomic && worker.launch->fences) poll(worker, attempt);
  uint64_t mine = worker.mark | site.number | (kKind == AccessKind::kAtomic ? kAtomic : 0);
  if (site.way == Way::kShared)
    check_shared_words<kKind, kSize>(worker, attempt, mine, reads_value);
  else if (site.shadow->shift == 2)
    check_global_words<kKind, kSize>(worker, *site.shadow, attempt, mine);
  else
    check_global<kKind>(worker, *site.shadow, attempt, mine);
}

// Of an access that the kernel's code does not number.
inline Site &site_of(Worker &worker, uint64_t pc) { return worker.atomic_sites[(pc >> 1) % Worker::kPlaces]; }

}  // namespace simt
