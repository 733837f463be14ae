// What a kernel calls before it accesses memory: g++'s -fsanitize=thread puts the calls in, and hooks.py numbers most.
#include <string.h>

#include "touch.hpp"

extern "C" {

#define GPUPERF_PC reinterpret_cast<uint64_t>(__builtin_return_address(0))
#define GPUPERF_ADDRESS(ADDRESS) reinterpret_cast<uint64_t>(ADDRESS)
#define GPUPERF_SLOWLY(ADDRESS, SIZE, KIND, VOLATILE, WHOLE)                                                    \
  simt::touch_slowly<simt::AccessKind::KIND>(                                                                   \
      {GPUPERF_ADDRESS(ADDRESS), GPUPERF_PC, uint32_t(SIZE), simt::AccessKind::KIND, VOLATILE, false}, WHOLE,          \
      simt::AccessKind::KIND == simt::AccessKind::kLoad && !VOLATILE)
#define GPUPERF_HOOKS(SIZE)                                                                                     \
  void gpuperf_read##SIZE(void *address, simt::Site *site) {                                                    \
    simt::touch_at<simt::AccessKind::kLoad, SIZE>(*site, GPUPERF_ADDRESS(address), GPUPERF_PC);                 \
  }                                                                                                             \
  void gpuperf_write##SIZE(void *address, simt::Site *site) {                                                   \
    simt::touch_at<simt::AccessKind::kStore, SIZE>(*site, GPUPERF_ADDRESS(address), GPUPERF_PC);                \
  }                                                                                                             \
  void __tsan_read##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kLoad, false, true); }                  \
  void __tsan_write##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kStore, false, true); }                \
  void __tsan_unaligned_read##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kLoad, false, false); }       \
  void __tsan_unaligned_write##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kStore, false, false); }     \
  void __tsan_volatile_read##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kLoad, true, true); }          \
  void __tsan_volatile_write##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kStore, true, true); }        \
  void __tsan_unaligned_volatile_read##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kLoad, true, false); } \
  void __tsan_unaligned_volatile_write##SIZE(void *address) { GPUPERF_SLOWLY(address, SIZE, kStore, true, false); }
GPUPERF_HOOKS(1)
GPUPERF_HOOKS(2)
GPUPERF_HOOKS(4)
GPUPERF_HOOKS(8)
GPUPERF_HOOKS(16)

void __tsan_read_range(void *address, size_t size) {
  if (size) GPUPERF_SLOWLY(address, size, kLoad, false, false);
}
void __tsan_write_range(void *address, size_t size) {
  if (size) GPUPERF_SLOWLY(address, size, kStore, false, false);
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **address, void *) { GPUPERF_SLOWLY(address, 8, kStore, false, true); }
void __tsan_vptr_read(void **address) { GPUPERF_SLOWLY(address, 8, kLoad, false, true); }

// The build sends a kernel's calls of the C library's block functions here, which no hook would see.
void *gpuperf_memcpy(void *to, const void *from, size_t size) {
  if (size) GPUPERF_SLOWLY(from, size, kLoad, false, false);
  if (size) GPUPERF_SLOWLY(to, size, kStore, false, false);
  return memcpy(to, from, size);
}
void *gpuperf_memmove(void *to, const void *from, size_t size) {
  if (size) GPUPERF_SLOWLY(from, size, kLoad, false, false);
  if (size) GPUPERF_SLOWLY(to, size, kStore, false, false);
  return memmove(to, from, size);
}
void *gpuperf_memset(void *to, int value, size_t size) {
  if (size) GPUPERF_SLOWLY(to, size, kStore, false, false);
  return memset(to, value, size);
}
}
