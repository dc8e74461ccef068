// A kernel whose blocks wait for each other, sound or with a fault that the emulator must find; the argument names it.
#include <cstdio>
#include <cstring>
#include <vector>

#include "grid.cuh"

namespace {

enum Fault {
  none,
  unsignalled,
  block_missing_at_grid_sync,
  too_many_blocks,
  static_shared,
  not_cooperative,
};
const char* const kNames[] = {"none",          "unsignalled",    "block_missing_at_grid_sync", "too_many_blocks",
                              "static_shared", "not_cooperative"};

constexpr int kThreads = 512, kFit = 4, kShared = 50 << 10, kItems = 3;

// For each item, the sum of what all blocks wrote of it, times the threads of the grid.
__global__ void __launch_bounds__(kThreads) total_kernel(int* __restrict__ parts,          // [kItems, blocks]
                                                         unsigned* __restrict__ counters,  // [kItems]
                                                         int* __restrict__ totals,         // [kItems, blocks]
                                                         Fault fault) {
  HD_SHARED(int, values);  // [kThreads]
  const int t = static_cast<int>(threadIdx.x), blocks = static_cast<int>(gridDim.x);
  const int block = static_cast<int>(blockIdx.x);
  if (fault == static_shared) {
    __shared__ int unused;
    unused = t;
  }
  if (block == 0 && t < kItems) counters[t] = 0;
  if (fault != block_missing_at_grid_sync || block != 1) hd::grid_sync();
  for (int item = 0; item < kItems; ++item) {
    values[t] = item + block;
    __syncthreads();
    if (t == 0) {
      int sum = 0;
      for (int i = 0; i < kThreads; ++i) sum += values[i];
      parts[item * blocks + block] = sum;
      if (fault != unsignalled || block != 2 || item != 1) hd::signal(&counters[item]);
      hd::await(&counters[item], static_cast<unsigned>(blocks));
    }
    __syncthreads();
    if (t == 33) {
      int sum = 0;
      for (int i = 0; i < blocks; ++i) sum += parts[item * blocks + i];
      totals[item * blocks + block] = sum;
    }
  }
}

int run(Fault fault) {
  hd::check_cuda(cudaFuncSetAttribute(total_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "shared");
  int multiprocessors = 0, fit = 0;
  hd::check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0), "count");
  hd::check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, total_kernel, kThreads, kShared), "occupancy");
  if (fit != kFit) return 2;
  const int blocks = multiprocessors * fit + (fault == too_many_blocks);
  std::vector<int> parts(kItems * blocks, -1), totals(kItems * blocks);
  std::vector<unsigned> counters(kItems, 77);
  if (fault == not_cooperative)
    HD_LAUNCH(total_kernel, blocks, kThreads, kShared, 0, parts.data(), counters.data(), totals.data(), fault);
  else
    HD_LAUNCH_COOPERATIVE(total_kernel, blocks, kThreads, kShared, 0, parts.data(), counters.data(), totals.data(),
                          fault);
  for (int item = 0; item < kItems; ++item) {
    const int expected = kThreads * (item * blocks + blocks * (blocks - 1) / 2);
    for (int block = 0; block < blocks; ++block)
      if (totals[item * blocks + block] != expected) return 3;
  }
  return 0;
}

}  // namespace

int main(int, char** arguments) {
  try {
    for (int fault = none; fault <= not_cooperative; ++fault)
      if (std::strcmp(arguments[1], kNames[fault]) == 0) return run(static_cast<Fault>(fault));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
