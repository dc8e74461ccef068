// Lets g++ compile csrc/*.cu and run the kernels on the host, where AddressSanitizer and UBSan watch every access.
//
// Every CUDA thread is a fiber, which runs until it must wait for others: at __syncthreads or a warp primitive, or, in
// a cooperative launch, for other blocks. Fibers take turns in an order shuffled anew each time, so that a missing
// barrier lets some thread run too early or too late whatever the kernel's pattern is, and shared memory starts as NaN,
// so that it shows. Blocks run one after the other, those of a cooperative launch all at once. What the hardware leaves
// undefined (divergent barriers, masks that name absent lanes, lanes that do not exist) is an error here, thrown by the
// launch, and so is what would never end: blocks that wait for what no block does.
#pragma once

#include <mutex>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include "host_functions.h"
#include "scheduler.h"

#define HD_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                         \
  do {                                                                                                    \
    ::emulator::launch(#kernel, kernel, false, (grid), (block), (shared_bytes), (stream), ##__VA_ARGS__); \
    ::hd::check_cuda(cudaGetLastError(), #kernel);                                                        \
  } while (0)
#define HD_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...)                            \
  do {                                                                                                   \
    ::emulator::launch(#kernel, kernel, true, (grid), (block), (shared_bytes), (stream), ##__VA_ARGS__); \
    ::hd::check_cuda(cudaGetLastError(), #kernel);                                                       \
  } while (0)
#define HD_SHARED(T, name) T* name = static_cast<T*>(::emulator::shared_memory())
#define HD_MOST_ROWS ::emulator::kMostRows

namespace emulator {

inline std::mutex one_launch_at_a_time;

inline uint3 block_at(int64_t i) {
  return {static_cast<unsigned>(i % gridDim.x), static_cast<unsigned>(i / gridDim.x % gridDim.y),
          static_cast<unsigned>(i / gridDim.x / gridDim.y)};
}

// Begin block i of the grid in a place for blocks whose fibers are all free.
inline void begin(Block& block, int64_t i, size_t shared_bytes) {
  block.number = i;
  block.index = block_at(i);
  block.poisoned.clear();
  std::memset(block.shared.get(), 0xff, shared_bytes);
  for (unsigned t = 0; t < block.fibers.size(); ++t) {
    Fiber& fiber = *block.fibers[t];
    fiber.block = &block;
    fiber.thread = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    fiber.state = State::runnable;
  }
}

// Make places for so many blocks that are alive at once.
inline void make_blocks(size_t count, size_t shared_bytes) {
  const size_t threads = size_t{blockDim.x} * blockDim.y * blockDim.z;
  while (machine.fibers.size() < count * threads) machine.fibers.push_back(new_fiber());
  machine.blocks = std::vector<Block>(count);
  for (size_t i = 0; i < count; ++i) {
    Block& block = machine.blocks[i];
    for (size_t t = 0; t < threads; ++t) block.fibers.push_back(machine.fibers[i * threads + t].get());
    block.order.resize(threads);
    std::iota(block.order.begin(), block.order.end(), 0u);
    block.shared.reset(std::malloc(shared_bytes));
  }
}

inline void run_grid(const char* name, bool cooperative, size_t shared_bytes) {
  const int64_t count = int64_t{gridDim.x} * gridDim.y * gridDim.z, alive = cooperative ? count : 1;
  // The hardware promises no order, but nearly keeps one, by which a build counts.
  const bool backwards = !kCounted && machine.launches++ % 2 == 1;
  machine.cooperative = cooperative;
  on_launch(name, cooperative, count);
  make_blocks(static_cast<size_t>(alive), shared_bytes);
  for (int64_t first = 0; first < count; first += alive) {
    for (int64_t i = 0; i < alive; ++i)
      begin(machine.blocks[i], backwards ? count - 1 - first - i : first + i, shared_bytes);
    run_blocks();
    if (machine.failure.empty()) continue;
    drop_fibers();
    throw std::runtime_error(std::string(name) + ": " + std::exchange(machine.failure, ""));
  }
}

template <typename... Parameters, typename Stream, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), bool cooperative, dim3 grid, dim3 threads,
            size_t shared_bytes, Stream, Arguments&&... arguments) {
  const std::lock_guard<std::mutex> guard(one_launch_at_a_time);
  last_error = launchable(reinterpret_cast<const void*>(kernel), cooperative, grid, threads, shared_bytes);
  if (last_error != cudaSuccess) return;
  auto call = std::pair{kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)};
  machine.body = [](void* pair) {
    auto& [function, values] = *static_cast<decltype(call)*>(pair);
    std::apply(function, values);
  };
  machine.arguments = &call;
  gridDim = grid;
  blockDim = threads;
  run_grid(name, cooperative, shared_bytes);
}

}  // namespace emulator

#include "synchronization.h"
