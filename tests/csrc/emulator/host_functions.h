// The part of the CUDA runtime that host code calls, for a device that is the host itself.
#pragma once

#include <cstring>
#include <map>

#include "device_functions.h"

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlock,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrMaxThreadsPerMultiProcessor,
  cudaDevAttrL2CacheSize,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
using cudaStream_t = void*;

namespace emulator {

constexpr int kShared = 48 << 10, kSharedOptin = 227 << 10;  // bytes a block may have, without and with asking
inline cudaError_t last_error = cudaSuccess;
inline std::map<const void*, int> asked_shared;  // by kernel

// The limits of the hardware on a launch.
inline cudaError_t launchable(const void* kernel, dim3 grid, dim3 threads, size_t shared_bytes) {
  const auto asked = asked_shared.find(kernel);
  const size_t allowed = asked == asked_shared.end() ? kShared : asked->second;
  if (shared_bytes > allowed) return cudaErrorInvalidValue;
  if (uint64_t{threads.x} * threads.y * threads.z > 1024 || threads.z > 64) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  const bool empty = threads.x * threads.y * threads.z == 0 || grid.x == 0 || grid.y == 0 || grid.z == 0;
  return empty ? cudaErrorInvalidConfiguration : cudaSuccess;
}

}  // namespace emulator

inline cudaError_t cudaGetLastError() { return emulator::exchange(&emulator::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorInvalidConfiguration)
    return "invalid configuration argument (empty, or too many threads or blocks)";
  return error == cudaSuccess ? "no error" : "invalid argument (such as more shared memory than was asked for)";
}

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > emulator::kSharedOptin) return cudaErrorInvalidValue;
  emulator::asked_shared[reinterpret_cast<const void*>(kernel)] = value;
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// Few multiprocessors, so that grids sized by them loop even over small images.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 3;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = emulator::kShared;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = emulator::kSharedOptin;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 228 << 10;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
  }
  return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int threads, size_t) {
  *blocks = 2048 / threads;
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  std::memset(address, value, bytes);
  return cudaSuccess;
}
