// One block at a time on an OS thread: its threads are fibers that run until they wait, end or fail.
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <new>

#include "runtime.hpp"

extern "C" {
__thread simt::Index3 threadIdx, blockIdx, blockDim, gridDim;
void gpuperf_switch(void **save, void *to) __attribute__((visibility("hidden")));
}

// Saves what the System V ABI asks a callee to keep, and continues on another stack.
__asm__(
    ".text\n.p2align 4\n.globl gpuperf_switch\n.hidden gpuperf_switch\n.type gpuperf_switch,@function\n"
    "gpuperf_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size gpuperf_switch,.-gpuperf_switch\n");

namespace simt {

__thread Worker *self = nullptr;

namespace {

constexpr size_t kStack = 128 * 1024;
constexpr size_t kGuard = 4096;

void enter_fiber() {
  self->launch->request.body(self->launch->request.arguments);
  yield(*self, State::kDone);
  __builtin_unreachable();
}

// Stacks are kept between launches. A page below each is closed, so that too much local memory in one
// thread stops it instead of damaging its neighbour.
void grow_stacks(Worker &worker, size_t count) {
  if (count <= worker.stack_count) return;
  if (worker.stacks) munmap(worker.stacks, worker.stack_count * kStack);
  void *memory = mmap(nullptr, count * kStack, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  worker.stacks = static_cast<char *>(memory);
  worker.stack_count = count;
  for (size_t i = 0; i < count; i++) mprotect(worker.stacks + i * kStack, kGuard, PROT_NONE);
}

void prepare_fiber(Worker &worker, unsigned index) {
  Fiber &fiber = worker.fibers[index];
  // Tops at the same place in every page would all fall into the same sets of the CPU's cache.
  uint64_t top = (fiber.stack_end - (index % 16) * 256) & ~uint64_t(15);
  void **stack = reinterpret_cast<void **>(top);
  *--stack = nullptr;
  *--stack = reinterpret_cast<void *>(enter_fiber);
  stack -= 6;
  memset(stack, 0, 6 * sizeof(void *));
  fiber.stack_pointer = stack;
  fiber.state = State::kReady;
}

void resume(Worker &worker, unsigned index) {
  worker.current = index;
  worker.spins = 0;
  threadIdx = worker.fibers[index].thread;
  worker.in_fiber = true;
  gpuperf_switch(&worker.scheduler_stack, worker.fibers[index].stack_pointer);
  worker.in_fiber = false;
  if (worker.fault.kind == FaultKind::kNone) settle_pending(worker);
}

// One turn of every fiber that can run; false when none could.
bool turn(Worker &worker) {
  unsigned count = worker.fibers.size();
  bool ran = false;
  for (unsigned first = 0; first < count; first += kWarp) {
    unsigned last = std::min(first + kWarp, count);
    for (unsigned i = first; i < last; i++) {
      if (worker.fibers[i].state != State::kReady) continue;
      resume(worker, i);
      ran = true;
      if (worker.fault.kind != FaultKind::kNone) return false;
    }
    ran |= resolve_warp(worker, first);
    if (worker.fault.kind != FaultKind::kNone) return false;
  }
  return ran;
}

void run_block(Worker &worker) {
  for (unsigned i = 0; i < worker.fibers.size(); i++) prepare_fiber(worker, i);
  begin_block_memory(worker);
  do {
    while (turn(worker)) {
    }
  } while (worker.fault.kind == FaultKind::kNone && resolve_block(worker));
  if (worker.launch->request.counting) end_block_model(worker);
}

void begin_launch(Worker &worker, Launch &launch) {
  const Request &request = launch.request;
  worker.launch = &launch;
  worker.fault = Fault{};
  blockDim = request.block;
  gridDim = request.grid;
  grow_stacks(worker, launch.threads);
  worker.fibers.resize(launch.threads);
  for (unsigned i = 0; i < launch.threads; i++) {
    Fiber &fiber = worker.fibers[i];
    fiber.stack_begin = reinterpret_cast<uint64_t>(worker.stacks + i * kStack + kGuard);
    fiber.stack_end = fiber.stack_begin - kGuard + kStack;
    fiber.thread = {i % request.block.x, i / request.block.x % request.block.y,
                    i / (request.block.x * request.block.y)};
    fiber.wait = Wait{};
  }
  begin_launch_memory(worker);
  begin_launch_model(worker);
}

// The fault of the lowest block wins, so that the report does not depend on which thread was faster:
// blocks are handed out in order, so every lower block has been started and runs to its end.
void record(Worker &worker) {
  std::lock_guard<std::mutex> lock(result.mutex);
  if (worker.block_index >= worker.launch->first_fault) return;
  worker.launch->first_fault = worker.block_index;
  result.fault = worker.fault;
  result.fault.block_index = worker.block_index;
}

}  // namespace

Result result;

void work(Worker &worker, Launch &launch) {
  try {
    begin_launch(worker, launch);
  } catch (const std::bad_alloc &) {
    worker.fault.kind = FaultKind::kNoMemory;
    worker.block_index = 0;
    record(worker);
    return;
  }
  const Index3 &grid = launch.request.grid;
  for (;;) {
    uint64_t index = launch.next.fetch_add(1);
    if (index >= launch.blocks || index > launch.first_fault) break;
    worker.block_index = index;
    blockIdx = {uint32_t(index % grid.x), uint32_t(index / grid.x % grid.y), uint32_t(index / (uint64_t(grid.x) * grid.y))};
    run_block(worker);
    if (worker.fault.kind != FaultKind::kNone) {
      record(worker);
      break;
    }
  }
  std::lock_guard<std::mutex> lock(result.mutex);
  for (int i = 0; i < 4; i++) {
    result.traffic[i].requests += worker.traffic[i].requests;
    result.traffic[i].units += worker.traffic[i].units;
    result.traffic[i].ideal += worker.traffic[i].ideal;
  }
  result.traced += worker.traced;
}

void yield(Worker &worker, State state) {
  Fiber &fiber = worker.fibers[worker.current];
  fiber.state = state;
  gpuperf_switch(&fiber.stack_pointer, worker.scheduler_stack);
}

void locate(Worker &worker, unsigned fiber) {
  worker.fault.block = blockIdx;
  worker.fault.thread = worker.fibers[fiber].thread;
  worker.fault.shared_anchor = reinterpret_cast<uint64_t>(worker.launch->request.shared_anchor());
}

void fail(Worker &worker, FaultKind kind, uint64_t pc) {
  worker.fault.kind = kind;
  worker.fault.pc = pc;
  locate(worker, worker.current);
  yield(worker, State::kDone);
  __builtin_unreachable();
}

}  // namespace simt

extern "C" void gpuperf_pause() {
  simt::Worker *worker = simt::self;
  if (worker->launch->stop) simt::fail(*worker, simt::FaultKind::kStopped, reinterpret_cast<uint64_t>(__builtin_return_address(0)));
  simt::yield(*worker, simt::State::kReady);
}
