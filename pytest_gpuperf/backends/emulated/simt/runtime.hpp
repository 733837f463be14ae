// The emulated device, as its parts see each other: pool.cpp keeps the OS threads, scheduler.cpp runs blocks,
// fibers.cpp their threads, warp.cpp joins threads at warp operations and barriers, tsan.cpp is told of every access,
// memory.cpp checks it, races.cpp whether it is ordered with those of other threads (shadow.cpp keeps what it knows),
// atomics.cpp does CUDA's, copies.cpp makes asynchronous copies, pointers.cpp is the C library's functions that
// write through one, locals.cpp watches a thread's own variables, warp_model.cpp counts what a GPU would move, and
// faults.cpp survives what the CPU traps.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "accesses.hpp"
#include "copies.hpp"
#include "locals.hpp"
#include "request.hpp"

namespace simt {

constexpr unsigned kWarp = 32;
// A thread that polls a volatile variable or tries an atomic this often in one turn waits for another one.
constexpr unsigned kSpins = 1024;
// CUDA allows a thread 512 KiB of local memory; frames here are larger than a GPU's. Stack and guard, the closed
// memory below it, are an odd number of pages: the tops of stacks then fall into different sets of the CPU's caches.
constexpr uint64_t kStack = 644 * 1024, kGuard = 64 * 1024;
constexpr unsigned kStacksTogether = 64;
constexpr uint64_t kMarks = kStacksTogether * (kStack + kGuard);  // from a stack's byte to its mark (locals.cpp)

struct Launch {
  Request request;
  Span text, image;  // of the library: its code, and everything it was loaded to
  uint64_t blocks;
  unsigned threads;
  uint32_t first_interval;
  std::atomic<uint64_t> next{0};
  std::atomic<uint64_t> first_fault{UINT64_MAX};
  std::atomic<bool> stop{false};
  // Fences so far: a clock for hand-overs between threads. Kernel files with fences or atomics run on one
  // OS thread, so it is never contended.
  uint32_t fences = 0;
  uint64_t arrived = 0;  // blocks at barriers of the whole grid, over the launch
  std::mutex mutex;
  std::unordered_map<uint64_t, uint32_t> site_numbers;
  std::vector<uint32_t> site_places;  // from the start of the library
  std::unordered_map<uint64_t, uint32_t> handed_over;  // by address, the fence before the flag was raised
};

// kNew: not begun. Threads run to their end one after the other on one stack, until one has to wait.
enum class State : uint8_t { kNew, kReady, kWarp, kBlock, kDone };

constexpr int kGuarded = 1 << 16;  // synchronization.hpp: added to the width of a shuffle

// Why a fiber waits: a warp operation (WarpOperation of synchronization.hpp) or a block barrier.
struct Wait {
  const char *file;
  int line, operation, operand, width;
  uint32_t mask;
  uint64_t value, result;
  bool guarded;  // a shuffle whose result may be that of no lane, and is all bits then
};

struct Stack {
  uint64_t begin, end;
};

// Of a thread that has waited; one that runs through leaves nothing here.
struct alignas(64) Fiber {
  void *stack_pointer;
  uint64_t stack;  // where it begins
  uint64_t mark;  // the interval it is in and its number, as races.hpp writes them into a cell
  uint32_t phase, clock, time;  // of that interval
  Wait wait;
};

// The fence that a thread made last, and up to which it has seen those of others.
struct Fences {
  uint32_t made, seen;
};

// The __syncwarp calls of a warp since the last barrier: number `clock` was the last, and `full` the last of
// the whole warp. After one of a part, seen[i][j] says up to which call lane i has seen lane j's accesses.
struct WarpOrder {
  uint32_t clock = 0, full = 0;
  std::vector<uint32_t> seen;
};

// A block that has begun: several take turns on one OS thread where they wait for each other.
struct Block {
  uint64_t index = 0;
  std::vector<Fiber> fibers;
  std::vector<State> states;
  std::vector<Fences> fences;
  unsigned at_barrier = 0;  // threads; the first one's site, whether others are at another, and their predicates
  Wait barrier{};
  bool divergent = false;
  int sum = 0, last_sum = 0;
  std::vector<WarpOrder> warps;
  uint32_t phase = 0;           // barriers passed
  uint32_t first_interval = 0;  // of the block
  uint32_t phase_interval = 0;  // of the phase
  uint32_t phase_time = 0;
  uint32_t phase_epoch = 0;
  Cells cells;              // of the shared memory
  Attempt unwritten{};      // the phase's first read of shared memory that nobody wrote, and its thread
  unsigned unwritten_thread = 0;
  std::vector<uint8_t> shared;  // its contents while another block runs
  std::vector<Span> looked, looked_before;  // at which addresses, while blocks wait for each other
  std::vector<std::vector<Access>> accesses;
  std::vector<uint32_t> iterations;  // by thread and loop
};

// Requests of which all lanes were switched off, by place in the code: of interest where that is known to access
// shared memory.
struct SwitchedOff {
  std::unordered_map<uint64_t, uint64_t> requests;
  std::unordered_set<uint64_t> shared, stores;
};

struct Worker {
  unsigned long thread = 0;  // the OS's
  Launch *launch = nullptr;
  Block *block = nullptr;  // the one that runs
  unsigned current = 0;
  std::atomic<bool> attention{false};  // the next access has more to do than its check
  uint64_t mark = 0;
  bool fresh = false;  // the thread that runs has not waited yet
  uint64_t stack_begin = 0, stack_end = 0;
  unsigned spins = 0;
  uint64_t runs = 0;  // of threads: a stuck one shows in that it does not grow
  bool gave_way = false;
  Fault fault{};

  std::vector<Block *> resident;
  std::vector<Block *> spare;
  std::vector<uint64_t> free_stacks;  // the first free_count of them are
  size_t free_count = 0;
  std::vector<Stack> stacks;

  uint64_t anchor = 0, shared_begin = 0, shared_end = 0;
  std::vector<Place> shared;
  PendingStore pending{};
  uint32_t next_interval = 0, last_interval = 0, generation = 0;
  bool exhausted = false;
  // The first interval that matters: to shared memory's contents, its races, and global memory's.
  uint32_t block_floor = 0, phase_floor = 0, launch_floor = 0;
  // The same as entries of a cell; then the cells of shared memory, by an address's word.
  uint64_t block_first = 0, phase_first = 0, launch_first = 0;
  uint64_t *writes = nullptr, *reads = nullptr, *others = nullptr;
  uint32_t *settled = nullptr;
  // Epochs: numbers for "a load of this warp, in its interval" and "a load of any warp, in the phase's interval".
  uint32_t warp_epoch = 0, phase_epoch = 0, last_epoch = 0;
  uint64_t group = 0;  // that warp_epoch is of
  std::vector<Index3> indices;
  Site *sites = nullptr;  // by their number in the kernel's code; so many may be open
  unsigned used_sites = 0;
  static constexpr unsigned kPlaces = 512;
  Site other_sites[kPlaces];
  Known known[kPlaces];

  // While blocks wait for each other: has anything changed?
  bool watching = false;
  uint64_t changes = 0, waiting_pc = 0;
  std::atomic<bool> nudged{false};
  uint64_t runs_seen = 0;  // pool.cpp: at its last look at the launch
  unsigned looks = 0;
  void watch(bool on) {
    watching = on;
    if (on) attention = true;
  }

  bool watches_locals = false;  // this launch has declared some
  std::unordered_map<uint64_t, std::vector<Local>> locals;  // by the stack that they lie on
  uint64_t locals_stack = 0;  // the one that was asked for last, and its
  std::vector<Local> *last_locals = nullptr;
  std::unordered_map<const Fiber *, Copies> copies;  // asynchronous ones, of threads that made any

  Traffic traffic[4];
  uint64_t traced = 0;
  std::unordered_map<uint64_t, std::vector<uint64_t>> around;  // by place in the code
  SwitchedOff switched_off;
};

// What the workers of a launch have come to together.
struct Result {
  std::mutex mutex;
  Fault fault;
  Traffic traffic[4];
  uint64_t traced;
  SwitchedOff switched_off;
};

// Not 0 where the byte is one of a variable that its thread has declared and not written.
inline uint8_t *mark_at(uint64_t address) { return reinterpret_cast<uint8_t *>(address + kMarks); }

// The worker whose kernel code this OS thread runs now; `idle` in the runtime's own code.
extern Worker idle;
extern __thread Worker *active;
extern Result result;

// scheduler.cpp
// Runs blocks of the launch on this OS thread until none are left, and adds to `result`.
void work(Worker &worker, Launch &launch);
void locate(Worker &worker, unsigned fiber);

// fibers.cpp
void begin_launch_fibers(Worker &worker);
void begin_block_fibers(Worker &worker);
// Gives every thread that can run a turn.
enum class Turn { kNone, kGaveWay, kProgress, kFault };
Turn turn(Worker &worker);
void yield(Worker &worker, State state);
inline void free_stack(Worker &worker, uint64_t stack) { worker.free_stacks[worker.free_count++] = stack; }
// Lets the other threads run: this one waits for something that one of them will do.
void give_way(Worker &worker);
// Ends the launch from inside a fiber; the fault's block and thread are filled in here.
[[noreturn]] void fail(Worker &worker, FaultKind kind, uint64_t pc);

// warp.cpp
bool resolve_warp(Worker &worker, unsigned first_lane);
bool resolve_block(Worker &worker);
bool same_site(const Wait &a, const Wait &b);
void blame_waiting(Worker &worker, unsigned index, FaultKind kind);

// memory.cpp
void begin_launch_memory(Worker &worker);
void begin_block_memory(Worker &worker);
void close_sites(Worker &worker);

// warp_model.cpp
void begin_block_model(Worker &worker);
void begin_launch_model(Worker &worker);
void trace(Worker &worker, Known &known, uint64_t address, uint32_t size, bool store, uint64_t pc);
void end_block_model(Worker &worker);
void add_switched_off(SwitchedOff &sum, const SwitchedOff &part);
void count_switched_off(Traffic *traffic, const SwitchedOff &sum);

// faults.cpp
void install_handlers();
void restore_handlers();
void prepare_signal_stack();
void interrupt_thread(unsigned long thread);
// Has the fault tell of an access.
void note_access(Worker &worker, FaultKind kind, const Attempt &attempt);
// Ends the launch by it.
[[noreturn]] void fail_access(Worker &worker, FaultKind kind, const Attempt &attempt);

}  // namespace simt
