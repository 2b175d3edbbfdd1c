// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/progress.h"

#include <algorithm>
#include <utility>

#include "kernel/base/check.h"

namespace keyway::raft {

void Inflights::Add(uint64_t last_index, size_t bytes) {
  KW_CHECK(!Full());
  if (count_ == ring_.size()) Grow();
  const size_t mask = ring_.size() - 1;
  KW_CHECK(count_ == 0 || ring_[(begin_ + count_ - 1) & mask].last_index < last_index);
  ring_[(begin_ + count_) & mask] = {last_index, bytes};
  ++count_;
  bytes_ += bytes;
}

void Inflights::Grow() {
  std::vector<Sent> larger(std::max<size_t>(8, ring_.size() * 2));
  for (size_t i = 0; i < count_; ++i) larger[i] = ring_[(begin_ + i) & (ring_.size() - 1)];
  ring_ = std::move(larger);
  begin_ = 0;
}

void Inflights::FreeTo(uint64_t index) {
  while (count_ > 0 && ring_[begin_].last_index <= index) {
    bytes_ -= ring_[begin_].bytes;
    begin_ = (begin_ + 1) & (ring_.size() - 1);
    --count_;
  }
}

void Inflights::Clear() {
  begin_ = 0;
  count_ = 0;
  bytes_ = 0;
}

void Progress::BecomeProbe() {
  state = ProgressState::kProbe;
  next = match + 1;
  sent_commit = 0;
  paused = false;
  probe_now = false;
  inflights.Clear();
}

void Progress::BecomeReplicate() {
  BecomeProbe();
  state = ProgressState::kReplicate;
}

void Progress::BecomeSnapshot() {
  BecomeProbe();
  state = ProgressState::kSnapshot;
}

bool Progress::OnMatch(uint64_t index) {
  const bool grew = index > match;
  if (grew) match = index;
  next = std::max(next, index + 1);
  return grew;
}

bool Progress::OnReject(uint64_t rejected, uint64_t hint) {
  switch (state) {
    case ProgressState::kReplicate:
      if (rejected <= match) return false;
      BecomeProbe();
      next = std::max(std::min(rejected, hint + 1), match + 1);
      return true;
    case ProgressState::kProbe:
      if (rejected + 1 != next) return false;
      next = std::max(std::min(rejected, hint + 1), match + 1);
      paused = false;
      return true;
    case ProgressState::kSnapshot:
      return false;
  }
  KW_UNREACHABLE();
}

void Progress::OnLostLog(uint64_t hint) {
  match = 0;
  BecomeProbe();
  next = hint + 1;
}

}  // namespace keyway::raft
