// The cells of global memory: for each array that a kernel writes, made when they are first needed and kept
// for the next launch.
#include <sys/mman.h>

#include <algorithm>
#include <map>

#include "races.hpp"

namespace simt {
namespace {

// Cells take six times an array's size where it is written and read, so large ones are left out.
constexpr uint64_t kLargest = 64 << 20, kAllTogether = 256 << 20;

struct Kept {
  Shadow shadow;
  uint32_t launch;  // its first interval
  size_t cells;
};

std::map<uint64_t, Kept> kept;
std::mutex mutex;

uint64_t *make_cells(size_t count) {
  void *memory = mmap(nullptr, count * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<uint64_t *>(memory);
}

void drop(const Kept &gone) {
  if (gone.shadow.writes) munmap(gone.shadow.writes, 3 * gone.cells * sizeof(uint64_t));
}

}  // namespace

void begin_launch_shadows(const Request &request, bool forget) {
  uint64_t bytes = 0;
  for (const auto &entry : kept) bytes += entry.second.shadow.end - entry.second.shadow.begin;
  forget |= bytes > kAllTogether;
  for (auto it = kept.begin(); it != kept.end();) {
    const Memory *end = request.memory + request.memory_count;
    const Memory *next = std::upper_bound(request.memory, end, it->first, [](uint64_t a, const Memory &m) { return a < m.begin; });
    bool live = next != request.memory && next[-1].begin == it->first && next[-1].end == it->second.shadow.end;
    bool variable = it->second.shadow.variable;
    if (!forget && (live || variable)) {
      ++it;
      continue;
    }
    drop(it->second);
    it = kept.erase(it);
  }
}

// Null where an array is not watched.
Shadow *shadow_of(const Memory &memory, const Launch &launch, bool variable) {
  if (memory.end - memory.begin > kLargest) return nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  Kept &found = kept[memory.begin];
  if (found.shadow.end != memory.end) {
    drop(found);
    unsigned shift = memory.flags >> 8;
    size_t cells = ((memory.end - memory.begin) >> shift) + 2;
    found = {{memory.begin, memory.end, shift, variable, make_cells(3 * cells), nullptr, nullptr, false, false, false}, 0, cells};
    if (found.shadow.writes) found.shadow.reads = found.shadow.writes + cells, found.shadow.others = found.shadow.writes + 2 * cells;
  }
  if (found.launch != launch.first_interval) {
    found.launch = launch.first_interval;
    found.shadow.watch_readers = !(memory.flags & kReadOnly);
    found.shadow.any_reader = found.shadow.written = false;
  }
  return found.shadow.writes ? &found.shadow : nullptr;
}

}  // namespace simt

// Did the last launch write to the array that begins here?
extern "C" int gpuperf_written(uint64_t begin) {
  auto found = simt::kept.find(begin);
  return found == simt::kept.end() || found->second.shadow.written;
}
