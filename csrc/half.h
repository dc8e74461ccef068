// bfloat16 and float16 as storage: values are loaded into float, computed in float and rounded once when stored. CUDA's
// own headers for these types would add a second to the compilation of every file.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define HD_INLINE __host__ __device__ __forceinline__
#else
// Always inlined: a function that was compiled for AVX2 must not be linked into files that are not.
#define HD_INLINE inline __attribute__((always_inline))
#endif

namespace hd {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <typename To, typename From>
HD_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

HD_INLINE float to_float(float x) { return x; }

HD_INLINE float to_float(bf16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

HD_INLINE float to_float(f16 x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  // Shift exponent and mantissa into place and rescale by 2^112, which makes subnormals exact without a branch.
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const float scaled = bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN keep the top exponent
  return bit_cast<float>(sign | special | bit_cast<uint32_t>(scaled));
#endif
}

template <typename T>
HD_INLINE T from_float(float x);

// v times the slope of an activation. A slope of 0 turns infinities into 0, too.
HD_INLINE float damp(float v, float slope) { return slope == 0.f ? 0.f : v * slope; }
// The activation with that slope below 0. NaN stays NaN.
HD_INLINE float activate(float z, float slope) { return z > 0.f || z != z ? z : damp(z, slope); }

template <>
HD_INLINE float from_float<float>(float x) {
  return x;
}

template <>
HD_INLINE bf16 from_float<bf16>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const float rounded = bit_cast<float>(bits + 0x7fffu + ((bits >> 16) & 1u));
  const float quiet = bit_cast<float>(bits | 0x00400000u);
  // Of two floats, or GCC would choose between vectors of 16 bits, in three times as many instructions.
  return {static_cast<uint16_t>(bit_cast<uint32_t>(x == x ? rounded : quiet) >> 16)};
#endif
}

template <>
HD_INLINE f16 from_float<f16>(float x) {
#ifdef __CUDA_ARCH__
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal results: rebias the exponent and round to even by integer arithmetic; the carry may reach infinity, as it
  // should.
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal results: adding 0.5 moves the mantissa to the bits that float16 has, and the addition rounds.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t small = magnitude < 0x38800000u ? subnormal : normal;
  return {static_cast<uint16_t>(sign | (magnitude >= 0x47800000u ? special : small))};
#endif
}

}  // namespace hd
