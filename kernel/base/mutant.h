// SPDX-License-Identifier: Apache-2.0
//
// The bank of historic bugs: each mutant puts one defect back, so that the simulator can show that it finds
// it. Built with -DKEYWAY_MUTANTS=ON only; else Is() is false at compile time and nothing of it is left.
//
//   if (!mutant::Is(mutant::kAckBeforeSync)) WaitForTheDisk();
//
// The names are those of `keyway-sim --mutant`; the numbers D1, R8, ... those of the
// catalogue that they come from.
#pragma once

#include <string_view>

namespace keyway::mutant {

#define KW_MUTANTS(X)                                                                                     \
  X(kAppliedBeforeData, "applied-before-data", "D1: the applied index is durable before its data")        \
  X(kAckBeforeSync, "ack-before-sync", "D2: what the log has taken counts as durable")                    \
  X(kCompactionForgotten, "compaction-forgotten", "D4: a compaction counts as done when it is scheduled") \
  X(kSnapshotUnmarked, "snapshot-unmarked", "D5: a snapshot that is being installed leaves no mark")      \
  X(kStaleRead, "stale-read", "R8: a leader serves reads without asking a quorum")

enum Id {
  kNone,
#define KW_MUTANT_ID(id, name, what) id,
  KW_MUTANTS(KW_MUTANT_ID)
#undef KW_MUTANT_ID
};

#ifdef KEYWAY_MUTANTS
inline Id active = kNone;
inline bool Is(Id id) { return __builtin_expect(active == id, 0); }

// Chooses one by its name. False for an unknown one.
inline bool Choose(std::string_view name) {
#define KW_MUTANT_CHOOSE(id, text, what) \
  if (name == text) {                    \
    active = id;                         \
    return true;                         \
  }
  KW_MUTANTS(KW_MUTANT_CHOOSE)
#undef KW_MUTANT_CHOOSE
  return false;
}
#else
constexpr bool Is(Id) { return false; }
#endif

}  // namespace keyway::mutant
