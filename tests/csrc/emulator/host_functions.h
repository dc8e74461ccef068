// The part of the CUDA runtime that host code calls, for a device that is the host itself.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "device_functions.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorCooperativeLaunchTooLarge = 720,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlock,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrReservedSharedMemoryPerBlock,
  cudaDevAttrMaxThreadsPerBlock,
  cudaDevAttrMaxThreadsPerMultiProcessor,
  cudaDevAttrMaxBlocksPerMultiprocessor,
  cudaDevAttrMaxRegistersPerMultiprocessor,
  cudaDevAttrWarpSize,
  cudaDevAttrL2CacheSize,
  cudaDevAttrCooperativeLaunch,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
using cudaStream_t = void*;

namespace emulator {

constexpr int kShared = 48 << 10, kSharedOptin = 227 << 10;  // bytes a block may have, without and with asking
constexpr int kSharedReserved = 1 << 10;                     // bytes that each block takes besides
inline int multiprocessors = 3;    // few, so that grids sized by them loop even over small images
constexpr unsigned kMostRows = 3;  // few, so that grids of a few rows already go on in the direction z
constexpr int kThreadsPerMultiprocessor = 2048, kBlocksPerMultiprocessor = 32;
// HDGAN_EMULATED_SHARED gives a device with less, on which small planes are large.
inline const int kSharedPerMultiprocessor = [] {
  const char* asked = std::getenv("HDGAN_EMULATED_SHARED");
  return asked == nullptr ? 228 << 10 : std::atoi(asked);
}();

inline int l2_bytes = 50 << 20;

inline cudaError_t last_error = cudaSuccess;
inline std::map<const void*, int> asked_shared;  // by kernel

inline size_t allowed_shared(const void* kernel) {
  const auto asked = asked_shared.find(kernel);
  return asked == asked_shared.end() ? kShared : asked->second;
}

// How many blocks fit a multiprocessor at once. Registers do not count here: g++ knows of none.
inline int occupancy(const void* kernel, uint64_t threads, size_t shared_bytes) {
  if (threads == 0 || threads > 1024 || shared_bytes > allowed_shared(kernel)) return 0;
  const uint64_t by_threads = kThreadsPerMultiprocessor / ((threads + 31) / 32 * 32);
  const uint64_t by_shared = kSharedPerMultiprocessor / ((shared_bytes + 127) / 128 * 128 + kSharedReserved);
  return static_cast<int>(std::min({by_threads, by_shared, uint64_t{kBlocksPerMultiprocessor}}));
}

// The limits of the hardware on a launch.
inline cudaError_t launchable(const void* kernel, bool cooperative, dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (shared_bytes > allowed_shared(kernel)) return cudaErrorInvalidValue;
  if (threads == 0 || threads > 1024 || block.z > 64 || blocks == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > kMostRows || grid.z > 65535) return cudaErrorInvalidConfiguration;
  const uint64_t alive =
      static_cast<uint64_t>(multiprocessors) * static_cast<uint64_t>(occupancy(kernel, threads, shared_bytes));
  return cooperative && blocks > alive ? cudaErrorCooperativeLaunchTooLarge : cudaSuccess;
}

}  // namespace emulator

inline cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument (such as more shared memory than was asked for)";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument (empty, or too many threads or blocks)";
    case cudaErrorCooperativeLaunchTooLarge:
      return "too many blocks in cooperative launch";
  }
  return "unknown error";
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

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::map<cudaDeviceAttr, int> attributes = {
      {cudaDevAttrMultiProcessorCount, emulator::multiprocessors},
      {cudaDevAttrMaxSharedMemoryPerBlock, emulator::kShared},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, emulator::kSharedOptin},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, emulator::kSharedPerMultiprocessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, emulator::kSharedReserved},
      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrMaxThreadsPerMultiProcessor, emulator::kThreadsPerMultiprocessor},
      {cudaDevAttrMaxBlocksPerMultiprocessor, emulator::kBlocksPerMultiprocessor},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 1 << 16},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrL2CacheSize, emulator::l2_bytes},
      {cudaDevAttrCooperativeLaunch, 1},
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0},
  };
  *value = attributes.at(attribute);
  return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel* kernel, int threads,
                                                          size_t shared_bytes) {
  *blocks = emulator::occupancy(reinterpret_cast<const void*>(kernel), static_cast<uint64_t>(threads), shared_bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  emulator::on_memset(address, bytes);
  std::memset(address, value, bytes);
  return cudaSuccess;
}
