// A thread's own variables that were declared without a value, and which bytes of them it has not written yet
// (locals.py has kernels tell of them). Accesses come here by way of memory.cpp, since their addresses are known
// to the runtime.
#include "locals.hpp"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime.hpp"

namespace simt {
namespace {

bool on_stack(const Worker &worker, uint64_t address) {
  return worker.launch && address >= worker.stack_begin && address < worker.stack_end;
}

// Null where there is no memory for them: nothing is watched then.
uint8_t *marks_of(const Worker &worker, Locals &locals) {
  if (locals.unwritten) return locals.unwritten;
  void *memory = mmap(nullptr, worker.stack_end - worker.stack_begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return locals.unwritten = memory == MAP_FAILED ? nullptr : static_cast<uint8_t *>(memory);
}

void forget(Locals &locals, uint64_t stack, size_t i) {
  const Local &local = locals.declared[i];
  memset(locals.unwritten + (local.begin - stack), 0, local.end - local.begin);
  locals.declared.erase(locals.declared.begin() + i);
}

}  // namespace

void touch_locals(Worker &worker, const Attempt &attempt, bool reads) {
  auto found = worker.locals.find(worker.stack_begin);
  if (found == worker.locals.end() || found->second.declared.empty()) return;
  uint8_t *marks = found->second.unwritten + (attempt.address - worker.stack_begin);
  // An access of several bytes is let through where one of them was written, as the parts of a structure may be.
  if (reads && *marks && !memchr(marks, 0, attempt.size)) {
    for (const Local &local : found->second.declared)
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
    while (!entry.second.declared.empty()) forget(entry.second, entry.first, entry.second.declared.size() - 1);
}

}  // namespace simt

extern "C" {

void gpuperf_declared(void *address, size_t size, const char *name) {
  simt::Worker &worker = *simt::active;
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  if (!simt::on_stack(worker, begin)) return;
  simt::Locals &locals = worker.locals[worker.stack_begin];
  uint8_t *marks = simt::marks_of(worker, locals);
  if (!marks) return;
  memset(marks + (begin - worker.stack_begin), 1, size);
  locals.declared.push_back({begin, begin + size, name});
}

// A variable's scope is left; it may have been entered behind the declaration.
void gpuperf_left(void *address) {
  simt::Worker &worker = *simt::active;
  uint64_t begin = reinterpret_cast<uint64_t>(address);
  if (!simt::on_stack(worker, begin)) return;
  simt::Locals &locals = worker.locals[worker.stack_begin];
  for (size_t i = locals.declared.size(); i-- > 0;)
    if (locals.declared[i].begin == begin) return simt::forget(locals, worker.stack_begin, i);
}
}
