// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/raft_checker.h"

#include <algorithm>
#include <utility>

namespace keyway::sim {

void RaftChecker::Violate(const char* what, size_t slot, uint64_t term, uint64_t index) {
  if (!violation_.empty()) return;
  violation_ = std::string(what) + ": node " + std::to_string(slot + 1) + ", term " + std::to_string(term) +
               ", index " + std::to_string(index);
}

void RaftChecker::OnEntry(size_t slot, uint64_t index, uint64_t term, uint64_t term_before, uint32_t crc32c) {
  const auto [at, is_new] = entries_.try_emplace({index, term}, Content{term_before, crc32c});
  if (is_new) return;
  if (at->second.term_before != term_before) {
    Violate("log matching: the entry before differs", slot, term, index);
  } else if (at->second.crc32c != crc32c) {
    Violate("log matching: the entry itself differs", slot, term, index);
  }
}

void RaftChecker::OnConfiguration(size_t slot, const core::Core& core, uint64_t index, uint64_t term) {
  if (core.raft() == nullptr) return;
  const raft::Raft& raft = *core.raft();
  const uint64_t before = std::exchange(seen_[slot].configuration_index, index);
  if (raft.role() != raft::Role::kLeader || term != raft.term()) return;
  if (!raft.committed_in_term()) Violate("a change of members before a commit", slot, term, index);
  if (before < index && before > raft.applied_index()) {
    Violate("a change of members while another one is under way", slot, term, index);
  }
}

void RaftChecker::OnStored(size_t slot, const core::Applied& applied, const LogShadow* log) {
  if (log != nullptr && applied.index > log->last_index()) {
    Violate("the engine is ahead of the node's own log", slot, applied.term, applied.index);
  }
  if (!applied.compacted || applied.index == 0) return;
  CheckState("state machine safety: what is stored is of another state", slot, applied.term, applied.index,
             applied.digest, applied.revision);
}

void RaftChecker::CheckState(const char* what, size_t slot, uint64_t term, uint64_t index, uint64_t digest,
                             int64_t revision) {
  if (index > states_.size()) states_.resize(index);
  State& known = states_[index - 1];
  if (!known.is_known) {
    known = {digest, revision, true};
  } else if (known.digest != digest || known.revision != revision) {
    Violate(what, slot, term, index);
  }
}

void RaftChecker::OnApplied(size_t slot, const core::Core& core, uint64_t index) {
  if (!core.digest_is_final()) return;
  CheckState("state machine safety: the digests differ", slot, core.raft()->term(), index, core.digest(),
             core.mvcc().revision());
}

void RaftChecker::OnMessage(size_t slot, const core::Core& core, const raft::Message& message,
                            const LogShadow& log) {
  if (message.reject || core.raft() == nullptr) return;
  // Of a term that is over by now nothing can be seen any more.
  if (log.hard_state.term > message.term) return;
  if (message.kind == raft::MessageKind::kVoteResponse) {
    if (log.hard_state.term == message.term && log.hard_state.vote == message.to) return;
    Violate("a vote is told before it is durable", slot, message.term, 0);
  } else if (message.kind == raft::MessageKind::kAppendResponse) {
    // What is applied may have come by a snapshot, and the log not yet say so.
    if (message.index <= std::max(log.last_index(), core.raft()->applied_index())) return;
    Violate("an entry is acknowledged before it is durable", slot, message.term, message.index);
  }
}

void RaftChecker::CheckLeader(size_t slot, const raft::Raft& raft,
                              const std::function<const LogShadow*(uint64_t)>& log_of) {
  Seen& seen = seen_[slot];
  if (raft.role() != raft::Role::kLeader || seen.leader_term == raft.term()) return;
  seen.leader_term = raft.term();
  const auto [leader, is_new] = leaders_.try_emplace(raft.term(), slot);
  if (leader->second != slot) Violate("election safety: two leaders", slot, raft.term(), 0);
  const LogShadow* log = log_of(raft.id());
  if (log != nullptr && (log->hard_state.term != raft.term() || log->hard_state.vote != raft.id())) {
    Violate("a leader's own vote is not durable", slot, raft.term(), 0);
  }
  for (uint64_t index = raft.applied_index() + 1; index <= raft.commit_index(); ++index) {
    const raft::Entry& entry = raft.EntryAt(index);
    if (entry.kind != raft::EntryKind::kConfiguration || entry.term == raft.term()) continue;
    Violate("elected with a change of members that is not applied", slot, raft.term(), index);
  }
  for (size_t i = committed_.size(); i-- > 0;) {
    if (committed_[i].term == 0 || committed_[i].seen_in_term >= raft.term()) continue;
    const uint64_t index = i + 1;
    if (index >= raft.first_index() && raft.TermAt(index) != committed_[i].term) {
      Violate("leader completeness: a committed entry is missing", slot, raft.term(), index);
    }
    break;
  }
}

void RaftChecker::CheckCommit(size_t slot, const raft::Raft& raft, const std::vector<raft::NodeId>& before,
                              const std::function<const LogShadow*(uint64_t)>& log_of) {
  Seen& seen = seen_[slot];
  const uint64_t commit = raft.commit_index();
  const bool is_first = commit > committed_.size();
  for (uint64_t index = std::max(seen.commit + 1, raft.first_index()); index <= commit; ++index) {
    const std::optional<uint64_t> term = raft.TermAt(index);
    if (!term.has_value()) continue;
    if (committed_.size() < index) committed_.resize(index);
    Committed& known = committed_[index - 1];
    if (known.term == 0) known = {*term, raft.term()};
    known.seen_in_term = std::min(known.seen_in_term, raft.term());
    if (known.term != *term) {
      Violate("state machine safety: another entry was committed", slot, *term, index);
    }
  }
  // The first entry, of the first configuration, is committed by every founder for itself.
  if (!is_first || commit == 1 || commit > committed_.size()) return;
  const uint64_t term = committed_[commit - 1].term;
  const auto is_durable = [&](const std::vector<raft::NodeId>& voters) {
    size_t count = 0;
    for (raft::NodeId voter : voters) {
      const LogShadow* log = log_of(voter);
      if (log != nullptr && (log->base_index >= commit || log->Has(commit, term))) ++count;
    }
    return count > voters.size() / 2;
  };
  // The configuration may have changed within the turn.
  if (!is_durable(raft.configuration().voters) && !is_durable(before)) {
    Violate("committed is durable: no majority has acknowledged it", slot, raft.term(), commit);
  }
}

void RaftChecker::CheckDurable(size_t slot, const raft::Raft& raft, const LogShadow& log) {
  const uint64_t durable = raft.durable_index();
  // After a snapshot its base counts, which the log may not have been told yet.
  if (durable < raft.first_index() || log.Has(durable, raft.TermAt(durable).value_or(0))) return;
  Violate("durable is durable: the log has not acknowledged it", slot, raft.term(), durable);
}

void RaftChecker::OnTurn(size_t slot, const core::Core& core, const LogShadow& log,
                         const std::function<const LogShadow*(uint64_t)>& log_of) {
  if (core.raft() == nullptr) return;
  const raft::Raft& raft = *core.raft();
  Seen& seen = seen_[slot];
  if (raft.term() < seen.term) Violate("the term fell", slot, raft.term(), 0);
  if (raft.commit_index() < seen.commit)
    Violate("the commit index fell", slot, raft.term(), raft.commit_index());
  if (raft.applied_index() < seen.applied) {
    Violate("the applied index fell", slot, raft.term(), raft.applied_index());
  }
  if (raft.commit_index() > seen.commit) {
    CheckCommit(slot, raft, seen.voters, log_of);
    // Paper 5.4.2; of a leader that was one before this turn.
    const bool leads = raft.role() == raft::Role::kLeader && seen.leader_term == raft.term();
    if (leads && raft.TermAt(raft.commit_index()).value_or(raft.term()) != raft.term()) {
      Violate("an entry of an older term was committed by counting", slot, raft.term(), raft.commit_index());
    }
  }
  CheckDurable(slot, raft, log);
  CheckLeader(slot, raft, log_of);
  if (raft.applied_index() != seen.applied) seen.digest_due = true;
  seen.term = raft.term();
  seen.commit = raft.commit_index();
  seen.applied = raft.applied_index();
  if (seen.voters != raft.configuration().voters) seen.voters = raft.configuration().voters;
  if (seen.digest_due && core.digest_is_final() && seen.applied != 0) {
    seen.digest_due = false;
    if (core.membership().Configuration() != raft.configuration()) {
      Violate("the members are not those that the log says", slot, raft.term(), seen.applied);
    }
    // Not only of entries: a compaction has ended, or a snapshot has been installed.
    OnApplied(slot, core, seen.applied);
  }
}

}  // namespace keyway::sim
