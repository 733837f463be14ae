// A group's asynchronous copies: each thread makes its part when it waits.
#pragma once

#include "../cooperative_groups.h"

namespace cooperative_groups {

template <class Group>
GPUPERF_INLINE void memcpy_async(const Group &group, void *to, const void *from, size_t size) {
  uint64_t places = reinterpret_cast<uint64_t>(to) | reinterpret_cast<uint64_t>(from) | size;
  size_t step = places % 16 == 0 ? 16 : places % 4 == 0 ? 4 : 1;
  for (size_t at = group.thread_rank() * step; at < size; at += group.size() * step)
    gpuperf_copy_later(static_cast<char *>(to) + at, static_cast<const char *>(from) + at, step, 0);
  gpuperf_copies_commit();
}
// Of arrays of different lengths, in elements: the shorter one decides.
template <class Group, class T>
GPUPERF_INLINE void memcpy_async(const Group &group, T *to, size_t room, const T *from, size_t count) {
  memcpy_async(group, static_cast<void *>(to), static_cast<const void *>(from), (room < count ? room : count) * sizeof(T));
}
template <unsigned Batches, class Group>
GPUPERF_INLINE void wait_prior(const Group &group, GPUPERF_SITE) {
  gpuperf_copies_wait(Batches);
  group.sync(gpuperf_file, gpuperf_line);
}
template <class Group>
GPUPERF_INLINE void wait(const Group &group, GPUPERF_SITE) {
  wait_prior<0>(group, gpuperf_file, gpuperf_line);
}

}  // namespace cooperative_groups
