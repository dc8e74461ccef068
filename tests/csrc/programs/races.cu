// Kernels whose blocks tell each other something, sound or with a fault in the order of their accesses that a build
// that counts must find; the argument names it. None of these faults need show in the results.
#include <cstdio>
#include <cstring>
#include <vector>

#include "counts.h"
#include "grid.cuh"

namespace {

enum Fault {
  none,
  missing_await,
  missing_signal_order,
  missing_barrier_before_signal,
  missing_barrier_after_await,
  awaits_too_few,
  written_after_signal,
  missing_grid_sync,
  missing_fence,
  overlapping_blocks,
};
const char* const kNames[] = {"none",
                              "missing_await",
                              "missing_signal_order",
                              "missing_barrier_before_signal",
                              "missing_barrier_after_await",
                              "awaits_too_few",
                              "written_after_signal",
                              "missing_grid_sync",
                              "missing_fence",
                              "overlapping_blocks"};

constexpr int kThreads = 64, kBlocks = 6;

// The sum of what all blocks wrote, by each block.
__global__ void __launch_bounds__(kThreads) total_kernel(float* __restrict__ parts,       // [kBlocks]
                                                         unsigned* __restrict__ counter,  // one
                                                         float* __restrict__ totals,      // [kBlocks]
                                                         Fault fault) {
  const int t = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  if (block == 0 && t == 0) *counter = 0;
  if (fault != missing_grid_sync) hd::grid_sync();
  const int writer = fault == missing_barrier_before_signal ? 1 : 0;
  if (t == writer) parts[block] = 1.f;
  if (fault != missing_barrier_before_signal) __syncthreads();
  if (t == 0) {
    if (fault == missing_signal_order)
      atomicAdd(counter, 1u);
    else
      hd::signal(counter);
    if (fault == written_after_signal) parts[block] = 1.f;
    if (fault != missing_await) hd::await(counter, fault == awaits_too_few ? kBlocks - 1 : kBlocks);
  }
  if (fault != missing_barrier_after_await) __syncthreads();
  const int reader = fault == missing_barrier_after_await ? 1 : 0;
  if (t == reader) {
    float sum = 0;
    for (int i = 0; i < kBlocks; ++i) sum += parts[i];
    totals[block] = sum;
  }
}

// The same sum, by the block that is last to arrive.
__global__ void __launch_bounds__(kThreads) last_kernel(float* __restrict__ parts,       // [kBlocks]
                                                        unsigned* __restrict__ counter,  // one
                                                        float* __restrict__ totals,      // [kBlocks]
                                                        Fault fault) {
  const int t = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  if (block == 0 && t == 0) *counter = 0;
  hd::grid_sync();
  if (t != 0) return;
  parts[block] = 1.f;
  if (fault != missing_fence) __threadfence();
  if (atomicAdd(counter, 1u) != kBlocks - 1) return;
  __threadfence();
  float sum = 0;
  for (int i = 0; i < kBlocks; ++i) sum += parts[i];
  for (int i = 0; i < kBlocks; ++i) totals[i] = sum;
}

// Blocks that have nothing to do with each other.
__global__ void __launch_bounds__(kThreads) plain_kernel(float* __restrict__ totals,      // [kBlocks]
                                                         unsigned* __restrict__ counter,  // one
                                                         Fault fault) {
  const int t = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  atomicAdd(counter, 1u);
  if (t == 0 || (fault == overlapping_blocks && t == 1)) totals[(block + t) % kBlocks] = kBlocks;
}

int run(Fault fault) {
  std::vector<float> parts(kBlocks), totals(kBlocks);
  std::vector<unsigned> counter(1);
  counts::State& state = counts::state();
  state.watch_races = true;
  const auto add = [&](const char* name, const auto& values) {
    const size_t item = sizeof(values[0]);
    state.memory.add(name, reinterpret_cast<uintptr_t>(values.data()), values.size() * item, item);
  };
  add("parts", parts), add("totals", totals), add("counter", counter);
  state.traffic.reset(1 << 20);
  const bool fenced = fault == missing_fence, plain = fault == overlapping_blocks;
  if (!fenced && !plain)
    HD_LAUNCH_COOPERATIVE(total_kernel, kBlocks, kThreads, 0, 0, parts.data(), counter.data(), totals.data(), fault);
  if (fenced || fault == none)
    HD_LAUNCH_COOPERATIVE(last_kernel, kBlocks, kThreads, 0, 0, parts.data(), counter.data(), totals.data(), fault);
  if (plain || fault == none) HD_LAUNCH(plain_kernel, kBlocks, kThreads, 0, 0, totals.data(), counter.data(), fault);
  for (const float total : totals)
    if (total != kBlocks) return 3;
  return 0;
}

}  // namespace

int main(int, char** arguments) {
  try {
    for (int fault = none; fault <= overlapping_blocks; ++fault)
      if (std::strcmp(arguments[1], kNames[fault]) == 0) return run(static_cast<Fault>(fault));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
