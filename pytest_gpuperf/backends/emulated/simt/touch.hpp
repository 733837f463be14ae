// The check of an access where it has nothing to find out anew; memory.cpp has the rest.
#pragma once

#include "races.hpp"

namespace simt {

// memory.cpp
template <AccessKind kKind>
void touch_slowly(Attempt attempt, bool whole, bool reads_value);
template <AccessKind kKind>
void check_global(Worker &worker, Shadow &shadow, const Attempt &attempt, uint64_t mine);
void poll(Worker &worker, const Attempt &attempt);

inline Site &site_of(Worker &worker, uint64_t pc) { return worker.sites[(pc >> 1) % Worker::kSites]; }

inline bool aligned(uint64_t address, uint32_t size) { return (address & (size - 1)) == 0; }

// The cells of an aligned access, as loops over words of 4 bytes that the compiler unrolls.
constexpr uint32_t words_of(uint32_t size) { return size <= 4 ? 1 : size / 4; }
inline uint64_t bytes_within(uint64_t address, uint32_t size) {
  return (size >= 4 ? 0xf : ((1u << size) - 1) << (address & 3)) << kBytesShift;
}

inline bool known(const Worker &worker, uint64_t write, uint64_t bytes) {
  return interval_of(write) >= worker.block_floor && (write >> kInitialisedShift & bytes >> kBytesShift);
}

template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void check_shared_words(Worker &worker, const Attempt &attempt, uint64_t mine, bool reads_value) {
  Cell *cell = worker.cells + ((attempt.address - worker.shared_begin) >> 2);
  mine |= bytes_within(attempt.address, kSize);
  uint64_t group = group_of(mine);
  bool initialised = !reads_value;
  for (uint32_t i = 0; i < words_of(kSize); i++, cell++) {
    if (kKind == AccessKind::kLoad && kSize >= 4 && cell->settled == group) {
      initialised = true;
      continue;
    }
    bool written = known(worker, cell->write, mine & kBytes);
    initialised |= written;
    check_word<kKind, true>(worker, attempt, cell->write, cell->read, mine, worker.phase_floor);
    cell->settled = kKind == AccessKind::kLoad && written && kSize >= 4 && settled(*cell, mine, worker.phase_floor) ? group : 0;
  }
  if (__builtin_expect(!initialised, 0)) note_unwritten(worker, attempt);
}

template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void check_global_words(Worker &worker, Shadow &shadow, const Attempt &attempt, uint64_t mine) {
  if (kKind == AccessKind::kLoad && !shadow.any_reader) shadow.any_reader = true;
  bool readers = kKind == AccessKind::kLoad || shadow.any_reader;
  uint64_t index = (attempt.address >> 2) - (shadow.begin >> 2);
  mine |= bytes_within(attempt.address, kSize);
  for (uint32_t i = 0; i < words_of(kSize); i++, index++)
    check_word<kKind, false>(worker, attempt, shadow.writes[index], readers ? shadow.reads + 2 * index : nullptr, mine, worker.launch_floor);
}

// Checks the access that nearly all are: at a place in the code that went to the same array before.
template <AccessKind kKind, uint32_t kSize>
GPUPERF_HOT void touch(uint64_t address, uint64_t pc, bool reads_value = kKind == AccessKind::kLoad) {
  Worker &worker = *active;
  const Site &site = site_of(worker, pc);
  bool usual = !worker.attention.load(std::memory_order_relaxed) && site.pc == pc && address - site.begin <= site.room;
  if (__builtin_expect(!usual || !aligned(address, kSize), 0)) return touch_slowly<kKind>({address, pc, kSize, kKind, false, false}, true, reads_value);
  if (site.way == Way::kFree) return;
  if (kKind == AccessKind::kAtomic && worker.launch->fences) poll(worker, {address, pc, kSize, kKind, false, site.way == Way::kShared});
  Attempt attempt = {address, pc, kSize, kKind, false, site.way == Way::kShared};
  uint64_t mine = worker.mark | site.number | (kKind == AccessKind::kAtomic ? kAtomic : 0);
  if (site.way == Way::kShared)
    check_shared_words<kKind, kSize>(worker, attempt, mine, reads_value);
  else if (site.shadow->shift == 2)
    check_global_words<kKind, kSize>(worker, *site.shadow, attempt, mine);
  else
    check_global<kKind>(worker, *site.shadow, attempt, mine);
}

}  // namespace simt
