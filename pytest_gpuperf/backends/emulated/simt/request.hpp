// What Python and the runtime tell each other of a launch (runtime.py has the same, field for field).
#pragma once

#include <cstdint>

namespace simt {

struct Index3 {
  uint32_t x, y, z;
};

struct Span {
  uint64_t begin, end;
};

// No argument of the launch is a pointer to write through, so readers need no watching.
constexpr uint64_t kReadOnly = 1;

// An array or a variable of the library.
struct Memory {
  uint64_t begin, end;
  uint64_t flags;  // kReadOnly; from bit 8 on the logarithm of its elements' size
};

// The numbers are those of FaultKind in runtime.py.
enum class FaultKind : uint32_t {
  kNone,
  kOutOfBounds,
  kMisaligned,
  kForeignStack,
  kRace,
  kDivergentBarrier,
  kLostLane,
  kSignal,
  kStopped,
  kAssertion,
  kNoMemory,
  kUninitialised,
  kNotResident,
};

// What stopped a launch. `other` is the second thread of a race or a barrier, as its linear index within
// `other_block`; `other_pc` and `other_stores` say where and what it did in a race.
struct Fault {
  FaultKind kind;
  uint32_t size;
  uint32_t access;  // AccessKind
  uint32_t line;    // 0: find the line from pc
  uint32_t other;
  uint32_t signal;
  uint32_t other_stores, other_pc;  // other_pc from the start of the library
  uint32_t other_block, resident;
  Index3 block, thread;
  uint64_t pc, address, block_index, shared_anchor;
  char file[512];
  char text[256];
};

enum class AccessKind : uint32_t { kLoad, kStore, kAtomic };

// Sums over a launch; `ideal` is the fewest sectors or wavefronts that could have served the requests.
struct Traffic {
  uint64_t requests, units, ideal;
};

// A basic block of a loop (loops.py).
struct LoopBlock {
  uint64_t loop, begin, end;
};

// An access in a branch that a GPU goes through switched off (branches.py).
struct BranchAccess {
  uint64_t branch, pc, store;
};

// One launch; filled in by runtime.py, field for field.
struct Request {
  void (*body)(void **);
  void *(*shared_anchor)();
  void **arguments;
  const Memory *memory;     // the live arrays, sorted
  const Memory *variables;  // the library's own variables, sorted
  const Span *shared;       // the static shared variables, as offsets from the anchor (which may be negative)
  const LoopBlock *loops;   // of a build for counting
  const BranchAccess *branches;  // sorted
  uint64_t memory_count, variable_count, shared_count, loop_count, branch_count;
  Index3 grid, block;
  uint32_t dynamic_shared;
  uint32_t workers;
  uint32_t counting;
};

}  // namespace simt
