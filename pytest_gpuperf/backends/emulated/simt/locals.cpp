// A thread's own variables that were declared without a value, and which bytes of them it has not written yet
// (locals.py has kernels tell of them). Accesses come here by way of memory.cpp, since their addresses are known
// to the runtime.
#include "locals.hpp"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

namespace simt {
namespace {

Stack *own_stack(uint64_t address) {
  Worker &worker = *active;
  if (!worker.launch || address < worker.stack_begin || address >= worker.stack_end) return nullptr;
  return worker.block->fibers[worker.current].stack;
}

// False where there is no memory for them: nothing is watched then.
bool make_marks(Stack &stack) {
  void *memory = mmap(nullptr, stack.end - stack.begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory != MAP_FAILED) stack.unwritten = static_cast<uint8_t *>(memory);
  return stack.unwritten;
}

}  // namespace

void touch_locals(Worker &worker, Stack &stack, const Attempt &attempt, bool reads) {
  uint8_t *marks = stack.unwritten + (attempt.address - stack.begin);
  // An access of several bytes is let through where one of them was written, as the parts of a structure may be.
  if (reads && *marks && !memchr(marks, 0, attempt.size)) {
    for (const Local &local : stack.locals)
      if (attempt.address >= local.begin && attempt.address < local.end)
        snprintf(worker.fault.text, sizeof worker.fault.text, "'%s' (byte %llu of %llu)", local.name,
                 (unsigned long long)(attempt.address - local.begin), (unsigned long long)(local.end - local.begin));
    worker.fault.address = attempt.address;
    worker.fault.size = attempt.size;
    worker.fault.access = static_cast<uint32_t>(attempt.kind);
    fail(worker, FaultKind::kUninitialised, attempt.pc);
  }
  if (attempt.kind != AccessKind::kLoad) memset(marks, 0, attempt.size);
}

void forget_locals(Stack &stack) {
  for (const Local &local : stack.locals) memset(stack.unwritten + (local.begin - stack.begin), 0, local.end - local.begin);
  stack.locals.clear();
}

}  // namespace simt

extern "C" {

void gpuperf_declared(void *address, size_t size, const char *name) {
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  simt::Stack *stack = simt::own_stack(begin);
  if (!stack || !(stack->unwritten || simt::make_marks(*stack))) return;
  memset(stack->unwritten + (begin - stack->begin), 1, size);
  stack->locals.push_back({begin, begin + size, name});
}

// A variable's scope is left; it may have been entered behind the declaration.
void gpuperf_left(void *address) {
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  simt::Stack *stack = simt::own_stack(begin);
  if (!stack) return;
  for (size_t i = stack->locals.size(); i-- > 0;) {
    simt::Local local = stack->locals[i];
    if (local.begin != begin) continue;
    memset(stack->unwritten + (begin - stack->begin), 0, local.end - begin);
    stack->locals.erase(stack->locals.begin() + i);
    return;
  }
}
}
