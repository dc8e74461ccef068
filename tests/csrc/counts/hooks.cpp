// Where kernels tell of their accesses. They are compiled with -fsanitize=thread, which calls a function for each
// access, and it finds those below instead of ThreadSanitizer's. This file itself is compiled without.
#include "counts.h"
#include "cuda_runtime.h"

namespace counts {

State& state() {
  static State all;
  return all;
}

namespace {

using emulator::machine;

uint32_t thread_number() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
int64_t block_number() { return machine.current->block->number; }

void accessed(const volatile void* pointer, size_t bytes, Kind kind, bool atomic, void* instruction) {
  if (!machine.in_kernel) return;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const int region = state().memory.find(address);
  if (region < 0) return;
  const auto from = reinterpret_cast<uintptr_t>(instruction);
  state().traffic.access(region, address, bytes, kind, from, thread_number());
  if (!state().watch_races) return;
  const int64_t block = block_number();
  const Stamp by = {static_cast<uint32_t>(block),
                    static_cast<uint16_t>(thread_number()),
                    atomic,
                    true,
                    state().races.tick(block),
                    from};
  const std::string wrong = state().races.access(region, address, bytes, kind, by);
  if (wrong.empty()) return;
  machine.failure = wrong;
  emulator::leave();  // never resumed
}

}  // namespace
}  // namespace counts

namespace emulator {

using counts::Kind;
using counts::state;

void on_launch(const char* kernel, bool cooperative, int64_t blocks) {
  state().traffic.begin(kernel);
  if (state().watch_races) state().races.begin(cooperative, blocks);
}

void on_turn_end() { state().traffic.end_turn(); }

void on_barrier(const Block& block) {
  if (state().watch_races) state().races.barrier(block.number);
}

void on_grid_barrier() {
  if (state().watch_races) state().races.grid_barrier();
}

void on_signal(const unsigned* counter) {
  counts::accessed(counter, sizeof(*counter), Kind::atomic, true, __builtin_return_address(0));
  if (!state().watch_races) return;
  state().races.signal(reinterpret_cast<uintptr_t>(counter), *counter, counts::block_number(), counts::thread_number());
}

void on_await(const unsigned* counter, unsigned value) {
  if (state().watch_races)
    state().races.await(reinterpret_cast<uintptr_t>(counter), value, counts::block_number(), counts::thread_number());
  counts::accessed(counter, sizeof(*counter), Kind::load, true, __builtin_return_address(0));
}

void on_atomic(const void* address, size_t bytes) {
  counts::accessed(address, bytes, Kind::atomic, true, __builtin_return_address(0));
  if (!state().watch_races) return;
  state().races.atomic(reinterpret_cast<uintptr_t>(address), counts::block_number(), counts::thread_number());
}

void on_fence() {
  if (state().watch_races) state().races.fence(counts::block_number(), counts::thread_number());
}

void on_memset(const void* address, size_t bytes) {
  const int region = state().memory.find(reinterpret_cast<uintptr_t>(address));
  if (region >= 0 && bytes > 0) state().traffic.memset(region, reinterpret_cast<uintptr_t>(address), bytes);
}

}  // namespace emulator

#define HD_ACCESS(name, bytes)                                                                 \
  void __tsan_read##name(void* address) {                                                      \
    counts::accessed(address, bytes, counts::Kind::load, false, __builtin_return_address(0));  \
  }                                                                                            \
  void __tsan_write##name(void* address) {                                                     \
    counts::accessed(address, bytes, counts::Kind::store, false, __builtin_return_address(0)); \
  }                                                                                            \
  void __tsan_unaligned_read##name(void* address) {                                            \
    counts::accessed(address, bytes, counts::Kind::load, false, __builtin_return_address(0));  \
  }                                                                                            \
  void __tsan_unaligned_write##name(void* address) {                                           \
    counts::accessed(address, bytes, counts::Kind::store, false, __builtin_return_address(0)); \
  }

extern "C" {
HD_ACCESS(1, 1)
HD_ACCESS(2, 2)
HD_ACCESS(4, 4)
HD_ACCESS(8, 8)
HD_ACCESS(16, 16)
void __tsan_read_range(void* address, unsigned long bytes) {
  counts::accessed(address, bytes, counts::Kind::load, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  counts::accessed(address, bytes, counts::Kind::store, false, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
int8_t __tsan_atomic8_load(const volatile int8_t* address, int) { return *address; }  // guards of static variables
// AddressSanitizer's, which this build goes without.
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
void __asan_unpoison_memory_region(void const volatile*, size_t) {}
}
