// An access, the place in the code that makes it, and the memory that it goes to.
#pragma once

#include <cstdint>
#include <vector>

#include "request.hpp"

namespace simt {

enum class Space : uint8_t { kNone, kGlobal, kShared, kImage };

// The cells of an array's words, made when one is first needed: who wrote each last, who read it last, and another
// reader.
struct Shadow {
  uint64_t begin, end;
  unsigned shift;  // a cell covers 1 << shift bytes
  bool variable;
  uint64_t *writes, *reads, *others;
  bool watch_readers, any_reader, written;
};

// Those of a block's shared memory. `settled`: the epoch whose plain loads of the whole word have nothing more to
// check or to leave here.
struct Cells {
  std::vector<uint64_t> writes, reads, others;
  std::vector<uint32_t> settled;
};

struct Place {
  uint64_t begin, end;
  Space space;
  Shadow *shadow;
};

// What was found out of a place in the code, for accesses that have to be looked at one by one.
struct Known {
  uint64_t pc, number;
  Place place;
  const std::vector<uint64_t> *loops;  // around it, once an access is traced
};

// How an access is checked that is known to be in bounds.
enum class Way : uint64_t { kFree, kShared, kWatched };

// A place in the kernel's code that accesses memory, and the array that it went to last: an access may begin at
// one of the `room` bytes from `begin` on. A load that needs no check but that of its bounds does not come here at
// all: the kernel's own code looks whether it is one of `free_count` elements from `free_begin` on (hooks.py).
struct alignas(64) Site {
  uint64_t free_begin, free_count;
  uint64_t begin, room, pc, number;
  Shadow *shadow;
  Way way;
};
constexpr unsigned kSites = 1 << 14;  // hooks.py: of a kernel file, those that have a number

// `key`: the place in the code, and the iterations of the loops around it. Of a lane that was switched off there
// the size is 0 and the address that of the place.
struct Access {
  uint64_t key, address;
  uint32_t occurrence, size;  // the lane's how manieth of this key
  uint8_t lane, kind;         // kind: 1 store, 2 shared
};

// One access on its way, as a report will need it.
struct Attempt {
  uint64_t address, pc;
  uint32_t size;
  AccessKind kind;
  bool is_volatile, shared;
};

// A store that is a race only if it leaves another value, which is known once it is done.
struct PendingStore {
  uint64_t address, pc, other;
  uint32_t size, thread;
  bool other_stores;
  uint8_t before[16];
};

}  // namespace simt
