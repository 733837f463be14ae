// The blocks of a launch on one OS thread: one after the other, unless one waits for another. Then the next
// begins beside it, up to what one SM of a GPU would hold.
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <mutex>
#include <new>

#include "races.hpp"
#include "runtime.hpp"

extern "C" {
extern __thread simt::Index3 blockIdx;
// Where the kernels that run on this OS thread have their dynamic shared memory (hooks.py).
__thread void *gpuperf_anchor;
}

namespace simt {
namespace {

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": of an SM, 9.0.
constexpr size_t kResidentBlocks = 32, kResidentThreads = 2048, kSharedMemory = 228 * 1024, kReserved = 1024;
// A grid that synchronises is spread over the SMs of an H100, as far as there are stacks for its threads.
constexpr size_t kMultiprocessors = 132, kStacks = 16 * 1024;
// Turns in which a block's threads only wait, before another block has its turn.
constexpr unsigned kPatience = 4;
// Rounds of all resident blocks in which nothing changes, before they are said to wait for ever.
constexpr unsigned kRounds = 100;

Index3 index_of(const Launch &launch, uint64_t index) {
  const Index3 &grid = launch.request.grid;
  return {uint32_t(index % grid.x), uint32_t(index / grid.x % grid.y), uint32_t(index / (uint64_t(grid.x) * grid.y))};
}

// How many blocks run side by side: on one SM, or on all of them.
size_t residents(const Worker &worker) {
  size_t shared = kReserved, threads = worker.launch->threads;
  for (const Place &place : worker.shared) shared += place.end - place.begin;
  threads = (threads + kWarp - 1) / kWarp * kWarp;
  size_t most = std::max<size_t>(1, std::min({kResidentBlocks, kResidentThreads / threads, kSharedMemory / shared}));
  return worker.launch->arrived ? kMultiprocessors * most : most;
}

bool has_stacks(const Worker &worker) { return !worker.launch->arrived || (worker.resident.size() + 1) * worker.launch->threads <= kStacks; }

// All blocks use the same shared variables; the contents of those that wait are kept apart.
void leave_block(Worker &worker) {
  Block &block = *worker.block;
  block.shared.resize(worker.shared_end - worker.shared_begin);
  for (const Place &place : worker.shared)
    memcpy(block.shared.data() + (place.begin - worker.shared_begin), reinterpret_cast<void *>(place.begin), place.end - place.begin);
}

void enter_block(Worker &worker, Block *block, bool begun) {
  worker.block = block;
  blockIdx = index_of(*worker.launch, block->index);
  if (!begun) return;
  enter_phase(worker);
  for (const Place &place : worker.shared)
    memcpy(reinterpret_cast<void *>(place.begin), block->shared.data() + (place.begin - worker.shared_begin), place.end - place.begin);
}

bool begin_block(Worker &worker) {
  Launch &launch = *worker.launch;
  if (launch.next >= launch.blocks || launch.next > launch.first_fault) return false;
  uint64_t index = launch.next.fetch_add(1);
  if (index >= launch.blocks || index > launch.first_fault) return false;
  if (worker.spare.empty()) worker.spare.push_back(new Block);
  Block *block = worker.spare.back();
  worker.spare.pop_back();
  worker.resident.push_back(block);
  block->index = index;
  enter_block(worker, block, false);
  begin_block_fibers(worker);
  begin_block_memory(worker);
  begin_block_model(worker);
  return true;
}

void retire(Worker &worker) {
  Block *block = worker.block;
  if (!worker.copies.empty()) forget_copies(worker);
  for (unsigned i = 0; i < block->states.size(); i++)
    if (block->states[i] != State::kNew && block->states[i] != State::kDone) free_stack(worker, block->fibers[i].stack);
  worker.resident.erase(std::find(worker.resident.begin(), worker.resident.end(), block));
  worker.spare.push_back(block);
}

enum class End { kDone, kWaits, kFault };

// Runs the current block until it has ended or its threads do nothing but wait.
End run_block(Worker &worker) {
  unsigned waited = 0;
  for (;;) {
    switch (turn(worker)) {
      case Turn::kFault:
        return End::kFault;
      case Turn::kGaveWay:
        if (++waited >= kPatience) return End::kWaits;
        break;
      case Turn::kProgress:
        worker.changes++;
        waited = 0;
        break;
      case Turn::kNone:
        if (!resolve_block(worker)) return worker.fault.kind == FaultKind::kNone ? End::kDone : End::kFault;
        worker.changes++;
    }
  }
}

// The fault of the lowest block wins, so that the report does not depend on which OS thread was faster:
// blocks are handed out in order, so every lower block has been started and runs to its end.
void record(Worker &worker) {
  std::lock_guard<std::mutex> lock(result.mutex);
  uint64_t index = worker.block ? worker.block->index : 0;
  if (index >= worker.launch->first_fault) return;
  worker.launch->first_fault = index;
  result.fault = worker.fault;
  result.fault.block_index = index;
}

// Nothing has changed for long, and blocks that have not begun could only begin if one of these ended.
void blame_residents(Worker &worker) {
  worker.fault.kind = FaultKind::kNotResident;
  bool lacks_stacks = worker.launch->arrived && worker.launch->blocks <= residents(worker);
  worker.fault.resident = lacks_stacks ? worker.resident.size() : residents(worker);
  if (worker.launch->arrived) snprintf(worker.fault.text, sizeof worker.fault.text, lacks_stacks ? "stacks" : "grid");
  for (unsigned i = 0; i < worker.block->states.size(); i++) {
    if (worker.block->states[i] != State::kReady) continue;
    locate(worker, i);
    worker.fault.pc = worker.waiting_pc;
    return;
  }
}

// The blocks of the launch that this worker gets; with a fault set where one failed.
void run_blocks(Worker &worker) {
  size_t at = 0;
  unsigned rounds = 0;
  uint64_t changes = 0;
  if (!begin_block(worker)) return;
  for (;;) {
    switch (run_block(worker)) {
      case End::kFault:
        return;
      case End::kDone:
        if (worker.launch->request.counting) end_block_model(worker);
        retire(worker);
        worker.watch(false);
        if (worker.resident.empty()) {
          if (!begin_block(worker)) return;
          at = 0;
          continue;
        }
        at %= worker.resident.size();
        enter_block(worker, worker.resident[at], true);
        continue;
      case End::kWaits:
        break;
    }
    leave_block(worker);
    if (worker.resident.size() < residents(worker) && has_stacks(worker) && begin_block(worker)) {
      at = worker.resident.size() - 1;
      continue;
    }
    if (worker.resident.size() > 1 || worker.launch->next < worker.launch->blocks) {
      at = (at + 1) % worker.resident.size();
      if (at == 0) {
        rounds = worker.watching && worker.changes == changes ? rounds + 1 : 0;
        changes = worker.changes;
        worker.watch(worker.launch->next < worker.launch->blocks);
        if (rounds > kRounds) return blame_residents(worker);
      }
    }
    enter_block(worker, worker.resident[at], true);
  }
}

void begin_launch(Worker &worker, Launch &launch) {
  worker.launch = &launch;
  worker.block = nullptr;
  worker.fault = Fault{};
  worker.watching = false;
  gpuperf_anchor = launch.request.shared_anchor();
  begin_launch_fibers(worker);
  begin_launch_memory(worker);
  forget_locals(worker);
  begin_launch_model(worker);
}

}  // namespace

Result result;

void work(Worker &worker, Launch &launch) {
  try {
    begin_launch(worker, launch);
    run_blocks(worker);
  } catch (const std::bad_alloc &) {
    worker.fault.kind = FaultKind::kNoMemory;
  }
  if (worker.fault.kind != FaultKind::kNone) record(worker);
  while (!worker.resident.empty()) {
    worker.block = worker.resident.back();
    retire(worker);
  }
  std::lock_guard<std::mutex> lock(result.mutex);
  for (int i = 0; i < 4; i++) {
    result.traffic[i].requests += worker.traffic[i].requests;
    result.traffic[i].units += worker.traffic[i].units;
    result.traffic[i].ideal += worker.traffic[i].ideal;
  }
  result.traced += worker.traced;
  add_switched_off(result.switched_off, worker.switched_off);
}

void locate(Worker &worker, unsigned fiber) {
  worker.fault.block = blockIdx;
  worker.fault.thread = worker.indices[fiber];
  worker.fault.shared_anchor = reinterpret_cast<uint64_t>(worker.launch->request.shared_anchor());
}

}  // namespace simt
