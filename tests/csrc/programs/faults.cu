// One kernel, sound or with a fault that the emulator must find; the argument names the fault.
#include <cstdio>
#include <cstring>
#include <vector>

#include "cuda.cuh"

namespace {

enum Fault {
  none,
  missing_barrier,
  shared_overrun,
  static_overrun,
  local_overrun,
  global_overrun,
  divergent_barrier,
  early_exit,
  shuffle_range,
  shuffle_mask,
  overflow,
  misaligned,
  too_much_shared,
  too_many_threads,
};
const char* const kNames[] = {
    "none",           "missing_barrier",   "shared_overrun",  "static_overrun",  "local_overrun",
    "global_overrun", "divergent_barrier", "early_exit",      "shuffle_range",   "shuffle_mask",
    "overflow",       "misaligned",        "too_much_shared", "too_many_threads"};

constexpr int kThreads = 96, kBlocks = 4, kSize = kThreads * kBlocks;

// Reverses each block's part of x, scaled, and adds the sum of its first warp.
template <typename T, int kScale>
__global__ void __launch_bounds__(kThreads) reverse_kernel(const T* __restrict__ x,  // [n]
                                                           T* __restrict__ y,        // [n]
                                                           int n, Fault fault) {
  HD_SHARED(T, values);  // [kThreads]
  __shared__ T sums[kThreads / 32];
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  if (fault == early_exit && t >= 90) return;
  const int stride = fault == overflow ? 0x7fffffff : kThreads;
  const int first = static_cast<int>(blockIdx.x) * stride;
  values[t + (fault == shared_overrun)] = x[first + t];
  if (fault != missing_barrier && (fault != divergent_barrier || t < 90)) __syncthreads();
  const T value = values[kThreads - 1 - t];
  T parts[2] = {value, value};
  T* volatile hidden = parts;  // from all but AddressSanitizer
  const T sum = hd::warp_sum(value);
  const T low = __shfl_sync(0xffffffffu, value, fault == shuffle_range ? 32 : 0);
  if (fault == shuffle_mask && lane < 16) __shfl_sync(0xffffu, value, 16);
  if (lane == 0) *(sums + t / 32 + (fault == static_overrun)) = sum + low;
  __syncthreads();
  if (fault == local_overrun) parts[0] = hidden[t % 3];
  if (fault == misaligned) hd::load_pack<2>(values + 1);
  if (first + t < n || fault == global_overrun) y[first + t] = (kScale - 1) * parts[0] + parts[1] + sums[0];
}

int run(Fault fault) {
  std::vector<float> x(kSize), y(kSize - 1);
  for (int i = 0; i < kSize; ++i) x[i] = static_cast<float>(i);
  const size_t bytes = fault == too_much_shared ? 49 << 10 : kThreads * sizeof(float);
  const int threads = fault == too_many_threads ? 1056 : kThreads;
  HD_LAUNCH((reverse_kernel<float, 2>), kBlocks, threads, bytes, 0, x.data(), y.data(), kSize - 1, fault);
  for (int i = 0; i < kSize - 1; ++i) {
    const float* block_end = x.data() + (i / kThreads + 1) * kThreads;
    float expected = 2 * block_end[-1 - i % kThreads] + block_end[-1];
    for (int k = 1; k <= 32; ++k) expected += block_end[-k];
    if (y[i] == expected) continue;
    std::fprintf(stderr, "wrong result at %d: %g\n", i, static_cast<double>(y[i]));
    return 1;
  }
  return 0;
}

}  // namespace

int main(int, char** arguments) {
  try {
    for (int fault = none; fault <= too_many_threads; ++fault)
      if (std::strcmp(arguments[1], kNames[fault]) == 0) return run(static_cast<Fault>(fault));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
