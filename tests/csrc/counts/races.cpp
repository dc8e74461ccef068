#include "races.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

namespace counts {

// File and line of an instruction of this program or library.
std::string place_of(uintptr_t instruction) {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(instruction), &info) == 0) return "an unknown place";
  const uintptr_t base = reinterpret_cast<uintptr_t>(info.dli_fbase);
  char command[4096], line[4096] = "";
  std::snprintf(command, sizeof(command), "addr2line -i -e '%s' 0x%zx", info.dli_fname, instruction - 1 - base);
  FILE* pipe = popen(command, "r");
  if (pipe == nullptr) return "an unknown place";
  std::string places;
  while (std::fgets(line, sizeof(line), pipe) != nullptr) {
    std::string place = line;
    place = place.substr(place.rfind('/') + 1);
    place = place.substr(0, place.find_first_of(" \n"));
    places += (places.empty() ? "" : ", inlined at ") + place;
  }
  pclose(pipe);
  return places;
}

void View::join(const View& other) {
  before.resize(std::max(before.size(), other.before.size()));
  for (size_t i = 0; i < other.before.size(); ++i) before[i] = std::max(before[i], other.before[i]);
  for (const auto& [who, tick] : other.threads) threads[who] = std::max(threads[who], tick);
  for (auto known = threads.begin(); known != threads.end();)  // what `before` says already
    known = known->second < before[known->first.first] ? threads.erase(known) : std::next(known);
}

void Races::begin(bool cooperative, int64_t blocks) {
  cooperative_ = cooperative;
  counters_.clear();
  atomics_.clear();
  blocks_.assign(cooperative ? static_cast<size_t>(blocks) : 0, {});
  for (State& state : blocks_) state.view.before.assign(blocks_.size(), 0);
  cells_.clear();
  for (const Region& region : memory_.regions())
    cells_.emplace_back((region.end - region.begin + region.item - 1) / region.item);
}

bool Races::ordered(const Stamp& earlier, const Stamp& later) const {
  if (!earlier.any || earlier.block == later.block || (earlier.atomic && later.atomic)) return true;
  if (!cooperative_) return false;
  const auto known_by = [&](const View& view) {
    if (earlier.block < view.before.size() && earlier.tick < view.before[earlier.block]) return true;
    const auto thread = view.threads.find({earlier.block, earlier.thread});
    return thread != view.threads.end() && earlier.tick <= thread->second;
  };
  const State& state = blocks_[later.block];
  const auto self = state.threads.find(later.thread);
  return known_by(state.view) || (self != state.threads.end() && known_by(self->second.acquired));
}

std::string Races::conflict(int region, uintptr_t address, const Stamp& earlier, bool wrote, const Stamp& later,
                            Kind kind) {
  const Region& of = memory_.regions()[region];
  const auto describe = [](const Stamp& stamp, const char* what) {
    return std::string(stamp.atomic ? "an atomic access" : what) + " at " + place_of(stamp.instruction) + " (block " +
           std::to_string(stamp.block) + ", thread " + std::to_string(stamp.thread) + ")";
  };
  return "race: element " + std::to_string((address - of.begin) / of.item) + " of " + of.name + ": " +
         describe(earlier, wrote ? "a write" : "a read") + " and " +
         describe(later, kind == Kind::load ? "a read" : "a write") + " have no order";
}

std::string Races::access(int region, uintptr_t address, size_t bytes, Kind kind, const Stamp& by) {
  const Region& of = memory_.regions()[region];
  const size_t end = std::min((address + bytes - of.begin + of.item - 1) / of.item, cells_[region].size());
  for (size_t i = (address - of.begin) / of.item; i < end; ++i) {
    Cell& cell = cells_[region][i];
    const uintptr_t at = of.begin + i * of.item;
    if (!ordered(cell.write, by)) return conflict(region, at, cell.write, true, by, kind);
    if (kind == Kind::load) {
      auto own = cell.reads.rbegin();
      while (own != cell.reads.rend() && own->block != by.block) ++own;
      if (own == cell.reads.rend())
        cell.reads.push_back(by);
      else
        *own = by;
      continue;
    }
    for (const Stamp& read : cell.reads)
      if (!ordered(read, by)) return conflict(region, at, read, false, by, kind);
    cell.reads.clear();
    cell.write = by;
  }
  return "";
}

void Races::barrier(int64_t block) {
  if (!cooperative_) return;
  State& state = blocks_[block];
  for (auto& [thread, own] : state.threads) {
    state.view.join(own.acquired);
    own.acquired = {};
  }
  state.view.before[block] = ++state.tick;
}

void Races::grid_barrier() {
  View all;
  for (size_t block = 0; block < blocks_.size(); ++block) {
    barrier(static_cast<int64_t>(block));
    all.join(blocks_[block].view);
  }
  for (State& state : blocks_) state.view = all;
}

// What a release by this thread tells others.
View Races::released(int64_t block, uint32_t thread) {
  State& state = blocks_[block];
  View view = state.view;
  view.join(state.threads[thread].acquired);
  view.threads[{static_cast<uint32_t>(block), thread}] = state.tick++;
  return view;
}

void Races::signal(uintptr_t address, unsigned value, int64_t block, uint32_t thread) {
  if (!cooperative_) return;
  Counter& counter = counters_[address];
  if (counter.begin + counter.signalled.size() != value) counter = {value, {}};  // it was set anew
  View view = released(block, thread);
  if (!counter.signalled.empty()) view.join(counter.signalled.back());
  counter.signalled.push_back(std::move(view));
}

// That the counter has a value says that the signals up to that value came before, though there may be more by now.
void Races::await(uintptr_t address, unsigned value, int64_t block, uint32_t thread) {
  const Counter& counter = counters_[address];
  const size_t seen = std::min<size_t>(value - std::min(value, counter.begin), counter.signalled.size());
  if (seen > 0) blocks_[block].threads[thread].acquired.join(counter.signalled[seen - 1]);
}

void Races::fence(int64_t block, uint32_t thread) {
  if (!cooperative_) return;
  Thread& self = blocks_[block].threads[thread];
  self.acquired.join(self.observed);
  self.observed = {};
  self.fenced = released(block, thread);
}

void Races::atomic(uintptr_t address, int64_t block, uint32_t thread) {
  if (!cooperative_) return;
  Thread& self = blocks_[block].threads[thread];
  View& told = atomics_[address];
  self.observed.join(told);
  told.join(self.fenced);
}

}  // namespace counts
