// What the CPU traps (a wild jump, a division by zero, a stack that is full) and what the watchdog stops
// ends the launch, not the process: the handler abandons the fiber and continues in the scheduler.
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>

#include "runtime.hpp"

namespace simt {
namespace {

constexpr size_t kSignalStack = 64 * 1024;
// SIGURG interrupts a fiber that touches no memory: ignored by default, so a late one does no harm.
const int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGURG};
struct sigaction before[sizeof kSignals / sizeof *kSignals];

void pass_on(int signal, siginfo_t *info, void *context) {
  for (size_t i = 0; i < sizeof kSignals / sizeof *kSignals; i++) {
    if (kSignals[i] != signal) continue;
    if (before[i].sa_flags & SA_SIGINFO) return before[i].sa_sigaction(signal, info, context);
    if (before[i].sa_handler == SIG_DFL && signal != SIGURG) sigaction(signal, &before[i], nullptr);  // strikes again
    if (before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN) before[i].sa_handler(signal);
  }
}

void handle(int signal, siginfo_t *info, void *context) {
  Worker *worker = active;
  if (worker == &idle) return pass_on(signal, info, context);
  const auto &registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  uint64_t pc = registers[REG_RIP];
  const Span &text = worker->launch->text;
  bool in_kernel = pc >= text.begin && pc < text.end;
  if (signal == SIGURG) {
    if (worker->nudged) close_sites(*worker);
    // Elsewhere the thread may hold a lock of the C library or be inside a hook, which looks at `stop` itself.
    if (!in_kernel || !worker->launch->stop) return;
    // In a stub that calls a hook there is no line; what the stub returns to has one.
    worker->fault.address = *reinterpret_cast<uint64_t *>(registers[REG_RSP]);
    fail(*worker, FaultKind::kStopped, pc + 1);
  }
  worker->fault.signal = signal;
  worker->fault.address = reinterpret_cast<uint64_t>(info->si_addr);
  // si_addr of a guard page: the stack has grown into it.
  bool overflow = signal == SIGSEGV && worker->fault.address < worker->stack_begin && worker->fault.address + kGuard >= worker->stack_begin;
  if (overflow) snprintf(worker->fault.text, sizeof worker->fault.text, "stack");
  // Full while a check ran: the kernel's call of it is the first of its addresses on the stack.
  const uint64_t *frame = reinterpret_cast<const uint64_t *>(registers[REG_RSP]);
  for (; overflow && !in_kernel && uint64_t(frame) < worker->stack_end; frame++) {
    if (uint64_t(frame) < worker->stack_begin || *frame < text.begin || *frame >= text.end) continue;
    fail(*worker, FaultKind::kSignal, *frame);
  }
  fail(*worker, FaultKind::kSignal, in_kernel ? pc + 1 : 0);
}

// What the kernel's own code finds wrong in a line of it.
[[noreturn]] __attribute__((format(printf, 3, 4))) void fail_in(const char *file, unsigned line, const char *form, ...) {
  Worker &worker = *active;
  va_list given;
  va_start(given, form);
  vsnprintf(worker.fault.text, sizeof worker.fault.text, form, given);
  va_end(given);
  snprintf(worker.fault.file, sizeof worker.fault.file, "%s", file);
  worker.fault.line = line;
  fail(worker, FaultKind::kAssertion, 0);
}

struct Search {
  uint64_t address;
  Span *text, *image;
};

int note_image(struct dl_phdr_info *info, size_t, void *data) {
  Search *search = static_cast<Search *>(data);
  Span text = {0, 0}, image = {UINT64_MAX, 0};
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) &header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    uint64_t begin = info->dlpi_addr + header.p_vaddr, end = begin + header.p_memsz;
    if (search->address >= begin && search->address < end) text = {begin, end};
    image = {std::min(image.begin, begin), std::max(image.end, end)};
  }
  if (!text.end) return 0;
  *search->text = text;
  *search->image = image;
  return 1;
}

}  // namespace

// Only for the time of a launch: before and after it, faulthandler's handlers are the ones to have.
void install_handlers() {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;  // a kernel may print
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < sizeof kSignals / sizeof *kSignals; i++) sigaction(kSignals[i], &action, &before[i]);
}

void restore_handlers() {
  for (size_t i = 0; i < sizeof kSignals / sizeof *kSignals; i++) sigaction(kSignals[i], &before[i], nullptr);
}

void prepare_signal_stack() {
  stack_t stack;
  memset(&stack, 0, sizeof stack);
  stack.ss_sp = malloc(kSignalStack);
  stack.ss_size = kSignalStack;
  if (stack.ss_sp) sigaltstack(&stack, nullptr);
}

void interrupt_thread(unsigned long thread) { pthread_kill(thread, SIGURG); }

void note_access(Worker &worker, FaultKind kind, const Attempt &attempt) {
  worker.fault.kind = kind;
  worker.fault.pc = attempt.pc;
  worker.fault.address = attempt.address;
  worker.fault.size = attempt.size;
  worker.fault.access = static_cast<uint32_t>(attempt.kind);
}

void fail_access(Worker &worker, FaultKind kind, const Attempt &attempt) {
  note_access(worker, kind, attempt);
  fail(worker, kind, attempt.pc);
}

}  // namespace simt

extern "C" {

// The library a kernel lives in: where its code lies, and everything it was loaded to.
void gpuperf_image(const void *function, simt::Span *text, simt::Span *image) {
  simt::Search search = {reinterpret_cast<uint64_t>(function), text, image};
  dl_iterate_phdr(simt::note_image, &search);
}

void gpuperf_assert_fail(const char *text, const char *file, unsigned line, const char *) {
  simt::fail_in(file, line, "assert(%s) failed", text);
}

void gpuperf_trap(const char *file, int line) { simt::fail_in(file, line, "__trap()"); }

// g++ calls it, in the way of its -fsanitize=shift-exponent, where a number is shifted by more bits than it has.
struct ShiftedType {
  uint16_t kind, bits;  // the logarithm of their number, after a sign
};
struct ShiftPlace {
  const char *file;
  uint32_t line, column;
  const ShiftedType *number, *by;
};
void __ubsan_handle_shift_out_of_bounds(const ShiftPlace *place, uint64_t, uint64_t by) {
  if (!simt::active->launch) return;  // a variable of the file that is given a value when the library is loaded
  unsigned unused = 64 - (1u << (place->by->bits >> 1));
  simt::fail_in(place->file, place->line, "shifts a number of %u bits by %lld, which C++ leaves undefined: no such bits are left on a GPU, and a CPU need not agree",
                1u << (place->number->bits >> 1), static_cast<long long>(by << unused) >> unused);
}
}
