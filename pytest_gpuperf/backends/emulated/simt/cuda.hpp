// What a CUDA C++ file sees when the emulated backend compiles it for the host.
//
// The file itself is compiled unmodified: this header gives the language's own names (qualifiers,
// built-in variables, barriers, atomics, intrinsics) a meaning on the CPU. Accesses to memory are seen
// through the hooks of g++ -fsanitize=thread, so nothing here may touch memory on the kernel's behalf.
#pragma once

#include <assert.h>
#include <fenv.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#define __NVCC__ 1
#define __CUDACC__ 1
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define __CUDACC_VER_BUILD__ 0
#define CUDART_VERSION 13000
#define __GPUPERF_EMULATED__ 1
// Kernels are compiled for a device of compute capability 9.0.
#define __CUDA_ARCH__ 900

// As themselves: the build reads them in the preprocessed code (preprocessed.py), and takes them out of it, as it
// does with __launch_bounds__ and __noinline__, which system headers use too.
#define __global__ __global__
#define __device__ __device__
#define __host__ __host__
#define __constant__ __constant__
#define __grid_constant__ __grid_constant__
// thread_local because a block runs on one OS thread, and because unlike __thread it may stand alone in
// a function; an "extern" array then becomes an undefined symbol, which the build binds to the launch's
// dynamic shared memory.
#define __shared__ thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#ifndef __restrict__
#define __restrict__ __restrict
#endif

#define GPUPERF_INLINE static inline __attribute__((always_inline, unused))
#define GPUPERF_SITE const char *gpuperf_file = __builtin_FILE(), int gpuperf_line = __builtin_LINE()

#include "vector_types.hpp"

// const, because the hooks skip read-only objects: an index costs nothing and is never traced. Not dim3,
// whose constructor makes g++ take even a const one for writable.
extern "C" {
extern __thread const uint3 threadIdx;
extern __thread const uint3 blockIdx;
extern __thread const uint3 blockDim;
extern __thread const uint3 gridDim;
__attribute__((aligned(128))) __thread unsigned char gpuperf_dynamic_shared[232448 + 64];  // memory.cpp: kConstructed
}
constexpr int warpSize = 32;

// Of the runtime and the driver API the types in which declarations beside kernels are made; what uses them is left
// out.
typedef struct CUstream_st *cudaStream_t, *CUstream;
typedef struct CUevent_st *cudaEvent_t, *CUevent;
typedef struct CUgraph_st *cudaGraph_t, *CUgraph;
typedef struct CUgraphExec_st *cudaGraphExec_t, *CUgraphExec;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction, *cudaFunction_t;
typedef struct CUmemPoolHandle_st *cudaMemPool_t;
typedef struct cudaArray *cudaArray_t;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
enum cudaError_t { cudaSuccess = 0 };
typedef cudaError_t cudaError;
enum CUresult { CUDA_SUCCESS = 0 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
struct cudaDeviceProp {};
struct cudaFuncAttributes {};
struct cudaPointerAttributes {};
struct cudaExtent { size_t width, height, depth; };
struct cudaPitchedPtr { void *ptr; size_t pitch, xsize, ysize; };

#include "intrinsics.hpp"
#include "mathematics.hpp"
#include "dpx.hpp"
#include "synchronization.hpp"

// assert.h may be included again by the kernel's file, so the function behind the macro is renamed.
#define __assert_fail gpuperf_assert_fail
extern "C" void gpuperf_assert_fail(const char *text, const char *file, unsigned line, const char *function)
    __attribute__((noreturn, nothrow));
extern "C" void gpuperf_trap(const char *file, int line) __attribute__((noreturn));
GPUPERF_INLINE void __trap(GPUPERF_SITE) { gpuperf_trap(gpuperf_file, gpuperf_line); }

// A thread's own variables that are declared without a value (locals.py).
extern "C" void gpuperf_declared(void *address, size_t size, const char *name);
extern "C" void gpuperf_left(void *address);
namespace gpuperf {
// What a constructor has written is not known.
template <class T>
constexpr bool watched = std::is_trivially_default_constructible<typename std::remove_all_extents<T>::type>::value &&
                         !std::is_empty<typename std::remove_all_extents<T>::type>::value;
template <bool kStructures, class T>
GPUPERF_INLINE void declared(T &variable, const char *name) {
  if (watched<T> && (kStructures || std::is_scalar<typename std::remove_all_extents<T>::type>::value)) gpuperf_declared((void *)&variable, sizeof variable, name);
}

// A variable as a shuffle gets it, which is no read: what a lane hands over may be looked at by none.
template <class T>
__attribute__((no_sanitize("thread"), noinline)) T handed(const T &variable) {
  return variable;
}

// A value of which g++ knows only that it has no use for it where it calls none of these.
template <int N, class T>
__attribute__((const)) T unknown();
template <class T>
struct Whole { T all; };
template <int N, class T>
GPUPERF_INLINE void unset(T &variable) {
  if constexpr (std::is_scalar<T>::value) {
    variable = unknown<N, T>();
  } else if constexpr (watched<T>) {
    const Whole<T> value = unknown<N, Whole<T>>();
    memcpy((void *)&variable, &value, sizeof variable);
  }
}

// Of an index that g++ cannot show to be inside an array of the thread's own (bounds.py).
extern "C" void gpuperf_outside(long long index, size_t count, const char *name) __attribute__((noreturn, cold));
template <class T>
constexpr GPUPERF_INLINE T within(T index, size_t count, const char *name) {
  if (size_t(index) >= count) gpuperf_outside((long long)index, count, name);
  return index;
}
}  // namespace gpuperf

// How the runtime enters a kernel: by one untyped function for each, which launchers.py writes.
namespace gpuperf {

struct Kernel {
  const char *name, *file;
  uint32_t line, bounds;
  const void *types;  // signature.hpp's table
  void (*call)(void **);
  const void *function;
};

// Reading the packed arguments is the launch's business: not traced.
template <class... Parameters, size_t... Index>
__attribute__((no_sanitize("thread"))) inline void call(
    void (*kernel)(Parameters...), void **arguments, std::index_sequence<Index...>) {
  kernel(*static_cast<typename std::remove_const<Parameters>::type *>(arguments[Index])...);
}

template <class... Parameters>
__attribute__((no_sanitize("thread"))) inline void call(void (*kernel)(Parameters...), void **arguments) {
  call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

}  // namespace gpuperf

extern "C" __attribute__((no_sanitize("thread"))) void *gpuperf_shared_anchor() {
  return gpuperf_dynamic_shared;
}
