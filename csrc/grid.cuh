// Blocks of one kernel that wait for each other. It is launched by HD_LAUNCH_COOPERATIVE, which lets no block begin
// before all of them can run at once: only then can none wait for one that never starts.
//
// One thread of a block calls signal or await, with a barrier of the block before the signal and after the await. What
// any thread of the block wrote before the signal is then visible to all threads after the await.
#pragma once

#include "cuda.cuh"

#ifdef __CUDACC__
// Without the C++ library of CUDA, which a barrier does not need and which takes two seconds to compile.
#define _CG_LIMIT_INCLUDED_DEPENDENCIES
#include <cooperative_groups.h>
#endif

#ifndef HD_LAUNCH_COOPERATIVE
#define HD_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...)                                        \
  ::hd::launch_cooperative(#kernel, kernel, (grid), (block), (shared_bytes), reinterpret_cast<cudaStream_t>(stream), \
                           __VA_ARGS__)
#endif

namespace hd {

#ifdef __CUDACC__

template <typename... Parameters, typename... Arguments>
void launch_cooperative(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared,
                        cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

// Add one to a counter, after everything that this block wrote.
__device__ __forceinline__ void signal(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

// Wait until a counter has at least this value, before anything that this block reads from here on. There is no
// backoff: one thread of a block polls, with one load in flight, which takes little of the second cache from blocks
// that still work, and a sleep would delay a block whose counter is already complete.
__device__ __forceinline__ void await(const unsigned* counter, unsigned value) {
  unsigned seen;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
  } while (seen < value);
}

// A barrier of all threads of all blocks.
__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

#endif

}  // namespace hd
