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
// another stack, by a jump, since a CPU takes a return for one to who called last. What a thread does when it stops
// runs on the scheduler's stack, which stays in the CPU's cache, and says which one goes on: often the next thread.
#define GPUPERF_SAVE_CALLEES " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
#define GPUPERF_RESTORE_CALLEES " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
#define GPUPERF_GO_ON " mov %rax,%rsp\n" GPUPERF_RESTORE_CALLEES " pop %rcx\n jmp *%rcx\n"
#define GPUPERF_TO_SCHEDULER " mov gpuperf_scheduler@gottpoff(%rip),%rax\n mov %fs:(%rax),%rsp\n sub $8,%rsp\n"
#define GPUPERF_CODE(NAME, CODE) ".p2align 4\n.globl " NAME "\n.type " NAME ",@function\n" NAME ":\n" CODE ".size " NAME ",.-" NAME "\n"
__asm__(
    ".text\n.hidden gpuperf_enter\n.hidden gpuperf_wait_as\n.hidden gpuperf_end\n"
    GPUPERF_CODE("gpuperf_enter", GPUPERF_SAVE_CALLEES
      " mov gpuperf_scheduler@gottpoff(%rip),%rax\n mov %rsp,%fs:(%rax)\n mov %rdi,%rsp\n" GPUPERF_RESTORE_CALLEES " ret\n")
    GPUPERF_CODE("gpuperf_wait_as", GPUPERF_SAVE_CALLEES
      " mov %rsp,%rsi\n" GPUPERF_TO_SCHEDULER " call gpuperf_leave\n" GPUPERF_GO_ON)
    GPUPERF_CODE("gpuperf_block_barrier", GPUPERF_SAVE_CALLEES
      " mov %rsp,%rcx\n" GPUPERF_TO_SCHEDULER " call gpuperf_arrive\n" GPUPERF_GO_ON)
    // 4 is State::kDone.
    GPUPERF_CODE("gpuperf_end",
      GPUPERF_TO_SCHEDULER " mov $4,%edi\n xor %esi,%esi\n call gpuperf_leave\n" GPUPERF_GO_ON));

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
    worker.free_stacks.resize(worker.stacks.size());
    free_stack(worker, usable);
  }
}

GPUPERF_HOT void become(Worker &worker, unsigned index, bool fresh) {
  worker.current = index;
  worker.spins = 0;
  worker.runs++;
  worker.fresh = fresh;
  threadIdx = worker.indices[index];
}

void begin_thread(Worker &worker, unsigned index) {
  Block &block = *worker.block;
  become(worker, index, true);
  run_as(worker, mark_of(block.phase_interval, index));
  if (worker.launch->fences != block.phase_time) renew_interval(worker, own_fiber(worker));
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

void *prepare(uint64_t stack) {
  // Tops at the same place in every page would all fall into the same sets of the CPU's cache: stacks are an odd
  // number of pages apart, and the page's number moves them.
  void **top = reinterpret_cast<void **>(stack + kStack - (stack >> 4 & 0xf00));
  *--top = nullptr;
  *--top = reinterpret_cast<void *>(run_threads);
  top -= 6;
  memset(top, 0, 6 * sizeof(void *));  // what another thread left there may look like a call of this one
  return top;
}

GPUPERF_HOT void use_stack(Worker &worker, uint64_t stack) {
  worker.stack_begin = stack;
  worker.stack_end = stack + kStack;
  worker.gave_way = false;
}

// Makes a thread the one that runs; what remains is to switch to the stack pointer that it returns.
__attribute__((noinline)) void *enter_new(Worker &worker, unsigned index) {
  if (!worker.free_count) grow_stacks(worker);
  use_stack(worker, worker.free_stacks[--worker.free_count]);
  begin_thread(worker, index);
  return prepare(worker.stack_begin);
}

__attribute__((noinline)) void *enter_again(Worker &worker, unsigned index) {
  Fiber &fiber = worker.block->fibers[index];
  use_stack(worker, fiber.stack);
  become(worker, index, false);
  if (fiber.phase != worker.block->phase) join_phase(*worker.block, fiber, index);
  run_as(worker, fiber.mark);
  if (worker.launch->fences != fiber.time) renew_interval(worker, fiber);
  if (worker.watching) {
    Span &looked = worker.block->looked[index], &before = worker.block->looked_before[index];
    if (memcmp(&looked, &before, sizeof looked)) worker.changes++;
    before = looked;
    looked = {UINT64_MAX, 0};
  }
  return fiber.stack_pointer;
}

// The same where a thread of the same warp and interval has just stopped, which needs no call.
GPUPERF_HOT void *next_new(Worker &worker, Block &block, unsigned index) {
  uint64_t mark = mark_of(block.phase_interval, index);
  if (!worker.free_count || group_of(mark) != worker.group || worker.launch->fences != block.phase_time) return enter_new(worker, index);
  use_stack(worker, worker.free_stacks[--worker.free_count]);
  become(worker, index, true);
  worker.mark = mark;
  return prepare(worker.stack_begin);
}

GPUPERF_HOT void *next_again(Worker &worker, Block &block, unsigned index) {
  Fiber &fiber = block.fibers[index];
  bool joins = fiber.phase != block.phase;
  uint64_t mark = joins ? mark_of(block.phase_interval, index) : fiber.mark;
  uint32_t time = joins ? block.phase_time : fiber.time;
  if (group_of(mark) != worker.group || worker.launch->fences != time || worker.watching) return enter_again(worker, index);
  if (joins) join_phase(block, fiber, index);
  // By its turn the stack of the one after the next is in the CPU's first cache, too small for those of a block.
  char *after = static_cast<char *>(block.fibers[index + 2 < block.states.size() ? index + 2 : index].stack_pointer);
  __builtin_prefetch(after);
  __builtin_prefetch(after + 64);
  use_stack(worker, fiber.stack);
  become(worker, index, false);
  worker.mark = mark;
  return fiber.stack_pointer;
}

// Where to go on: from one thread of a warp to the next at once, where it can run and nothing has to be looked at
// first, or to the scheduler.
GPUPERF_HOT void *leave(Worker &worker, Block &block, State state) {
  unsigned next = worker.current + 1;
  block.states[worker.current] = state;
  if (state == State::kReady || worker.attention.load(std::memory_order_relaxed) || worker.fault.kind != FaultKind::kNone) return gpuperf_scheduler;
  if (next % kWarp == 0 || next >= block.states.size()) return gpuperf_scheduler;
  if (block.states[next] == State::kReady) return next_again(worker, block, next);
  if (block.states[next] == State::kNew && state != State::kDone && worker.free_count) return next_new(worker, block, next);
  return gpuperf_scheduler;
}

// What a barrier does only now and then.
__attribute__((noinline)) void *arrive_rarely(Worker &worker, Fiber &fiber, int predicate) {
  Block &block = *worker.block;
  if (worker.launch->stop) {
    blame_waiting(worker, worker.current, FaultKind::kStopped);
    free_stack(worker, worker.stack_begin);
    return leave(worker, block, State::kDone);
  }
  if (block.at_barrier++ == 0)
    block.barrier = fiber.wait, block.divergent = false;
  else if (!same_site(block.barrier, fiber.wait))
    block.divergent = true;
  block.sum += predicate;
  return leave(worker, block, State::kBlock);
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

// What a thread does when it stops. These save no registers of its own, so that they are quick without calls.
extern "C" __attribute__((visibility("hidden"))) void *gpuperf_leave(simt::State state, void *stack_pointer) {
  simt::Worker &worker = *simt::active;
  if (state == simt::State::kDone)
    simt::free_stack(worker, worker.stack_begin);
  else
    simt::own_fiber(worker).stack_pointer = stack_pointer;
  return simt::leave(worker, *worker.block, state);
}

extern "C" __attribute__((visibility("hidden"))) void *gpuperf_arrive(int predicate, const char *file, int line, void *stack_pointer) {
  simt::Worker &worker = *simt::active;
  simt::Block &block = *worker.block;
  simt::Fiber &fiber = simt::own_fiber(worker);
  fiber.stack_pointer = stack_pointer;
  fiber.wait.file = file;
  fiber.wait.line = line;
  bool usual = block.at_barrier && block.barrier.line == line && block.barrier.file == file;
  if (!usual || worker.launch->stop.load(std::memory_order_relaxed)) return simt::arrive_rarely(worker, fiber, predicate);
  block.at_barrier++;
  block.sum += predicate;
  return simt::leave(worker, block, simt::State::kBlock);
}

extern "C" void gpuperf_pause() {
  simt::Worker *worker = simt::active;
  if (worker->launch->stop) simt::fail(*worker, simt::FaultKind::kStopped, reinterpret_cast<uint64_t>(__builtin_return_address(0)));
  simt::give_way(*worker);
}
