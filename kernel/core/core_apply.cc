// SPDX-License-Identifier: Apache-2.0
//
// Apply: committed entries into the state machine, in order. Before a proposal runs, the records that it
// needs and that are not in memory are read from the engine (prefetch, then commit): apply itself never
// does I/O and never fails half-way.
#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"

namespace keyway::core {
namespace {

// How long a removed member stays a peer, so that it can be told.
constexpr uint64_t kFarewellMs = 60'000;

}  // namespace

void Core::ApplyCommitted() {
  while (!failed_ && !apply_waiting_ && !needs_snapshot_ &&
         raft_->applied_index() < raft_->applicable_index() &&
         unwritten_->bytes() + writing_bytes_ < kUnstoredBytesMax) {
    const raft::Entry entry = raft_->EntryAt(raft_->applied_index() + 1);
    if (!ApplyEntry(entry)) return;
  }
}

bool Core::ApplyEntry(const raft::Entry& entry) {
  const bool new_term = entry.term != applied_term_;
  Arena arena;
  ProposalReader reader(entry.data.view());
  Proposal proposal;
  uint64_t position = 0;
  while (reader.Next(&arena, &proposal)) {
    if (position++ < apply_position_) continue;
    if (!ApplyProposal(entry, proposal)) {
      if (!failed_) KW_CHECK(apply_waiting_);
      return false;
    }
    apply_position_ = position;
  }
  if (!reader.ok()) {
    Fatal("entry " + std::to_string(entry.index) + " of term " + std::to_string(entry.term) +
          " cannot be decoded: it was written by an incompatible version, or is corrupt");
    return false;
  }
  apply_position_ = 0;
  applied_term_ = entry.term;
  CollectChanges();
  NoteEntryBytes(entry.index, entry.data.size());
  if (entry.kind == raft::EntryKind::kConfiguration) {
    raft_->ApplyConfiguration(membership_.Configuration());
  }
  raft_->OnApplied(entry.index);
  if (entry.kind == raft::EntryKind::kConfiguration) {
    UpdatePeers();
    if (membership_.IsRemoved(identity_.member_id) && !leaving_) Leave();
    if (failed_) return false;
  }
  if (new_term) OnEntryTerm(entry.term);
  if (deps_.on_applied) deps_.on_applied(entry.index);
  return true;
}

kw_request* Core::TakePending(const Proposal& proposal, PendingProposal* taken) {
  if (proposal.origin != identity_.member_id || proposal.id == 0) return nullptr;
  auto at = pending_.find(proposal.id);
  if (at == pending_.end()) return nullptr;
  *taken = std::move(at->second);
  pending_.erase(at);
  return taken->request;
}

bool Core::Prefetch(std::vector<mvcc::Revision> missing) {
  if (missing.empty()) return true;
  apply_waiting_ = true;
  std::vector<mvcc::Revision> revisions = missing;
  ReadRecords(std::move(missing), [this, revisions = std::move(revisions),
                                   epoch = install_epoch_](std::vector<SharedBytes> records) {
    if (epoch != install_epoch_) return;
    apply_waiting_ = false;
    if (failed_) return;
    for (size_t i = 0; i < revisions.size(); ++i) {
      if (!records[i].has_value()) {
        return Fatal("revision " + std::to_string(revisions[i].main) + " is missing from the store");
      }
      mvcc_->Provide(revisions[i], std::move(records[i]));
    }
  });
  return false;
}

bool Core::ApplyProposal(const raft::Entry& entry, const Proposal& proposal) {
  const bool want_prev = hub_->NeedsPrev();
  PendingProposal taken;
  Outcome outcome;
  switch (proposal.kind) {
    case ProposalKind::kTxn: {
      missing_.clear();
      mvcc_->MissingForTxn(proposal.txn, want_prev, &missing_);
      if (!missing_.empty()) return Prefetch(missing_);
      kw_request* request = TakePending(proposal, &taken);
      ReplyPtr reply = request != nullptr ? NewReply() : nullptr;
      outcome = mvcc_->ApplyTxn(proposal.txn, want_prev, reply.get());
      Add(metric_puts_, 1);
      if (request == nullptr) return true;
      if (outcome.ok()) {
        Finish(request, std::move(reply));
      } else {
        Fail(request, outcome);
      }
      return true;
    }
    case ProposalKind::kCompact: {
      kw_request* request = TakePending(proposal, &taken);
      outcome = mvcc_->ApplyCompact(proposal.revision);
      if (outcome.ok()) {
        compacted_saved_ = false;
        ++compactions_applied_;
        hub_->OnCompacted(mvcc_->compact_revision());
      }
      if (request == nullptr) return true;
      if (!outcome.ok()) {
        Fail(request, outcome);
      } else if ((request->flags & KW_REQ_PHYSICAL) != 0) {
        physical_compactions_.push_back(request);
      } else {
        Finish(request, NewReply());
      }
      return true;
    }
    case ProposalKind::kLeaseGrant: {
      kw_request* request = TakePending(proposal, &taken);
      outcome = leases_.Grant(proposal.lease, proposal.ttl_s, static_cast<int64_t>(now_ms()));
      if (outcome.ok() && !mutant::Is(mutant::kLeaseUnsaved)) SaveLease(proposal.lease, proposal.ttl_s, true);
      if (request == nullptr) return true;
      if (!outcome.ok()) {
        Fail(request, outcome);
        return true;
      }
      ReplyPtr reply = NewReply();
      kw_lease_info* info = reply->arena.New<kw_lease_info>();
      info->id = proposal.lease;
      info->ttl_s = proposal.ttl_s;
      reply->lease = info;
      Finish(request, std::move(reply));
      return true;
    }
    case ProposalKind::kLeaseRevoke: {
      if (!PrefetchLease(proposal.lease, want_prev)) return false;
      kw_request* request = TakePending(proposal, &taken);
      const bool revoked = RevokeLease(proposal.lease, want_prev);
      if (request == nullptr) return true;
      if (revoked) {
        Finish(request, NewReply());
      } else {
        Fail(request, Failure(KW_DETAIL_LEASE_NOT_FOUND));
      }
      return true;
    }
    case ProposalKind::kLeaseExpire: {
      // Of a deposed leader: it may have seen time that the present one has not.
      if (proposal.term != entry.term) return true;
      if (!PrefetchLease(proposal.lease, want_prev)) return false;
      RevokeLease(proposal.lease, want_prev);
      return true;
    }
    case ProposalKind::kMemberChange: {
      kw_request* request = TakePending(proposal, &taken);
      MemberChange change;
      if (!DecodeMemberChange(proposal.member_change, &change)) {
        Fatal("entry " + std::to_string(entry.index) + " holds a membership change of another version");
        return false;
      }
      if (const Member* member = membership_.Find(change.member.id);
          change.kind == ChangeKind::kRemove && member != nullptr) {
        farewells_[member->id] = {*member, now_ms() + kFarewellMs};
        unwritten_->Delete(kTableMeta, MetaPeerKey(member->id));
        remembered_.erase(member->id);
      }
      outcome = membership_.Apply(change);
      if (outcome.ok()) {
        const bool is_saved = change.kind != ChangeKind::kPromote || !mutant::Is(mutant::kPromotionUnsaved);
        if (is_saved) SaveMember(change.member.id);
        if (!change.Reconfigures()) UpdatePeers();
        if (change.Reconfigures()) {
          Log(deps_.logger, KW_LOG_INFO, "membership_changed",
              {{"member", HexId(change.member.id)},
               {"change", static_cast<uint32_t>(change.kind)},
               {"members", membership_.members().size()}});
        }
      }
      if (request == nullptr) return true;
      if (!outcome.ok()) {
        Fail(request, outcome);
        return true;
      }
      ReplyPtr reply = NewReply();
      membership_.FillReply(reply.get());
      reply->revision = 0;  // As etcd: headers of Cluster replies carry none.
      reply->new_member_id = change.member.id;
      const bool is_own = change.kind == ChangeKind::kRemove && change.member.id == identity_.member_id;
      if (is_own) {  // Done when this node may go.
        leave_request_ = request;
        leave_reply_ = std::move(reply);
        return true;
      }
      Finish(request, std::move(reply));
      return true;
    }
    case ProposalKind::kDigestMark:
      TakeDigest(entry.index);
      return true;
    case ProposalKind::kDigestVerdict:
      ApplyVerdict(proposal.verdict);
      return !failed_;
    case ProposalKind::kBootstrap: {
      if (!RestoreMembers(proposal.member_change, &membership_)) {
        Fatal("the first entry of the log, the initial members, cannot be decoded");
        return false;
      }
      SaveMember(0);
      for (const auto& [id, member] : membership_.members()) SaveMember(id);
      return true;
    }
  }
  KW_UNREACHABLE();
}

// ---- leases and members into the engine -----------------------------------------------------------

void Core::SaveLease(int64_t id, int64_t ttl_s, bool exists) {
  char key[8];
  WriteBigEndian64(key, static_cast<uint64_t>(id));
  std::string value;
  PutVarint(&value, static_cast<uint64_t>(ttl_s));
  if (exists) {
    digest_.Add(kTableLeases, {key, 8}, value);
    unwritten_->Put(kTableLeases, {key, 8}, SharedBytes::Copy(value));
  } else {
    digest_.Remove(kTableLeases, {key, 8}, value);
    unwritten_->Delete(kTableLeases, {key, 8});
  }
}

bool Core::PrefetchLease(int64_t lease, bool want_prev) {
  if (!want_prev) return true;
  std::vector<mvcc::Revision> missing;
  mvcc_->MissingForDelete(leases_.Keys(lease), want_prev, &missing);
  return Prefetch(std::move(missing));
}

bool Core::RevokeLease(int64_t lease, bool want_prev) {
  if (!leases_.Exists(lease)) return false;
  const int64_t ttl_s = leases_.GrantedTtl(lease);
  const std::vector<SharedBytes> held = leases_.Revoke(lease);
  std::vector<std::string_view> keys;
  keys.reserve(held.size());
  for (const SharedBytes& key : held) keys.push_back(key.view());
  mvcc_->ApplyDelete(keys, want_prev);
  SaveLease(lease, ttl_s, false);
  return true;
}

// The member's bytes, or their absence, and with it the cluster's.
void Core::SaveMember(uint64_t id) {
  char key[8];
  WriteBigEndian64(key, 0);
  unwritten_->Put(kTableMembers, {key, 8}, SharedBytes::Copy(membership_.EncodeCluster()));
  if (id == 0) return;
  WriteBigEndian64(key, id);
  const Member* member = membership_.Find(id);
  if (member == nullptr) {
    unwritten_->Delete(kTableMembers, {key, 8});
  } else {
    unwritten_->Put(kTableMembers, {key, 8}, SharedBytes::Copy(EncodeMember(*member)));
  }
}

// u32 count | bytes of the cluster | bytes of each member: a whole membership, for the first entry.
std::string EncodeMembers(const Membership& membership) {
  std::string out;
  PutFixed32(&out, static_cast<uint32_t>(membership.members().size()));
  PutBytes(&out, membership.EncodeCluster());
  for (const auto& [id, member] : membership.members()) PutBytes(&out, EncodeMember(member));
  return out;
}

bool RestoreMembers(std::string_view bytes, Membership* membership) {
  Reader reader(bytes);
  const uint32_t count = reader.Fixed32();
  membership->Clear();
  if (!membership->RestoreCluster(reader.Bytes())) return false;
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    if (!membership->RestoreMember(reader.Bytes())) return false;
  }
  return reader.ok() && reader.empty();
}

}  // namespace keyway::core
