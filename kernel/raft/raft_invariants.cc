// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/raft_invariants.h"

#include <algorithm>

namespace keyway::raft {
namespace {

std::string Text(const char* what, NodeId node, uint64_t term, uint64_t index) {
  return std::string(what) + ": node " + std::to_string(node) + ", term " + std::to_string(term) +
         ", index " + std::to_string(index);
}

}  // namespace

std::string RaftInvariants::Check(const std::vector<const Raft*>& nodes) {
  for (const Raft* node : nodes) {
    if (std::string error = CheckNode(*node); !error.empty()) return error;
  }
  // After all nodes: what one of them has committed binds every later leader.
  for (const Raft* node : nodes) {
    if (node->role() != Role::kLeader) continue;
    if (std::string error = CheckLeader(*node); !error.empty()) return error;
  }
  std::vector<bool> changed;
  for (const Raft* node : nodes) changed.push_back(LogChanged(*node));
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (size_t j = i + 1; j < nodes.size(); ++j) {
      if (!changed[i] && !changed[j]) continue;
      if (std::string error = CheckLogMatching(*nodes[i], *nodes[j]); !error.empty()) return error;
    }
  }
  return "";
}

std::string RaftInvariants::CheckNode(const Raft& node) {
  Seen& seen = seen_[node.id()];
  if (node.term() < seen.term) return Text("term fell", node.id(), node.term(), 0);
  if (node.commit_index() < seen.commit) {
    return Text("commit fell", node.id(), node.term(), node.commit_index());
  }
  if (node.commit_index() > node.last_index() || node.applied_index() > node.commit_index() ||
      node.first_index() > node.applied_index() + 1) {
    return Text("indexes out of order", node.id(), node.term(), node.commit_index());
  }
  const uint64_t begin = std::max(seen.commit + 1, node.first_index());
  for (uint64_t index = begin; index <= node.commit_index(); ++index) {
    const uint64_t entry_term = *node.TermAt(index);
    auto [at, is_new] = committed_.try_emplace(index, Committed{entry_term, node.term()});
    if (at->second.entry_term != entry_term) {
      return Text("another entry is committed", node.id(), entry_term, index);
    }
    at->second.seen_in_term = std::min(at->second.seen_in_term, node.term());
  }
  seen.term = node.term();
  seen.commit = node.commit_index();
  return "";
}

std::string RaftInvariants::CheckLeader(const Raft& node) {
  auto [leader, is_new] = leaders_.try_emplace(node.term(), node.id());
  if (leader->second != node.id()) return Text("two leaders", node.id(), node.term(), 0);
  Seen& seen = seen_[node.id()];
  if (seen.leader_checked_term == node.term()) return "";  // Checked when it was elected.
  seen.leader_checked_term = node.term();
  for (auto at = committed_.lower_bound(node.first_index()); at != committed_.end(); ++at) {
    if (at->second.seen_in_term >= node.term()) continue;
    if (node.TermAt(at->first) != at->second.entry_term) {
      return Text("a leader lacks a committed entry", node.id(), node.term(), at->first);
    }
  }
  return "";
}

// A log changes only together with its end or with the term.
bool RaftInvariants::LogChanged(const Raft& node) {
  const LogEnd now{node.first_index(), node.last_index(), node.TermAt(node.last_index()), node.term()};
  LogEnd& before = log_ends_[node.id()];
  if (now == before) return false;
  before = now;
  return true;
}

std::string RaftInvariants::CheckLogMatching(const Raft& a, const Raft& b) {
  const uint64_t begin = std::max(a.first_index(), b.first_index()) - 1;
  bool agreed = false;
  for (uint64_t index = std::min(a.last_index(), b.last_index()) + 1; index-- > begin;) {
    const bool agrees = a.TermAt(index) == b.TermAt(index);
    if (agreed && !agrees) return Text("logs differ below an equal entry", a.id(), b.id(), index);
    agreed = agreed || agrees;
    if (index == 0) break;
  }
  return "";
}

}  // namespace keyway::raft
