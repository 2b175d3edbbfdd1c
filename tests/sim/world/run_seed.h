// SPDX-License-Identifier: Apache-2.0
//
// One seed, from the drawing of its swarm to the verdict of all checkers.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/world/swarm.h"

namespace keyway::sim {

struct RunOptions {
  uint64_t seed = 1;
  bool trace = false;
  std::string history_file;  // JSON lines go there, if not empty.
};

struct RunResult {
  std::string failure;  // "" or what is wrong.
  uint64_t trace_hash = 0;
  uint64_t virtual_ns = 0;
  uint64_t operations = 0, operations_ok = 0;
  uint64_t faults = 0, entries = 0, terms = 0, events = 0;
};

RunResult RunSeed(const RunOptions& options, const Swarm& swarm);
// Of the seed that runs now, for whoever must tell where it ended: 0 if none does.
uint64_t RunningVirtualNs();

}  // namespace keyway::sim
