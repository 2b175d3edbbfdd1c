// SPDX-License-Identifier: Apache-2.0
//
// Requests: admission and checks, proposals on their way to the leader's log, and what becomes of them.
//
// A proposal carries its origin and an id. The term in which it was handed to the leader is kept: once
// an entry of a later term is applied, no entry of the older term can follow any more, so a proposal of
// it that was not applied by then is lost for certain and is proposed again. A client thus never sees a
// change of leader as an error, and a write is never applied twice.
#include <cstring>

#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"
#include "kernel/core/keys_in_order.h"

namespace keyway::core {
namespace {

bool HasPut(const kw_txn& txn);

bool HasPut(const kw_op* ops, size_t count) {
  return std::any_of(ops, ops + count, [](const kw_op& op) {
    return op.kind == KW_OP_PUT || (op.kind == KW_OP_TXN && HasPut(*op.txn));
  });
}
bool HasPut(const kw_txn& txn) {
  return HasPut(txn.then_ops, txn.then_count) || HasPut(txn.else_ops, txn.else_count);
}

bool IsReadOnly(const kw_txn& txn) {
  auto all_ranges = [](const kw_op* ops, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (ops[i].kind != KW_OP_RANGE) return false;
    }
    return true;
  };
  return all_ranges(txn.then_ops, txn.then_count) && all_ranges(txn.else_ops, txn.else_count);
}

template <typename T>
const T& As(const kw_request* request) {
  return *reinterpret_cast<const T*>(request);
}

}  // namespace

ReplyPtr Core::NewReply() const {
  ReplyPtr reply(Reply::New());
  reply->cluster_id = identity_.cluster_id;
  reply->member_id = identity_.member_id;
  reply->raft_term = raft_ == nullptr ? 0 : raft_->term();
  reply->revision = mvcc_->revision();
  return reply;
}

void Core::Finish(kw_request* request, ReplyPtr reply) {
  --waiting_requests_;
  request->done(request, KW_OK, nullptr, reply.release());
}

void Core::Fail(kw_request* request, Outcome outcome, std::string_view text) {
  KW_CHECK(!outcome.ok());
  --waiting_requests_;
  kw_error error{};
  error.size = sizeof error;
  error.code = outcome.code;
  error.detail = outcome.detail;
  const size_t length = std::min(text.size(), sizeof(error.text) - 1);
  if (length != 0) std::memcpy(error.text, text.data(), length);
  request->done(request, outcome.code, &error, nullptr);
}

void Core::OnRequest(kw_request* request) {
  ++waiting_requests_;
  if (failed_ || shutting_down_ || leaving_) return Fail(request, Failure(KW_DETAIL_STOPPED));
  if (request->deadline_ns != 0 && request->deadline_ns <= now_ns_) {
    return Fail(request, {KW_DEADLINE_EXCEEDED, 0}, "context deadline exceeded");
  }
  if (request->kind == KW_REQ_STATUS) return RunStatus(request);
  if (waiting_requests_ > kRequestsWaitingMax) {
    return Fail(request, Failure(KW_DETAIL_TOO_MANY_REQUESTS));
  }
  if (raft_ == nullptr) return Fail(request, Failure(KW_DETAIL_NO_LEADER));
  const bool serializable = (request->flags & KW_REQ_SERIALIZABLE) != 0;
  if (!raft_->IsVoter() && !(request->kind == KW_REQ_RANGE && serializable)) {
    return Fail(request, Failure(KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER));
  }
  Admit(request);
}

// As etcd's quota, but by the bytes in use: what compaction frees can be used at once, without a
// defragmentation. Checked by the member that takes the request, so members may differ for a moment.
bool Core::IsOverQuota() const {
  return config_.quota_bytes != 0 &&
         store_live_bytes_ + unwritten_->bytes() + writing_bytes_ >= config_.quota_bytes;
}

void Core::Admit(kw_request* request) {
  const bool serializable = (request->flags & KW_REQ_SERIALIZABLE) != 0;
  switch (request->kind) {
    case KW_REQ_RANGE: {
      Outcome outcome = mvcc::Mvcc::CheckRange(As<kw_range_request>(request).range);
      if (!outcome.ok()) return Fail(request, outcome);
      return serializable ? RunRead(request) : QueueRead(request);
    }
    case KW_REQ_TXN: {
      const auto& txn = As<kw_txn_request>(request);
      Outcome outcome =
          mvcc::Mvcc::CheckTxn(txn.txn, (txn.txn_flags & KW_TXN_PLAIN) != 0, config_.txn_ops_max);
      if (!outcome.ok()) return Fail(request, outcome);
      if (HasPut(txn.txn) && IsOverQuota()) return Fail(request, Failure(KW_DETAIL_NO_SPACE));
      if (!IsReadOnly(txn.txn)) return Propose(request);
      return serializable ? RunRead(request) : QueueRead(request);
    }
    case KW_REQ_LEASE_GRANT:
      if (As<kw_lease_request>(request).ttl_s > kLeaseTtlMaxSeconds) {
        return Fail(request, Failure(KW_DETAIL_LEASE_TTL_TOO_LARGE));
      }
      if (IsOverQuota()) return Fail(request, Failure(KW_DETAIL_NO_SPACE));
      return Propose(request);
    case KW_REQ_COMPACT:
    case KW_REQ_LEASE_REVOKE:
    case KW_REQ_MEMBER_ADD:
    case KW_REQ_MEMBER_REMOVE:
    case KW_REQ_MEMBER_UPDATE:
    case KW_REQ_MEMBER_PROMOTE:
      return Propose(request);
    case KW_REQ_LEASE_KEEP_ALIVE:
    case KW_REQ_LEASE_TIME_TO_LIVE:
      if (raft_->role() == raft::Role::kLeader || mutant::Is(mutant::kFollowerAnswersLease)) {
        return QueueRead(request);
      }
      return ForwardLease(request);
    case KW_REQ_LEASE_LIST:
      return RunRead(request);
    case KW_REQ_MEMBER_LIST:
      return serializable ? RunRead(request) : QueueRead(request);
    case KW_REQ_HASH_KV:
      return RunHash(request);
    case KW_REQ_MOVE_LEADER:
      return RunMoveLeader(request);
    default:
      return Fail(request, {KW_UNIMPLEMENTED, 0}, "this kernel does not know the request kind");
  }
}

// ---- proposals -----------------------------------------------------------------------------------

void Core::Propose(kw_request* request) {
  if (raft_->commit_index() > raft_->applied_index() + kApplyLagMax) {
    return Fail(request, Failure(KW_DETAIL_TOO_MANY_REQUESTS));
  }
  PendingProposal pending{.request = request};
  if (request->kind == KW_REQ_LEASE_GRANT) {
    const auto& grant = As<kw_lease_request>(request);
    pending.lease = grant.id;
    while (pending.lease == 0 || (grant.id == 0 && leases_.Exists(pending.lease))) {
      pending.lease = static_cast<int64_t>(random_() & INT64_MAX);
    }
    // etcd's minimum: ceil(1.5 election timeouts), in seconds.
    const int64_t ttl_min_s =
        (static_cast<int64_t>(config_.election_ticks) * 3 / 2 * config_.tick_ms + 999) / 1000;
    pending.ttl_s = std::max(grant.ttl_s, ttl_min_s);
  } else if (request->kind >= KW_REQ_MEMBER_ADD && request->kind <= KW_REQ_MEMBER_PROMOTE) {
    const auto& member = As<kw_member_request>(request);
    MemberChange change;
    change.member.id = member.id;
    for (size_t i = 0; i < member.peer_url_count; ++i) {
      change.member.peer_urls.emplace_back(ToView(member.peer_urls[i]));
    }
    switch (request->kind) {
      case KW_REQ_MEMBER_ADD:
        change.kind = member.is_learner != 0 ? ChangeKind::kAddLearner : ChangeKind::kAdd;
        change.member.is_learner = member.is_learner != 0;
        break;
      case KW_REQ_MEMBER_REMOVE:
        change.kind = ChangeKind::kRemove;
        break;
      case KW_REQ_MEMBER_UPDATE:
        change.kind = ChangeKind::kUpdateUrls;
        break;
      default:
        change.kind = ChangeKind::kPromote;
    }
    if (request->kind != KW_REQ_MEMBER_ADD && member.id == 0) {
      return Fail(request, Failure(KW_DETAIL_MEMBER_NOT_FOUND));
    }
    if (change.kind == ChangeKind::kAdd || change.kind == ChangeKind::kAddLearner ||
        change.kind == ChangeKind::kUpdateUrls) {
      Outcome outcome = NormalizeUrls(&change.member.peer_urls);
      if (!outcome.ok()) return Fail(request, outcome);
    }
    if (request->kind == KW_REQ_MEMBER_ADD) {
      change.member.id = membership_.NewMemberId(change.member.peer_urls, random_());
    }
    pending.member_change = EncodeMemberChange(change);
  }
  AddPending(std::move(pending));
}

// Under a new id.
void Core::AddPending(PendingProposal pending) {
  const uint64_t id = next_proposal_id_++;
  auto [at, inserted] = pending_.emplace(id, std::move(pending));
  KW_CHECK(inserted);
  deadlines_.emplace_back(now_ms() + 5000 + 2 * config_.election_ticks * config_.tick_ms, id);
  SendProposal(id, &at->second);
}

bool Core::EncodeProposal(uint64_t id, PendingProposal* pending, std::string* out) {
  const kw_request* request = pending->request;
  const uint64_t origin = identity_.member_id;
  const size_t start = out->size();
  switch (request->kind) {
    case KW_REQ_TXN: {
      const auto& txn = As<kw_txn_request>(request);
      EncodeTxnProposal(origin, id, txn.txn, (txn.txn_flags & KW_TXN_PLAIN) != 0, out);
      break;
    }
    case KW_REQ_COMPACT:
      EncodeCompactProposal(origin, id, As<kw_compact_request>(request).revision, out);
      break;
    case KW_REQ_LEASE_GRANT:
      EncodeLeaseProposal(origin, id, ProposalKind::kLeaseGrant, pending->lease, pending->ttl_s, out);
      break;
    case KW_REQ_LEASE_REVOKE:
      EncodeLeaseProposal(origin, id, ProposalKind::kLeaseRevoke, As<kw_lease_request>(request).id, 0, out);
      break;
    default:
      EncodeMemberProposal(origin, id, ProposalKind::kMemberChange, pending->member_change, out);
  }
  if (out->size() - start <= config_.request_bytes_max) return true;
  out->resize(start);
  return false;
}

void Core::SendProposal(uint64_t id, PendingProposal* pending) {
  pending->term = 0;
  pending->sent_ms = now_ms();
  const bool leader = raft_->role() == raft::Role::kLeader;
  if (raft_->leader() == 0 || (leader && raft_->transferring())) {
    unsent_.push_back(id);
    return;
  }
  if (!pending->member_change.empty()) {
    std::string proposal;
    EncodeProposal(id, pending, &proposal);
    pending->term = raft_->term();
    if (leader) return ProposeMemberChange(id, proposal, identity_.member_id);
    std::string head = Frame(FrameKind::kPropose, raft_->leader());
    PutFixed64(&head, raft_->term());
    head.push_back(1);
    return SendFrame(raft_->leader(), KW_LANE_CONTROL, head, proposal);
  }
  if (!EncodeProposal(id, pending, &batch_)) {
    kw_request* request = pending->request;
    pending_.erase(id);
    return Fail(request, Failure(KW_DETAIL_REQUEST_TOO_LARGE));
  }
  pending->term = raft_->term();
  batch_ids_.push_back(id);
  if (batch_.size() >= kProposalBatchBytes) FlushProposals();
}

void Core::FlushProposals() {
  if (batch_.empty()) return;
  bool sent = false;
  if (raft_->role() == raft::Role::kLeader) {
    sent = raft_->Propose(SharedBytes::Copy(batch_)) != 0;
  } else if (raft_->leader() != 0) {
    std::string head = Frame(FrameKind::kPropose, raft_->leader());
    PutFixed64(&head, raft_->term());
    head.push_back(0);
    SendFrame(raft_->leader(), KW_LANE_BULK, head, batch_);
    sent = true;
  }
  for (uint64_t id : batch_ids_) {
    auto at = pending_.find(id);
    if (at == pending_.end()) continue;
    at->second.term = sent ? raft_->term() : 0;
    if (!sent) unsent_.push_back(id);
  }
  batch_ids_.clear();
  batch_.clear();
  if (batch_.capacity() > 2 * kProposalBatchBytes) batch_.shrink_to_fit();
}

void Core::RetryProposals() {
  if (unsent_.empty() || raft_->leader() == 0) return;
  std::deque<uint64_t> ids;
  ids.swap(unsent_);
  for (uint64_t id : ids) {
    auto at = pending_.find(id);
    if (at != pending_.end() && at->second.term == 0) SendProposal(id, &at->second);
  }
}

void Core::OnEntryTerm(uint64_t term) {
  for (uint64_t id : KeysInOrder(pending_)) {
    PendingProposal& pending = pending_.find(id)->second;
    if (pending.term != 0 && pending.term < term) {
      pending.term = 0;
      unsent_.push_back(id);
    }
  }
  RetryProposals();
}

Outcome Core::CheckMemberChange(const MemberChange& change) const {
  Outcome outcome = membership_.Check(change);
  if (!outcome.ok() || !change.Reconfigures()) return outcome;
  outcome = membership_.CheckStarted(change);
  if (!outcome.ok()) return outcome;
  const std::vector<raft::PeerProgress> progress = raft_->progress();
  size_t active = raft_->IsVoter() ? 1 : 0;
  for (const raft::PeerProgress& peer : progress) {
    if (!peer.is_learner && peer.recently_active && peer.id != change.member.id) ++active;
    if (change.kind == ChangeKind::kPromote && peer.id == change.member.id &&
        (!peer.recently_active || peer.match_index * 10 < raft_->last_index() * 9)) {
      return Failure(KW_DETAIL_LEARNER_NOT_READY);
    }
  }
  // The change must not be able to stop the cluster: a quorum of the voters that remain is there.
  size_t voters = raft_->configuration().voters.size();
  if (change.kind == ChangeKind::kRemove) {
    const Member* member = membership_.Find(change.member.id);
    if (member != nullptr && member->is_learner) return {};
    if (change.member.id == identity_.member_id) --active;
    --voters;
  }
  if (voters > 0 && active < voters / 2 + 1) return Failure(KW_DETAIL_UNHEALTHY_CLUSTER);
  return {};
}

// Leader: `proposal` is the encoded one, of this member or of `origin`.
void Core::ProposeMemberChange(uint64_t id, std::string_view proposal, uint64_t origin) {
  Arena arena;
  Proposal decoded;
  ProposalReader reader(proposal);
  MemberChange change;
  if (!reader.Next(&arena, &decoded) || decoded.kind != ProposalKind::kMemberChange ||
      !DecodeMemberChange(decoded.member_change, &change)) {
    return;  // Malformed, from a peer.
  }
  Outcome outcome = CheckMemberChange(change);
  if (outcome.ok()) {
    const SharedBytes data = SharedBytes::Copy(proposal);
    const uint64_t index = change.Reconfigures() ? raft_->ProposeConfiguration(data) : raft_->Propose(data);
    if (index != 0) return;
    // Not now: an earlier change is under way, or this leader has not committed anything yet.
    if (origin == identity_.member_id) {
      auto at = pending_.find(id);
      if (at == pending_.end()) return;
      at->second.term = 0;
      unsent_.push_back(id);
      return;
    }
    outcome = {KW_UNAVAILABLE, KW_DETAIL_LEADER_CHANGED};  // The origin sends again.
  }
  if (origin != identity_.member_id) {
    std::string head = Frame(FrameKind::kProposeResult, origin);
    PutFixed64(&head, id);
    PutFixed32(&head, static_cast<uint32_t>(outcome.code));
    PutFixed32(&head, outcome.detail);
    return SendFrame(origin, KW_LANE_CONTROL, head);
  }
  auto at = pending_.find(id);
  if (at == pending_.end()) return;
  kw_request* request = at->second.request;
  pending_.erase(at);
  if (request != nullptr) Fail(request, outcome);
}

void Core::ExpireRequests() {
  while (!deadlines_.empty() && deadlines_.front().first <= now_ms()) {
    auto at = pending_.find(deadlines_.front().second);
    deadlines_.pop_front();
    if (at == pending_.end()) continue;
    const bool leader_failed = at->second.term == 0 || at->second.term != raft_->term();
    kw_request* request = at->second.request;
    pending_.erase(at);
    Add(metric_proposals_failed_, 1);
    Fail(request, Failure(leader_failed ? KW_DETAIL_TIMEOUT_LEADER_FAILED : KW_DETAIL_TIMEOUT));
  }
  const uint64_t timeout_ms = 5000 + 2 * config_.election_ticks * config_.tick_ms;
  auto expire = [&](ReadBatch* batch) {
    if (batch->requests.empty() && batch->waiters.empty()) return;
    if (batch->started_ms + timeout_ms > now_ms()) return;
    Add(metric_slow_reads_failed_, 1);
    for (kw_request* request : batch->requests) Fail(request, Failure(KW_DETAIL_TIMEOUT));
    std::vector<std::function<void(bool)>> waiters = std::move(batch->waiters);
    batch->requests.clear();
    batch->waiters.clear();
    for (auto& waiter : waiters) waiter(false);
  };
  expire(&gathering_);
  if (asked_.has_value()) expire(&*asked_);
  for (ReadBatch& batch : confirmed_) expire(&batch);
  for (auto at = lease_forwards_.begin(); at != lease_forwards_.end();) {
    LeaseForward& forward = at->second;
    if (forward.deadline_ms <= now_ms()) {
      Fail(forward.request, Failure(KW_DETAIL_TIMEOUT));
      at = lease_forwards_.erase(at);
      continue;
    }
    if (forward.sent_ms + 500 <= now_ms()) {
      forward.sent_ms = now_ms();
      SendLeaseQuery(at->first, forward);
    }
    ++at;
  }
  if (move_leader_ != nullptr) {
    if (raft_->leader() == move_leader_target_) {
      Finish(std::exchange(move_leader_, nullptr), NewReply());
    } else if (move_leader_deadline_ms_ <= now_ms()) {
      Fail(std::exchange(move_leader_, nullptr), Failure(KW_DETAIL_TIMEOUT_LEADER_FAILED));
    }
  }
}

// ---- what the node proposes by itself -----------------------------------------------------------

// Tells the cluster our name, client URLs and the incarnation of our data directory.
void Core::PublishSelf() {
  if (raft_->leader() == 0 || needs_snapshot_) return;
  const Member* self = membership_.Find(identity_.member_id);
  if (self == nullptr) return;
  std::vector<std::string> client_urls = config_.advertise_client_urls;
  if (!client_urls.empty() && !NormalizeUrls(&client_urls).ok()) client_urls.clear();
  if (self->name == config_.name && self->client_urls == client_urls &&
      self->incarnation == identity_.incarnation) {
    return;
  }
  if (self->incarnation != 0 && self->incarnation != identity_.incarnation) {
    return Fatal("member " + HexId(identity_.member_id) + " has started before with another data directory");
  }
  if (publish_sent_ && now_ms() < publish_ms_ + 1000) return;
  publish_sent_ = true;
  publish_ms_ = now_ms();
  MemberChange change;
  change.kind = ChangeKind::kPublish;
  change.member = *self;
  change.member.name = config_.name;
  change.member.client_urls = client_urls;
  change.member.incarnation = identity_.incarnation;
  EncodeMemberProposal(identity_.member_id, 0, ProposalKind::kMemberChange, EncodeMemberChange(change),
                       &batch_);
}

void Core::ExpireLeases() {
  if (raft_->role() != raft::Role::kLeader || !raft_->committed_in_term() || raft_->transferring()) {
    return;
  }
  constexpr size_t kLeasesPerTick = 10000;
  FlushProposals();  // These go into entries of their own, never to another leader.
  for (int64_t lease : leases_.Expired(static_cast<int64_t>(now_ms()), kLeasesPerTick)) {
    EncodeExpireProposal(raft_->term(), lease, &batch_);
    if (batch_.size() >= kProposalBatchBytes) FlushProposals();
  }
  FlushProposals();
}

// ---- requests that are answered at once -----------------------------------------------------------

void Core::RunStatus(kw_request* request) {
  ReplyPtr reply = NewReply();
  kw_status* status = reply->arena.New<kw_status>();
  status->size = sizeof *status;
  kw_kv_stats stats{};
  stats.size = sizeof stats;
  kw_error error{};
  error.size = sizeof error;
  if (deps_.store->stats(deps_.store_plugin, &stats, &error) == KW_OK) {
    status->db_bytes = stats.disk_bytes;
    status->db_bytes_in_use = stats.live_bytes;
  }
  status->db_bytes_quota = config_.quota_bytes;
  kw_slice* errors = reply->arena.NewArray<kw_slice>(1);
  status->errors = errors;
  if (raft_ != nullptr) {
    status->leader = raft_->leader();
    status->raft_index = raft_->commit_index();
    status->raft_term = raft_->term();
    status->raft_applied_index = raft_->applied_index();
    status->is_learner = raft_->IsVoter() ? 0 : 1;
  }
  if (status->leader == 0) {
    errors[0] = ToSlice("etcdserver: no leader");
    status->error_count = 1;
  }
  reply->status = status;
  Finish(request, std::move(reply));
}

void Core::RunMoveLeader(kw_request* request) {
  if (raft_->role() != raft::Role::kLeader) return Fail(request, Failure(KW_DETAIL_NOT_LEADER));
  const uint64_t target = As<kw_member_request>(request).id;
  const Member* member = membership_.Find(target);
  if (member == nullptr || member->is_learner || move_leader_ != nullptr) {
    return Fail(request, Failure(KW_DETAIL_BAD_LEADER_TRANSFEREE));
  }
  if (target == identity_.member_id) return Finish(request, NewReply());
  move_leader_ = request;
  move_leader_target_ = target;
  move_leader_deadline_ms_ = now_ms() + 2 * config_.election_ticks * config_.tick_ms;
  raft_->TransferLeadership(target);
}

}  // namespace keyway::core
