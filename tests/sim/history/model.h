// SPDX-License-Identifier: Apache-2.0
//
// A model of etcd's put, range, delete and txn on a VersionedMap. Written after etcd's description and
// server/etcdserver/txn, not after kernel/mvcc, so that it can disagree with it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tests/sim/history/order.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

struct Answer {
  uint32_t error = 0;  // KW_DETAIL_ of a txn that fails for its state; then all else is empty.
  bool succeeded = false;
  std::vector<OpResult> results;
  std::vector<WatchEvent> changes;  // At revision base + 1, in order.
};

// Runs `txn` on the state at revision `base`, which is the current one; changes nothing.
Answer RunModel(const VersionedMap& map, const Txn& txn, int64_t base);
// What a range gives at `revision`.
OpResult RunRange(const VersionedMap& map, const Op& op, int64_t revision);
// Deletes of all `keys`, which exist and are sorted, at revision base + 1.
std::vector<WatchEvent> DeleteKeys(const VersionedMap& map, const std::vector<std::string>& keys,
                                   int64_t base);

// Whether this reply tells of a change.
bool HasWritten(const Request& request, const Response& response);
// The least and the greatest revision > 0 that a range of the txn, in any branch, asks for; 0: none.
void FindRangeRevisions(const Txn& txn, int64_t* least, int64_t* greatest);

}  // namespace keyway::sim
