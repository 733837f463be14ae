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

void forget(std::vector<Local> &locals, size_t i) {
  const Local &local = locals[i];
  memset(mark_at(local.begin), 0, local.end - local.begin);
  locals.erase(locals.begin() + i);
}

}  // namespace

void touch_locals(Worker &worker, const Attempt &attempt, bool reads) {
  if (!worker.watches_locals) return;
  uint8_t *marks = mark_at(attempt.address);
  // An access of several bytes is let through where one of them was written, as the parts of a structure may be.
  if (reads && *marks && !memchr(marks, 0, attempt.size)) {
    for (const Local &local : worker.locals[worker.stack_begin])
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
  memset(simt::mark_at(begin), 1, size);
  worker.locals[worker.stack_begin].push_back({begin, begin + size, name});
}

// A variable's scope is left; it may have been entered behind the declaration.
void gpuperf_left(void *address) {
  simt::Worker &worker = *simt::active;
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  if (!simt::on_stack(worker, begin)) return;
  std::vector<simt::Local> &locals = worker.locals[worker.stack_begin];
  for (size_t i = locals.size(); i-- > 0;)
    if (locals[i].begin == begin) return simt::forget(locals, i);
}
}
