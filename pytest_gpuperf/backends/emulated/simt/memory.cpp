// Every access of a kernel passes here before it happens: is it inside something the thread may touch,
// aligned, and ordered with the other threads' accesses to the same memory?
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "touch.hpp"

namespace simt {
namespace {

Site no_sites[kSites];  // of a thread that runs no launch: all closed

}  // namespace
}  // namespace simt

// Where the code that runs on this OS thread finds its sites (hooks.py).
extern "C" __thread simt::Site *gpuperf_sites;
__thread simt::Site *gpuperf_sites = simt::no_sites;

namespace simt {
namespace {

constexpr uint64_t kGap = 1024;  // what the build leaves free around every variable (compiler.py)
// From the dynamic shared memory on, what g++'s code asks whether shared variables are constructed (compiler.py).
constexpr uint64_t kConstructed = 232448, kConstructedSize = 64;

const Memory *holder(const Memory *first, uint64_t count, uint64_t address) {
  const Memory *next = std::upper_bound(first, first + count, address, [](uint64_t a, const Memory &m) { return a < m.begin; });
  return next == first ? nullptr : next - 1;
}

// The place that holds [address, address + size), looked up anew.
Place find(const Worker &worker, uint64_t address, uint32_t size) {
  for (const Place &place : worker.shared)
    if (address >= place.begin && address + size <= place.end) return place;
  const Launch &launch = *worker.launch;
  const Request &request = launch.request;
  if (address - worker.anchor - kConstructed < kConstructedSize) return {address, address + size, Space::kImage, nullptr};
  const Memory *memory = holder(request.memory, request.memory_count, address);
  if (memory && address + size <= memory->end) return {memory->begin, memory->end, Space::kGlobal, shadow_of(*memory, launch, false)};
  const Span &image = launch.image;
  if (address < image.begin || address + size > image.end) return {0, 0, Space::kNone, nullptr};
  const Memory *variable = holder(request.variables, request.variable_count, address);
  if (variable && address + size <= variable->end) return {variable->begin, variable->end, Space::kImage, shadow_of(*variable, launch, true)};
  const Memory *next = variable ? variable + 1 : request.variables;
  bool before = next != request.variables + request.variable_count && address + kGap >= next->begin;
  if (before || (variable && address < variable->end + kGap)) return {0, 0, Space::kNone, nullptr};
  return {address, address + size, Space::kImage, nullptr};  // the compiler's own constants
}

// The number of a place in the code, by which a cell's entry names it.
uint64_t site_number(Worker &worker, uint64_t pc) {
  Launch &launch = *worker.launch;
  std::lock_guard<std::mutex> lock(launch.mutex);
  uint32_t number = launch.site_numbers.emplace(pc, launch.site_places.size()).first->second;
  if (number == launch.site_places.size()) launch.site_places.push_back(uint32_t(pc - launch.image.begin));
  return number <= kSiteMask ? number : kSiteMask;
}

void close(Site &site) { site.pc = site.room = site.free_count = 0; }

// What the next access at this place will need to be let through at once. A site is not used for launches that
// count, since there every access is traced.
void remember(Worker &worker, Site &site, const Attempt &attempt, const Known &known) {
  const Place &place = known.place;
  close(site);
  uint64_t bytes = place.end - place.begin;
  if (worker.launch->request.counting || bytes < attempt.size) return;
  site = {0, 0, place.begin, bytes - attempt.size + 1, attempt.pc, known.number, place.shadow, Way::kFree};
  if (&site >= worker.sites && &site < worker.sites + kSites) worker.used_sites = std::max<unsigned>(worker.used_sites, &site - worker.sites + 1);
  if (place.space == Space::kShared)
    site.way = Way::kShared;
  else if (place.shadow && (attempt.kind != AccessKind::kLoad || place.shadow->watch_readers))
    site.way = Way::kWatched;
  else if (attempt.kind == AccessKind::kLoad && aligned(place.begin, attempt.size))
    site.free_begin = place.begin, site.free_count = bytes / attempt.size;
}

inline uint64_t bytes_of(uint64_t address, uint32_t size, uint64_t word, unsigned shift) {
  uint64_t begin = std::max(address, word) - word, end = std::min(address + size, word + (1u << shift)) - word;
  return ((1u << end) - (1u << begin)) << kBytesShift;
}

// What only now and then comes before an access: a store to be judged, the watchdog, a thread that has run for
// long while others may have to, and the watch over blocks that wait for each other.
void attend(Worker &worker, const Attempt &attempt) {
  worker.attention = false;
  if (!settle_pending(worker)) yield(worker, State::kDone);
  worker.waiting_pc = attempt.pc;
  if (worker.launch->stop) fail(worker, FaultKind::kStopped, attempt.pc);
  if (worker.watching) {
    Span &looked = worker.block->looked[worker.current];
    if (attempt.kind == AccessKind::kStore) worker.changes++;
    looked = {std::min(looked.begin, attempt.address), std::max(looked.end, attempt.address)};
    worker.attention = true;
  }
  if (worker.nudged) {
    worker.nudged = false;
    give_way(worker);
  }
}

template <AccessKind kKind>
void check_shared_word(Worker &worker, const Attempt &attempt, uint64_t word, uint64_t mine, bool *initialised) {
  uint64_t &write = worker.writes[word];
  Readers reads = {worker.reads + word, worker.others + word};
  bool written = write >= worker.block_first && (write & initialised_by(mine));
  *initialised |= written;
  check_word<kKind, true>(worker, attempt, write, reads, mine, worker.phase_floor);
  bool whole = kKind == AccessKind::kLoad && written && (mine & kBytes) == kBytes;
  worker.settled[word] = whole ? settled_for(worker, write, reads, mine) : 0;
}

template <AccessKind kKind>
void check_shared(Worker &worker, const Attempt &attempt, uint64_t mine, bool reads_value) {
  uint64_t end = attempt.address + attempt.size;
  bool initialised = !reads_value;
  for (uint64_t word = attempt.address & ~uint64_t(3); word < end; word += 4)
    check_shared_word<kKind>(worker, attempt, word >> 2, mine | bytes_of(attempt.address, attempt.size, word, 2), &initialised);
  if (!initialised) note_unwritten(worker, attempt);
}

template <AccessKind kKind>
void check_global(Worker &worker, Shadow &shadow, const Attempt &attempt, uint64_t mine) {
  if (kKind == AccessKind::kLoad && !shadow.any_reader) shadow.any_reader = true;
  bool readers = kKind == AccessKind::kLoad || shadow.any_reader;
  unsigned shift = shadow.shift;
  uint64_t end = attempt.address + attempt.size, origin = shadow.begin >> shift;
  for (uint64_t word = attempt.address >> shift << shift; word < end; word += 1ull << shift) {
    uint64_t index = (word >> shift) - origin;
    uint64_t bytes = bytes_of(attempt.address, attempt.size, word, shift);
    check_word<kKind, false>(worker, attempt, shadow.writes[index], readers ? Readers{shadow.reads + index, shadow.others + index} : Readers{}, mine | bytes, worker.launch_floor);
  }
}

void poll(Worker &worker, const Attempt &attempt) {
  if (attempt.kind == AccessKind::kLoad && ++worker.spins % kSpins == 0) {
    worker.waiting_pc = attempt.pc;
    give_way(worker);
  }
  if (worker.launch->fences) hand_over(worker, attempt);
}

}  // namespace

template <AccessKind kKind>
void touch_slowly(Attempt attempt, bool whole, bool reads_value, Site *site) {
  Worker &worker = *active;
  if (!worker.launch) return;  // the library's own initialisers, when it is loaded
  if (worker.attention) attend(worker, attempt);
  if (attempt.address >= worker.stack_begin && attempt.address + attempt.size <= worker.stack_end)
    return touch_locals(worker, attempt, kKind != AccessKind::kStore && (reads_value || attempt.is_volatile));
  Known &known = worker.known[(attempt.pc >> 1) % Worker::kPlaces];
  Place &place = known.place;
  if (known.pc != attempt.pc) known = {attempt.pc, site_number(worker, attempt.pc), {}, nullptr};
  if (attempt.address < place.begin || attempt.address + attempt.size > place.end) place = find(worker, attempt.address, attempt.size);
  if (place.space == Space::kNone) {
    bool foreign = false;
    for (const Stack &stack : worker.stacks) foreign |= attempt.address >= stack.begin && attempt.address < stack.end;
    fail_access(worker, foreign ? FaultKind::kForeignStack : FaultKind::kOutOfBounds, attempt);
  }
  if (whole && !aligned(attempt.address, attempt.size)) fail_access(worker, FaultKind::kMisaligned, attempt);
  attempt.shared = place.space == Space::kShared;
  if (attempt.is_volatile || kKind == AccessKind::kAtomic) poll(worker, attempt);
  if (place.shadow && kKind != AccessKind::kLoad) {
    place.shadow->written = true;
    if (!place.shadow->watch_readers) {
      place.shadow->watch_readers = true;
      close_sites(worker);
    }
  }
  if (site) remember(worker, *site, attempt, known);
  uint64_t mine = worker.mark | known.number;
  mine |= (kKind == AccessKind::kAtomic ? kAtomic : 0) | (attempt.is_volatile ? kVolatile : 0);
  if (attempt.shared)
    check_shared<kKind>(worker, attempt, mine, reads_value);
  else if (place.shadow && (kKind != AccessKind::kLoad || place.shadow->watch_readers))
    check_global<kKind>(worker, *place.shadow, attempt, mine);
  if (place.space == Space::kImage || !worker.launch->request.counting) return;
  worker.traced++;
  if (kKind != AccessKind::kAtomic) trace(worker, known, attempt.address, attempt.size, kKind == AccessKind::kStore, attempt.pc);
}

// Looks at an access by what its site knows.
template <AccessKind kKind, uint32_t kSize>
void touch_closely(uint64_t address, uint64_t pc, Site &site, bool reads_value) {
  Worker &worker = *active;
  bool usual = !worker.attention.load(std::memory_order_relaxed) && site.pc == pc && address - site.begin < site.room;
  Attempt attempt = {address, pc, kSize, kKind, false, site.way == Way::kShared};
  if (!usual || !aligned(address, kSize)) return touch_slowly<kKind>(attempt, true, reads_value, &site);
  if (site.way == Way::kFree) return;
  if (kKind == AccessKind::kAtomic && worker.launch->fences) poll(worker, attempt);
  uint64_t mine = worker.mark | site.number | (kKind == AccessKind::kAtomic ? kAtomic : 0);
  if (site.way == Way::kShared)
    check_shared<kKind>(worker, attempt, mine, reads_value);
  else
    check_global<kKind>(worker, *site.shadow, attempt, mine);
}

// Has the next access at each place in the code looked at slowly.
void close_sites(Worker &worker) {
  for (unsigned i = 0; i < worker.used_sites; i++) close(worker.sites[i]);
  for (Site &site : worker.other_sites) close(site);
}

void begin_launch_memory(Worker &worker) {
  const Request &request = worker.launch->request;
  uint64_t anchor = worker.anchor = reinterpret_cast<uint64_t>(request.shared_anchor());
  memset(reinterpret_cast<void *>(anchor + kConstructed), 1, kConstructedSize);
  worker.shared.clear();
  for (uint64_t i = 0; i < request.shared_count; i++)
    worker.shared.push_back({anchor + request.shared[i].begin, anchor + request.shared[i].end, Space::kShared, nullptr});
  if (request.dynamic_shared) worker.shared.push_back({anchor, anchor + request.dynamic_shared, Space::kShared, nullptr});
  worker.shared_begin = UINT64_MAX;
  worker.shared_end = 0;
  for (const Place &place : worker.shared) {
    worker.shared_begin = std::min(worker.shared_begin, place.begin & ~uint64_t(15));
    worker.shared_end = std::max(worker.shared_end, place.end);
  }
  if (worker.shared.empty()) worker.shared_begin = worker.shared_end = 0;
  if (!worker.sites) {
    void *memory = mmap(nullptr, sizeof(Site) * kSites, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    gpuperf_sites = worker.sites = static_cast<Site *>(memory);
  }
  worker.pending.size = 0;
  worker.attention = false;
  worker.next_interval = worker.last_interval = 0;
  worker.exhausted = false;
  if (worker.generation != generation) {
    worker.generation = generation;
    for (Block *block : worker.spare) block->cells = {};
  }
  close_sites(worker);
  worker.used_sites = 0;
  for (Known &known : worker.known) known.pc = 0;
}

void begin_block_memory(Worker &worker) {
  uint64_t words = (worker.shared_end - worker.shared_begin + 3) / 4;
  Cells &cells = worker.block->cells;
  if (cells.settled.size() < words) {
    cells.writes.resize(words);
    cells.reads.resize(words);
    cells.others.resize(words);
    cells.settled.resize(words);
  }
  begin_block_order(worker);
  // A block finds whatever was there; NaN and -1 make a read of it show.
  for (const Place &place : worker.shared) memset(reinterpret_cast<void *>(place.begin), 0xff, place.end - place.begin);
}

}  // namespace simt
