// Threads of CUDA as fibers of one host thread: what they are, and how control passes from one to the other.
#pragma once

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "device_functions.h"

namespace emulator {

constexpr size_t kStack = 256 << 10, kPage = 4096;
constexpr unsigned kWarp = 32;

// A waiting fiber waits for threads of its block or lanes of its warp, an awaiting one for a counter, and one at the
// grid's barrier for all threads of all blocks.
enum class State { runnable, waiting, awaiting, at_grid, exited };

struct Block;

// Where control left a stack, and can come back to it. Unlike swapcontext this asks nothing of the operating system.
using Place = void* [5];

struct Fiber {
  ucontext_t start{};
  Place place{};
  bool started = false;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's, while another fiber runs
  Block* block = nullptr;
  uint3 thread{};
  State state = State::runnable;
  // What it waits for.
  const char* kind = "";
  Site site{};
  unsigned mask = 0;                  // lanes of its warp; 0 for all threads of its block
  const unsigned* counter = nullptr;  // the counter that an awaiting fiber watches
  uint64_t value = 0;                 // what it brings to a barrier, or awaits of the counter
  uint64_t seen[kWarp] = {};  // what the lanes of its warp have brought; seen[0]: in how many threads it was not 0
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// A block that has begun and not ended.
struct Block {
  int64_t number = 0;  // in the grid
  uint3 index{};
  std::vector<Fiber*> fibers;  // by thread
  std::vector<unsigned> order;
  std::unique_ptr<void, Free> shared;  // exactly so much as was asked for, with AddressSanitizer's red zones around it
  std::vector<const void*> poisoned;   // static shared variables that this block has met
};

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;  // at least as many as threads are alive; fibers are reused
  std::vector<Block> blocks;                   // those that are alive at once
  bool cooperative = false;
  Fiber* current = nullptr;
  bool in_kernel = false;  // the current fiber runs
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::string failure;
  std::mt19937 random{0};
  unsigned launches = 0;
  Place scheduler{};
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
};
inline Machine machine;

inline void* shared_memory() { return machine.current->block->shared.get(); }

inline std::string name_of(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

// AddressSanitizer would forget all that it knows of a stack before a jump that it sees.
__attribute__((noipa, no_sanitize("address"))) inline void go_to(Place place) { __builtin_longjmp(place, 1); }

// Leave the current fiber until the scheduler comes back to it.
inline void leave() {
  Fiber& self = *machine.current;
  __sanitizer_start_switch_fiber(&self.fake_stack, machine.scheduler_stack, machine.scheduler_stack_size);
  if (__builtin_setjmp(self.place) == 0) go_to(machine.scheduler);
  __sanitizer_finish_switch_fiber(self.fake_stack, &machine.scheduler_stack, &machine.scheduler_stack_size);
}

inline void resume(Fiber& fiber) {
  void* fake_stack = nullptr;
  machine.current = &fiber;
  threadIdx = fiber.thread;
  blockIdx = fiber.block->index;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack + kPage, kStack);
  machine.in_kernel = true;
  if (__builtin_setjmp(machine.scheduler) == 0) {
    if (fiber.started) go_to(fiber.place);
    fiber.started = true;
    setcontext(&fiber.start);
  }
  machine.in_kernel = false;
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

// A fiber lives on: it runs its thread of one block, and then of another.
inline void live() {
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_size);
  for (;;) {
    machine.body(machine.arguments);
    machine.current->state = State::exited;
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
  getcontext(&fiber->start);
  fiber->start.uc_stack.ss_sp = fiber->stack + kPage;
  fiber->start.uc_stack.ss_size = kStack;
  makecontext(&fiber->start, live, 0);
  fiber->start.uc_stack.ss_size = 0;  // or AddressSanitizer forgets all it knows of the stack at every switch
  return fiber;
}

// After a failure fibers are stuck in the middle of a kernel and are not used again.
inline void drop_fibers() {
  for (auto& fiber : machine.fibers) {
    __asan_unpoison_memory_region(fiber->stack + kPage, kStack);
    munmap(fiber->stack, kStack + kPage);
  }
  machine.fibers.clear();
  machine.blocks.clear();
}

[[noreturn]] inline void fail(const std::string& what, Site site) {
  machine.failure = what + " at " + name_of(site) + ", block " + name_of(blockIdx) + ", thread " + name_of(threadIdx);
  leave();
  std::abort();  // never resumed
}

// Wait for the threads of the block, or for the lanes of the warp that a mask names.
inline Fiber& wait(const char* kind, Site site, unsigned mask, uint64_t value, State state = State::waiting) {
  Fiber& self = *machine.current;
  self.kind = kind;
  self.site = site;
  self.mask = mask;
  self.value = value;
  self.state = state;
  leave();
  return self;
}

// Called after the declaration of each static shared variable, which the build inserts: the first thread of a block to
// get there fills it with NaN. Such a variable exists once, so blocks that are alive at the same time would share it.
inline void poison(void* variable, size_t bytes, Site site = Site::here()) {
  if (machine.cooperative) fail("a static __shared__ variable in a cooperative kernel (take HD_SHARED)", site);
  std::vector<const void*>& poisoned = machine.current->block->poisoned;
  for (const void* known : poisoned)
    if (known == variable) return;
  poisoned.push_back(variable);
  std::memset(variable, 0xff, bytes);
}

}  // namespace emulator
