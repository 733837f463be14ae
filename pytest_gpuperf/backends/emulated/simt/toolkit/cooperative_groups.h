// Groups of threads, on the barriers and warp operations of simt/synchronization.hpp. A group's methods are given
// the line that they are called from, for reports.
#pragma once

namespace cooperative_groups {

struct thread_group {
  unsigned group_mask, size_of_group, rank;
  bool is_block;
  unsigned long long size() const { return size_of_group; }
  unsigned long long num_threads() const { return size_of_group; }
  unsigned long long thread_rank() const { return rank; }
  bool is_valid() const { return true; }
  void sync(GPUPERF_SITE) const {
    if (is_block)
      __syncthreads(gpuperf_file, gpuperf_line);
    else
      __syncwarp(group_mask, gpuperf_file, gpuperf_line);
  }
};

struct thread_block : thread_group {
  static dim3 group_index() { return dim3(blockIdx); }
  static dim3 thread_index() { return dim3(threadIdx); }
  static dim3 group_dim() { return dim3(blockDim); }
  static dim3 dim_threads() { return dim3(blockDim); }
  static unsigned int thread_rank() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }
  static unsigned int size() { return blockDim.x * blockDim.y * blockDim.z; }
  static unsigned int num_threads() { return size(); }
  static void sync(GPUPERF_SITE) { __syncthreads(gpuperf_file, gpuperf_line); }
};

GPUPERF_INLINE thread_block this_thread_block() {
  thread_block block;
  block.group_mask = ~0u, block.size_of_group = thread_block::size(), block.rank = thread_block::thread_rank(), block.is_block = true;
  return block;
}

struct grid_group : thread_group {
  static unsigned long long num_blocks() { return static_cast<unsigned long long>(gridDim.x) * gridDim.y * gridDim.z; }
  static unsigned long long block_rank() { return (static_cast<unsigned long long>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x; }
  static unsigned long long num_threads() { return num_blocks() * thread_block::size(); }
  static unsigned long long size() { return num_threads(); }
  static unsigned long long thread_rank() { return block_rank() * thread_block::size() + thread_block::thread_rank(); }
  static dim3 group_dim() { return dim3(gridDim); }
  static dim3 dim_blocks() { return dim3(gridDim); }
  static dim3 block_index() { return dim3(blockIdx); }
  static __attribute__((always_inline)) void sync(GPUPERF_SITE) {
    __syncthreads(gpuperf_file, gpuperf_line);
    if (thread_block::thread_rank() == 0) gpuperf_grid_barrier();
    __syncthreads(gpuperf_file, gpuperf_line);
  }
};

GPUPERF_INLINE grid_group this_grid() {
  grid_group grid;
  grid.group_mask = ~0u, grid.size_of_group = grid_group::size(), grid.rank = grid_group::thread_rank(), grid.is_block = false;
  return grid;
}

// One thread by itself.
GPUPERF_INLINE thread_group this_thread() {
  thread_group thread;
  thread.group_mask = 1u << thread_block::thread_rank() % 32, thread.size_of_group = 1, thread.rank = 0, thread.is_block = false;
  return thread;
}

// Threads of one warp: those of `group_mask`, ranked in the order of their lanes.
struct warp_group : thread_group {
  unsigned lane_of(unsigned rank) const {
    unsigned left = group_mask;
    while (rank--) left &= left - 1;
    return __ffs(left) - 1;
  }
  unsigned ranks_of(unsigned lanes) const {
    unsigned ranks = 0;
    for (unsigned i = 0; i < size_of_group; i++) ranks |= (lanes >> lane_of(i) & 1u) << i;
    return ranks;
  }
  template <class T>
  T shfl(T value, int source, GPUPERF_SITE) const {
    return gpuperf::exchange(gpuperf::kShuffle, group_mask, value, lane_of(unsigned(source) % size_of_group), 32, gpuperf_file, gpuperf_line);
  }
  template <class T>
  T shfl_down(T value, unsigned delta, GPUPERF_SITE) const {
    unsigned from = rank + delta < size_of_group ? rank + delta : rank;
    return gpuperf::exchange(gpuperf::kShuffle, group_mask, value, lane_of(from), 32, gpuperf_file, gpuperf_line);
  }
  template <class T>
  T shfl_up(T value, unsigned delta, GPUPERF_SITE) const {
    unsigned from = rank >= delta ? rank - delta : rank;
    return gpuperf::exchange(gpuperf::kShuffle, group_mask, value, lane_of(from), 32, gpuperf_file, gpuperf_line);
  }
  template <class T>
  T shfl_xor(T value, unsigned lanes, GPUPERF_SITE) const {
    unsigned from = (rank ^ lanes) < size_of_group ? rank ^ lanes : rank;
    return gpuperf::exchange(gpuperf::kShuffle, group_mask, value, lane_of(from), 32, gpuperf_file, gpuperf_line);
  }
  int any(int predicate, GPUPERF_SITE) const { return __any_sync(group_mask, predicate, gpuperf_file, gpuperf_line); }
  int all(int predicate, GPUPERF_SITE) const { return __all_sync(group_mask, predicate, gpuperf_file, gpuperf_line); }
  unsigned ballot(int predicate, GPUPERF_SITE) const {
    return ranks_of(__ballot_sync(group_mask, predicate, gpuperf_file, gpuperf_line));
  }
  template <class T>
  unsigned match_any(T value, GPUPERF_SITE) const {
    return ranks_of(__match_any_sync(group_mask, value, gpuperf_file, gpuperf_line));
  }
  template <class T>
  unsigned match_all(T value, int &agree, GPUPERF_SITE) const {
    return ranks_of(__match_all_sync(group_mask, value, &agree, gpuperf_file, gpuperf_line));
  }
};

struct coalesced_group : warp_group {
  unsigned long long meta_group_rank() const { return 0; }
  unsigned long long meta_group_size() const { return 1; }
};

template <unsigned Size, class Parent = void>
struct thread_block_tile : warp_group {
  static_assert(Size <= 32 && (Size & (Size - 1)) == 0, "a tile has 1, 2, 4, 8, 16 or 32 threads");
  unsigned group_rank, group_count;
  // As in CUDA, a tile may be kept as one of no particular parent.
  template <class Same, class = typename std::enable_if<std::is_same<Same, void>::value && !std::is_same<Parent, void>::value>::type>
  operator thread_block_tile<Size, Same>() const {
    thread_block_tile<Size, Same> tile;
    static_cast<warp_group &>(tile) = *this;
    tile.group_rank = group_rank, tile.group_count = group_count;
    return tile;
  }
  static constexpr unsigned int size() { return Size; }
  static constexpr unsigned int num_threads() { return Size; }
  unsigned int thread_rank() const { return rank; }
  unsigned int meta_group_rank() const { return group_rank; }
  unsigned int meta_group_size() const { return group_count; }
};

template <unsigned Size, class Parent>
GPUPERF_INLINE thread_block_tile<Size, Parent> tiled_partition(const Parent &parent) {
  thread_block_tile<Size, Parent> tile;
  unsigned linear = thread_block::thread_rank(), within = parent.is_block ? linear : unsigned(parent.thread_rank());
  unsigned first = linear % 32 / Size * Size;
  tile.size_of_group = Size, tile.rank = within % Size, tile.is_block = false;
  tile.group_mask = (Size == 32 ? ~0u : ((1u << (Size % 32)) - 1)) << first;
  tile.group_rank = within / Size, tile.group_count = (unsigned(parent.size()) + Size - 1) / Size;
  return tile;
}

GPUPERF_INLINE warp_group tiled_partition(const thread_group &parent, unsigned size) {
  warp_group tile;
  unsigned linear = thread_block::thread_rank(), within = parent.is_block ? linear : parent.rank;
  tile.size_of_group = size, tile.rank = within % size, tile.is_block = false;
  tile.group_mask = (size == 32 ? ~0u : (1u << size) - 1) << (linear % 32 / size * size);
  return tile;
}

GPUPERF_INLINE coalesced_group coalesced_threads(GPUPERF_SITE) {
  coalesced_group group;
  unsigned lane = thread_block::thread_rank() % 32;
  group.group_mask = __activemask(gpuperf_file, gpuperf_line);
  group.size_of_group = __popc(group.group_mask), group.rank = __popc(group.group_mask & ((1u << lane) - 1)), group.is_block = false;
  return group;
}

template <class Parent, class Label>
GPUPERF_INLINE coalesced_group labeled_partition(const Parent &parent, Label label, GPUPERF_SITE) {
  coalesced_group group;
  unsigned lane = thread_block::thread_rank() % 32;
  group.group_mask = __match_any_sync(parent.group_mask, (long long)label, gpuperf_file, gpuperf_line);
  group.size_of_group = __popc(group.group_mask), group.rank = __popc(group.group_mask & ((1u << lane) - 1)), group.is_block = false;
  return group;
}

template <class Parent>
GPUPERF_INLINE coalesced_group binary_partition(const Parent &parent, bool predicate, GPUPERF_SITE) {
  return labeled_partition(parent, predicate, gpuperf_file, gpuperf_line);
}

template <class Group>
GPUPERF_INLINE void sync(const Group &group, GPUPERF_SITE) { group.sync(gpuperf_file, gpuperf_line); }
template <class Group>
GPUPERF_INLINE auto thread_rank(const Group &group) { return group.thread_rank(); }
template <class Group>
GPUPERF_INLINE auto group_size(const Group &group) { return group.size(); }
template <class Group, class Function, class... Arguments>
GPUPERF_INLINE void invoke_one(const Group &group, Function function, Arguments... arguments) {
  if (group.thread_rank() == 0) function(arguments...);
}
template <class Group, class Function, class... Arguments>
GPUPERF_INLINE auto invoke_one_broadcast(const Group &group, Function function, Arguments... arguments) {
  decltype(function(arguments...)) result{};
  if (group.thread_rank() == 0) result = function(arguments...);
  return group.shfl(result, 0);
}

// ---- reduce and scan: in the order of the ranks ----

template <class T> struct plus { T operator()(T a, T b) const { return a + b; } };
template <class T> struct less { T operator()(T a, T b) const { return b < a ? b : a; } };
template <class T> struct greater { T operator()(T a, T b) const { return a < b ? b : a; } };
template <class T> struct bit_and { T operator()(T a, T b) const { return a & b; } };
template <class T> struct bit_or { T operator()(T a, T b) const { return a | b; } };
template <class T> struct bit_xor { T operator()(T a, T b) const { return a ^ b; } };

template <class Group, class T, class Combine>
GPUPERF_INLINE T reduce(const Group &group, T value, Combine combine, GPUPERF_SITE) {
  T result = group.shfl(value, 0, gpuperf_file, gpuperf_line);
  for (unsigned i = 1; i < group.size_of_group; i++) result = combine(result, group.shfl(value, i, gpuperf_file, gpuperf_line));
  return result;
}
template <class Group, class T, class Combine>
GPUPERF_INLINE T inclusive_scan(const Group &group, T value, Combine combine, GPUPERF_SITE) {
  T result = value;
  for (unsigned i = 0; i < group.size_of_group; i++) {
    T other = group.shfl(value, i, gpuperf_file, gpuperf_line);
    if (i == 0) result = other;
    if (i > 0 && i <= group.rank) result = combine(result, other);
  }
  return result;
}
template <class Group, class T>
GPUPERF_INLINE T inclusive_scan(const Group &group, T value, GPUPERF_SITE) {
  return inclusive_scan(group, value, plus<T>(), gpuperf_file, gpuperf_line);
}
template <class Group, class T, class Combine>
GPUPERF_INLINE T exclusive_scan(const Group &group, T value, Combine combine, GPUPERF_SITE) {
  T before = group.shfl_up(inclusive_scan(group, value, combine, gpuperf_file, gpuperf_line), 1, gpuperf_file, gpuperf_line);
  return group.rank ? before : T();
}
template <class Group, class T>
GPUPERF_INLINE T exclusive_scan(const Group &group, T value, GPUPERF_SITE) {
  return exclusive_scan(group, value, plus<T>(), gpuperf_file, gpuperf_line);
}

}  // namespace cooperative_groups
