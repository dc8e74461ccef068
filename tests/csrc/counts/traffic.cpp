#include "traffic.h"

#include <algorithm>
#include <tuple>

namespace counts {

void Cache::reset(size_t sectors, size_t capacity) {
  entries_.assign(sectors + 1, {});
  written_.assign(sectors, 0);
  entries_[sectors].newer = entries_[sectors].older = static_cast<uint32_t>(sectors);
  capacity_ = capacity, cached_ = 0;
}

void Cache::unlink(uint32_t i) {
  entries_[entries_[i].newer].older = entries_[i].older;
  entries_[entries_[i].older].newer = entries_[i].newer;
}

void Cache::link(uint32_t i) {
  const auto head = static_cast<uint32_t>(written_.size());
  entries_[i].newer = head;
  entries_[i].older = entries_[head].older;
  entries_[entries_[head].older].newer = i;
  entries_[head].older = i;  // the newest: the ring goes from the head to older ones
}

void Cache::link_oldest(uint32_t i) {
  const auto head = static_cast<uint32_t>(written_.size());
  entries_[i].older = head;
  entries_[i].newer = entries_[head].newer;
  entries_[entries_[head].newer].older = i;
  entries_[head].newer = i;
}

bool Cache::touch(size_t sector, bool write, bool streamed) {
  const auto i = static_cast<uint32_t>(sector);
  const bool missed = !entries_[i].cached;
  if (missed) {
    if (cached_ == capacity_) {
      const uint32_t oldest = entries_[written_.size()].newer;
      unlink(oldest);
      written_[oldest] += entries_[oldest].changed;
      entries_[oldest].cached = entries_[oldest].changed = false;
    } else {
      ++cached_;
    }
    entries_[i].cached = true;
  } else {
    unlink(i);
  }
  if (missed && streamed)
    link_oldest(i);
  else
    link(i);
  entries_[i].changed |= write;
  return missed && !write;
}

void Traffic::reset(size_t cache_bytes) {
  rows_.clear();
  turn_.clear();
  threads_.clear();
  read_.assign(memory_.regions().size(), 0);
  cache_.reset(memory_.sectors(), cache_bytes / kSector);
}

void Traffic::begin(const std::string& kernel) {
  kernel_ = kernel;
  kernel_begins_ = rows_.size();
  seen_.assign(memory_.sectors(), 0);
}

Row& Traffic::row_of(int region) {
  for (size_t i = kernel_begins_; i < rows_.size(); ++i)
    if (rows_[i].region == region) return rows_[i];
  rows_.push_back({kernel_, region, {}});
  return rows_.back();
}

void Traffic::access(int region, uintptr_t address, size_t bytes, Kind kind, uintptr_t instruction, uint32_t thread) {
  Thread& self = threads_[thread];
  const uint32_t nth = self.times[instruction * kKinds + static_cast<int>(kind)]++;
  turn_.push_back({static_cast<uint64_t>(thread / 32) << 48 ^ instruction, nth, self.steps++, address,
                   static_cast<uint16_t>(bytes), static_cast<int16_t>(region), kind});
}

void Traffic::memset(int region, uintptr_t address, size_t bytes) {
  const Region& of = memory_.regions()[region];
  for (size_t i = of.sector(address); i <= of.sector(address + bytes - 1); ++i) cache_.touch(i, true);
}

// Count what some lanes of a warp do at once.
void Traffic::count(const Access* first, const Access* last) {
  const Region& region = memory_.regions()[first->region];
  Tally& tally = row_of(first->region).kinds[static_cast<int>(first->kind)];
  std::vector<size_t> sectors;
  for (const Access* access = first; access != last; ++access) {
    tally.bytes += access->bytes;
    const uintptr_t end = std::min(access->address + access->bytes, region.end);
    for (size_t i = region.sector(access->address); i <= region.sector(end - 1); ++i) sectors.push_back(i);
  }
  std::sort(sectors.begin(), sectors.end());
  sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
  ++tally.instructions;
  tally.lanes += last - first;
  tally.sectors += static_cast<int64_t>(sectors.size());
  const auto bit = static_cast<uint8_t>(1 << static_cast<int>(first->kind));
  for (const size_t i : sectors) {
    tally.unique += (seen_[i] & bit) == 0;
    seen_[i] |= bit;
    if (first->kind == Kind::atomic) read_[first->region] += kSector * cache_.touch(i, false);
    read_[first->region] +=
        kSector * cache_.touch(i, first->kind != Kind::load, first->kind == Kind::store && region.streamed);
  }
}

void Traffic::end_turn() {
  const auto key = [](const Access& a) { return std::tie(a.group, a.nth, a.kind, a.region); };
  std::sort(turn_.begin(), turn_.end(), [&](const Access& a, const Access& b) {
    return std::tie(a.group, a.nth, a.kind, a.region, a.step) < std::tie(b.group, b.nth, b.kind, b.region, b.step);
  });
  std::vector<std::pair<const Access*, const Access*>> groups;
  for (const Access *first = turn_.data(), *end = first + turn_.size(), *last; first != end; first = last) {
    for (last = first; last != end && key(*last) == key(*first);) ++last;
    groups.emplace_back(first, last);
  }
  // The warps of a block advance together.
  std::stable_sort(groups.begin(), groups.end(), [](auto& a, auto& b) { return a.first->step < b.first->step; });
  for (const auto& [first, last] : groups) count(first, last);
  turn_.clear();
  threads_.clear();
}

std::vector<int64_t> Traffic::written() {
  std::vector<int64_t> bytes(memory_.regions().size(), 0);
  cache_.flush([&](size_t sector, int times) {
    size_t region = 0;
    while (region + 1 < bytes.size() && memory_.regions()[region + 1].first_sector <= sector) ++region;
    bytes[region] += static_cast<int64_t>(kSector) * times;
  });
  return bytes;
}

}  // namespace counts
