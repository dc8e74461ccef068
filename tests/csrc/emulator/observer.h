// What a build that counts (tests/csrc/counts) is told of a launch. To any other build it is nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

struct Block;
struct Fiber;

#ifdef HD_COUNTED
constexpr bool kCounted = true;
void on_launch(const char* kernel, bool cooperative, int64_t blocks);
void on_turn_end();                                      // of one block
void on_barrier(const Block& block);                     // all its threads have met
void on_grid_barrier();                                  // all threads of all blocks have met
void on_signal(const unsigned* counter);                 // a release, by the current thread
void on_await(const unsigned* counter, unsigned value);  // an acquire that has seen the counter reach the value
void on_atomic(const void* address, size_t bytes);       // relaxed
void on_fence();                                         // __threadfence
void on_memset(const void* address, size_t bytes);       // by the host
#else
constexpr bool kCounted = false;
inline void on_launch(const char*, bool, int64_t) {}
inline void on_turn_end() {}
inline void on_barrier(const Block&) {}
inline void on_grid_barrier() {}
inline void on_signal(const unsigned*) {}
inline void on_await(const unsigned*, unsigned) {}
inline void on_atomic(const void*, size_t) {}
inline void on_fence() {}
inline void on_memset(const void*, size_t) {}
#endif

}  // namespace emulator
