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
__attribute__((visibility("hidden"))) __thread void *gpuperf_scheduler;  // its stack pointer, while a thread runs
void gpuperf_enter(void *to) __attribute__((visibility("hidden")));
void gpuperf_wait_as(simt::State state) __attribute__((visibility("hidden")));
void gpuperf_end() __attribute__((visibility("hidden"), noreturn));
}

// Threads and the scheduler take turns: who stops saves what the System V ABI asks a callee to keep, and goes on to
// another stack. What a thread does when it stops runs on the scheduler's stack, which stays in the CPU's cache, and
// says which one goes on: often the next thread.
#define GPUPERF_SAVE_CALLEES " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
#define GPUPERF_RESTORE_CALLEES " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
#define GPUPERF_TO_SCHEDULER " mov gpuperf_scheduler@gottpoff(%rip),%rax\n mov %fs:(%rax),%rsp\n sub $8,%rsp\n"
#define GPUPERF_CODE(NAME, CODE) ".p2align 4\n.globl " NAME "\n.type " NAME ",@function\n" NAME ":\n" CODE ".size " NAME ",.-" NAME "\n"
__asm__(
    ".text\n.hidden gpuperf_enter\n.hidden gpuperf_wait_as\n.hidden gpuperf_end\n"
    GPUPERF_CODE("gpuperf_enter", GPUPERF_SAVE_CALLEES
      " mov gpuperf_scheduler@gottpoff(%rip),%rax\n mov %rsp,%fs:(%rax)\n mov %rdi,%rsp\n" GPUPERF_RESTORE_CALLEES " ret\n")
    GPUPERF_CODE("gpuperf_wait_as", GPUPERF_SAVE_CALLEES
      " mov %rsp,%rsi\n" GPUPERF_TO_SCHEDULER " call gpuperf_leave\n mov %rax,%rsp\n" GPUPERF_RESTORE_CALLEES " ret\n")
    GPUPERF_CODE("gpuperf_block_barrier", GPUPERF_SAVE_CALLEES
      " mov %rsp,%rcx\n" GPUPERF_TO_SCHEDULER " call gpuperf_arrive\n mov %rax,%rsp\n" GPUPERF_RESTORE_CALLEES " ret\n")
    // A jump, since the CPU takes a return for one to where this thread was called. 4 is State::kDone.
    GPUPERF_CODE("gpuperf_end",
      GPUPERF_TO_SCHEDULER " mov $4,%edi\n xor %esi,%esi\n call gpuperf_leave\n mov %rax,%rsp\n" GPUPERF_RESTORE_CALLEES " pop %rcx\n jmp *%rcx\n"));

namespace simt {

Worker idle;
__thread Worker *active = &idle;

namespace {

__thread Worker *self = nullptr;
static_assert(int(State::kDone) == 4, "as gpuperf_end has it");

// Stacks are kept between launches, and pages that no thread reaches cost address space only. What lies below
// each is closed, so that too much local memory in one thread stops it instead of damaging its neighbour. Behind them
// all are their marks (locals.cpp).
void grow_stacks(Worker &worker) {
  void *memory = mmap(nullptr, 2 * kMarks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  for (size_t i = kStacksTogether; i-- > 0;) {
    char *begin = static_cast<char *>(memory) + i * (kStack + kGuard);
    mprotect(begin, kGuard, PROT_NONE);
    uint64_t usable = reinterpret_cast<uint64_t>(begin) + kGuard;
    worker.stacks.push_back({usable, usable + kStack});
    worker.free_stacks.push_back(worker.stacks.back());
  }
}

void begin_thread(Worker &worker, unsigned index) {
  Block &block = *worker.block;
  worker.current = index;
  worker.spins = 0;
  worker.runs++;
  worker.fresh = true;
  run_as(worker, mark_of(block.phase_interval, index));
  if (worker.launch->fences != block.phase_time) renew_interval(worker, own_fiber(worker));
  threadIdx = worker.indices[index];
}

// Ends the thread that runs; true when the next one of the warp has begun in its place.
bool next_thread(Worker &worker) {
  if (worker.attention && !settle_pending(worker)) return false;
  std::vector<State> &states = worker.block->states;
  unsigned next = worker.current + 1;
  if (next % kWarp == 0 || next >= states.size() || states[next] != State::kNew || worker.launch->stop) return false;
  states[worker.current] = State::kDone;
  begin_thread(worker, next);
  return true;
}

void run_threads() {
  Worker &worker = *self;
  const Request &request = worker.launch->request;
  do request.body(request.arguments);
  while (next_thread(worker));
  gpuperf_end();
}

void *prepare(const Stack &stack) {
  // Tops at the same place in every page would all fall into the same sets of the CPU's cache.
  uint64_t number = stack.begin / (kStack + kGuard);
  void **top = reinterpret_cast<void **>(stack.end - number % 16 * 256);
  *--top = nullptr;
  *--top = reinterpret_cast<void *>(run_threads);
  top -= 6;
  memset(top, 0, 6 * sizeof(void *));  // what another thread left there may look like a call of this one
  return top;
}

void use_stack(Worker &worker, const Stack &stack) {
  worker.stack_begin = stack.begin;
  worker.stack_end = stack.end;
  worker.gave_way = false;
}

// Makes a thread the one that runs; what remains is to switch to the stack pointer that it returns.
void *enter_new(Worker &worker, unsigned index) {
  if (worker.free_stacks.empty()) grow_stacks(worker);
  Stack stack = worker.free_stacks.back();
  worker.free_stacks.pop_back();
  use_stack(worker, stack);
  begin_thread(worker, index);
  return prepare(stack);
}

void *enter_again(Worker &worker, unsigned index) {
  Fiber &fiber = worker.block->fibers[index];
  use_stack(worker, fiber.stack);
  worker.current = index;
  worker.spins = 0;
  worker.runs++;
  worker.fresh = false;
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

void switch_to(Worker &worker, void *stack_pointer) {
  active = self = &worker;
  gpuperf_enter(stack_pointer);
  active = &idle;
  if (worker.fault.kind == FaultKind::kNone && worker.attention) settle_pending(worker);
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
  Block &block = *worker.block;
  unsigned threads = worker.launch->threads;
  block.fibers.resize(threads);
  block.looked.resize(threads);
  block.looked_before.resize(threads);
  block.states.assign(threads, State::kNew);
  block.fences.assign(threads, {});
  block.at_barrier = block.sum = 0;
}

Turn turn(Worker &worker) {
  std::vector<State> &states = worker.block->states;
  unsigned count = states.size();
  Turn result = Turn::kNone;
  for (unsigned first = 0; first < count; first += kWarp) {
    unsigned last = std::min(first + kWarp, count);
    for (unsigned i = first; i < last; i++) {
      if (states[i] != State::kNew && states[i] != State::kReady) continue;
      uint64_t runs = worker.runs;
      switch_to(worker, states[i] == State::kNew ? enter_new(worker, i) : enter_again(worker, i));
      if (worker.fault.kind != FaultKind::kNone) return Turn::kFault;
      bool only_waited = worker.gave_way && worker.runs == runs + 1;
      result = std::max(result, only_waited ? Turn::kGaveWay : Turn::kProgress);
      i = worker.current;  // those between have had their turn
    }
    bool waits = memchr(&states[first], int(State::kWarp), last - first);
    if (waits && resolve_warp(worker, first)) result = Turn::kProgress;
    if (worker.fault.kind != FaultKind::kNone) return Turn::kFault;
  }
  return result;
}

// Returns where to go on: from one thread of a warp to the next at once, where it can run and nothing has to be
// looked at first, or to the scheduler.
void *leave(Worker &worker, State state, void *stack_pointer) {
  std::vector<State> &states = worker.block->states;
  if (state == State::kDone)
    worker.free_stacks.push_back({worker.stack_begin, worker.stack_end});
  else
    own_fiber(worker).stack_pointer = stack_pointer;
  states[worker.current] = state;
  unsigned next = worker.current + 1;
  if (state == State::kReady || worker.attention || worker.fault.kind != FaultKind::kNone || next % kWarp == 0 || next >= states.size()) return gpuperf_scheduler;
  if (states[next] == State::kReady) return enter_again(worker, next);
  return states[next] == State::kNew && state != State::kDone && !worker.free_stacks.empty() ? enter_new(worker, next) : gpuperf_scheduler;
}

void yield(Worker &, State state) {
  if (state == State::kDone) gpuperf_end();
  gpuperf_wait_as(state);
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

extern "C" __attribute__((visibility("hidden"))) void *gpuperf_leave(simt::State state, void *stack_pointer) {
  return simt::leave(*simt::active, state, stack_pointer);
}

extern "C" void gpuperf_pause() {
  simt::Worker *worker = simt::active;
  if (worker->launch->stop) simt::fail(*worker, simt::FaultKind::kStopped, reinterpret_cast<uint64_t>(__builtin_return_address(0)));
  simt::give_way(*worker);
}
