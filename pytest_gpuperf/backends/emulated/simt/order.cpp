// What orders the accesses of different threads: block barriers, __syncwarp, and hand-overs by a fence and a
// flag. A hand-over is followed by one clock for the whole launch, which counts fences: who has seen a flag
// that was raised after fence n has seen everything that was done before it. That is generous (it takes in
// what others did before fence n), and never calls a correct kernel wrong.
#include <sys/mman.h>

#include <algorithm>

#include "races.hpp"

namespace simt {
namespace {

constexpr uint32_t kMost = 1 << 26, kIntervalsTogether = 64;

Interval *intervals = nullptr;  // those of this launch
std::atomic<uint64_t> next_interval{1};
uint32_t first_interval = 1;

void make_table() {
  void *memory = mmap(nullptr, sizeof(Interval) * kMost, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  intervals = memory == MAP_FAILED ? nullptr : static_cast<Interval *>(memory);
}

// 0 when there are no more: from then on nothing is watched for races.
uint32_t make_interval(Worker &worker, uint32_t clock, uint32_t time) {
  if (worker.next_interval == worker.last_interval) {
    uint64_t begin = next_interval.fetch_add(kIntervalsTogether);
    if (!intervals || begin + kIntervalsTogether > uint64_t(first_interval) + kMost) {
      worker.exhausted = true;
      worker.next_interval = worker.last_interval = 0;
      return 0;
    }
    worker.next_interval = begin;
    worker.last_interval = begin + kIntervalsTogether;
  }
  uint32_t number = worker.next_interval++;
  intervals[number - first_interval] = {uint32_t(worker.block->index), worker.block->phase, clock, time};
  return number;
}

uint32_t make_epoch(Worker &worker) {
  if (++worker.last_epoch == kNoEpoch) {  // forget rather than confuse
    worker.last_epoch = 1;
    for (std::vector<Block *> *blocks : {&worker.resident, &worker.spare})
      for (Block *block : *blocks) std::fill(block->cells.settled.begin(), block->cells.settled.end(), 0);
  }
  return worker.last_epoch;
}

uint32_t seen(const WarpOrder &order, unsigned by, unsigned of) {
  return order.seen.empty() ? order.full : std::max(order.full, order.seen[by * kWarp + of]);
}

void enter(Worker &worker, Fiber &fiber, unsigned index) {
  fiber.time = worker.launch->fences;
  fiber.mark = mark_of(make_interval(worker, fiber.clock, fiber.time), index);
}

}  // namespace

uint32_t generation = 1;

void begin_launch_order(Launch &launch) {
  if (!intervals) make_table();
  constexpr uint64_t kLast = UINT32_MAX - uint64_t(kMost) - kIntervalsTogether;
  if (next_interval > kLast) {  // forget rather than confuse
    next_interval = 1;
    generation++;
  }
  first_interval = next_interval;
  launch.first_interval = first_interval;
}

void begin_block_order(Worker &worker) {
  Block &block = *worker.block;
  block.phase = 0;
  block.unwritten.size = 0;
  block.warps.assign((worker.launch->threads + kWarp - 1) / kWarp, {});
  block.phase_time = worker.launch->fences;
  block.first_interval = block.phase_interval = make_interval(worker, 0, block.phase_time);
  block.phase_epoch = make_epoch(worker);
  enter_phase(worker);
}

// The block's threads are all at a barrier; those that have returned are not asked.
void next_phase(Worker &worker) {
  Block &block = *worker.block;
  block.phase++;
  block.phase_time = worker.launch->fences;
  block.phase_interval = make_interval(worker, 0, block.phase_time);
  block.phase_epoch = make_epoch(worker);
  uint32_t fenced = 0, acquired = 0;
  if (worker.launch->fences) {
    for (const Fences &fences : block.fences) {
      fenced = std::max(fenced, fences.made);
      acquired = std::max(acquired, fences.seen);
    }
    for (Fences &fences : block.fences) fences = {fenced, acquired};
  }
  for (WarpOrder &order : block.warps) {
    order.clock = order.full = 0;
    order.seen.clear();
  }
  enter_phase(worker);
}

void enter_phase(Worker &worker) {
  Block &block = *worker.block;
  uint64_t first = worker.shared_begin >> 2;
  worker.writes = block.cells.writes.data() - first;
  worker.reads = block.cells.reads.data() - first;
  worker.others = block.cells.others.data() - first;
  worker.settled = block.cells.settled.data() - first;
  worker.block_floor = worker.exhausted ? 0 : block.first_interval;
  worker.phase_floor = worker.exhausted ? kNever : block.phase_interval;
  worker.launch_floor = worker.exhausted ? kNever : worker.launch->first_interval;
  worker.block_first = uint64_t(worker.block_floor) << 32;
  worker.phase_first = uint64_t(worker.phase_floor) << 32;
  worker.launch_first = uint64_t(worker.launch_floor) << 32;
  worker.group = 0;
}

void begin_group(Worker &worker) {
  worker.group = group_of(worker.mark);
  worker.warp_epoch = make_epoch(worker);
  worker.phase_epoch = interval_of(worker.mark) == worker.block->phase_interval ? worker.block->phase_epoch : kNoEpoch;
}

// A fence: what the thread does from here on is told apart from what it did before.
void renew_interval(Worker &worker, Fiber &fiber) {
  enter(worker, fiber, worker.current);
  run_as(worker, fiber.mark);
}

void sync_warp(Worker &worker, unsigned first, uint32_t participants) {
  Block &block = *worker.block;
  WarpOrder &order = block.warps[first / kWarp];
  unsigned lanes = std::min<unsigned>(kWarp, block.fibers.size() - first);
  uint32_t everyone = lanes == kWarp ? UINT32_MAX : (1u << lanes) - 1, now = ++order.clock;
  if (participants == everyone) {
    order.full = now;
    order.seen.clear();
  } else {
    order.seen.resize(kWarp * kWarp);
    uint32_t together[kWarp] = {};
    for (unsigned lane = 0; lane < lanes; lane++) {
      for (unsigned other = 0; other < lanes; other++)
        if (participants >> other & 1) together[lane] = std::max(together[lane], seen(order, other, lane));
      if (participants >> lane & 1) together[lane] = now;
    }
    for (unsigned lane = 0; lane < lanes; lane++)
      if (participants >> lane & 1) std::copy(together, together + kWarp, order.seen.begin() + lane * kWarp);
  }
  uint32_t fenced = 0, acquired = 0;
  for (unsigned lane = 0; lane < lanes; lane++) {
    if (!(participants >> lane & 1)) continue;
    fenced = std::max(fenced, block.fences[first + lane].made);
    acquired = std::max(acquired, block.fences[first + lane].seen);
  }
  uint32_t number = make_interval(worker, now, worker.launch->fences);
  for (unsigned lane = 0; lane < lanes; lane++) {
    if (!(participants >> lane & 1)) continue;
    Fiber &fiber = block.fibers[first + lane];
    fiber.clock = now;
    fiber.time = worker.launch->fences;
    fiber.mark = mark_of(number, first + lane);
    block.fences[first + lane] = {fenced, acquired};
  }
  if (worker.exhausted) enter_phase(worker);
}

const Interval &interval(const Worker &worker, uint64_t entry) {
  return intervals[interval_of(entry) - worker.launch->first_interval];
}

// Has the running thread seen what another did under `entry`?
bool ordered(const Worker &worker, uint64_t entry) {
  const Interval &then = interval(worker, entry);
  const Block &block = *worker.block;
  if (then.time < block.fences[worker.current].seen) return true;
  if (then.block != uint32_t(block.index)) return false;
  unsigned me = worker.current, other = thread_of(entry);
  if (then.phase != block.phase || me == other) return true;
  return me / kWarp == other / kWarp && then.clock < seen(block.warps[me / kWarp], me % kWarp, other % kWarp);
}

}  // namespace simt

extern "C" void gpuperf_fence() {
  using namespace simt;
  __asm__ volatile("mfence" ::: "memory");
  Worker &worker = *active;
  worker.block->fences[worker.current].made = ++worker.launch->fences;
  renew_interval(worker, own_fiber(worker));
  if (worker.exhausted) enter_phase(worker);
}
