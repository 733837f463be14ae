// Every access of a kernel passes here before it happens: is it inside something the thread may touch,
// aligned, and ordered with the other threads' accesses to the same shared memory?
#include <string.h>

#include <algorithm>

#include "runtime.hpp"

namespace simt {
namespace {

constexpr uint32_t kNobody = 0;  // phases count from 1: a cell of zeros was never touched

// The place that holds [address, address + size), looked up anew.
Place find(const Worker &worker, uint64_t address, uint32_t size) {
  for (const Place &place : worker.shared)
    if (address >= place.begin && address + size <= place.end) return place;
  const Request &request = worker.launch->request;
  const Span *end = request.memory + request.memory_count;
  const Span *next = std::upper_bound(request.memory, end, address, [](uint64_t a, const Span &s) { return a < s.begin; });
  if (next != request.memory && address + size <= next[-1].end) return {next[-1].begin, next[-1].end, Space::kGlobal};
  const Span &image = worker.launch->image.whole;
  if (address >= image.begin && address + size <= image.end) return {image.begin, image.end, Space::kImage};
  return {0, 0, Space::kNone};
}

[[noreturn]] void fail_access(Worker &worker, FaultKind kind, uint64_t address, uint32_t size, AccessKind access, uint64_t pc) {
  worker.fault.address = address;
  worker.fault.size = size;
  worker.fault.access = static_cast<uint32_t>(access);
  fail(worker, kind, pc);
}

bool differs(const PendingStore &pending) {
  return memcmp(reinterpret_cast<const void *>(pending.address), pending.before, pending.size) != 0;
}

// Two accesses of different threads are ordered by a block barrier between them, and within one warp by
// a __syncwarp between them. Phases number the intervals; both only ever grow.
struct Order {
  const Worker &worker;
  uint32_t me, warp, phase, warp_phase, pc;

  bool races_with_writer(const Cell &cell) const {
    if (cell.write_phase != phase || cell.writer == me) return false;
    return cell.writer / kWarp != warp || cell.write_warp_phase == warp_phase;
  }
  bool races_with_readers(const Cell &cell) const {
    if (cell.read_phase != phase) return false;
    if (cell.many_warps || cell.reader / kWarp != warp) return true;
    return cell.read_warp_phase == warp_phase && (cell.many_readers || cell.reader != me);
  }
  void note_read(Cell &cell) const {
    bool same_phase = cell.read_phase == phase;
    bool same_warp = same_phase && cell.reader / kWarp == warp;
    bool same_interval = same_warp && cell.read_warp_phase == warp_phase;
    cell.many_warps = same_phase && (cell.many_warps || !same_warp);
    cell.many_readers = same_interval && (cell.many_readers || cell.reader != me);
    cell.read_phase = phase;
    cell.read_warp_phase = warp_phase;
    cell.reader = me;
    cell.read_pc = pc;
  }
  void note_write(Cell &cell, bool atomically) const {
    cell.write_phase = phase;
    cell.write_warp_phase = warp_phase;
    cell.writer = me;
    cell.write_pc = pc;
    cell.written_atomically = atomically;
  }
};

// A store to what another thread stored: kept until it is done, because equal values are no race that
// anybody could see (a flag raised by several threads).
void defer_store(Worker &worker, uint64_t address, uint32_t size, uint64_t pc, const Cell &cell) {
  PendingStore &pending = worker.pending;
  pending = {address, pc, std::min<uint32_t>(size, sizeof pending.before), worker.current, cell.writer, cell.write_pc, {}};
  memcpy(pending.before, reinterpret_cast<const void *>(address), pending.size);
}

void check_shared(Worker &worker, uint64_t address, uint32_t size, AccessKind access, uint64_t pc) {
  uint32_t warp = worker.current / kWarp;
  Order order{worker, worker.current, warp, worker.phase, worker.warp_phase[warp],
              uint32_t(pc - worker.launch->image.whole.begin)};
  uint32_t step = std::min(size, 4u);
  for (uint32_t offset = 0; offset < size; offset += step) {
    Cell &cell = worker.shadow[address + offset - worker.shared_begin];
    bool both_atomic = access == AccessKind::kAtomic && cell.written_atomically;
    bool writer = !both_atomic && order.races_with_writer(cell);
    bool readers = access != AccessKind::kLoad && order.races_with_readers(cell);
    if (writer && !readers && access == AccessKind::kStore && !cell.written_atomically) {
      defer_store(worker, address, size, pc, cell);
    } else if (writer || readers) {
      worker.fault.other = writer ? cell.writer : cell.reader;
      worker.fault.other_pc = writer ? cell.write_pc : cell.read_pc;
      worker.fault.other_stores = writer;
      fail_access(worker, FaultKind::kSharedRace, address, size, access, pc);
    }
    if (access == AccessKind::kLoad)
      order.note_read(cell);
    else
      order.note_write(cell, access == AccessKind::kAtomic);
  }
}

inline bool aligned(uint64_t address, uint32_t size) { return (address & (size - 1)) == 0; }

// Checks and traces one access; does not return where the access must not happen.
inline void touch(uint64_t address, uint32_t size, AccessKind access, uint64_t pc, bool whole) {
  Worker *worker = self;
  if (!worker || !worker->in_fiber) return;  // the library's own initialisers, when it is loaded
  if (worker->pending.size && !settle_pending(*worker)) yield(*worker, State::kDone);
  if (worker->launch->stop.load(std::memory_order_relaxed)) fail(*worker, FaultKind::kStopped, pc);
  const Fiber &fiber = worker->fibers[worker->current];
  if (address >= fiber.stack_begin && address + size <= fiber.stack_end) return;
  Place &place = worker->cached[(pc >> 1) % Worker::kCached];
  if (address < place.begin || address + size > place.end) {
    Place found = find(*worker, address, size);
    if (found.space == Space::kNone) {
      uint64_t stacks = reinterpret_cast<uint64_t>(worker->stacks);
      bool foreign = address >= stacks && address < worker->fibers.back().stack_end;
      fail_access(*worker, foreign ? FaultKind::kForeignStack : FaultKind::kOutOfBounds, address, size, access, pc);
    }
    place = found;
  }
  if (whole && !aligned(address, size)) fail_access(*worker, FaultKind::kMisaligned, address, size, access, pc);
  if (place.space == Space::kImage) return;  // constant tables and __device__ variables
  worker->traced++;
  if (place.space == Space::kShared) check_shared(*worker, address, size, access, pc);
  if (worker->launch->request.counting && access != AccessKind::kAtomic)
    trace(*worker, place, address, size, access == AccessKind::kStore, pc);
}

}  // namespace

void touch_atomic(uint64_t address, uint32_t size, uint64_t pc) { touch(address, size, AccessKind::kAtomic, pc, true); }

// The second of two stores is done by now. False, with the fault set, where it left another value.
bool settle_pending(Worker &worker) {
  PendingStore &pending = worker.pending;
  if (!pending.size) return true;
  bool race = differs(pending);
  uint32_t size = pending.size;
  pending.size = 0;
  if (!race) return true;
  worker.fault.kind = FaultKind::kSharedRace;
  worker.fault.pc = pending.pc;
  worker.fault.address = pending.address;
  worker.fault.size = size;
  worker.fault.access = static_cast<uint32_t>(AccessKind::kStore);
  worker.fault.other = pending.other;
  worker.fault.other_pc = pending.other_pc;
  worker.fault.other_stores = true;
  locate(worker, pending.thread);
  return false;
}

void begin_launch_memory(Worker &worker) {
  const Request &request = worker.launch->request;
  uint64_t anchor = reinterpret_cast<uint64_t>(request.shared_anchor());
  worker.shared.clear();
  for (uint64_t i = 0; i < request.shared_count; i++)
    worker.shared.push_back({anchor + request.shared[i].begin, anchor + request.shared[i].end, Space::kShared});
  if (request.dynamic_shared) worker.shared.push_back({anchor, anchor + request.dynamic_shared, Space::kShared});
  worker.shared_begin = UINT64_MAX;
  worker.shared_end = 0;
  for (const Place &place : worker.shared) {
    worker.shared_begin = std::min(worker.shared_begin, place.begin);
    worker.shared_end = std::max(worker.shared_end, place.end);
  }
  if (!worker.shared.empty()) {
    uint64_t bytes = worker.shared_end - worker.shared_begin;
    if (worker.shadow.size() < bytes) worker.shadow.resize(bytes);
  }
  worker.warp_phase.resize((worker.launch->threads + kWarp - 1) / kWarp, 1);
  worker.pending.size = 0;
  for (Place &place : worker.cached) place = {1, 0, Space::kNone};
}

void begin_block_memory(Worker &worker) {
  if (++worker.phase == kNobody) {  // wrapped after 2^32 intervals: forget rather than confuse
    std::fill(worker.shadow.begin(), worker.shadow.end(), Cell{});
    worker.phase = 1;
  }
  // A block finds whatever was there; NaN and -1 make a read of it show.
  for (const Place &place : worker.shared) memset(reinterpret_cast<void *>(place.begin), 0xff, place.end - place.begin);
}

}  // namespace simt

extern "C" {

#define GPUPERF_PC reinterpret_cast<uint64_t>(__builtin_return_address(0))
#define GPUPERF_TOUCH(ADDRESS, SIZE, ACCESS, WHOLE) \
  simt::touch(reinterpret_cast<uint64_t>(ADDRESS), SIZE, simt::AccessKind::ACCESS, GPUPERF_PC, WHOLE)
#define GPUPERF_HOOKS(SIZE)                                                                        \
  void __tsan_read##SIZE(void *address) { GPUPERF_TOUCH(address, SIZE, kLoad, true); }             \
  void __tsan_write##SIZE(void *address) { GPUPERF_TOUCH(address, SIZE, kStore, true); }           \
  void __tsan_unaligned_read##SIZE(void *address) { GPUPERF_TOUCH(address, SIZE, kLoad, false); }  \
  void __tsan_unaligned_write##SIZE(void *address) { GPUPERF_TOUCH(address, SIZE, kStore, false); }
GPUPERF_HOOKS(1)
GPUPERF_HOOKS(2)
GPUPERF_HOOKS(4)
GPUPERF_HOOKS(8)
GPUPERF_HOOKS(16)

void __tsan_read_range(void *address, size_t size) {
  if (size) GPUPERF_TOUCH(address, size, kLoad, false);
}
void __tsan_write_range(void *address, size_t size) {
  if (size) GPUPERF_TOUCH(address, size, kStore, false);
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **address, void *) { GPUPERF_TOUCH(address, 8, kStore, true); }
void __tsan_vptr_read(void **address) { GPUPERF_TOUCH(address, 8, kLoad, true); }

// The build sends a kernel's calls of the C library's block functions here, which no hook would see.
void *gpuperf_memcpy(void *to, const void *from, size_t size) {
  if (size) GPUPERF_TOUCH(from, size, kLoad, false);
  if (size) GPUPERF_TOUCH(to, size, kStore, false);
  return memcpy(to, from, size);
}
void *gpuperf_memmove(void *to, const void *from, size_t size) {
  if (size) GPUPERF_TOUCH(from, size, kLoad, false);
  if (size) GPUPERF_TOUCH(to, size, kStore, false);
  return memmove(to, from, size);
}
void *gpuperf_memset(void *to, int value, size_t size) {
  if (size) GPUPERF_TOUCH(to, size, kStore, false);
  return memset(to, value, size);
}
}
