// The global memory that a build that counts watches: what the arguments of a kernel name, and nothing else.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace counts {

constexpr uintptr_t kSector = 32;  // bytes that a GPU moves at least

enum class Kind { load, store, atomic };
constexpr int kKinds = 3;

struct Region {
  std::string name;
  uintptr_t begin, end;
  size_t item;          // bytes of an element
  bool streamed;        // what is stored there is the first to leave the cache
  size_t first_sector;  // sectors of all regions are numbered through

  size_t sector(uintptr_t address) const { return first_sector + (address / kSector - begin / kSector); }
};

class Memory {
 public:
  void clear() {
    regions_.clear();
    sectors_ = 0;
    low_ = UINTPTR_MAX, high_ = 0;
  }

  void add(const std::string& name, uintptr_t begin, size_t bytes, size_t item, bool streamed = false) {
    if (bytes == 0) return;
    regions_.push_back({name, begin, begin + bytes, item, streamed, sectors_});
    sectors_ += (begin + bytes - 1) / kSector - begin / kSector + 1;
    low_ = std::min(low_, begin), high_ = std::max(high_, begin + bytes);
  }

  // The number of the region that an address lies in, or -1.
  int find(uintptr_t address) const {
    if (address < low_ || address >= high_) return -1;
    for (size_t i = 0; i < regions_.size(); ++i)
      if (address >= regions_[i].begin && address < regions_[i].end) return static_cast<int>(i);
    return -1;
  }

  const std::vector<Region>& regions() const { return regions_; }
  size_t sectors() const { return sectors_; }

 private:
  std::vector<Region> regions_;
  size_t sectors_ = 0;
  uintptr_t low_ = UINTPTR_MAX, high_ = 0;
};

}  // namespace counts
