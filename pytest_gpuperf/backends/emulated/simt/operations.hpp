// What kernels ask the runtime for: both are compiled with these numbers.
#pragma once

namespace gpuperf {
enum WarpOperation { kSync, kShuffle, kUp, kDown, kXor, kBallot, kActive, kMatch };
enum AtomicOperation { kAdd, kMin, kMax, kExchange, kCompareAndSwap, kAnd, kOr, kXorBits, kIncrement, kDecrement };
enum AtomicType { kInt32, kUint32, kInt64, kUint64, kFloat, kDouble };
}  // namespace gpuperf
