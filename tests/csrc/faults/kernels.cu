// Each kernel twice: right, and with a fault that the emulator must find. FAULT is one of the names below, or absent.
#include <cstdio>
#include <vector>

#include "cuda.cuh"

enum Fault { absent, missing_barrier, shared_overrun, static_overrun, global_overrun, divergent_barrier, shuffle_range, overflow, too_much_shared };

namespace {

constexpr int kThreads = 96;

// Reverses each block's part of x [n] by way of shared memory, and adds the sum of its first warp.
template <Fault fault, int kScale>
__global__ void __launch_bounds__(kThreads) reverse_kernel(const float* __restrict__ x, float* __restrict__ y, int n) {
  HD_SHARED(float, values);           // [kThreads]
  __shared__ float sums[kThreads / 32];
  const int t = static_cast<int>(threadIdx.x);
  const int stride = fault == overflow ? 0x7fffffff : kThreads;
  const int first = static_cast<int>(blockIdx.x) * stride;
  values[t + (fault == shared_overrun)] = x[first + t];
  if (fault != missing_barrier && (fault != divergent_barrier || t < 90)) __syncthreads();
  const float value = values[kThreads - 1 - t];
  const float sum = hd::warp_sum(value) + __shfl_sync(0xffffffffu, value, fault == shuffle_range ? 32 : 0);
  if (t % 32 == 0) *(sums + t / 32 + (fault == static_overrun)) = sum;
  __syncthreads();
  if (first + t < n || fault == global_overrun) y[first + t] = kScale * value + sums[0];
}

template <Fault fault>
int run() {
  const int n = 4 * kThreads;
  std::vector<float> x(n), y(n - 1);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i);
  const size_t bytes = fault == too_much_shared ? 49 << 10 : kThreads * sizeof(float);
  HD_LAUNCH((reverse_kernel<fault, 2>), 4, kThreads, bytes, nullptr, x.data(), y.data(), n - 1);
  for (int i = 0; i < n - 1; ++i) {
    const int first = i / kThreads * kThreads, t = i % kThreads;
    float sum = x[first + kThreads - 1];
    for (int k = 0; k < 32; ++k) sum += x[first + kThreads - 1 - k];
    if (y[i] != 2 * x[first + kThreads - 1 - t] + sum) {
      std::fprintf(stderr, "wrong result at %d: %g\n", i, static_cast<double>(y[i]));
      return 1;
    }
  }
  return 0;
}

}  // namespace

int main() {
  try {
    return run<FAULT>();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
