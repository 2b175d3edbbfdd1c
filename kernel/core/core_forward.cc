// SPDX-License-Identifier: Apache-2.0
//
// Proposals that other members forward to the leader. A forwarded proposal is appended in the term in which
// it was sent, or never; so after an entry of a later term its origin may propose it again. Within a term a
// frame may be lost, too (a connection broke, a buffer was full). The origin then asks for what it has sent
// and not seen applied. What had not come, the leader gives up: it refuses it from now on, and tells the
// origin, which proposes it again under a new id. So a proposal is never appended twice.
#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"
#include "kernel/core/keys_in_order.h"

namespace keyway::core {
namespace {

constexpr uint64_t kAskAfterMs = 1000;  // Unless the connection to the leader is new.
constexpr size_t kAskedMax = 10'000;

}  // namespace

// ---- at the leader -------------------------------------------------------------------------------------

ForwardedIds& Core::ForwardedBy(uint64_t origin) {
  if (forwarded_term_ != raft_->term()) {
    forwarded_.clear();
    forwarded_term_ = raft_->term();
  }
  return forwarded_[origin];
}

void Core::OnPropose(const FrameHeader& header, Reader* reader) {
  const uint64_t term = reader->Fixed64();
  const bool configuration = reader->Byte() != 0;
  const std::string_view proposals = reader->Raw(reader->remaining());
  // Only in the term in which it was sent: the origin relies on it.
  const bool is_late = raft_->term() != term && !mutant::Is(mutant::kForwardedLate);
  if (!reader->ok() || raft_->role() != raft::Role::kLeader || is_late) return;
  Arena arena;
  Proposal proposal;
  ProposalReader check(proposals);
  std::vector<uint64_t> ids;
  ForwardedIds& forwarded = ForwardedBy(header.from);
  while (check.Next(&arena, &proposal)) {
    if (proposal.origin != header.from) return;
    if (forwarded.Knows(proposal.id) && !mutant::Is(mutant::kGivenUpTaken)) return;
    ids.push_back(proposal.id);
  }
  if (!check.ok() || ids.empty() || (configuration && ids.size() != 1) || proposals.size() > kEntryBytesMax)
    return;
  if (configuration) return ProposeMemberChange(proposal.id, proposals, header.from);
  if (raft_->Propose(SharedBytes::Copy(proposals)) == 0) return;
  for (uint64_t id : ids) {
    if (id != 0) forwarded.Take(id);  // Those without an id are not waited for.
  }
}

void Core::OnProposeQuery(uint64_t from, Reader* reader) {
  const uint64_t term = reader->Fixed64();
  const uint32_t count = reader->Fixed32();
  if (!reader->ok() || raft_->role() != raft::Role::kLeader || raft_->term() != term) return;
  if (membership_.Find(from) == nullptr || count > kAskedMax || reader->remaining() != count * 8u) return;
  ForwardedIds& forwarded = ForwardedBy(from);
  std::vector<uint64_t> lost;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t id = reader->Fixed64();
    if (!forwarded.CameOrGiveUp(id)) lost.push_back(id);
  }
  if (lost.empty()) return;
  Log(deps_.logger, KW_LOG_INFO, "proposals_lost", {{"from", HexId(from)}, {"count", lost.size()}});
  std::string head = Frame(FrameKind::kProposeLost, from);
  PutFixed64(&head, term);
  PutFixed32(&head, static_cast<uint32_t>(lost.size()));
  for (uint64_t id : lost) PutFixed64(&head, id);
  SendFrame(from, KW_LANE_CONTROL, head);
}

// ---- at the origin -------------------------------------------------------------------------------------

// Asks for proposals that were sent `older_ms` ago or earlier. On the lane on which they went, so that the
// question does not overtake them.
void Core::AskForProposals(uint64_t older_ms) {
  const uint64_t leader = raft_->leader();
  if (leader == 0 || leader == identity_.member_id || pending_.empty()) return;
  std::vector<uint64_t> ids;
  for (uint64_t id : KeysInOrder(pending_)) {
    const PendingProposal& pending = pending_.find(id)->second;
    if (pending.term != raft_->term() || !pending.member_change.empty()) continue;
    if (pending.sent_ms + older_ms > now_ms()) continue;
    ids.push_back(id);
    if (ids.size() == kAskedMax) break;
  }
  if (ids.empty()) return;
  FlushProposals();
  std::string head = Frame(FrameKind::kProposeQuery, leader);
  PutFixed64(&head, raft_->term());
  PutFixed32(&head, static_cast<uint32_t>(ids.size()));
  for (uint64_t id : ids) PutFixed64(&head, id);
  SendFrame(leader, KW_LANE_BULK, head);
}

void Core::AskForOldProposals() {
  if (now_ms() < proposals_asked_ms_ + kAskAfterMs) return;
  proposals_asked_ms_ = now_ms();
  AskForProposals(kAskAfterMs);
}

void Core::OnProposeLost(uint64_t from, Reader* reader) {
  const uint64_t term = reader->Fixed64();
  const uint32_t count = reader->Fixed32();
  if (!reader->ok() || from != raft_->leader() || term != raft_->term()) return;
  if (reader->remaining() != count * 8u) return;
  for (uint32_t i = 0; i < count; ++i) {
    auto at = pending_.find(reader->Fixed64());
    if (at == pending_.end() || at->second.term != term) continue;
    PendingProposal pending = std::move(at->second);
    pending_.erase(at);
    AddPending(std::move(pending));
  }
}

void Core::OnProposeResult(Reader* reader) {
  const uint64_t id = reader->Fixed64();
  Outcome outcome;
  outcome.code = static_cast<int32_t>(reader->Fixed32());
  outcome.detail = reader->Fixed32();
  auto at = pending_.find(id);
  if (!reader->ok() || at == pending_.end() || outcome.ok()) return;
  if (outcome.detail == KW_DETAIL_LEADER_CHANGED) {  // Not now.
    at->second.term = 0;
    unsent_.push_back(id);
    return;
  }
  kw_request* request = at->second.request;
  pending_.erase(at);
  Fail(request, outcome);
}

}  // namespace keyway::core
