// Where threads meet: warp operations with their masks, and block barriers.
#include <stdio.h>

#include <algorithm>

#include "operations.hpp"
#include "races.hpp"
#include "runtime.hpp"

namespace simt {
namespace {

using namespace gpuperf;
const char *const kNames[] = {"__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                              "__shfl_xor_sync", "a vote", "__activemask", "__match_any_sync"};

// A loop around a barrier may touch no memory: the watchdog's wish is looked at here as well.
void wait_as(Worker &worker, State state) {
  if (worker.launch->stop.load(std::memory_order_relaxed)) {
    blame_waiting(worker, worker.current, FaultKind::kStopped);
    state = State::kDone;
  }
  yield(worker, state);
}

// The lane a shuffle reads, by the rules of the Programming Guide: within its segment, else its own.
unsigned source_lane(unsigned lane, const Wait &wait) {
  unsigned width = wait.width, base = lane & ~(width - 1), within = lane & (width - 1);
  switch (wait.operation) {
    case kShuffle:
      return base | (unsigned(wait.operand) & (width - 1));
    case kUp:
      return within < unsigned(wait.operand) ? lane : lane - wait.operand;
    case kDown:
      return within + unsigned(wait.operand) >= width ? lane : lane + wait.operand;
    default: {
      unsigned other = lane ^ unsigned(wait.operand);
      return other >= base + width ? lane : other;
    }
  }
}

bool shuffle(Worker &worker, unsigned first, unsigned lane, uint32_t participants) {
  Wait &wait = worker.block->fibers[first + lane].wait;
  unsigned source = source_lane(lane, wait);
  if (!(participants >> source & 1) && wait.guarded) {
    wait.result = ~uint64_t(0);
    return true;
  }
  if (!(participants >> source & 1)) {
    blame_waiting(worker, first + lane, FaultKind::kLostLane);
    bool returned = (wait.mask >> source & 1) && first + source < worker.block->fibers.size();
    snprintf(worker.fault.text, sizeof worker.fault.text, "%s reads lane %u, which %s", kNames[wait.operation],
             source, returned ? "has returned already"
                              : first + source < worker.block->fibers.size() ? "is not in its mask" : "does not exist in this block");
    return false;
  }
  wait.result = worker.block->fibers[first + source].wait.value;
  return true;
}

bool complete(Worker &worker, unsigned first, uint32_t participants) {
  uint64_t ballot = 0;
  for (unsigned lane = 0; lane < kWarp; lane++)
    if (participants >> lane & 1) ballot |= uint64_t(worker.block->fibers[first + lane].wait.value & 1) << lane;
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (!(participants >> lane & 1)) continue;
    Wait &wait = worker.block->fibers[first + lane].wait;
    if (wait.operation == kBallot) {
      wait.result = ballot;
    } else if (wait.operation == kActive) {
      wait.result = participants;
    } else if (wait.operation == kMatch) {
      wait.result = 0;
      for (unsigned other = 0; other < kWarp; other++)
        if ((participants >> other & 1) && worker.block->fibers[first + other].wait.value == wait.value) wait.result |= 1u << other;
    } else if (wait.operation != kSync && !shuffle(worker, first, lane, participants)) {
      return false;
    }
    worker.block->states[first + lane] = State::kReady;
  }
  // Of the warp operations only __syncwarp orders memory.
  if (worker.block->fibers[first + __builtin_ctz(participants)].wait.operation == kSync) sync_warp(worker, first, participants);
  return true;
}

// The lanes that would take part in lane's operation if all have arrived, else 0. Lanes that have
// returned are not waited for: the guide asks only the non-exited lanes of the mask to come.
uint32_t arrived(Worker &worker, unsigned first, unsigned last, unsigned lane) {
  const Wait &wait = worker.block->fibers[lane].wait;
  uint32_t participants = 0;
  for (unsigned i = first; i < last; i++) {
    State state = worker.block->states[i];
    const Wait &other = worker.block->fibers[i].wait;
    bool together = state == State::kWarp && other.operation == wait.operation;
    if (wait.operation == kActive) {
      if (together && same_site(other, wait)) participants |= 1u << (i - first);
      continue;
    }
    if (!(wait.mask >> (i - first) & 1) || state == State::kDone) continue;
    if (!together || other.mask != wait.mask) return 0;
    participants |= 1u << (i - first);
  }
  return participants;
}

void report_lost_lane(Worker &worker, unsigned waiting) {
  unsigned first = waiting / kWarp * kWarp, last = std::min<unsigned>(first + kWarp, worker.block->fibers.size());
  const Wait &wait = worker.block->fibers[waiting].wait;
  blame_waiting(worker, waiting, FaultKind::kLostLane);
  for (unsigned i = first; i < last; i++) {
    State state = worker.block->states[i];
    const Wait &other = worker.block->fibers[i].wait;
    if (!(wait.mask >> (i - first) & 1) || state == State::kDone) continue;
    bool together = state == State::kWarp && other.operation == wait.operation;
    if (together && other.mask == wait.mask) continue;
    const char *where = state == State::kBlock ? "__syncthreads" : kNames[other.operation];
    snprintf(worker.fault.text, sizeof worker.fault.text, "%s waits for lane %u, which waits at %s in line %d%s",
             kNames[wait.operation], i - first, where, other.line, together ? " with another mask" : "");
    return;
  }
}

void report_divergence(Worker &worker) {
  const Block &block = *worker.block;
  unsigned first = std::find(block.states.begin(), block.states.end(), State::kBlock) - block.states.begin();
  for (unsigned i = first; i < block.states.size(); i++) {
    const Wait &wait = block.fibers[i].wait;
    if (block.states[i] != State::kBlock || same_site(wait, block.fibers[first].wait)) continue;
    blame_waiting(worker, first, FaultKind::kDivergentBarrier);
    worker.fault.other = i;
    snprintf(worker.fault.text, sizeof worker.fault.text, "%d", wait.line);
    return;
  }
}

}  // namespace

void blame_waiting(Worker &worker, unsigned index, FaultKind kind) {
  const Wait &wait = worker.block->fibers[index].wait;
  worker.fault.kind = kind;
  worker.fault.line = wait.line;
  snprintf(worker.fault.file, sizeof worker.fault.file, "%s", wait.file);
  locate(worker, index);
}

bool same_site(const Wait &a, const Wait &b) {
  // One translation unit: the compiler may keep two copies of a file's name, but not of its lines' order.
  return a.line == b.line && (a.file == b.file || __builtin_strcmp(a.file, b.file) == 0);
}

// Lets the lanes of a warp go on whose operation is complete; false when there are none.
bool resolve_warp(Worker &worker, unsigned first) {
  unsigned last = std::min<unsigned>(first + kWarp, worker.block->fibers.size());
  bool resolved = false, running = false;
  for (unsigned i = first; i < last; i++) running |= worker.block->states[i] == State::kReady;
  for (unsigned i = first; i < last; i++) {
    if (worker.block->states[i] != State::kWarp) continue;
    // Lanes still on their way may be about to join: __activemask waits for the warp to come to rest.
    if (running && worker.block->fibers[i].wait.operation == kActive) continue;
    uint32_t participants = arrived(worker, first, last, i);
    if (!participants) continue;
    if (!complete(worker, first, participants)) return false;
    resolved = true;
  }
  return resolved;
}

// Opens the block's barrier when every thread that has not returned is at it; otherwise the block has ended, or
// is stuck, which is a fault.
bool resolve_block(Worker &worker) {
  Block &block = *worker.block;
  std::vector<State> &states = block.states;
  auto waiting = std::find(states.begin(), states.end(), State::kWarp);
  if (waiting != states.end()) return report_lost_lane(worker, waiting - states.begin()), false;
  if (!settle_unwritten(worker) || !block.at_barrier) return false;
  if (block.divergent) return report_divergence(worker), false;
  std::replace(states.begin(), states.end(), State::kBlock, State::kReady);
  block.last_sum = block.sum;
  block.sum = block.at_barrier = 0;
  next_phase(worker);
  return true;
}

}  // namespace simt

extern "C" {

void gpuperf_fence();  // order.cpp

int gpuperf_barrier_sum() { return simt::active->block->last_sum; }

uint64_t gpuperf_warp(int operation, uint32_t mask, uint64_t value, int operand, int width, const char *file, int line) {
  simt::Worker &worker = *simt::active;
  unsigned lane = worker.current % simt::kWarp;
  simt::Wait &wait = simt::own_fiber(worker).wait;
  bool guarded = width >= simt::kGuarded;
  if (guarded) width -= simt::kGuarded;
  wait = {file, line, operation, operand, width, mask, value, 0, guarded};
  if (operation != simt::kActive && !(mask >> lane & 1)) {
    simt::blame_waiting(worker, worker.current, simt::FaultKind::kLostLane);
    snprintf(worker.fault.text, sizeof worker.fault.text, "%s is called by lane %u, which is not in its mask 0x%08x",
             simt::kNames[operation], lane, mask);
    simt::yield(worker, simt::State::kDone);
  }
  if (width < 1 || width > int(simt::kWarp) || (width & (width - 1))) {
    simt::blame_waiting(worker, worker.current, simt::FaultKind::kLostLane);
    snprintf(worker.fault.text, sizeof worker.fault.text, "%s is called with the width %d, which is none of 1, 2, 4, 8, 16 and 32",
             simt::kNames[operation], width);
    simt::yield(worker, simt::State::kDone);
  }
  simt::wait_as(worker, simt::State::kWarp);
  return wait.result;
}

// One thread of each block comes here, between two barriers of its block.
void gpuperf_grid_barrier() {
  simt::Worker &worker = *simt::active;
  simt::Launch &launch = *worker.launch;
  uint64_t pc = reinterpret_cast<uint64_t>(__builtin_return_address(0)), place = reinterpret_cast<uint64_t>(&launch.arrived);
  gpuperf_fence();
  simt::hand_over(worker, {place, pc, 8, simt::AccessKind::kAtomic, false, false});
  uint64_t all = (launch.arrived++ / launch.blocks + 1) * launch.blocks;
  worker.changes++;
  while (launch.arrived < all) {
    if (launch.stop) simt::fail(worker, simt::FaultKind::kStopped, pc);
    worker.waiting_pc = pc;
    simt::give_way(worker);
  }
  simt::hand_over(worker, {place, pc, 8, simt::AccessKind::kLoad, false, false});
}
}
