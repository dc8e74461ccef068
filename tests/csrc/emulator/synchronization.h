// Barriers, the exchange of values between the lanes of a warp, and what blocks tell each other: where fibers wait.
#pragma once

#include "cuda_runtime.h"

namespace emulator {

inline unsigned lane_id() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kWarp; }

inline Fiber& wait_for_warp(const char* kind, Site site, unsigned mask, uint64_t value) {
  if ((mask >> lane_id() & 1u) == 0) fail(std::string(kind) + ": the mask leaves out the calling lane", site);
  return wait(kind, site, mask, value);
}

}  // namespace emulator

inline void __syncthreads(emulator::Site site = emulator::Site::here()) { emulator::wait("__syncthreads", site, 0, 0); }
inline int __syncthreads_count(int predicate, emulator::Site site = emulator::Site::here()) {
  return static_cast<int>(emulator::wait("__syncthreads_count", site, 0, predicate != 0).seen[0]);
}
inline int __syncthreads_or(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::wait("__syncthreads_or", site, 0, predicate != 0).seen[0] != 0;
}
inline int __syncthreads_and(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::wait("__syncthreads_and", site, 0, predicate == 0).seen[0] == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::Site site = emulator::Site::here()) {
  emulator::wait_for_warp("__syncwarp", site, mask, 0);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  const emulator::Fiber& self = emulator::wait_for_warp("__ballot_sync", site, mask, predicate != 0);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) votes |= (self.seen[lane] != 0 ? 1u : 0u) << lane;
  return votes & mask;
}
inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

template <typename T>
unsigned __match_any_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
  const uint64_t own = emulator::bits<uint64_t>(value);
  const emulator::Fiber& self = emulator::wait_for_warp("__match_any_sync", site, mask, own);
  unsigned same = 0;
  for (unsigned lane = 0; lane < 32; ++lane) same |= (self.seen[lane] == own ? 1u : 0u) << lane;
  return same & mask;
}

namespace emulator {

// The value of lane `source`, or the caller's own if that lies outside its group of `width` lanes.
template <typename T>
T shuffle(const char* kind, Site site, unsigned mask, T value, int source, int width) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    fail(std::string(kind) + ": width is not a power of two", site);
  const Fiber& self = wait_for_warp(kind, site, mask, bits<uint64_t>(value));
  const int lane = static_cast<int>(lane_id()), begin = lane / width * width;
  if (source < begin || source >= begin + width) source = lane;
  if ((mask >> source & 1u) == 0) fail(std::string(kind) + ": reads a lane that the mask leaves out", site);
  T result;
  std::memcpy(&result, &self.seen[source], sizeof(T));
  return result;
}

inline void check_shuffle(const char* kind, Site site, int operand, int width) {
  if (operand < 0 || operand >= width)
    fail(std::string(kind) + ": lane operand " + std::to_string(operand) + " is out of range", site);
}

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, emulator::Site site = emulator::Site::here()) {
  emulator::check_shuffle("__shfl_sync", site, source, width);  // the hardware wraps around, which nobody means
  const int begin = static_cast<int>(emulator::lane_id()) / width * width;
  return emulator::shuffle("__shfl_sync", site, mask, value, begin + source, width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, emulator::Site site = emulator::Site::here()) {
  emulator::check_shuffle("__shfl_xor_sync", site, lanes, width);
  return emulator::shuffle("__shfl_xor_sync", site, mask, value, static_cast<int>(emulator::lane_id()) ^ lanes, width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   emulator::Site site = emulator::Site::here()) {
  emulator::check_shuffle("__shfl_down_sync", site, static_cast<int>(delta), width);
  const int source = static_cast<int>(emulator::lane_id() + delta);
  return emulator::shuffle("__shfl_down_sync", site, mask, value, source, width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, emulator::Site site = emulator::Site::here()) {
  emulator::check_shuffle("__shfl_up_sync", site, static_cast<int>(delta), width);
  const int source = static_cast<int>(emulator::lane_id()) - static_cast<int>(delta);
  return emulator::shuffle("__shfl_up_sync", site, mask, value, source, width);
}

// What csrc/grid.cuh leaves to the host.
namespace hd {

__attribute__((no_sanitize("thread"))) inline void signal(unsigned* counter) {
  emulator::on_signal(counter);
  ++*counter;
}

inline void await(const unsigned* counter, unsigned value, emulator::Site site = emulator::Site::here()) {
  if (!emulator::machine.cooperative) emulator::fail("await in a kernel whose launch is not cooperative", site);
  emulator::machine.current->counter = counter;
  emulator::wait("await", site, 0, value, emulator::State::awaiting);
  emulator::on_await(counter, value);
}

inline void grid_sync(emulator::Site site = emulator::Site::here()) {
  if (!emulator::machine.cooperative) emulator::fail("grid_sync in a kernel whose launch is not cooperative", site);
  emulator::wait("grid_sync", site, 0, 0, emulator::State::at_grid);
}

}  // namespace hd
