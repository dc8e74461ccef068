// What the emulator's primitives return, against what the CUDA programming guide says.
#include <cstdio>
#include <vector>

#include "cuda.cuh"

namespace {

constexpr int kThreads = 80;  // the last warp is half a warp

__global__ void primitives_kernel(unsigned* __restrict__ failures, int* __restrict__ counters) {
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  const unsigned all = warp == 2 ? 0xffffu : 0xffffffffu;
  const int lanes = __popc(all);
  const auto expect = [&](bool right, int line) {
    if (!right) atomicMax(failures, static_cast<unsigned>(line));
  };
  expect(__syncthreads_count(t % 5 == 0) == 16, __LINE__);
  expect(__syncthreads_or(t == 79) != 0 && __syncthreads_or(0) == 0, __LINE__);
  expect(__syncthreads_and(t != 79) == 0 && __syncthreads_and(1) != 0, __LINE__);

  expect(__ballot_sync(all, lane % 2) == (0xaaaaaaaau & all), __LINE__);
  expect(__any_sync(all, lane == 3) && !__any_sync(all, 0), __LINE__);
  expect(__all_sync(all, 1) && !__all_sync(all, lane != 3), __LINE__);
  expect(__match_any_sync(all, static_cast<unsigned long long>(lane % 4) << 40) == (0x11111111u << lane % 4 & all),
         __LINE__);
  expect(__shfl_xor_sync(all, t, 5) == (t ^ 5), __LINE__);
  expect(__shfl_up_sync(all, t, 1) == (lane == 0 ? t : t - 1), __LINE__);
  expect(__shfl_down_sync(all, t, 1, 16) == (lane % 16 == 15 ? t : t + 1), __LINE__);
  expect(__shfl_sync(all, t, 3, 8) == t / 8 * 8 + 3, __LINE__);
  expect(__shfl_sync(all, -0.5, 7) == -0.5, __LINE__);

  if (lane < 8) {  // parts of a warp meet on their own
    int sum = 1;
    for (int offset = 4; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffu, sum, offset);
    expect(sum == 8, __LINE__);
  }
  __syncwarp(all);
  __shared__ int seen[kThreads];
  expect(seen[t] == -1, __LINE__);  // poisoned
  __syncthreads();
  seen[t] = t;
  __syncwarp(all);
  expect(seen[warp * 32 + (lane + 1) % lanes] == warp * 32 + (lane + 1) % lanes, __LINE__);

  atomicAdd(&counters[0], 2);
  atomicMin(&counters[1], -t);
  atomicOr(&counters[2], 1 << t % 3);
  const int before = atomicCAS(&counters[3], 0, t + 1);
  if (before == 0) atomicExch(&counters[4], 7);
}

}  // namespace

int main() {
  unsigned failed_line = 0;
  std::vector<int> counters(5);
  HD_LAUNCH(primitives_kernel, dim3(2, 3), kThreads, 0, 0, &failed_line, counters.data());
  if (counters[0] != 2 * 6 * kThreads || counters[1] != 1 - kThreads || counters[2] != 7 || counters[4] != 7)
    failed_line = __LINE__;
  if (failed_line != 0) std::fprintf(stderr, "%s:%u is wrong\n", __FILE__, failed_line);
  return failed_line != 0;
}
