// What a build that counts keeps: the memory that it watches, and the tallies.
#pragma once

#include "races.h"
#include "traffic.h"

namespace counts {

struct State {
  bool watch_races = false;
  Memory memory;
  Traffic traffic{memory};
  Races races{memory};
};
State& state();

}  // namespace counts
