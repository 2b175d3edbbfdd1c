// SPDX-License-Identifier: Apache-2.0
//
// Majorities (Raft paper, section 5.2; dissertation 4.2.1: learners do not count).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "kernel/raft/types.h"

namespace keyway::raft {

constexpr size_t QuorumSize(size_t voter_count) { return voter_count / 2 + 1; }

// One value for each voter; no allocation up to nine voters.
using VoterValues = absl::InlinedVector<uint64_t, 9>;

// The largest value that a majority has reached. 0 without voters: nothing is ever agreed.
inline uint64_t QuorumValue(VoterValues values) {
  if (values.empty()) return 0;
  auto nth = values.begin() + static_cast<ptrdiff_t>(QuorumSize(values.size()) - 1);
  std::nth_element(values.begin(), nth, values.end(), std::greater<uint64_t>());
  return *nth;
}

enum class VoteResult : uint8_t { kPending, kWon, kLost };

// The answers to one election. The first answer of a voter stands, except that a grant replaces a
// refusal (PreVote is asked again while it is unanswered).
class VoteTally {
 public:
  void Clear() { votes_.clear(); }
  void Record(NodeId voter, bool granted) {
    for (auto& [id, value] : votes_) {
      if (id == voter) {
        value = value || granted;
        return;
      }
    }
    votes_.emplace_back(voter, granted);
  }
  bool Answered(NodeId voter) const {
    return std::any_of(votes_.begin(), votes_.end(), [&](auto& vote) { return vote.first == voter; });
  }
  VoteResult Result(const std::vector<NodeId>& voters) const {
    size_t granted = 0;
    size_t refused = 0;
    for (const auto& [id, value] : votes_) {
      if (!std::binary_search(voters.begin(), voters.end(), id)) continue;
      ++(value ? granted : refused);
    }
    const size_t quorum = QuorumSize(voters.size());
    if (granted >= quorum) return VoteResult::kWon;
    if (voters.size() - refused < quorum) return VoteResult::kLost;
    return VoteResult::kPending;
  }

 private:
  absl::InlinedVector<std::pair<NodeId, bool>, 9> votes_;
};

}  // namespace keyway::raft
