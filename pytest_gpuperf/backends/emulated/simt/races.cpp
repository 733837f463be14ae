// Two accesses of different threads to one word, one of them a store. They are a race unless something orders
// them or both are of a kind that is made for it. Generous where the memory model is strict but working kernels
// are not: docs/emulator.md lists where.
#include <string.h>

#include <algorithm>

#include "races.hpp"

namespace simt {
namespace {

bool differs(const PendingStore &pending) {
  return memcmp(reinterpret_cast<const void *>(pending.address), pending.before, pending.size) != 0;
}

void blame(Worker &worker, uint64_t entry, bool stored) {
  Launch &launch = *worker.launch;
  std::lock_guard<std::mutex> lock(launch.mutex);
  uint32_t site = entry & kSiteMask;
  worker.fault.other = thread_of(entry);
  worker.fault.other_block = interval(worker, entry).block;
  worker.fault.other_stores = stored ? entry & kAtomic ? 2 : 1 : 0;
  worker.fault.other_pc = site < launch.site_places.size() ? launch.site_places[site] : 0;
}

// A store that meets others' accesses is judged when it is done: a value that was there already is no race
// that anybody could see (a flag raised by several threads).
void defer(Worker &worker, const Attempt &attempt, uint64_t entry, bool stored) {
  PendingStore &pending = worker.pending;
  if (pending.size) return;
  uint32_t size = std::min<uint32_t>(attempt.size, sizeof pending.before);
  pending = {attempt.address, attempt.pc, entry, size, worker.current, stored, {}};
  memcpy(pending.before, reinterpret_cast<const void *>(attempt.address), size);
  worker.attention = true;
}

bool allowed(Worker &worker, const Attempt &attempt, uint64_t entry, bool stored) {
  Fences &fences = worker.block->fences[worker.current];
  const Interval &then = interval(worker, entry);
  bool atomic_now = attempt.kind == AccessKind::kAtomic, strong_now = atomic_now || attempt.is_volatile;
  bool atomic_then = entry & kAtomic, strong_then = entry & (kAtomic | kVolatile);
  if (strong_now && strong_then) {
    // Lanes of a warp that pass values in volatile shared memory without __syncwarp rely on a lockstep that
    // GPUs no longer have.
    bool own_warp = then.block == uint32_t(worker.block->index) && same_warp(mark_of(0, thread_of(entry)), mark_of(0, worker.current));
    return atomic_now || atomic_then || !attempt.shared || !own_warp;
  }
  if (stored) {
    // A flag that was raised after a fence, by a plain store or to a plain load.
    bool flag = then.time > 0 && (strong_now || (strong_then && attempt.kind == AccessKind::kLoad));
    if (flag) fences.seen = std::max(fences.seen, then.time);
    // Looking before an atomic whether it is worth its while.
    bool look = !attempt.shared && attempt.kind == AccessKind::kLoad && atomic_then;
    return flag || look || (strong_then && fences.made > 0);
  }
  return (strong_now || strong_then) && (fences.made > 0 || (atomic_now && !attempt.shared));
}

}  // namespace

void meet(Worker &worker, const Attempt &attempt, uint64_t entry, bool stored) {
  if (ordered(worker, entry) || allowed(worker, attempt, entry, stored)) return;
  bool read_too_early = !stored && attempt.shared && worker.block->unwritten.size;
  if (attempt.kind == AccessKind::kStore && !(entry & kAtomic && stored) && !read_too_early) return defer(worker, attempt, entry, stored);
  blame(worker, entry, stored);
  fail_access(worker, FaultKind::kRace, attempt);
}

// Kept until the phase ends: where another thread writes the word after all, a barrier is missing, and the race
// tells more.
void note_unwritten(Worker &worker, const Attempt &attempt) {
  if (worker.block->unwritten.size) return;
  worker.block->unwritten = attempt;
  worker.block->unwritten_thread = worker.current;
}

// False, with the fault set, where a thread has read shared memory that nobody had written.
bool settle_unwritten(Worker &worker) {
  const Attempt &attempt = worker.block->unwritten;
  if (!attempt.size) return true;
  note_access(worker, FaultKind::kUninitialised, attempt);
  locate(worker, worker.block->unwritten_thread);
  return false;
}

// Two readers are kept, the last one and another: of another block or warp if there was one, since those are
// the hardest to order with a store.
void note_reader(Worker &worker, Readers reads, uint64_t mine, uint32_t floor) {
  uint64_t last = peek(*reads.last), other = peek(*reads.other);
  bool worth = interval_of(other) >= floor && !same_thread(other, mine);
  bool mine_too = interval_of(last) < floor || (interval_of(last) == interval_of(mine) && same_warp(last, mine)) ||
                  (interval_of(last) != interval_of(mine) && interval(worker, last).block == uint32_t(worker.block->index) && floor == worker.launch_floor);
  if (!worth || !mine_too) poke(*reads.other, last);
  poke(*reads.last, mine);
}

// A volatile or atomic access raises a flag or looks at one.
void hand_over(Worker &worker, const Attempt &attempt) {
  Launch &launch = *worker.launch;
  Fences &fences = worker.block->fences[worker.current];
  uint64_t key = attempt.address ^ (attempt.shared ? worker.block->index << 48 : 0);
  uint32_t given = std::max(fences.made, fences.seen);
  if (attempt.kind == AccessKind::kStore) {
    launch.handed_over[key] = given;
    return;
  }
  auto found = launch.handed_over.find(key);
  if (found != launch.handed_over.end()) fences.seen = std::max(fences.seen, found->second);
  if (attempt.kind == AccessKind::kAtomic && given > (found == launch.handed_over.end() ? 0 : found->second)) launch.handed_over[key] = given;
}

// The store is done by now. False, with the fault set, where it left another value.
bool settle_pending(Worker &worker) {
  PendingStore &pending = worker.pending;
  if (!pending.size) return true;
  bool race = differs(pending);
  uint32_t size = pending.size;
  pending.size = 0;
  if (!race) return true;
  note_access(worker, FaultKind::kRace, {pending.address, pending.pc, size, AccessKind::kStore, false, false});
  blame(worker, pending.other, pending.other_stores);
  locate(worker, pending.thread);
  return false;
}

}  // namespace simt
