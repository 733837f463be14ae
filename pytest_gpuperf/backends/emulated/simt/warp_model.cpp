// What a GPU's load/store unit would make of the traced accesses. The accesses of a warp's lanes at one
// place in the code, in one iteration of the loops around it, form one request; a global request costs the distinct
// 32-byte sectors it touches, a shared one the wavefronts its busiest bank needs. In every ratio equal to
// Nsight Compute's on an H100 for the kernels of tests/test_emulated_counters.py.
#include <algorithm>

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

// The address of each lane of a request, 0 of those that take no part.
using Lanes = uint64_t[kWarp];

// Does every lane want what the lane whose number differs by `bit` wants, if that takes part?
bool agree(const Lanes &addresses, unsigned bit) {
  for (unsigned lane = 0; lane < kWarp; lane++) {
    uint64_t mine = addresses[lane], other = addresses[lane ^ bit];
    if (mine && other && mine != other) return false;
  }
  return true;
}

void add_shared_part(Traffic &traffic, const Lanes &addresses, unsigned begin, unsigned end, uint32_t size, std::vector<uint64_t> &words) {
  words.clear();
  for (unsigned lane = begin; lane < end; lane++)
    for (uint64_t w = addresses[lane] / kBankBytes; addresses[lane] && w <= (addresses[lane] + size - 1) / kBankBytes; w++) words.push_back(w);
  size_t count = distinct(words);
  unsigned in_bank[kBanks] = {}, busiest = 0;
  for (uint64_t word : words) busiest = std::max(busiest, ++in_bank[word % kBanks]);
  traffic.units += busiest;
  traffic.ideal += (count + kBanks - 1) / kBanks;
}

// Wide accesses go in parts of a warp; of loads, two parts are served at once where neighbours want the same words.
void add_shared(Traffic &traffic, Group first, Group last, uint32_t size, std::vector<uint64_t> &words) {
  traffic.requests++;
  unsigned lanes = kWavefrontBytes / std::max(size, kBankBytes);
  Lanes addresses = {};
  for (Group access = first; access != last; ++access)
    if (access->size) addresses[access->lane] = access->address;
  bool load = !(first->kind & 1);
  if (load && lanes < kWarp && (agree(addresses, 1) || agree(addresses, 2))) lanes *= 2;
  for (unsigned begin = 0; begin < kWarp; begin += lanes) add_shared_part(traffic, addresses, begin, begin + lanes, size, words);
}

}  // namespace

namespace {

// Their number: the table ends with the last loop's blocks.
uint64_t loops_of(const Worker &worker) {
  const Request &request = worker.launch->request;
  return request.loop_count ? request.loops[request.loop_count - 1].loop + 1 : 0;
}

}  // namespace

void begin_launch_model(Worker &worker) {
  for (Traffic &traffic : worker.traffic) traffic = {};
  worker.traced = 0;
  worker.around.clear();
  worker.switched_off = {};
}

void begin_block_model(Worker &worker) {
  unsigned threads = worker.launch->request.counting ? worker.launch->threads : 0;
  worker.block->accesses.resize((threads + kWarp - 1) / kWarp);
  for (auto &accesses : worker.block->accesses) accesses.clear();
  worker.block->iterations.assign(threads * loops_of(worker), 0);
}

namespace {

// A struct is moved by as many instructions as it has words; of one that may be made of float4, by 16 bytes.
uint32_t piece_of(uint32_t size) {
  if ((size & (size - 1)) == 0 && size <= 16) return size;
  return size % 16 == 0 ? 16 : size % 4 == 0 ? 4 : 1;
}

// The loops around a place in the code.
const std::vector<uint64_t> &loops_around(Worker &worker, uint64_t pc) {
  auto [found, is_new] = worker.around.try_emplace(pc);
  const Request &request = worker.launch->request;
  for (uint64_t i = 0; is_new && i < request.loop_count; i++)
    if (pc > request.loops[i].begin && pc <= request.loops[i].end) found->second.push_back(request.loops[i].loop);
  return found->second;
}

uint64_t key_of(Worker &worker, const std::vector<uint64_t> &loops, uint64_t pc, uint8_t kind, uint32_t offset) {
  const uint32_t *iterations = worker.block->iterations.data() + worker.current * loops_of(worker);
  // A struct's copy may hook the load and the store at neighbouring places; kind and offset tell them apart.
  uint64_t key = ((pc * 4 + kind) * 0x9e3779b97f4a7c15 + offset) * 0x9e3779b97f4a7c15;
  for (uint64_t loop : loops) key = (key ^ iterations[loop]) * 0x9e3779b97f4a7c15;
  return key;
}

// The lane has passed a branch by: on a GPU it would go through what is in there switched off.
void note_branch(Worker &worker, uint64_t branch) {
  const Request &request = worker.launch->request;
  const BranchAccess *end = request.branches + request.branch_count;
  const BranchAccess *first = std::lower_bound(request.branches, end, branch, [](const BranchAccess &a, uint64_t b) { return a.branch < b; });
  for (; first != end && first->branch == branch; ++first) {
    uint8_t kind = 2 | uint8_t(first->store);
    uint64_t key = key_of(worker, loops_around(worker, first->pc), first->pc, kind, 0);
    worker.block->accesses[worker.current / kWarp].push_back({key, first->pc, 0, 0, uint8_t(worker.current % kWarp), kind});
  }
}

}  // namespace

void trace(Worker &worker, Known &known, uint64_t address, uint32_t size, bool store, uint64_t pc) {
  uint8_t kind = uint8_t(store) | (known.place.space == Space::kShared ? 2 : 0);
  Block &block = *worker.block;
  if (!known.loops) {
    known.loops = &loops_around(worker, pc);
    if (kind & 2) worker.switched_off.shared.insert(pc);
  }
  const std::vector<uint64_t> &loops = *known.loops;
  std::vector<Access> &accesses = block.accesses[worker.current / kWarp];
  uint32_t step = piece_of(size);
  for (uint32_t offset = 0; offset < size; offset += step) {
    accesses.push_back({key_of(worker, loops, pc, kind, offset), address + offset, 0, step, uint8_t(worker.current % kWarp), kind});
  }
}

namespace {

// Tells apart what a lane did several times under one key, as in a function that is called twice.
void number_occurrences(std::vector<Access>::iterator first, std::vector<Access>::iterator last) {
  uint32_t seen[kWarp] = {}, most = 0;
  for (auto access = first; access != last; ++access) most = std::max(most, access->occurrence = seen[access->lane]++);
  if (most) std::stable_sort(first, last, [](const Access &a, const Access &b) { return a.occurrence < b.occurrence; });
}

void note_switched_off(SwitchedOff &sum, const Access &access) {
  sum.requests[access.address]++;
  if (access.kind & 1) sum.stores.insert(access.address);
}

}  // namespace

// Of all workers together, since one may never have seen what the place accesses.
void add_switched_off(SwitchedOff &sum, const SwitchedOff &part) {
  for (const auto &[pc, requests] : part.requests) sum.requests[pc] += requests;
  sum.shared.insert(part.shared.begin(), part.shared.end());
  sum.stores.insert(part.stores.begin(), part.stores.end());
}

void count_switched_off(Traffic *traffic, const SwitchedOff &sum) {
  for (const auto &[pc, requests] : sum.requests)
    if (sum.shared.count(pc)) traffic[2 + sum.stores.count(pc)].requests += requests;
}

void end_block_model(Worker &worker) {
  std::vector<uint64_t> units;
  for (std::vector<Access> &accesses : worker.block->accesses) {
    // Stable, so that lanes stay in order within a request.
    std::stable_sort(accesses.begin(), accesses.end(), [](const Access &a, const Access &b) { return a.key < b.key; });
    for (auto first = accesses.begin(), last = first; first != accesses.end(); first = last) {
      while (last != accesses.end() && last->key == first->key) ++last;
      number_occurrences(first, last);
    }
    auto same = [](const Access &a, const Access &b) { return a.key == b.key && a.occurrence == b.occurrence; };
    for (Group first = accesses.cbegin(); first != accesses.cend();) {
      Group last = first;
      while (last != accesses.cend() && same(*last, *first)) ++last;
      Traffic &traffic = worker.traffic[first->kind];
      Group one = std::find_if(first, last, [](const Access &a) { return a.size; });
      if (one == last)
        note_switched_off(worker.switched_off, *first);
      else if (first->kind & 2)
        add_shared(traffic, first, last, one->size, units);
      else
        add_global(traffic, first, last, units);
      first = last;
    }
    accesses.clear();
  }
}

}  // namespace simt

// The build for counting comes here where an iteration of a loop begins (an even number) and where the loop has
// been left (an odd one), and where a branch is passed by (a negative one), with the number above the return
// address; everything else stays as it was.
extern "C" __attribute__((used, visibility("hidden"))) void gpuperf_note_loop(int64_t number) {
  using namespace simt;
  Worker &worker = *active;
  if (!worker.launch || !worker.launch->request.counting) return;
  if (number < 0) return note_branch(worker, uint64_t(-1 - number));
  uint32_t &iteration = worker.block->iterations[worker.current * loops_of(worker) + number / 2];
  iteration = number % 2 ? 0 : iteration + 1;
}

#define GPUPERF_XMM(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define GPUPERF_SAVE(N) " movups %xmm" #N "," #N "*16(%rsp)\n"
#define GPUPERF_RESTORE(N) " movups " #N "*16(%rsp),%xmm" #N "\n"

__asm__(
    ".text\n.p2align 4\n.globl gpuperf_loop\n.type gpuperf_loop,@function\n"
    "gpuperf_loop:\n"
    " pushfq\n push %rbx\n push %rax\n push %rcx\n push %rdx\n push %rsi\n push %rdi\n push %r8\n push %r9\n push %r10\n push %r11\n"
    " mov 96(%rsp),%rdi\n mov %rsp,%rbx\n sub $256,%rsp\n and $-16,%rsp\n cld\n"
    GPUPERF_XMM(GPUPERF_SAVE)
    " call gpuperf_note_loop\n"
    GPUPERF_XMM(GPUPERF_RESTORE)
    " mov %rbx,%rsp\n"
    " pop %r11\n pop %r10\n pop %r9\n pop %r8\n pop %rdi\n pop %rsi\n pop %rdx\n pop %rcx\n pop %rax\n pop %rbx\n popfq\n ret\n"
    ".size gpuperf_loop,.-gpuperf_loop\n");
