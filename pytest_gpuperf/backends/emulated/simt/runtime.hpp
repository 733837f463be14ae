// The emulated device, as its parts see each other: pool.cpp keeps the OS threads, scheduler.cpp runs the
// threads of a block as fibers, warp.cpp joins fibers at warp operations and barriers, memory.cpp checks
// every access, atomics.cpp does CUDA's, warp_model.cpp counts what a GPU would move, and faults.cpp
// survives what the CPU traps.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace simt {

constexpr unsigned kWarp = 32;

struct Index3 {
  uint32_t x, y, z;
};

struct Span {
  uint64_t begin, end;
};

// The numbers are those of FaultKind in runtime.py.
enum class FaultKind : uint32_t {
  kNone,
  kOutOfBounds,
  kMisaligned,
  kForeignStack,
  kSharedRace,
  kDivergentBarrier,
  kLostLane,
  kSignal,
  kStopped,
  kAssertion,
  kNoMemory,
};

// What stopped a launch. `other` is the second thread of a race or a barrier, as its linear index;
// `other_pc` and `other_stores` say where and what it did in a race.
struct Fault {
  FaultKind kind;
  uint32_t size;
  uint32_t access;  // AccessKind
  uint32_t line;    // 0: find the line from pc
  uint32_t other;
  uint32_t signal;
  uint32_t other_stores, other_pc;  // other_pc from the start of the library
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

// One launch; filled in by runtime.py, field for field.
struct Request {
  void (*body)(void **);
  void *(*shared_anchor)();
  void **arguments;
  const Span *memory;  // the live arrays, sorted
  const Span *shared;  // the static shared variables, as offsets from the anchor (which may be negative)
  uint64_t memory_count, shared_count;
  Index3 grid, block;
  uint32_t dynamic_shared;
  uint32_t workers;
  uint32_t counting;
};

struct Image {
  Span text, whole;
};

struct Launch {
  Request request;
  Image image;
  uint64_t blocks;
  unsigned threads;
  std::atomic<uint64_t> next{0};
  std::atomic<uint64_t> first_fault{UINT64_MAX};
  std::atomic<bool> stop{false};
};

enum class State : uint8_t { kReady, kWarp, kBlock, kDone };

// Why a fiber waits: a warp operation (WarpOperation of synchronization.hpp) or a block barrier.
struct Wait {
  int operation, operand, width;
  uint32_t mask;
  uint64_t value, result;
  const char *file;
  int line;
};

struct Fiber {
  void *stack_pointer;
  uint64_t stack_begin, stack_end;
  Index3 thread;
  State state;
  Wait wait;
};

// Who touched a word of shared memory last, where, and in which interval between barriers (memory.cpp has the rule).
struct Cell {
  uint32_t write_phase, read_phase;
  uint32_t write_warp_phase, read_warp_phase;
  uint32_t write_pc, read_pc;
  uint16_t writer, reader;
  bool written_atomically, many_readers, many_warps;
};

enum class Space : uint8_t { kNone, kGlobal, kShared, kImage };

struct Place {
  uint64_t begin, end;
  Space space;
};

struct Access {
  uint64_t pc, address;
  uint32_t occurrence, size;
  uint8_t kind;  // 1 store, 2 shared
};

// Two stores of different threads to one shared word: a race only if they differ, known once the second is done.
struct PendingStore {
  uint64_t address, pc;
  uint32_t size, thread, other, other_pc;
  uint8_t before[16];
};

struct Worker {
  Launch *launch = nullptr;
  std::vector<Fiber> fibers;
  unsigned current = 0;
  bool in_fiber = false;
  void *scheduler_stack = nullptr;
  char *stacks = nullptr;
  size_t stack_count = 0;
  uint64_t block_index = 0;
  unsigned spins = 0;
  Fault fault{};

  uint64_t shared_begin = 0, shared_end = 0;
  std::vector<Place> shared;
  std::vector<Cell> shadow;
  uint32_t phase = 0;
  std::vector<uint32_t> warp_phase;
  PendingStore pending{};
  static constexpr unsigned kCached = 64;
  Place cached[kCached];

  std::vector<std::vector<Access>> accesses;
  std::vector<std::unordered_map<uint64_t, uint32_t>> occurrences;
  Traffic traffic[4];
  uint64_t traced = 0;
};

// What the workers of a launch have come to together.
struct Result {
  std::mutex mutex;
  Fault fault;
  Traffic traffic[4];
  uint64_t traced;
};

extern __thread Worker *self;
extern Result result;

// scheduler.cpp
// Runs blocks of the launch on this OS thread until none are left, and adds to `result`.
void work(Worker &worker, Launch &launch);
void yield(Worker &worker, State state);
// Ends the launch from inside a fiber; the fault's block and thread are filled in here.
[[noreturn]] void fail(Worker &worker, FaultKind kind, uint64_t pc);
void locate(Worker &worker, unsigned fiber);

// warp.cpp
bool resolve_warp(Worker &worker, unsigned first_lane);
bool resolve_block(Worker &worker);

// memory.cpp
void begin_launch_memory(Worker &worker);
void begin_block_memory(Worker &worker);
bool settle_pending(Worker &worker);
void touch_atomic(uint64_t address, uint32_t size, uint64_t pc);

// warp_model.cpp
void begin_launch_model(Worker &worker);
void trace(Worker &worker, const Place &place, uint64_t address, uint32_t size, bool store, uint64_t pc);
void end_block_model(Worker &worker);

// faults.cpp
void install_handlers();
void restore_handlers();
void prepare_signal_stack();
void interrupt_thread(unsigned long thread);

}  // namespace simt
