// Finds two blocks of one launch that touch the same memory in no order, one of them writing.
//
// Blocks of a plain launch have no order. Those of a cooperative launch have the one that signal and await, fences
// around atomics, and grid_sync give them, by the rules of the memory model of PTX and not by what happened to come
// first. Within a block nothing is looked for.
//
// A block counts ticks: one more at each of its barriers and releases. What a thread knows is, of each other block, the
// tick before which all that block's accesses come before its own next one, and single threads of which it knows more.
#pragma once

#include <map>
#include <unordered_map>

#include "memory.h"

namespace counts {

struct View {
  std::vector<uint32_t> before;                               // by block: what any of its threads did before this tick
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> threads;  // by block and thread: up to this tick
  void join(const View& other);
};

// Who accessed last.
struct Stamp {
  uint32_t block = 0;
  uint16_t thread = 0;
  bool atomic = false, any = false;
  uint32_t tick = 0;
  uintptr_t instruction = 0;
};

class Races {
 public:
  explicit Races(const Memory& memory) : memory_(memory) {}
  void begin(bool cooperative, int64_t blocks);
  // Returns what is wrong, or nothing.
  std::string access(int region, uintptr_t address, size_t bytes, Kind kind, const Stamp& by);
  uint32_t tick(int64_t block) const { return cooperative_ ? blocks_[block].tick : 0; }

  void barrier(int64_t block);
  void grid_barrier();
  void signal(uintptr_t counter, unsigned value, int64_t block, uint32_t thread);
  void await(uintptr_t counter, unsigned value, int64_t block, uint32_t thread);
  void fence(int64_t block, uint32_t thread);
  void atomic(uintptr_t address, int64_t block, uint32_t thread);

 private:
  struct Thread {
    View acquired;  // since the last barrier of the block
    View fenced;    // what the last fence of this thread releases
    View observed;  // by atomics since the last fence
  };
  struct State {
    uint32_t tick = 1;
    View view;  // of all threads of the block
    std::map<uint32_t, Thread> threads;
  };
  struct Cell {
    Stamp write;
    std::vector<Stamp> reads;  // since the last write, one a block
  };
  struct Counter {
    unsigned begin = 0;           // its value before the first signal
    std::vector<View> signalled;  // by each signal and those before it
  };
  View released(int64_t block, uint32_t thread);
  bool ordered(const Stamp& earlier, const Stamp& later) const;
  std::string conflict(int region, uintptr_t address, const Stamp& earlier, bool wrote, const Stamp& later, Kind kind);

  const Memory& memory_;
  bool cooperative_ = false;
  std::vector<State> blocks_;
  std::vector<std::vector<Cell>> cells_;  // by region and element
  std::unordered_map<uintptr_t, Counter> counters_;
  std::unordered_map<uintptr_t, View> atomics_;
};

std::string place_of(uintptr_t instruction);

}  // namespace counts
