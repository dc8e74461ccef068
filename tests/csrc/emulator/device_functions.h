// The words and functions of CUDA C++ that need no other thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "observer.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define HD_VECTOR_TYPES(T, name)                             \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };         \
  struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };   \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HD_VECTOR_TYPES(float, float)
HD_VECTOR_TYPES(int, int)
HD_VECTOR_TYPES(unsigned, uint)
#undef HD_VECTOR_TYPES

namespace emulator {

// Where in the source a barrier stands.
struct Site {
  const char* file = "";
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};
inline bool operator==(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }
inline std::string name_of(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

template <typename To, typename From>
To bits(From from) {
  static_assert(sizeof(From) <= sizeof(To));
  To to{};
  std::memcpy(&to, &from, sizeof(from));
  return to;
}

// Replace a number by one made of it. Fibers stop only where they wait, so plain code is atomic.
template <typename T, typename Change>
__attribute__((no_sanitize("thread"))) T change(T* address, Change changed) {
  on_atomic(address, sizeof(T));
  const T old = *address;
  *address = changed(old);
  return old;
}

// A parameter that converts to the type that others determine, as with CUDA's overloads.
template <typename T>
struct Same {
  using type = T;
};
template <typename T>
using same = typename Same<T>::type;

}  // namespace emulator

template <typename T>
T atomicAdd(T* address, emulator::same<T> value) {
  return emulator::change(address, [=](T old) {
    if constexpr (std::is_same_v<T, int>)  // wraps, as the hardware does
      return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
    else
      return static_cast<T>(old + value);
  });
}
template <typename T>
T atomicOr(T* address, emulator::same<T> value) {
  return emulator::change(address, [=](T old) { return static_cast<T>(old | value); });
}
template <typename T>
T atomicAnd(T* address, emulator::same<T> value) {
  return emulator::change(address, [=](T old) { return static_cast<T>(old & value); });
}
template <typename T>
T atomicMin(T* address, emulator::same<T> value) {
  return emulator::change(address, [=](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* address, emulator::same<T> value) {
  return emulator::change(address, [=](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicExch(T* address, emulator::same<T> value) {
  return emulator::change(address, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, emulator::same<T> expected, emulator::same<T> value) {
  return emulator::change(address, [=](T old) { return old == expected ? value : old; });
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
inline void __threadfence() { emulator::on_fence(); }
inline void __threadfence_block() {}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }

inline int __float_as_int(float x) { return emulator::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline float __int_as_float(int x) { return emulator::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

// CUDA has min and max of two integers or floats, mixed ones of the usual common type.
template <typename A, typename B>
constexpr auto min(A a, B b) {
  return b < a ? static_cast<std::common_type_t<A, B>>(b) : static_cast<std::common_type_t<A, B>>(a);
}
template <typename A, typename B>
constexpr auto max(A a, B b) {
  return a < b ? static_cast<std::common_type_t<A, B>>(b) : static_cast<std::common_type_t<A, B>>(a);
}
