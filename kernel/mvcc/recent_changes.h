// SPDX-License-Identifier: Apache-2.0
//
// The newest changes, in order: those that the engine does not have yet, and before them as many as a
// bound of bytes allows, for watches.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "kernel/mvcc/mvcc.h"

namespace keyway::mvcc {

class RecentChanges {
 public:
  explicit RecentChanges(size_t bytes_max) : bytes_max_(bytes_max) {}

  void Append(Change change);
  // Copies of what was appended since the last call.
  std::vector<Change> Take();
  // Changes up to `main` need not be kept any longer.
  void OnStored(int64_t main);
  // Forgets all; the next change has a main revision above `main`.
  void Reset(int64_t main);
  // The record of exactly this revision, or no value.
  SharedBytes Find(Revision revision) const;

  const std::deque<Change>& changes() const { return changes_; }
  // Every change from this main revision on is here.
  int64_t from() const { return from_; }
  size_t bytes() const { return bytes_; }

 private:
  // Changes dropped at most at a time, so that a huge one of the past is no stall.
  static constexpr size_t kDroppedMax = 256;

  static size_t BytesOf(const Change& change);
  void Shrink();

  const size_t bytes_max_;
  std::deque<Change> changes_;
  size_t bytes_ = 0;
  size_t untaken_ = 0;  // At the end of changes_.
  int64_t stored_main_ = 0;
  int64_t from_ = 2;
};

}  // namespace keyway::mvcc
