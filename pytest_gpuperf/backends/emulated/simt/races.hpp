// Are two accesses to one word ordered? Every word that threads share has a cell: who wrote it last, and two
// of those who read it since. An entry of a cell is one number, so that OS threads can exchange it whole:
//
//   interval (32 bits) | thread in its block (10) | atomic | volatile | bytes (4) | initialised (4) | site (12)
//
// An interval is what a block, or some threads of it, do between two points that order memory; intervals are
// numbered in the order they begin and never again, so what an older launch left in a cell is told by its
// number. Entries of another thread are looked at more closely in races.cpp.
#pragma once

#include "runtime.hpp"

namespace simt {

struct Interval {
  uint32_t block, phase;  // barriers before it
  uint32_t clock;         // __syncwarp calls of the warp before it, of those in its phase
  uint32_t time;          // fences of the launch before it
};

constexpr uint64_t kAtomic = 1 << 21, kVolatile = 1 << 20;
constexpr unsigned kThreadShift = 22, kBytesShift = 16, kInitialisedShift = 12;
constexpr uint64_t kBytes = 0xf << kBytesShift, kInitialised = 0xf << kInitialisedShift, kSiteMask = 0xfff;
constexpr uint32_t kNever = UINT32_MAX;

inline uint64_t mark_of(uint32_t interval, unsigned thread) {
  return uint64_t(interval) << 32 | uint64_t(thread) << kThreadShift;
}
inline uint32_t interval_of(uint64_t entry) { return entry >> 32; }
inline unsigned thread_of(uint64_t entry) { return entry >> kThreadShift & 1023; }
inline bool same_thread(uint64_t a, uint64_t b) { return (a ^ b) >> kThreadShift == 0; }
inline bool same_warp(uint64_t a, uint64_t b) { return (a ^ b) >> (kThreadShift + 5) == 0; }

// An interval and a warp, never 0.
inline uint64_t group_of(uint64_t mark) { return (mark >> (kThreadShift + 5)) + 1; }
constexpr uint32_t kNoEpoch = UINT32_MAX;  // nor is 0 one

// races.cpp
// Looks at an entry of another thread; does not return where the two accesses are a race.
void meet(Worker &worker, const Attempt &attempt, uint64_t entry, bool stored);
void note_unwritten(Worker &worker, const Attempt &attempt);
bool settle_unwritten(Worker &worker);
struct Readers {
  uint64_t *last, *other;
};
void note_reader(Worker &worker, Readers reads, uint64_t entry, uint32_t floor);
void hand_over(Worker &worker, const Attempt &attempt);
bool settle_pending(Worker &worker);

// order.cpp
extern uint32_t generation;  // grows where the numbers of intervals begin anew
void begin_launch_order(Launch &launch);
void begin_block_order(Worker &worker);
void next_phase(Worker &worker);
void enter_phase(Worker &worker);
void renew_interval(Worker &worker, Fiber &fiber);
void begin_group(Worker &worker);
// The thread that runs from here on, in its interval.
inline void run_as(Worker &worker, uint64_t mark) {
  worker.mark = mark;
  if (group_of(mark) != worker.group) begin_group(worker);
}
inline void join_phase(const Block &block, Fiber &fiber, unsigned index) {
  fiber.mark = mark_of(block.phase_interval, index);
  fiber.phase = block.phase;
  fiber.clock = 0;
  fiber.time = block.phase_time;
}
// What is kept of the thread that runs.
inline Fiber &own_fiber(Worker &worker) {
  Fiber &fiber = worker.block->fibers[worker.current];
  if (worker.fresh) {
    fiber.stack = worker.stack_begin;
    join_phase(*worker.block, fiber, worker.current);
    worker.fresh = false;
  }
  return fiber;
}
void sync_warp(Worker &worker, unsigned first, uint32_t participants);
bool ordered(const Worker &worker, uint64_t entry);
const Interval &interval(const Worker &worker, uint64_t entry);

// shadow.cpp
void begin_launch_shadows(const Request &request, bool forget);
Shadow *shadow_of(const Memory &memory, const Launch &launch, bool variable);

inline uint64_t peek(const uint64_t &entry) { return __atomic_load_n(&entry, __ATOMIC_RELAXED); }
inline void poke(uint64_t &entry, uint64_t value) { __atomic_store_n(&entry, value, __ATOMIC_RELAXED); }

inline bool meets(uint64_t entry, uint64_t mine, uint32_t floor) {
  return interval_of(entry) >= floor && !same_thread(entry, mine) && (entry & mine & kBytes);
}

#define GPUPERF_HOT inline __attribute__((always_inline))

// Two readers of this interval are there already: whoever writes, one of them is another thread.
GPUPERF_HOT bool enough_readers(uint64_t last, uint64_t other, uint64_t mine) {
  return interval_of(last) == interval_of(mine) && interval_of(other) == interval_of(mine) && (last & other & mine & kBytes) == (mine & kBytes) &&
         (same_warp(last, mine) || !same_warp(last, other));
}

// Whose next loads of this word would change nothing: those of any warp, of this one, or nobody's.
GPUPERF_HOT uint32_t settled_for(const Worker &worker, uint64_t write, Readers reads, uint64_t mine) {
  if (write >= worker.phase_first || !enough_readers(*reads.last, *reads.other, mine)) return 0;
  return same_warp(*reads.last, *reads.other) || worker.phase_epoch == kNoEpoch ? worker.warp_epoch : worker.phase_epoch;
}

// One word of an access. `mine` is the entry it will leave; `floor` the first interval that can matter.
template <AccessKind kKind, bool kShared>
GPUPERF_HOT void check_word(Worker &worker, const Attempt &attempt, uint64_t &write, Readers reads, uint64_t mine, uint32_t floor) {
  uint64_t writer = peek(write);
  bool both_atomic = kKind == AccessKind::kAtomic && (writer & kAtomic);
  if (__builtin_expect(!both_atomic && meets(writer, mine, floor), 0)) meet(worker, attempt, writer, true);
  if (kKind == AccessKind::kLoad) {
    if (!reads.last) return;
    uint64_t last = peek(*reads.last), other = peek(*reads.other);
    if (interval_of(last) < floor) return poke(*reads.last, mine);
    if (enough_readers(last, other, mine)) return;
    if (!same_thread(last, mine))
      note_reader(worker, reads, mine, floor);
    else if ((last & mine & kBytes) != (mine & kBytes))
      poke(*reads.last, last | (mine & kBytes));
    return;
  }
  for (uint64_t *entry : {reads.last, reads.other}) {
    uint64_t reader = entry ? peek(*entry) : 0;
    if (__builtin_expect(meets(reader, mine, floor), 0)) meet(worker, attempt, reader, false);
  }
  if (same_thread(writer, mine)) {
    // What it stored plainly in this interval stays plain, whatever atomic comes after.
    if (mine & ~writer & (kAtomic | kVolatile)) mine = writer | (mine & kBytes);
    mine |= writer & kBytes;
  }
  if (kShared) mine |= (mine & kBytes) >> (kBytesShift - kInitialisedShift) | (interval_of(writer) >= worker.block_floor ? writer & kInitialised : 0);
  poke(write, mine);
}

}  // namespace simt
