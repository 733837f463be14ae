// A thread's own variables that it has not written yet (locals.cpp).
#pragma once

#include "runtime.hpp"

namespace simt {

void touch_locals(Worker &worker, Stack &stack, const Attempt &attempt, bool reads);
void forget_locals(Stack &stack);

// An access to the thread's own stack.
inline void touch_own(Worker &worker, const Attempt &attempt, bool reads) {
  Stack &stack = *worker.block->fibers[worker.current].stack;
  if (!stack.locals.empty()) touch_locals(worker, stack, attempt, reads);
}

}  // namespace simt
