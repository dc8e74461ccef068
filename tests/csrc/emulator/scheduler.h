// Which fiber runs next, and when those that wait may go on.
//
// A block runs in turns. In a turn each of its threads that can run does so once, in an order shuffled anew, until it
// must wait; when none can run, barriers that are complete let go. Where several blocks are alive, one is chosen at
// random for some turns, so that blocks overtake each other, by little or by much. A build that counts chooses for one
// turn, since on the hardware they advance together.
#pragma once

#include <algorithm>
#include <map>
#include <utility>

#include "fibers.h"

namespace emulator {

inline bool meets(const Fiber& a, const Fiber& b) {
  return a.state == State::waiting && b.state == State::waiting && a.mask == b.mask && std::strcmp(a.kind, b.kind) == 0;
}

// Let go on the warps, or parts of one, all of whose lanes have arrived.
inline bool release_warps(Block& block) {
  bool any = false;
  for (size_t first = 0; first < block.fibers.size(); first += kWarp) {
    Fiber** const warp = &block.fibers[first];
    for (unsigned lane = 0; lane < kWarp && first + lane < block.fibers.size(); ++lane) {
      const Fiber& leader = *warp[lane];  // the last lane of the mask decides for all
      const unsigned mask = leader.mask;
      if (leader.state != State::waiting || mask == 0 || mask >> lane >> 1 != 0) continue;
      bool complete = true;
      for (unsigned i = 0; i <= lane; ++i) complete &= (mask >> i & 1u) == 0 || meets(leader, *warp[i]);
      if (!complete) continue;
      uint64_t values[kWarp] = {};
      for (unsigned i = 0; i <= lane; ++i) values[i] = warp[i]->value;
      for (unsigned i = 0; i <= lane; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        std::memcpy(warp[i]->seen, values, sizeof(values));
        warp[i]->state = State::runnable;
      }
      any = true;
    }
  }
  return any;
}

// Let the block go on if all its threads wait at one barrier; one at another place in the code is another.
inline bool release_block(Block& block) {
  uint64_t count = 0;
  const Fiber& first = *block.fibers[0];
  for (const Fiber* fiber : block.fibers) {
    if (fiber->mask != 0 || !meets(first, *fiber) || !(first.site == fiber->site)) return false;
    count += fiber->value != 0;
  }
  for (Fiber* fiber : block.fibers) {
    fiber->seen[0] = count;
    fiber->state = State::runnable;
  }
  on_barrier(block);
  return true;
}

// The same for the barrier of the grid.
inline bool release_grid() {
  const Fiber& first = *machine.blocks[0].fibers[0];
  for (const Block& block : machine.blocks)
    for (const Fiber* fiber : block.fibers)
      if (fiber->state != State::at_grid || !(fiber->site == first.site)) return false;
  for (Block& block : machine.blocks)
    for (Fiber* fiber : block.fibers) fiber->state = State::runnable;
  on_grid_barrier();
  return true;
}

inline bool is_ready(Fiber& fiber) {
  if (fiber.state == State::awaiting && *fiber.counter >= fiber.value) fiber.state = State::runnable;
  return fiber.state == State::runnable;
}

// Returns whether any thread could run.
inline bool take_turn(Block& block) {
  const auto any_ready = [&] {
    return std::count_if(block.fibers.begin(), block.fibers.end(), [](Fiber* fiber) { return is_ready(*fiber); }) > 0;
  };
  if (!any_ready() && !release_warps(block) && !release_block(block)) return false;
  for (size_t i = block.order.size(); i > 1; --i) std::swap(block.order[i - 1], block.order[machine.random() % i]);
  for (const unsigned i : block.order) {
    if (block.fibers[i]->state == State::runnable) resume(*block.fibers[i]);
    if (!machine.failure.empty()) return false;
  }
  on_turn_end();
  return true;
}

inline std::string describe_deadlock() {
  std::map<std::string, std::pair<int, std::string>> groups;
  for (const Block& block : machine.blocks) {
    for (const Fiber* fiber : block.fibers) {
      std::string where = "exited";
      if (fiber->state != State::exited) where = std::string("wait at ") + fiber->kind + ", " + name_of(fiber->site);
      if (fiber->state == State::awaiting)
        where += ", for " + std::to_string(fiber->value) + " of a counter that is " + std::to_string(*fiber->counter);
      auto& [count, example] = groups[where];
      if (count++ == 0) example = "thread " + name_of(fiber->thread) + " of block " + name_of(block.index);
    }
  }
  std::string text = machine.cooperative ? "deadlock:" : "divergent barrier:";
  for (const auto& [where, group] : groups)
    text += " " + std::to_string(group.first) + " threads " + where + " (the first is " + group.second + ");";
  return text;
}

inline bool has_exited(const Block& block) {
  return std::all_of(block.fibers.begin(), block.fibers.end(),
                     [](Fiber* fiber) { return fiber->state == State::exited; });
}

// Run the blocks that are alive until all of them end or machine.failure says why they do not.
inline void run_blocks() {
  std::vector<Block*> candidates, stuck;
  for (Block& block : machine.blocks) candidates.push_back(&block);
  for (;;) {
    if (candidates.empty()) {
      if (std::all_of(machine.blocks.begin(), machine.blocks.end(), has_exited)) return;
      if (!release_grid()) {
        machine.failure = describe_deadlock();
        return;
      }
      candidates.swap(stuck);
    }
    const size_t chosen = machine.random() % candidates.size();
    Block& block = *candidates[chosen];
    unsigned turns = kCounted ? 1u : 1u << machine.random() % 8;
    bool moved = false, can_run = true;
    for (; can_run && turns > 0; --turns) moved |= can_run = take_turn(block);
    if (!machine.failure.empty()) return;
    if (moved) {  // others may have waited for what this block has done
      candidates.insert(candidates.end(), stuck.begin(), stuck.end());
      stuck.clear();
    }
    if (can_run) continue;
    candidates.erase(candidates.begin() + static_cast<ptrdiff_t>(chosen));
    stuck.push_back(&block);
  }
}

}  // namespace emulator
