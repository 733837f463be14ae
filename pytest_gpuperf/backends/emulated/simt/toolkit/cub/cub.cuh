// CUB's reductions and scans of a block and of a warp, in the order of the threads, on the shared memory that the
// kernel gives them. As in CUB it may be used again only behind a barrier, and a reduction's result is thread 0's.
#pragma once

#include "../cuda/functional"

namespace cub {

struct Sum {
  template <class T>
  T operator()(const T &a, const T &b) const { return a + b; }
};
using Max = ::cuda::maximum<>;
using Min = ::cuda::minimum<>;

enum BlockReduceAlgorithm { BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY, BLOCK_REDUCE_RAKING, BLOCK_REDUCE_WARP_REDUCTIONS };
enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_RAKING_MEMOIZE, BLOCK_SCAN_WARP_SCANS };

namespace gpuperf_cub {
GPUPERF_INLINE unsigned rank() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }

template <class T, int N, class Operation>
GPUPERF_INLINE T folded(const T (&items)[N], Operation operation) {
  T found = items[0];
  for (int i = 1; i < N; i++) found = operation(found, items[i]);
  return found;
}

// Storage for a value of each thread, whose constructor (T may have one) does not run.
template <class T, int Threads>
struct Storage {
  alignas(T) char bytes[Threads * sizeof(T)];
  T &operator[](int i) { return reinterpret_cast<T *>(bytes)[i]; }
};

template <class T, int Threads>
struct Owner {
  struct TempStorage {
    Storage<T, Threads> values;
  };
  TempStorage &storage;
  explicit Owner(TempStorage &given) : storage(given) {}
  Owner() : storage(own()) {}

 private:
  static TempStorage &own() {
    __shared__ TempStorage storage;
    return storage;
  }
};
}  // namespace gpuperf_cub

template <class T, int X, BlockReduceAlgorithm Algorithm = BLOCK_REDUCE_WARP_REDUCTIONS, int Y = 1, int Z = 1>
struct BlockReduce : gpuperf_cub::Owner<T, X * Y * Z> {
  using Base = gpuperf_cub::Owner<T, X * Y * Z>;
  using Base::Base;
  using typename Base::TempStorage;

  template <class Operation>
  T Reduce(T value, Operation operation, int valid = X * Y * Z, GPUPERF_SITE) {
    int rank = gpuperf_cub::rank();
    this->storage.values[rank] = value;
    __syncthreads(gpuperf_file, gpuperf_line);
    if (rank == 0)
      for (int i = 1; i < valid; i++) value = operation(value, this->storage.values[i]);
    return value;
  }
  template <int N, class Operation>
  T Reduce(T (&items)[N], Operation operation, GPUPERF_SITE) {
    return Reduce(gpuperf_cub::folded(items, operation), operation, X * Y * Z, gpuperf_file, gpuperf_line);
  }
  T Sum(T value, int valid = X * Y * Z, GPUPERF_SITE) { return Reduce(value, cub::Sum(), valid, gpuperf_file, gpuperf_line); }
  template <int N>
  T Sum(T (&items)[N], GPUPERF_SITE) { return Reduce(items, cub::Sum(), gpuperf_file, gpuperf_line); }
};

template <class T, int X, BlockScanAlgorithm Algorithm = BLOCK_SCAN_RAKING, int Y = 1, int Z = 1>
struct BlockScan : gpuperf_cub::Owner<T, X * Y * Z> {
  using Base = gpuperf_cub::Owner<T, X * Y * Z>;
  using Base::Base;
  using typename Base::TempStorage;

  template <class Operation>
  void InclusiveScan(T value, T &found, Operation operation, T &total, GPUPERF_SITE) {
    found = scan(value, operation, total, gpuperf_file, gpuperf_line).inclusive;
  }
  template <class Operation>
  void InclusiveScan(T value, T &found, Operation operation, GPUPERF_SITE) {
    T total;
    InclusiveScan(value, found, operation, total, gpuperf_file, gpuperf_line);
  }
  template <int N, class Operation>
  void InclusiveScan(T (&values)[N], T (&found)[N], Operation operation, GPUPERF_SITE) {
    T total, running = values[0];
    Scanned before = scan(gpuperf_cub::folded(values, operation), operation, total, gpuperf_file, gpuperf_line);
    for (int i = 0; i < N; i++) {
      if (i > 0) running = operation(running, values[i]);
      found[i] = before.first ? running : operation(before.exclusive, running);
    }
  }
  template <class Operation>
  void ExclusiveScan(T value, T &found, T initial, Operation operation, T &total, GPUPERF_SITE) {
    Scanned scanned = scan(value, operation, total, gpuperf_file, gpuperf_line);
    found = scanned.first ? initial : operation(initial, scanned.exclusive);
  }
  template <class Operation>
  void ExclusiveScan(T value, T &found, T initial, Operation operation, GPUPERF_SITE) {
    T total;
    ExclusiveScan(value, found, initial, operation, total, gpuperf_file, gpuperf_line);
  }
  template <int N, class Operation>
  void ExclusiveScan(T (&values)[N], T (&found)[N], T initial, Operation operation, GPUPERF_SITE) {
    T running;
    ExclusiveScan(gpuperf_cub::folded(values, operation), running, initial, operation, gpuperf_file, gpuperf_line);
    for (int i = 0; i < N; i++) {
      T value = values[i];
      found[i] = running;
      running = operation(running, value);
    }
  }
  void InclusiveSum(T value, T &found, GPUPERF_SITE) { InclusiveScan(value, found, Sum(), gpuperf_file, gpuperf_line); }
  void InclusiveSum(T value, T &found, T &total, GPUPERF_SITE) { InclusiveScan(value, found, Sum(), total, gpuperf_file, gpuperf_line); }
  template <int N>
  void InclusiveSum(T (&values)[N], T (&found)[N], GPUPERF_SITE) { InclusiveScan(values, found, Sum(), gpuperf_file, gpuperf_line); }
  void ExclusiveSum(T value, T &found, GPUPERF_SITE) { ExclusiveScan(value, found, T(), Sum(), gpuperf_file, gpuperf_line); }
  void ExclusiveSum(T value, T &found, T &total, GPUPERF_SITE) { ExclusiveScan(value, found, T(), Sum(), total, gpuperf_file, gpuperf_line); }
  template <int N>
  void ExclusiveSum(T (&values)[N], T (&found)[N], GPUPERF_SITE) { ExclusiveScan(values, found, T(), Sum(), gpuperf_file, gpuperf_line); }

 private:
  struct Scanned {
    T inclusive, exclusive;  // the latter of thread 0 is its own value
    bool first;
  };
  template <class Operation>
  Scanned scan(T value, Operation operation, T &total, const char *file, int line) {
    int rank = gpuperf_cub::rank(), last = X * Y * Z - 1;
    this->storage.values[rank] = value;
    __syncthreads(file, line);
    if (rank == 0)
      for (int i = 1; i <= last; i++) this->storage.values[i] = operation(this->storage.values[i - 1], this->storage.values[i]);
    __syncthreads(file, line);
    total = this->storage.values[last];
    return {this->storage.values[rank], this->storage.values[rank ? rank - 1 : 0], rank == 0};
  }
};

namespace gpuperf_cub {
// Lanes of a warp, `Lanes` together.
template <class T, int Lanes>
struct Warp {
  struct TempStorage {};
  explicit Warp(TempStorage &) {}
  Warp() {}

 protected:
  static int rank() { return gpuperf_cub::rank() % 32 % Lanes; }
  static T of(T value, int lane, const char *file, int line) {
    unsigned first = gpuperf_cub::rank() % 32 / Lanes * Lanes, mask = (Lanes == 32 ? ~0u : (1u << Lanes % 32) - 1) << first;
    return gpuperf::exchange(gpuperf::kShuffle, mask, value, int(first) + lane, 32, file, line);
  }
  template <class Operation>
  static T fold(T value, int count, Operation operation, const char *file, int line) {
    T found = of(value, 0, file, line);
    for (int i = 1; i < Lanes; i++) {
      T other = of(value, i, file, line);
      if (i < count) found = operation(found, other);
    }
    return found;
  }
};
}  // namespace gpuperf_cub

template <class T, int Lanes = 32>
struct WarpReduce : gpuperf_cub::Warp<T, Lanes> {
  using gpuperf_cub::Warp<T, Lanes>::Warp;
  template <class Operation>
  T Reduce(T value, Operation operation, int valid = Lanes, GPUPERF_SITE) {
    T found = this->fold(value, valid, operation, gpuperf_file, gpuperf_line);
    return this->rank() ? value : found;
  }
  T Sum(T value, int valid = Lanes, GPUPERF_SITE) { return Reduce(value, cub::Sum(), valid, gpuperf_file, gpuperf_line); }
};

template <class T, int Lanes = 32>
struct WarpScan : gpuperf_cub::Warp<T, Lanes> {
  using gpuperf_cub::Warp<T, Lanes>::Warp;
  template <class Operation>
  void InclusiveScan(T value, T &found, Operation operation, GPUPERF_SITE) {
    found = this->fold(value, this->rank() + 1, operation, gpuperf_file, gpuperf_line);
  }
  template <class Operation>
  void InclusiveScan(T value, T &found, Operation operation, T &total, GPUPERF_SITE) {
    InclusiveScan(value, found, operation, gpuperf_file, gpuperf_line);
    total = this->of(found, Lanes - 1, gpuperf_file, gpuperf_line);
  }
  template <class Operation>
  void ExclusiveScan(T value, T &found, T initial, Operation operation, GPUPERF_SITE) {
    T before = this->fold(value, this->rank(), operation, gpuperf_file, gpuperf_line);
    found = this->rank() ? operation(initial, before) : initial;
  }
  void InclusiveSum(T value, T &found, GPUPERF_SITE) { InclusiveScan(value, found, Sum(), gpuperf_file, gpuperf_line); }
  void InclusiveSum(T value, T &found, T &total, GPUPERF_SITE) { InclusiveScan(value, found, Sum(), total, gpuperf_file, gpuperf_line); }
  void ExclusiveSum(T value, T &found, GPUPERF_SITE) { ExclusiveScan(value, found, T(), Sum(), gpuperf_file, gpuperf_line); }
};

}  // namespace cub
