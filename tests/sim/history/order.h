// SPDX-License-Identifier: Apache-2.0
//
// The order of changes that a history shows: for each revision what it changed and who did it, and every
// version of every key. Built by CheckStrict() from replies and observed events.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/history/types.h"

namespace keyway::sim {

// Key ranges as everywhere: an empty `end` is the single key, one byte 0 every key >= key.
bool InRange(std::string_view key, std::string_view begin, std::string_view end);

// Every version of every key; versions are only added, at ascending revisions.
class VersionedMap {
 public:
  struct Version {
    bool is_delete = false;
    KeyValue pair;
  };
  using Versions = std::vector<Version>;

  // The version of the key that is visible at `revision`; null if there is none or it is a delete.
  const KeyValue* At(std::string_view key, int64_t revision) const;
  // All of the range at `revision`, in key order; the pointers are valid until the next Add().
  std::vector<const KeyValue*> Range(std::string_view begin, std::string_view end, int64_t revision) const;
  // With pair.mod_revision the revision; several of one key at one revision: the last one is visible.
  void Add(KeyValue pair, bool is_delete);
  const Versions* Find(std::string_view key) const;

 private:
  std::map<std::string, Versions, std::less<>> keys_;
};

enum class Writer : uint8_t {
  kOperation,    // `operation` is its index in History::operations.
  kLeaseExpiry,  // Of `lease`; nobody asked for it.
};

// One revision.
struct Revision {
  Writer writer = Writer::kOperation;
  size_t operation = 0;
  int64_t lease = 0;  // That this ended, by expiry or revocation; 0: none.
  // Whether nobody else can have been it: false if both the end of a lease and a delete of unknown outcome
  // explain the changes.
  bool lease_is_certain = true;
  std::vector<WatchEvent> changes;  // In order, with prev.
};

struct Order {
  VersionedMap map;
  std::vector<Revision> revisions;              // That of revision r at r - kFirstRevision.
  static constexpr int64_t kFirstRevision = 2;  // The empty store is at 1.
  int64_t last() const { return static_cast<int64_t>(revisions.size()) + kFirstRevision - 1; }
  const Revision& at(int64_t revision) const {
    return revisions[static_cast<size_t>(revision - kFirstRevision)];
  }
  // The least time at which revision r may have existed is the call of its writer; for an expiry: of what
  // attached its last key. Index as `revisions`; ascending.
  std::vector<int64_t> not_before_ns;
  // The latest time at which revision r may have been made: the first answer or event that shows it or a
  // later one; kNever if there is none. Index as `revisions`; ascending.
  std::vector<int64_t> not_after_ns;
};

}  // namespace keyway::sim
