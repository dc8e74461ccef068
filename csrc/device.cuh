// What the host knows of the current GPU. The answers are kept, because asking takes longer than all of planning. Each
// thread keeps its own, which takes no lock.
#pragma once

#include <algorithm>
#include <map>
#include <tuple>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int64_t kReserved = 1024;   // bytes of shared memory that a GPU keeps of each block
constexpr int64_t kSharedUnit = 128;  // bytes by which it is given out

struct Device {
  int index;
  int multiprocessors;
  int64_t shared_block, shared_multiprocessor;  // bytes that a block may ask for, and that a multiprocessor has
};

const Device& current_device() {
  thread_local std::map<int, Device> devices;
  int index = 0;
  check_cuda(cudaGetDevice(&index), "cudaGetDevice");
  const auto found = devices.find(index);
  if (found != devices.end()) return found->second;
  const auto ask = [&](cudaDeviceAttr attribute) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, attribute, index), "cudaDeviceGetAttribute");
    return value;
  };
  return devices[index] = {index, ask(cudaDevAttrMultiProcessorCount), ask(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                           ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor)};
}

// The bytes of shared memory that a block can have if so many run on a multiprocessor.
inline int64_t shared_of_one(const Device& device, int64_t blocks) {
  const int64_t share = device.shared_multiprocessor / blocks / kSharedUnit * kSharedUnit;
  return std::min(device.shared_block, share - kReserved);
}

// How many blocks of a kernel the current GPU holds at once, at least one. The kernel is allowed that much shared
// memory, and at the first-level cache's expense the multiprocessor has all that it can.
template <typename Kernel>
int64_t resident_blocks(Kernel* kernel, int threads, int64_t shared) {
  using Key = std::tuple<int, const void*, int, int64_t>;
  thread_local std::map<Key, int64_t> counts;
  const Device& device = current_device();
  const Key key{device.index, reinterpret_cast<const void*>(kernel), threads, shared};
  const auto found = counts.find(key);
  if (found != counts.end()) return found->second;
  int blocks = 0;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(device.shared_block)),
      "cudaFuncSetAttribute");
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100), "cudaFuncSetAttribute");
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, static_cast<size_t>(shared)),
             "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  if (blocks == 0)
    throw Error("a block of %d threads and %lld bytes of shared memory does not fit this GPU", threads,
                static_cast<long long>(shared));
  return counts[key] = int64_t{blocks} * device.multiprocessors;
}

}  // namespace
}  // namespace hd::cuda
