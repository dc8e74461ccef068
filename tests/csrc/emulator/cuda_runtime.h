// Lets g++ compile csrc/*.cu and run the kernels on the host, where AddressSanitizer and UBSan watch every access.
//
// Every CUDA thread of a block is a fiber; blocks run one after the other. A fiber runs until it must wait for others:
// at
// __syncthreads or a warp primitive. Fibers take turns in an order shuffled anew each time, so that a missing barrier
// lets some thread run too early or too late whatever the kernel's pattern is, and shared memory starts as NaN, so that
// it shows. What the hardware leaves undefined (divergent barriers, masks that name absent lanes, lanes that do not
// exist) is an error here, thrown by HD_LAUNCH. Not emulated: blocks that wait for each other, and the memory model.
#pragma once

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "device_functions.h"
#include "host_functions.h"

#define HD_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
  do {                                                                                             \
    ::emulator::launch(#kernel, kernel, (grid), (block), (shared_bytes), (stream), ##__VA_ARGS__); \
    ::hd::check_cuda(cudaGetLastError(), #kernel);                                                 \
  } while (0)
#define HD_SHARED(T, name) T* name = reinterpret_cast<T*>(::emulator::block.dynamic_shared.get())

namespace emulator {

constexpr size_t kStack = 256 << 10, kPage = 4096;
constexpr unsigned kWarp = 32;

enum class State { runnable, waiting, exited };

struct Fiber {
  ucontext_t context{};
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's, while another fiber runs
  uint3 thread{};
  State state = State::runnable;
  // What it waits for: a barrier of the block, or (mask != 0) of lanes of its warp.
  const char* kind = "";
  Site site{};
  unsigned mask = 0;
  uint64_t value = 0;         // what it brings there
  uint64_t seen[kWarp] = {};  // what the lanes of its warp have brought; seen[0]: in how many threads it was not 0
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};

struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;  // at least as many as threads
  unsigned threads = 0;
  Fiber* current = nullptr;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::string failure;
  std::unique_ptr<void, Free> dynamic_shared;
  std::vector<const void*> poisoned;  // static shared variables that this block has met
  std::mt19937 random{0};
  unsigned launches = 0;
  ucontext_t scheduler{};
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
};
inline Block block;
inline std::mutex one_launch_at_a_time;

inline std::string name_of(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

// Leave the current fiber until the scheduler comes back to it.
inline void leave() {
  Fiber& self = *block.current;
  __sanitizer_start_switch_fiber(&self.fake_stack, block.scheduler_stack, block.scheduler_stack_size);
  swapcontext(&self.context, &block.scheduler);
  __sanitizer_finish_switch_fiber(self.fake_stack, &block.scheduler_stack, &block.scheduler_stack_size);
}

inline void resume(Fiber& fiber) {
  void* fake_stack = nullptr;
  block.current = &fiber;
  threadIdx = fiber.thread;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack + kPage, kStack);
  swapcontext(&block.scheduler, &fiber.context);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

// A fiber lives on: it runs its thread of one block, and then of the next.
inline void live() {
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_stack_size);
  for (;;) {
    block.body(block.arguments);
    block.current->state = State::exited;
    leave();
  }
}

inline std::unique_ptr<Fiber> new_fiber() {
  auto fiber = std::make_unique<Fiber>();
  void* memory =
      mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kPage, PROT_NONE);  // stacks grow down to here
  fiber->stack = static_cast<char*>(memory);
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack + kPage;
  fiber->context.uc_stack.ss_size = kStack;
  makecontext(&fiber->context, live, 0);
  fiber->context.uc_stack.ss_size = 0;  // or AddressSanitizer forgets all it knows of the stack at every switch
  return fiber;
}

// After a failure fibers are stuck in the middle of a kernel and are not used again.
inline void drop_fibers() {
  for (auto& fiber : block.fibers) {
    __asan_unpoison_memory_region(fiber->stack + kPage, kStack);
    munmap(fiber->stack, kStack + kPage);
  }
  block.fibers.clear();
}

[[noreturn]] inline void fail(const std::string& what, Site site) {
  block.failure = what + " at " + name_of(site) + ", thread " + name_of(threadIdx);
  leave();
  std::abort();  // never resumed
}

inline Fiber& wait(const char* kind, Site site, unsigned mask, uint64_t value) {
  Fiber& self = *block.current;
  self.kind = kind;
  self.site = site;
  self.mask = mask;
  self.value = value;
  self.state = State::waiting;
  leave();
  return self;
}

inline unsigned lane_id() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kWarp; }

inline Fiber& wait_for_warp(const char* kind, Site site, unsigned mask, uint64_t value) {
  if ((mask >> lane_id() & 1u) == 0) fail(std::string(kind) + ": the mask leaves out the calling lane", site);
  return wait(kind, site, mask, value);
}

inline bool meets(const Fiber& a, const Fiber& b) {
  return a.state == State::waiting && b.state == State::waiting && a.mask == b.mask && std::strcmp(a.kind, b.kind) == 0;
}

// Let go on the warps, or parts of one, all of whose lanes have arrived.
inline bool release_warps() {
  bool any = false;
  for (unsigned first = 0; first < block.threads; first += kWarp) {
    for (unsigned lane = 0; lane < kWarp && first + lane < block.threads; ++lane) {
      const Fiber& leader = *block.fibers[first + lane];  // the last lane of the mask decides for all
      const unsigned mask = leader.mask;
      if (leader.state != State::waiting || mask == 0 || mask >> lane >> 1 != 0) continue;
      bool complete = true;
      for (unsigned i = 0; i <= lane; ++i) complete &= (mask >> i & 1u) == 0 || meets(leader, *block.fibers[first + i]);
      if (!complete) continue;
      uint64_t values[kWarp] = {};
      for (unsigned i = 0; i <= lane; ++i) values[i] = block.fibers[first + i]->value;
      for (unsigned i = 0; i <= lane; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        std::memcpy(block.fibers[first + i]->seen, values, sizeof(values));
        block.fibers[first + i]->state = State::runnable;
      }
      any = true;
    }
  }
  return any;
}

// Let the block go on if all its threads wait at one barrier; one at another place in the code is another.
inline bool release_block() {
  uint64_t count = 0;
  for (unsigned i = 0; i < block.threads; ++i) {
    const Fiber &first = *block.fibers[0], &fiber = *block.fibers[i];
    if (fiber.mask != 0 || !meets(first, fiber) || !(first.site == fiber.site)) return false;
    count += fiber.value != 0;
  }
  for (unsigned i = 0; i < block.threads; ++i) {
    block.fibers[i]->seen[0] = count;
    block.fibers[i]->state = State::runnable;
  }
  return true;
}

inline std::string describe_deadlock() {
  std::map<std::string, std::pair<int, std::string>> groups;
  for (unsigned i = 0; i < block.threads; ++i) {
    const Fiber& fiber = *block.fibers[i];
    const std::string where =
        fiber.state == State::exited ? "exited" : std::string("wait at ") + fiber.kind + ", " + name_of(fiber.site);
    auto& [count, example] = groups[where];
    if (count++ == 0) example = name_of(fiber.thread);
  }
  std::string text = "divergent barrier:";
  for (const auto& [where, group] : groups)
    text += " " + std::to_string(group.first) + " threads " + where + " (the first is " + group.second + ");";
  return text;
}

// Called after the declaration of each static shared variable, which the build inserts: the first thread of a block to
// get there fills it with NaN.
inline void poison(void* variable, size_t bytes) {
  for (const void* known : block.poisoned)
    if (known == variable) return;
  block.poisoned.push_back(variable);
  std::memset(variable, 0xff, bytes);
}

inline void run_block(size_t shared_bytes) {
  block.poisoned.clear();
  std::memset(block.dynamic_shared.get(), 0xff, shared_bytes);
  std::vector<unsigned> order(block.threads);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned i = 0; i < block.threads; ++i) {
    Fiber& fiber = *block.fibers[i];
    fiber.thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    fiber.state = State::runnable;
  }
  for (;;) {
    for (unsigned i = block.threads; i > 1; --i) std::swap(order[i - 1], order[block.random() % i]);
    unsigned exited = 0;
    for (const unsigned i : order) {
      Fiber& fiber = *block.fibers[i];
      if (fiber.state == State::runnable) resume(fiber);
      if (!block.failure.empty()) return;
      exited += fiber.state == State::exited;
    }
    if (exited == block.threads) return;
    if (!release_warps() && !release_block()) {
      block.failure = describe_deadlock();
      return;
    }
  }
}

template <typename... Parameters, typename Stream, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t shared_bytes, Stream,
            Arguments&&... arguments) {
  const std::lock_guard<std::mutex> guard(one_launch_at_a_time);
  last_error = launchable(reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes);
  if (last_error != cudaSuccess) return;
  auto call = std::pair{kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)};
  block.body = [](void* pair) {
    auto& [function, values] = *static_cast<decltype(call)*>(pair);
    std::apply(function, values);
  };
  block.arguments = &call;
  block.threads = threads.x * threads.y * threads.z;
  while (block.fibers.size() < block.threads) block.fibers.push_back(new_fiber());
  block.dynamic_shared.reset(std::malloc(shared_bytes));  // exactly so much, with red zones around it
  gridDim = grid;
  blockDim = threads;
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  const bool backwards = block.launches++ % 2 == 1;  // the hardware promises no order
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t at = backwards ? blocks - 1 - i : i;
    blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                static_cast<unsigned>(at / grid.x / grid.y)};
    run_block(shared_bytes);
    if (block.failure.empty()) continue;
    drop_fibers();
    throw std::runtime_error(std::string(name) + ", block " + name_of(blockIdx) + ": " +
                             std::exchange(block.failure, ""));
  }
}

}  // namespace emulator

#include "synchronization.h"
