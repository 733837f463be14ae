// Asynchronous copies: each is made when its thread waits for it, so that what reads it before finds nothing
// there.
#include <string.h>

#include "copies.hpp"
#include "touch.hpp"

namespace simt {
namespace {

void make(const Copy &copy) {
  bool whole = copy.size == 4 || copy.size == 8 || copy.size == 16;
  uint32_t given = copy.size - copy.zeros;
  if (given) touch_slowly<AccessKind::kLoad>({copy.from, copy.pc, given, AccessKind::kLoad, false, false}, whole && !copy.zeros, true);
  touch_slowly<AccessKind::kStore>({copy.to, copy.pc, copy.size, AccessKind::kStore, false, false}, whole, false);
  memcpy(reinterpret_cast<void *>(copy.to), reinterpret_cast<const void *>(copy.from), given);
  memset(reinterpret_cast<void *>(copy.to + given), 0, copy.zeros);
}

Copies &copies_of_this_thread() {
  Worker &worker = *active;
  return worker.copies[&worker.block->fibers[worker.current]];
}

}  // namespace

void forget_copies(Worker &worker) {
  for (const Fiber &fiber : worker.block->fibers) worker.copies.erase(&fiber);
}

}  // namespace simt

extern "C" {

void gpuperf_copy_later(void *to, const void *from, size_t size, size_t zeros) {
  if (!size) return;
  uint64_t pc = reinterpret_cast<uint64_t>(__builtin_return_address(0));
  simt::copies_of_this_thread().open.push_back({reinterpret_cast<uint64_t>(to), reinterpret_cast<uint64_t>(from), pc, uint32_t(size), uint32_t(zeros)});
}

// What was asked for so far is one batch.
void gpuperf_copies_commit() {
  simt::Copies &copies = simt::copies_of_this_thread();
  copies.batches.push_back(std::move(copies.open));
  copies.open.clear();
}

// Makes the copies of all batches but the last ones.
void gpuperf_copies_wait(unsigned but) {
  simt::Copies &copies = simt::copies_of_this_thread();
  while (copies.batches.size() > but) {
    std::vector<simt::Copy> batch = std::move(copies.batches.front());
    copies.batches.pop_front();
    for (const simt::Copy &copy : batch) simt::make(copy);
  }
}
}
