// Asynchronous copies of one thread; simt/copies.cpp makes them.
#pragma once

GPUPERF_INLINE void __pipeline_memcpy_async(void *to, const void *from, size_t size, size_t zeros = 0) {
  gpuperf_copy_later(to, from, size, zeros);
}
GPUPERF_INLINE void __pipeline_commit() { gpuperf_copies_commit(); }
GPUPERF_INLINE void __pipeline_wait_prior(size_t batches) { gpuperf_copies_wait(batches); }
