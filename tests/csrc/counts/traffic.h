// How many 32-byte sectors the warps of a kernel ask for, and how many of them come from memory.
//
// On the hardware the lanes of a warp ask at once, here one after the other. What one instruction does in the lanes of
// a warp between two barriers is put together: the n-th time of each lane with the n-th time of the others.
#pragma once

#include <unordered_map>

#include "memory.h"

namespace counts {

// What one kernel does to one tensor, in one way.
struct Tally {
  int64_t instructions = 0;  // of warps
  int64_t lanes = 0;         // that took part in them
  int64_t bytes = 0;         // that the lanes asked for
  int64_t sectors = 0;       // that the warps asked for
  int64_t unique = 0;        // different ones among those
};

struct Row {
  std::string kernel;
  int region;
  Tally kinds[kKinds];
};

// The last-level cache: it keeps the sectors used last, and writes a changed one back when it gives it up.
class Cache {
 public:
  void reset(size_t sectors, size_t capacity);
  // Returns whether it had to be read from memory. If it comes in now as a streamed one, it is the next to leave.
  bool touch(size_t sector, bool write, bool streamed = false);
  // Calls back for every sector that is written to memory, from the last reset on.
  template <typename Written>
  void flush(Written written) {
    for (size_t i = 0; i < written_.size(); ++i) {
      const int times = written_[i] + (entries_[i].cached && entries_[i].changed ? 1 : 0);
      if (times > 0) written(i, times);
    }
  }

 private:
  struct Entry {
    uint32_t newer = 0, older = 0;
    bool cached = false, changed = false;
  };
  void unlink(uint32_t i);
  void link(uint32_t i);
  void link_oldest(uint32_t i);

  std::vector<Entry> entries_;  // one more than sectors: a ring whose last entry is its head
  std::vector<int> written_;
  size_t capacity_ = 0, cached_ = 0;
};

class Traffic {
 public:
  explicit Traffic(const Memory& memory) : memory_(memory) {}
  void reset(size_t cache_bytes);
  void begin(const std::string& kernel);
  void access(int region, uintptr_t address, size_t bytes, Kind kind, uintptr_t instruction, uint32_t thread);
  void memset(int region, uintptr_t address, size_t bytes);
  void end_turn();

  const std::vector<Row>& rows() const { return rows_; }
  std::vector<int64_t> read() const { return read_; }  // bytes from memory, by region
  std::vector<int64_t> written();                      // and to it

 private:
  struct Access {
    uint64_t group;  // warp and instruction
    uint32_t nth;    // time of this instruction in its thread
    uint32_t step;   // of its thread
    uintptr_t address;
    uint16_t bytes;
    int16_t region;
    Kind kind;
  };
  struct Thread {
    uint32_t steps = 0;
    std::unordered_map<uintptr_t, uint32_t> times;  // by instruction
  };
  Row& row_of(int region);
  void count(const Access* first, const Access* last);

  const Memory& memory_;
  std::vector<Row> rows_;
  size_t kernel_begins_ = 0;  // first row of the current kernel
  std::string kernel_;
  std::vector<uint8_t> seen_;  // by sector, bits of the kinds in which the current kernel asked for it
  std::vector<Access> turn_;
  std::unordered_map<uint32_t, Thread> threads_;
  std::vector<int64_t> read_;
  Cache cache_;
};

}  // namespace counts
