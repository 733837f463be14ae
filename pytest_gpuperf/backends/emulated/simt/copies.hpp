// A thread's asynchronous copies that it has not waited for (copies.cpp).
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace simt {

struct Worker;

struct Copy {
  uint64_t to, from, pc;
  uint32_t size, zeros;  // of which so many are filled with 0
};

struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> batches;
};

void forget_copies(Worker &worker);

}  // namespace simt
