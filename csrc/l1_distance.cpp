// Both directions are one pass over dense tensors, whatever their shapes. Sums are of chunks of a fixed size, which are
// added in order, so that the number of threads changes no bit.
#include <cmath>

#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kChunk = 16384;  // of one task: a few pages of each tensor
constexpr int64_t kRun = 1024;     // elements whose distances add up in float; longer sums would lose digits
constexpr int64_t kLanes = 32;     // sums of a run, for the compiler to vectorise

template <typename T>
double run_distance(const T* HD_RESTRICT x, const T* HD_RESTRICT target, int64_t n) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
#pragma omp simd
    for (int64_t k = 0; k < kLanes; ++k) sums[k] += std::fabs(to_float(x[i + k]) - to_float(target[i + k]));
  for (; i < n; ++i) sums[i % kLanes] += std::fabs(to_float(x[i]) - to_float(target[i]));
  float total = 0.f;
  for (const float sum : sums) total += sum;
  return total;
}

template <typename T>
void signs_of(const T* HD_RESTRICT x, const T* HD_RESTRICT target, int8_t* HD_RESTRICT sign, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float difference = to_float(x[i]) - to_float(target[i]);
    sign[i] = static_cast<int8_t>((difference > 0.f) - (difference < 0.f));
  }
}

template <typename T>
void scale_signs(const int8_t* HD_RESTRICT sign, float scale, T* HD_RESTRICT dx, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dx[i] = from_float<T>(static_cast<float>(sign[i]) * scale);
}

}  // namespace

void l1_distance_fwd(Tensor x, Tensor target, Tensor distance, Tensor sign, Tensor, int threads) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t n = elements_of(x), chunks = (n + kChunk - 1) / kChunk;
    Scratch<double> sums(chunks);
    use_huge_pages<int8_t>(sign);
    parallel_for(chunks, threads, [&](int64_t chunk) {
      const int64_t begin = chunk * kChunk, size = smaller(kChunk, n - begin);
      const T *a = x.as<T>() + begin, *b = target.as<T>() + begin;
      sums[chunk] = 0;
      for (int64_t i = 0; i < size; i += kRun) sums[chunk] += run_distance(a + i, b + i, smaller(kRun, size - i));
      if (sign) signs_of(a, b, sign.as<int8_t>() + begin, size);  // from the first-level cache
    });
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += sums[chunk];
    *distance.as<float>() = static_cast<float>(total / static_cast<double>(n));
  });
}

void l1_distance_bwd(Tensor dy, Tensor sign, Tensor dx, int threads) {
  with_floating(dx.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t n = elements_of(dx), chunks = (n + kChunk - 1) / kChunk;
    const float scale = *dy.as<float>() / static_cast<float>(n);
    use_huge_pages<T>(dx);
    parallel_for(chunks, threads, [&](int64_t chunk) {
      const int64_t begin = chunk * kChunk;
      scale_signs(sign.as<int8_t>() + begin, scale, dx.as<T>() + begin, smaller(kChunk, n - begin));
    });
  });
}

}  // namespace hd::cpu
