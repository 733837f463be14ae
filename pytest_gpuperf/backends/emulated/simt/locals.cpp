// A thread's own variables that were declared without a value, and which bytes of them it has not written yet
// (locals.py has kernels tell of them): each byte of a stack has a mark, which is 1 in those. Accesses come here by
// way of memory.cpp, since their addresses are known to the runtime.
#include "locals.hpp"

#include <stdio.h>
#include <string.h>

#include "runtime.hpp"

namespace simt {
namespace {

bool on_stack(const Worker &worker, uint64_t address) {
  return worker.launch && address >= worker.stack_begin && address < worker.stack_end;
}

// As stores for the sizes that nearly all variables have.
inline void mark(uint64_t begin, uint64_t size, uint8_t value) {
  switch (size) {
    case 4: memset(mark_at(begin), value, 4); break;
    case 8: memset(mark_at(begin), value, 8); break;
    case 16: memset(mark_at(begin), value, 16); break;
    default: memset(mark_at(begin), value, size);
  }
}

std::vector<Local> &locals_of(Worker &worker) {
  if (worker.locals_stack != worker.stack_begin) {
    worker.locals_stack = worker.stack_begin;
    worker.last_locals = &worker.locals[worker.stack_begin];  // stays where it is
  }
  return *worker.last_locals;
}

void forget(std::vector<Local> &locals, size_t i) {
  const Local &local = locals[i];
  mark(local.begin, local.end - local.begin, 0);
  if (i + 1 == locals.size())
    locals.pop_back();
  else
    locals.erase(locals.begin() + i);
}

}  // namespace

void touch_locals(Worker &worker, const Attempt &attempt, bool reads) {
  if (!worker.watches_locals) return;
  uint8_t *marks = mark_at(attempt.address);
  // An access of several bytes is let through where one of them was written, as the parts of a structure may be.
  if (reads && *marks && !memchr(marks, 0, attempt.size)) {
    for (const Local &local : locals_of(worker))
      if (attempt.address >= local.begin && attempt.address < local.end)
        snprintf(worker.fault.text, sizeof worker.fault.text, "'%s' (byte %llu of %llu)", local.name,
                 (unsigned long long)(attempt.address - local.begin), (unsigned long long)(local.end - local.begin));
    fail_access(worker, FaultKind::kUninitialised, attempt);
  }
  if (attempt.kind != AccessKind::kLoad) memset(marks, 0, attempt.size);
}

void forget_locals(Worker &worker) {
  for (auto &entry : worker.locals)
    while (!entry.second.empty()) forget(entry.second, entry.second.size() - 1);
  worker.watches_locals = false;
}

}  // namespace simt

extern "C" {

void gpuperf_declared(void *address, size_t size, const char *name) {
  simt::Worker &worker = *simt::active;
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  if (!simt::on_stack(worker, begin)) return;
  worker.watches_locals = true;
  simt::mark(begin, size, 1);
  simt::locals_of(worker).push_back({begin, begin + size, name});
}

// A variable's scope is left; it may have been entered behind the declaration.
void gpuperf_left(void *address) {
  simt::Worker &worker = *simt::active;
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  if (!simt::on_stack(worker, begin)) return;
  std::vector<simt::Local> &locals = simt::locals_of(worker);
  for (size_t i = locals.size(); i-- > 0;)
    if (locals[i].begin == begin) return simt::forget(locals, i);
}

void gpuperf_outside(long long index, size_t count, const char *name) {
  simt::Worker &worker = *simt::active;
  snprintf(worker.fault.text, sizeof worker.fault.text, "element %lld of its own '%s', which has %llu", index, name, (unsigned long long)count);
  simt::fail(worker, simt::FaultKind::kOutOfBounds, reinterpret_cast<uint64_t>(__builtin_return_address(0)));
}
}
