// Hopper's minima and maxima (DPX): also of sums, of what is clamped at 0, and of pairs of 16 bits.
#pragma once

#define GPUPERF_DPX_PAIR(NAME, TYPE, EXPRESSION)                                                          \
  GPUPERF_INLINE unsigned NAME(unsigned p, unsigned q, unsigned r = 0) {                                  \
    unsigned result = 0;                                                                                  \
    for (int i = 0; i < 32; i += 16) {                                                                    \
      TYPE a = static_cast<TYPE>(p >> i), b = static_cast<TYPE>(q >> i), c = static_cast<TYPE>(r >> i);   \
      result |= static_cast<unsigned>(static_cast<unsigned short>(EXPRESSION)) << i;                      \
    }                                                                                                     \
    return result;                                                                                        \
  }
#define GPUPERF_DPX_OF(NAME, SIGN, SUFFIX, TYPE, NARROW, ONE, TWO)                                                          \
  GPUPERF_INLINE TYPE NAME##3_##SIGN##32##SUFFIX(TYPE a, TYPE b, TYPE c) { return TWO(ONE(a, b), c); }                       \
  GPUPERF_DPX_PAIR(NAME##3_##SIGN##16x2##SUFFIX, NARROW, TWO(ONE(a, b), c))
#define GPUPERF_DPX_SUM(NAME, SIGN, SUFFIX, TYPE, NARROW, CHOOSE)                                                           \
  GPUPERF_INLINE TYPE NAME##_##SIGN##32##SUFFIX(TYPE a, TYPE b, TYPE c) { return CHOOSE(TYPE(unsigned(a) + unsigned(b)), c); } \
  GPUPERF_DPX_PAIR(NAME##_##SIGN##16x2##SUFFIX, NARROW, CHOOSE(NARROW(a + b), c))
#define GPUPERF_LESSER(a, b) ((b) < (a) ? (b) : (a))
#define GPUPERF_GREATER(a, b) ((a) < (b) ? (b) : (a))
#define GPUPERF_LESSER_OR_0(a, b) GPUPERF_GREATER(GPUPERF_LESSER(a, b), 0)
#define GPUPERF_GREATER_OR_0(a, b) GPUPERF_GREATER(GPUPERF_GREATER(a, b), 0)
#define GPUPERF_DPX_KINDS(DO, MIN, MAX)                                              \
  GPUPERF_DPX_KIND(DO, MIN, GPUPERF_LESSER, GPUPERF_LESSER_OR_0)                     \
  GPUPERF_DPX_KIND(DO, MAX, GPUPERF_GREATER, GPUPERF_GREATER_OR_0)
#define GPUPERF_DPX_KIND(DO, NAME, CHOOSE, CHOOSE_OR_0)                              \
  DO(NAME, s, , int, int16_t, CHOOSE, CHOOSE)                                          \
  DO(NAME, u, , unsigned, uint16_t, CHOOSE, CHOOSE)                            \
  DO(NAME, s, _relu, int, int16_t, CHOOSE, CHOOSE_OR_0)
#define GPUPERF_DPX_ADDED(NAME, SIGN, SUFFIX, TYPE, NARROW, ONE, TWO) GPUPERF_DPX_SUM(NAME, SIGN, SUFFIX, TYPE, NARROW, TWO)
GPUPERF_DPX_KINDS(GPUPERF_DPX_OF, __vimin, __vimax)
GPUPERF_DPX_KINDS(GPUPERF_DPX_ADDED, __viaddmin, __viaddmax)
GPUPERF_INLINE int __vimin_s32_relu(int a, int b) { return GPUPERF_LESSER_OR_0(a, b); }
GPUPERF_INLINE int __vimax_s32_relu(int a, int b) { return GPUPERF_GREATER_OR_0(a, b); }
GPUPERF_INLINE unsigned __vimin_s16x2_relu(unsigned a, unsigned b) { return __vmaxs2(__vmins2(a, b), 0); }
GPUPERF_INLINE unsigned __vimax_s16x2_relu(unsigned a, unsigned b) { return __vmaxs2(__vmaxs2(a, b), 0); }
// Also which of the two it was: the first, or both of equal ones.
#define GPUPERF_DPX_WHICH(NAME, SIGN, TYPE, NARROW, HOLDS)                                                   \
  GPUPERF_INLINE TYPE NAME##_##SIGN##32(TYPE a, TYPE b, bool *first) {                                       \
    *first = a HOLDS b;                                                                                      \
    return a HOLDS b ? a : b;                                                                                \
  }                                                                                                          \
  GPUPERF_INLINE unsigned NAME##_##SIGN##16x2(unsigned a, unsigned b, bool *high, bool *low) {               \
    *high = NARROW(a >> 16) HOLDS NARROW(b >> 16), *low = NARROW(a) HOLDS NARROW(b);                         \
    return ((*high ? a : b) & 0xffff0000u) | ((*low ? a : b) & 0xffffu);                                     \
  }
GPUPERF_DPX_WHICH(__vibmin, s, int, int16_t, <=)
GPUPERF_DPX_WHICH(__vibmin, u, unsigned, uint16_t, <=)
GPUPERF_DPX_WHICH(__vibmax, s, int, int16_t, >=)
GPUPERF_DPX_WHICH(__vibmax, u, unsigned, uint16_t, >=)
