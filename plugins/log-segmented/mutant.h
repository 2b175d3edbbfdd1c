// SPDX-License-Identifier: Apache-2.0
//
// As kernel/base/mutant.h, for the log: defects that the simulator must find. Nothing of it is left unless
// tests/mutants/kernel compiles this.
#pragma once

#include <string_view>

namespace keyway::log_segmented::mutant {

#define KW_LOG_MUTANTS(X)                                                                              \
  X(kNameUnsynced, "name-unsynced", "D6 #6368: the name of a new segment is not made durable")         \
  X(kTornTailRefused, "torn-tail-refused", "D7 #15069: a log that ends in a torn write does not open") \
  X(kDataUnchecked, "data-unchecked", "D7 #11924: the data of an entry is not checked")                \
  X(kDamageIsTail, "damage-is-tail", "D8: damage in the middle counts as a torn tail")                 \
  X(kSyncRetried, "sync-retried", "D9: an fdatasync that failed is tried again, and believed")         \
  X(kTailBelieved, "tail-believed", "D9: recovery believes what only the page cache has")              \
  X(kVoteAloneLost, "vote-alone-lost", "D15: a vote without entries is not written")

enum Id {
  kNone,
#define KW_MUTANT_ID(id, name, what) id,
  KW_LOG_MUTANTS(KW_MUTANT_ID)
#undef KW_MUTANT_ID
};

#ifdef KEYWAY_MUTANTS
[[gnu::used]] inline constexpr char kMark[] = "keyway: mutants are built in";
inline Id active = kNone;
inline bool Is(Id id) { return __builtin_expect(active == id, 0); }

struct Entry {
  Id id;
  std::string_view name, what;
};
inline constexpr Entry kAll[] = {
#define KW_MUTANT_ENTRY(id, name, what) {id, name, what},
    KW_LOG_MUTANTS(KW_MUTANT_ENTRY)
#undef KW_MUTANT_ENTRY
};
#else
constexpr bool Is(Id) { return false; }
#endif

}  // namespace keyway::log_segmented::mutant
