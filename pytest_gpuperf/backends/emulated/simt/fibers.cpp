// The threads of a block: fibers that run until they wait, give way, end or fail. Most threads never wait,
// so one stack serves them one after the other; only a thread that waits keeps its own.
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "races.hpp"
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

Worker idle;
__thread Worker *active = &idle;

namespace {

// CUDA allows a thread 512 KiB of local memory; frames here are larger than a GPU's. Stack and guard are an odd
// number of pages: the tops of stacks then fall into different sets of the CPU's caches.
constexpr size_t kStack = 644 * 1024, kStacksTogether = 64;

__thread Worker *self = nullptr;

// Stacks are kept between launches, and pages that no thread reaches cost address space only. What lies below
// each is closed, so that too much local memory in one thread stops it instead of damaging its neighbour.
void grow_stacks(Worker &worker) {
  void *memory = mmap(nullptr, kStacksTogether * (kStack + kGuard), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  for (size_t i = kStacksTogether; i-- > 0;) {
    char *begin = static_cast<char *>(memory) + i * (kStack + kGuard);
    mprotect(begin, kGuard, PROT_NONE);
    uint64_t usable = reinterpret_cast<uint64_t>(begin) + kGuard;
    worker.stacks.push_back(new Stack{usable, usable + kStack});
    worker.free_stacks.push_back(worker.stacks.back());
  }
}

void begin_thread(Worker &worker, unsigned index, Stack *stack) {
  Block &block = *worker.block;
  Fiber &fiber = block.fibers[index];
  worker.current = index;
  worker.spins = 0;
  worker.runs++;
  fiber.stack = stack;
  fiber.state = State::kReady;
  join_phase(block, fiber, index);
  fiber.fenced = fiber.acquired = 0;
  run_as(worker, fiber.mark);
  if (worker.launch->fences != fiber.time) renew_interval(worker, fiber);
  threadIdx = worker.indices[index];
}

// Ends the thread that runs; true when the next one of the warp has begun in its place.
bool next_thread(Worker &worker) {
  Block &block = *worker.block;
  unsigned done = worker.current, next = done + 1;
  if (worker.attention && !settle_pending(worker)) return false;
  if (next % kWarp == 0 || next >= block.fibers.size() || block.fibers[next].state != State::kNew) return false;
  if (worker.launch->stop) return false;
  Stack *stack = block.fibers[done].stack;
  block.fibers[done].stack = nullptr;
  block.fibers[done].state = State::kDone;
  begin_thread(worker, next, stack);
  return true;
}

void run_threads() {
  Worker &worker = *self;
  const Request &request = worker.launch->request;
  do request.body(request.arguments);
  while (next_thread(worker));
  yield(worker, State::kDone);
  __builtin_unreachable();
}

void *prepare(const Stack &stack) {
  // Tops at the same place in every page would all fall into the same sets of the CPU's cache.
  uint64_t number = stack.begin / (kStack + kGuard);
  void **top = reinterpret_cast<void **>(stack.end - number % 16 * 256);
  *--top = nullptr;
  *--top = reinterpret_cast<void *>(run_threads);
  top -= 6;
  memset(top, 0, 6 * sizeof(void *));
  return top;
}

void use_stack(Worker &worker, const Stack &stack) {
  worker.stack_begin = stack.begin;
  worker.stack_end = stack.end;
  worker.gave_way = false;
}

void switch_to(Worker &worker, void *stack_pointer) {
  use_stack(worker, *worker.block->fibers[worker.current].stack);
  active = self = &worker;
  gpuperf_switch(&worker.scheduler_stack, stack_pointer);
  active = &idle;
  if (worker.fault.kind == FaultKind::kNone && worker.attention) settle_pending(worker);
  Fiber &fiber = worker.block->fibers[worker.current];
  if (fiber.state == State::kDone && fiber.stack) {
    worker.free_stacks.push_back(fiber.stack);
    fiber.stack = nullptr;
  }
}

// Makes a thread the one that runs; what remains is to switch to the stack pointer that it returns.
void *enter_new(Worker &worker, unsigned index) {
  if (worker.free_stacks.empty()) grow_stacks(worker);
  Stack *stack = worker.free_stacks.back();
  worker.free_stacks.pop_back();
  begin_thread(worker, index, stack);
  return prepare(*stack);
}

void *enter_again(Worker &worker, unsigned index) {
  Fiber &fiber = worker.block->fibers[index];
  worker.current = index;
  worker.spins = 0;
  worker.runs++;
  if (fiber.phase != worker.block->phase) join_phase(*worker.block, fiber, index);
  run_as(worker, fiber.mark);
  if (worker.launch->fences != fiber.time) renew_interval(worker, fiber);
  threadIdx = worker.indices[index];
  if (worker.watching) {
    Span &looked = worker.block->looked[index], &before = worker.block->looked_before[index];
    if (memcmp(&looked, &before, sizeof looked)) worker.changes++;
    before = looked;
    looked = {UINT64_MAX, 0};
  }
  return fiber.stack_pointer;
}

// From one thread of a warp to the next at once, which the CPU predicts, and not by way of the scheduler: where
// it can run and nothing has to be looked at first. Returns its stack pointer, or null.
void *enter_next(Worker &worker, State left) {
  std::vector<Fiber> &fibers = worker.block->fibers;
  unsigned next = worker.current + 1;
  if (left == State::kReady || worker.attention || worker.fault.kind != FaultKind::kNone || next % kWarp == 0 || next >= fibers.size()) return nullptr;
  bool is_new = fibers[next].state == State::kNew && left != State::kDone && !worker.free_stacks.empty();
  if (!is_new && fibers[next].state != State::kReady) return nullptr;
  if (left == State::kDone) {
    Fiber &done = fibers[worker.current];
    worker.free_stacks.push_back(done.stack);
    done.stack = nullptr;
  }
  void *stack_pointer = is_new ? enter_new(worker, next) : enter_again(worker, next);
  use_stack(worker, *fibers[next].stack);
  return stack_pointer;
}

}  // namespace

void begin_launch_fibers(Worker &worker) {
  const Index3 &block = worker.launch->request.block;
  worker.indices.resize(worker.launch->threads);
  for (unsigned i = 0; i < worker.launch->threads; i++)
    worker.indices[i] = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  blockDim = block;
  gridDim = worker.launch->request.grid;
}

void begin_block_fibers(Worker &worker) {
  std::vector<Fiber> &fibers = worker.block->fibers;
  fibers.resize(worker.launch->threads);
  worker.block->looked.resize(worker.launch->threads);
  worker.block->looked_before.resize(worker.launch->threads);
  for (Fiber &fiber : fibers) {
    fiber.state = State::kNew;
    fiber.stack = nullptr;
  }
}

Turn turn(Worker &worker) {
  std::vector<Fiber> &fibers = worker.block->fibers;
  unsigned count = fibers.size();
  Turn result = Turn::kNone;
  for (unsigned first = 0; first < count; first += kWarp) {
    unsigned last = std::min(first + kWarp, count);
    bool waits = false;
    for (unsigned i = first; i < last; i++) {
      State state = fibers[i].state;
      if (state == State::kNew || state == State::kReady) {
        uint64_t runs = worker.runs;
        switch_to(worker, state == State::kNew ? enter_new(worker, i) : enter_again(worker, i));
        if (worker.fault.kind != FaultKind::kNone) return Turn::kFault;
        bool only_waited = worker.gave_way && worker.runs == runs + 1;
        result = std::max(result, only_waited ? Turn::kGaveWay : Turn::kProgress);
      }
      waits |= fibers[i].state == State::kWarp;
    }
    if (waits && resolve_warp(worker, first)) result = Turn::kProgress;
    if (worker.fault.kind != FaultKind::kNone) return Turn::kFault;
  }
  return result;
}

void yield(Worker &worker, State state) {
  Fiber &fiber = worker.block->fibers[worker.current];
  fiber.state = state;
  void *next = enter_next(worker, state);
  gpuperf_switch(&fiber.stack_pointer, next ? next : worker.scheduler_stack);
}

void give_way(Worker &worker) {
  worker.gave_way = true;
  yield(worker, State::kReady);
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
  simt::Worker *worker = simt::active;
  if (worker->launch->stop) simt::fail(*worker, simt::FaultKind::kStopped, reinterpret_cast<uint64_t>(__builtin_return_address(0)));
  simt::give_way(*worker);
}
