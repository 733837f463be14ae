// A thread's own variables that were declared without a value (locals.cpp).
#pragma once

#include <cstdint>
#include <vector>

namespace simt {

struct Worker;
struct Attempt;

struct Local {
  uint64_t begin, end;
  const char *name;
};

// An access to the thread's own stack.
void touch_locals(Worker &worker, const Attempt &attempt, bool reads);
// What threads have left that did not come to their end.
void forget_locals(Worker &worker);

}  // namespace simt
