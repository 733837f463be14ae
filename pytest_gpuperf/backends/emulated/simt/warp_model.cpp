// What a GPU's load/store unit would make of the traced accesses. The accesses of a warp's lanes at one
// place in the code, each lane's k-th time there, form one request; a global request costs the distinct
// 32-byte sectors it touches, a shared one the wavefronts its busiest bank needs. In every ratio equal to
// Nsight Compute's on an H100 for the kernels of tests/test_emulated_counters.py.
#include <algorithm>
#include <tuple>

#include "runtime.hpp"

namespace simt {
namespace {

constexpr uint64_t kSector = 32;
constexpr unsigned kBanks = 32, kBankBytes = 4;
// One wavefront moves at most a word from every bank: 128 bytes, so wide accesses go in parts of a warp.
constexpr unsigned kWavefrontBytes = kBanks * kBankBytes;

using Group = std::vector<Access>::const_iterator;

size_t distinct(std::vector<uint64_t> &values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values.size();
}

void add_global(Traffic &traffic, Group first, Group last, std::vector<uint64_t> &units) {
  units.clear();
  uint64_t bytes = 0;
  for (Group access = first; access != last; ++access) {
    bytes += access->size;
    for (uint64_t s = access->address / kSector; s <= (access->address + access->size - 1) / kSector; s++) units.push_back(s);
  }
  traffic.requests++;
  traffic.units += distinct(units);
  traffic.ideal += (bytes + kSector - 1) / kSector;
}

void add_shared_part(Traffic &traffic, Group first, Group last, std::vector<uint64_t> &words) {
  words.clear();
  for (Group access = first; access != last; ++access)
    for (uint64_t w = access->address / kBankBytes; w <= (access->address + access->size - 1) / kBankBytes; w++) words.push_back(w);
  size_t count = distinct(words);
  unsigned in_bank[kBanks] = {}, busiest = 0;
  for (uint64_t word : words) busiest = std::max(busiest, ++in_bank[word % kBanks]);
  traffic.units += busiest;
  traffic.ideal += (count + kBanks - 1) / kBanks;
}

void add_shared(Traffic &traffic, Group first, Group last, std::vector<uint64_t> &words) {
  traffic.requests++;
  uint32_t size = std::max(first->size, kBankBytes);
  long lanes = std::max<long>(1, kWavefrontBytes / size);
  for (Group part = first; part < last; part += std::min<long>(lanes, last - part))
    add_shared_part(traffic, part, part + std::min<long>(lanes, last - part), words);
}

}  // namespace

void begin_launch_model(Worker &worker) {
  for (Traffic &traffic : worker.traffic) traffic = {};
  worker.traced = 0;
}

void begin_block_model(Worker &worker) {
  unsigned threads = worker.launch->request.counting ? worker.launch->threads : 0;
  worker.block->accesses.resize((threads + kWarp - 1) / kWarp);
  worker.block->occurrences.resize(threads);
}

void trace(Worker &worker, const Place &place, uint64_t address, uint32_t size, bool store, uint64_t pc) {
  uint8_t kind = uint8_t(store) | (place.space == Space::kShared ? 2 : 0);
  // A struct's copy may hook the load and the store at neighbouring places; pc and kind tell them apart.
  uint32_t occurrence = worker.block->occurrences[worker.current][pc * 4 + kind]++;
  worker.block->accesses[worker.current / kWarp].push_back({pc, address, occurrence, size, kind});
}

void end_block_model(Worker &worker) {
  std::vector<uint64_t> units;
  auto key = [](const Access &a) { return std::make_tuple(a.pc, a.kind, a.occurrence); };
  for (std::vector<Access> &accesses : worker.block->accesses) {
    // Stable, so that lanes stay in order within a request.
    std::stable_sort(accesses.begin(), accesses.end(), [&](const Access &a, const Access &b) { return key(a) < key(b); });
    for (Group first = accesses.cbegin(); first != accesses.cend();) {
      Group last = first;
      while (last != accesses.cend() && key(*last) == key(*first)) ++last;
      Traffic &traffic = worker.traffic[first->kind];
      first->kind & 2 ? add_shared(traffic, first, last, units) : add_global(traffic, first, last, units);
      first = last;
    }
    accesses.clear();
  }
  for (auto &lane : worker.block->occurrences) lane.clear();
}

}  // namespace simt
