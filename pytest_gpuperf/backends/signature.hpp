// What only a compiler knows of a kernel's parameters and of a variable: their types behind typedef, using and
// templates, as bytes that signature.py reads. Included behind a kernel file, whose macros must not meet its names.
#pragma once

#include <type_traits>

namespace gpuperf_types {

// kind: NumPy's letter of a number, 'v' for void and 'V' for everything else; `size` of one of `lanes`.
struct Row {
  unsigned size, lanes;
  char kind;
  unsigned char pointer, constant, unused;
};
template <unsigned gpuperf_n>
struct Table {
  unsigned count;
  Row rows[gpuperf_n];
};

template <class GpuperfT, bool = std::is_enum<GpuperfT>::value>
struct Number {
  typedef GpuperfT type;
};
template <class GpuperfT>
struct Number<GpuperfT, true> {
  typedef typename std::underlying_type<GpuperfT>::type type;
};

template <class GpuperfT>
struct Kind {
  typedef typename Number<GpuperfT>::type type;
  static constexpr unsigned size = sizeof(GpuperfT), lanes = 1;
  static constexpr char kind = std::is_same<type, bool>::value            ? 'b'
                               : std::is_floating_point<type>::value      ? 'f'
                               : !std::is_integral<type>::value           ? 'V'
                               : std::is_signed<type>::value              ? 'i'
                                                                          : 'u';
};
template <>
struct Kind<void> {
  static constexpr unsigned size = 0, lanes = 1;
  static constexpr char kind = 'v';
};
#define GPUPERF_LANES(NAME, ELEMENT, LANES)                          \
  template <>                                                        \
  struct Kind<NAME> {                                                \
    static constexpr unsigned size = sizeof(NAME) / LANES, lanes = LANES; \
    static constexpr char kind = Kind<ELEMENT>::kind;                \
  };
#define GPUPERF_VECTOR(NAME, ELEMENT) \
  GPUPERF_LANES(NAME##1, ELEMENT, 1) GPUPERF_LANES(NAME##2, ELEMENT, 2) GPUPERF_LANES(NAME##3, ELEMENT, 3)
GPUPERF_VECTOR(char, signed char)
GPUPERF_VECTOR(uchar, unsigned char)
GPUPERF_VECTOR(short, short)
GPUPERF_VECTOR(ushort, unsigned short)
GPUPERF_VECTOR(int, int)
GPUPERF_VECTOR(uint, unsigned)
GPUPERF_VECTOR(long, long)
GPUPERF_VECTOR(ulong, unsigned long)
GPUPERF_VECTOR(longlong, long long)
GPUPERF_VECTOR(ulonglong, unsigned long long)
GPUPERF_VECTOR(float, float)
GPUPERF_VECTOR(double, double)
GPUPERF_LANES(char4, signed char, 4)
GPUPERF_LANES(uchar4, unsigned char, 4)
GPUPERF_LANES(short4, short, 4)
GPUPERF_LANES(ushort4, unsigned short, 4)
GPUPERF_LANES(int4, int, 4)
GPUPERF_LANES(uint4, unsigned, 4)
GPUPERF_LANES(float4, float, 4)
#if !defined(__CUDACC_VER_MAJOR__) || __CUDACC_VER_MAJOR__ < 13  // which calls them out of date
GPUPERF_LANES(long4, long, 4)
GPUPERF_LANES(ulong4, unsigned long, 4)
GPUPERF_LANES(longlong4, long long, 4)
GPUPERF_LANES(ulonglong4, unsigned long long, 4)
GPUPERF_LANES(double4, double, 4)
#endif
#ifdef __CUDA_FP16_TYPES_EXIST__
GPUPERF_LANES(__half, float, 1)
GPUPERF_LANES(__half2, float, 2)
#endif

template <class GpuperfT>
constexpr Row row() {
  typedef typename std::remove_pointer<typename std::remove_cv<GpuperfT>::type>::type Pointee;
  typedef typename std::remove_cv<Pointee>::type Bare;
  return {Kind<Bare>::size, Kind<Bare>::lanes, Kind<Bare>::kind, std::is_pointer<GpuperfT>::value,
          std::is_const<Pointee>::value, 0};
}
constexpr Row extent(unsigned long long length) { return {static_cast<unsigned>(length), 1, 'd', 0, 0, 0}; }

// Of a kernel a row for each parameter; of a variable one for its elements, and one for each of its dimensions.
template <class GpuperfT>
struct Described;
template <class GpuperfT>
struct Described<GpuperfT *> {
  static constexpr Table<4> table() {
    return {1 + std::rank<GpuperfT>::value,
            {row<typename std::remove_all_extents<GpuperfT>::type>(), extent(std::extent<GpuperfT, 0>::value),
             extent(std::extent<GpuperfT, 1>::value), extent(std::extent<GpuperfT, 2>::value)}};
  }
};
template <class... GpuperfT>
struct Described<void (*)(GpuperfT...)> {
  static constexpr Table<sizeof...(GpuperfT) + 1> table() { return {sizeof...(GpuperfT), {row<GpuperfT>()...}}; }
};

}  // namespace gpuperf_types
