// SPDX-License-Identifier: Apache-2.0
//
// Roles and terms (Raft paper, section 5.1), the dispatch of messages, and the output: what waits for
// durability and what does not.
#include "kernel/raft/raft.h"

#include <algorithm>
#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/raft/raft_impl.h"
#include "keyway/crc32c.h"

namespace keyway::raft {
namespace {

// Terms and indexes above this are nonsense; below it no sum overflows.
constexpr uint64_t kNumberMax = uint64_t{1} << 62;

Options WithDefaults(Options options) {
  KW_CHECK(options.id != 0);
  options.election_ticks = std::max<uint32_t>(options.election_ticks, 1);
  options.heartbeat_ticks = std::max<uint32_t>(options.heartbeat_ticks, 1);
  if (options.append_bytes_max == 0) options.append_bytes_max = kAppendMessageBytesMax;
  if (options.inflight_bytes_max == 0) options.inflight_bytes_max = kInflightBytesMax;
  if (options.inflight_messages_max == 0) options.inflight_messages_max = kInflightMessagesMax;
  return options;
}

uint64_t InitialCommit(const InitialState& state) {
  return std::max(state.applied,
                  std::min(state.hard_state.commit, state.base_index + uint64_t{state.entries.size()}));
}

Configuration Normalized(Configuration configuration) {
  for (std::vector<NodeId>* ids : {&configuration.voters, &configuration.learners}) {
    std::sort(ids->begin(), ids->end());
    ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  }
  return configuration;
}

bool IsFromLeader(MessageKind kind) {
  return kind == MessageKind::kAppend || kind == MessageKind::kHeartbeat || kind == MessageKind::kTimeoutNow;
}

}  // namespace

Raft::Impl::Impl(const Options& options, InitialState state)
    : options_(WithDefaults(options)),
      random_state_(options.random_seed ^ (options.id * 0x9E3779B97F4A7C15u)),
      term_(state.hard_state.term),
      vote_(state.hard_state.vote),
      log_(state.base_index, state.base_term, std::move(state.entries), InitialCommit(state), state.applied,
           options.cache_bytes),
      configuration_(Normalized(std::move(state.configuration))),
      promised_index_(state.promised_index),
      promised_term_(state.promised_term),
      issued_(state.hard_state),
      saved_commit_(state.hard_state.commit) {
  KW_CHECK(term_ >= log_.last_term());
  forward_round_ = Random(uint64_t{1} << 48) + 1;
  ResetElectionTimer();
  CheckPromise();
}

// ---- roles and terms ----

bool Raft::Impl::IsVoter(NodeId id) const {
  return std::binary_search(configuration_.voters.begin(), configuration_.voters.end(), id);
}

// SplitMix64.
uint64_t Raft::Impl::Random(uint64_t bound) {
  uint64_t z = (random_state_ += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return (z ^ (z >> 31)) % bound;
}

void Raft::Impl::ResetElectionTimer() {
  election_elapsed_ = 0;
  election_timeout_ = options_.election_ticks + static_cast<uint32_t>(Random(options_.election_ticks));
}

// A leader was heard within the minimum election timeout (dissertation, 4.2.3).
bool Raft::Impl::InLease() const { return leader_ != 0 && election_elapsed_ < options_.election_ticks; }

bool Raft::Impl::MayCampaign() const {
  return IsVoter() && !needs_snapshot_ && !IsBehindPromise() &&
         (log_.UnappliedConfiguration() == 0 || mutant::Is(mutant::kCampaignUnapplied));
}

bool Raft::Impl::IsBehindPromise() const { return promised_term_ != 0; }

// The promise is kept as soon as the durable log is at least as up to date as the lost one was.
void Raft::Impl::CheckPromise() {
  if (promised_term_ == 0) return;
  const uint64_t index = log_.durable_index();
  const uint64_t term = log_.TermAt(index).value_or(0);
  if (term < promised_term_ || (term == promised_term_ && index < promised_index_)) return;
  promised_index_ = 0;
  promised_term_ = 0;
}

// The election restriction (Raft paper, 5.4.1).
bool Raft::Impl::MayVoteFor(uint64_t last_index, uint64_t last_term) const {
  if (promised_term_ > last_term || (promised_term_ == last_term && promised_index_ > last_index)) {
    return false;
  }
  return log_.IsUpToDate(last_index, last_term);
}

void Raft::Impl::SetLeader(NodeId leader) {
  if (leader == leader_) return;
  FailForwardedReads();
  leader_ = leader;
  if (leader != 0) yielded_ = false;
}

void Raft::Impl::BecomeFollower(uint64_t term, NodeId leader) {
  KW_CHECK(term >= term_);
  if (term > term_) {
    FailForwardedReads();
    term_ = term;
    vote_ = 0;
  }
  const bool was_leader = role_ == Role::kLeader;
  role_ = Role::kFollower;
  SetLeader(leader);
  ResetElectionTimer();
  votes_.Clear();
  own_vote_pending_ = false;
  acknowledge_pending_ = false;
  if (was_leader) {
    FailLeaderReads();
    peers_.clear();
    transferee_ = 0;
    send_pending_ = false;
    log_reads_.clear();
    snapshots_.clear();
  }
}

bool Raft::Impl::HearLeader(NodeId from) {
  if (role_ == Role::kLeader) return false;
  if (role_ != Role::kFollower) {
    BecomeFollower(term_, from);
    return true;
  }
  if (leader_ == 0) {
    SetLeader(from);
    ResetElectionTimer();
  }
  if (leader_ != from) return false;  // Two leaders in one term: one of them is not of this cluster.
  election_elapsed_ = 0;
  return true;
}

// Shape only: what no correct node sends is dropped here, so that the handlers may rely on it.
bool Raft::Impl::IsPlausible(const Message& message) const {
  if (message.kind < MessageKind::kPreVote || message.kind > MessageKind::kTimeoutNow) return false;
  if (message.from == 0 || message.from == options_.id || message.to != options_.id) return false;
  if (message.term == 0 || message.term > kNumberMax || message.log_term > message.term) return false;
  if (message.index > kNumberMax || message.commit > kNumberMax || message.hint > kNumberMax) {
    return false;
  }
  if (!message.entries.empty() && message.kind != MessageKind::kAppend) return false;
  uint64_t index = message.index;
  uint64_t term = message.log_term;
  for (const Entry& entry : message.entries) {
    if (entry.index != ++index || entry.term < term || entry.term > message.term) return false;
    if (entry.term == 0) return false;
    term = entry.term;
  }
  return true;
}

void Raft::Impl::Step(Message message) {
  if (!IsPlausible(message)) return;
  if (message.term < term_) return StepOldTerm(message);
  if (message.term > term_) {
    const bool is_pre_vote = message.kind == MessageKind::kPreVote;
    const bool is_vote = message.kind == MessageKind::kVote;
    if ((is_pre_vote || (is_vote && !message.forced)) && InLease()) return;
    const bool keeps_term = is_pre_vote || (message.kind == MessageKind::kPreVoteResponse && !message.reject);
    if (!keeps_term) BecomeFollower(message.term, IsFromLeader(message.kind) ? message.from : 0);
  }
  StepCurrentTerm(std::move(message));
}

// A leader of an older term must learn of ours: with PreVote and CheckQuorum nobody else tells it, and
// this node, which ignores it, could not be reached by the cluster any more (etcd/raft #7331).
void Raft::Impl::StepOldTerm(const Message& message) {
  if (mutant::Is(mutant::kOldLeaderNotTold)) return;
  switch (message.kind) {
    case MessageKind::kAppend:
    case MessageKind::kHeartbeat: {
      Message response = NewMessage(MessageKind::kHeartbeatResponse, message.from);
      SendDurable(std::move(response), false);
      return;
    }
    case MessageKind::kPreVote: {
      Message response = NewMessage(MessageKind::kPreVoteResponse, message.from);
      response.reject = true;
      SendDurable(std::move(response), false);
      return;
    }
    case MessageKind::kPreVoteResponse:
    case MessageKind::kVote:
    case MessageKind::kVoteResponse:
    case MessageKind::kAppendResponse:
    case MessageKind::kHeartbeatResponse:
    case MessageKind::kReadIndex:
    case MessageKind::kReadIndexResponse:
    case MessageKind::kTimeoutNow:
      return;
  }
}

void Raft::Impl::StepCurrentTerm(Message message) {
  switch (message.kind) {
    case MessageKind::kPreVote:
    case MessageKind::kVote:
      return HandleVoteRequest(message);
    case MessageKind::kPreVoteResponse:
    case MessageKind::kVoteResponse:
      return HandleVoteResponse(message);
    case MessageKind::kAppend:
      return HandleAppend(std::move(message));
    case MessageKind::kAppendResponse:
      return HandleAppendResponse(message);
    case MessageKind::kHeartbeat:
      return HandleHeartbeat(message);
    case MessageKind::kHeartbeatResponse:
      return HandleHeartbeatResponse(message);
    case MessageKind::kReadIndex:
      return HandleReadIndex(message);
    case MessageKind::kReadIndexResponse:
      return HandleReadIndexResponse(message);
    case MessageKind::kTimeoutNow:
      return HandleTimeoutNow(message);
  }
}

void Raft::Impl::Tick() {
  ++tick_;
  ++election_elapsed_;
  ++heartbeat_elapsed_;
  ExpireForwardedReads();
  if (role_ == Role::kLeader) {
    TickLeader();
  } else {
    TickFollower();
  }
}

uint64_t Raft::Impl::Propose(EntryKind kind, SharedBytes data) {
  if (role_ != Role::kLeader || transferee_ != 0) return 0;
  if (kind == EntryKind::kConfiguration) {
    // Dissertation 4.1 and the correction of 2015 (raft-dev, "bug in single-server membership
    // changes"): no change before an entry of this term is committed.
    if (!committed_in_term() && !mutant::Is(mutant::kChangeBeforeCommit)) return 0;
    const bool is_pending = log_.applied_index() < pending_configuration_index_;
    if (is_pending && !mutant::Is(mutant::kChangeBeforeCommit) && !mutant::Is(mutant::kTwoChanges)) return 0;
  }
  Entry entry;
  entry.index = log_.last_index() + 1;
  entry.term = term_;
  entry.kind = kind;
  entry.crc32c = kw_crc32c(0, data.data(), data.size());
  entry.data = std::move(data);
  const uint64_t index = entry.index;
  if (kind == EntryKind::kConfiguration) pending_configuration_index_ = index;
  log_.Append(std::move(entry));
  send_pending_ = true;
  return index;
}

// ---- output ----

Message Raft::Impl::NewMessage(MessageKind kind, NodeId to) const {
  Message message;
  message.kind = kind;
  message.from = options_.id;
  message.to = to;
  message.term = term_;
  return message;
}

bool Raft::Impl::HardStateChanged() const { return term_ != issued_.term || vote_ != issued_.vote; }

// The commit index is saved along with other things, and may be behind after a restart: the next leader tells.
// But after a change of the members, who could tell may be gone: see applicable_index().
bool Raft::Impl::CommitIsToBeSaved() const { return saved_commit_ < log_.UnappliedConfiguration(); }

uint64_t Raft::Impl::applicable_index() const {
  const uint64_t configuration = log_.UnappliedConfiguration();
  const bool is_saved = saved_commit_ >= configuration && saved_commit_seq_ <= durable_seq_;
  return configuration == 0 || is_saved ? log_.commit_index() : configuration - 1;
}

void Raft::Impl::SendDurable(Message message, bool with_entries) {
  uint64_t seq = hard_state_seq_;
  if (with_entries && log_.durable_index() < log_.last_index()) seq = issued_seq_;
  if (HardStateChanged() || (with_entries && log_.HasUnstable())) seq = issued_seq_ + 1;
  if (seq <= durable_seq_) return Send(std::move(message));
  // An earlier message may wait for a later append than this one does: keep the order.
  if (!held_.empty()) seq = std::max(seq, held_.back().seq);
  held_.push_back({seq, std::move(message)});
}

void Raft::Impl::OnDurable(uint64_t append_seq) {
  KW_CHECK(append_seq <= issued_seq_);
  if (append_seq <= durable_seq_) return;
  durable_seq_ = append_seq;
  log_.OnDurable(append_seq);
  CheckPromise();
  if (own_vote_pending_ && own_vote_seq_ != 0 && own_vote_seq_ <= durable_seq_) {
    KW_CHECK(role_ == Role::kCandidate && vote_ == options_.id);
    own_vote_pending_ = false;
    votes_.Record(options_.id, true);
    CheckVotes();
  }
  if (role_ == Role::kLeader) MaybeCommit();
}

void Raft::Impl::OnApplied(uint64_t index) {
  if (index > log_.applied_index()) log_.ApplyTo(index);
}

bool Raft::Impl::HasOutput() const {
  return !messages_.empty() || !reads_.empty() || !log_reads_.empty() || !snapshots_.empty() ||
         send_pending_ || acknowledge_pending_ || reads_not_forwarded_ > 0 || HardStateChanged() ||
         CommitIsToBeSaved() || log_.HasUnstable() || ReleaseReady() || CanStartReadRound();
}

Output Raft::Impl::TakeOutput() {
  Output output;
  if (CanStartReadRound()) StartReadRound();
  if (send_pending_) SendAppends();
  if (HardStateChanged() || CommitIsToBeSaved() || log_.HasUnstable()) {
    Append& append = output.append.emplace();
    append.seq = ++issued_seq_;
    append.entries = log_.TakeUnstable(append.seq);
    const HardState now{term_, vote_, log_.commit_index()};
    if (HardStateChanged()) {
      hard_state_seq_ = append.seq;
      if (own_vote_pending_) own_vote_seq_ = append.seq;
    }
    if (CommitIsToBeSaved()) {
      saved_commit_ = now.commit;
      saved_commit_seq_ = append.seq;
    }
    if (now != issued_) append.hard_state = now;
    issued_ = now;
  }
  if (acknowledge_pending_) {
    acknowledge_pending_ = false;
    Message response = NewMessage(MessageKind::kAppendResponse, leader_);
    response.index = acknowledge_index_;
    const bool is_early = mutant::Is(mutant::kAppendAckedEarly);
    SendDurable(std::move(response), acknowledge_index_ > log_.durable_index() && !is_early);
  }
  if (reads_not_forwarded_ > 0) ForwardReads();
  output.messages = std::exchange(messages_, {});
  while (ReleaseReady()) {
    output.messages.push_back(std::move(held_.front().message));
    held_.pop_front();
  }
  output.reads = std::exchange(reads_, {});
  output.log_reads = std::exchange(log_reads_, {});
  output.snapshots = std::exchange(snapshots_, {});
  return output;
}

// ---- the interface ----

Raft::Raft(const Options& options, InitialState state)
    : impl_(std::make_unique<Impl>(options, std::move(state))) {}
Raft::~Raft() = default;

void Raft::Tick() { impl_->Tick(); }
void Raft::Step(Message message) { impl_->Step(std::move(message)); }
uint64_t Raft::Propose(SharedBytes data) { return impl_->Propose(EntryKind::kNormal, std::move(data)); }
uint64_t Raft::ProposeConfiguration(SharedBytes data) {
  return impl_->Propose(EntryKind::kConfiguration, std::move(data));
}
void Raft::ReadIndex(uint64_t context) { impl_->ReadIndex(context); }
void Raft::TransferLeadership(NodeId to) { impl_->TransferLeadership(to); }
void Raft::Campaign() { impl_->Campaign(); }
void Raft::OnPeerDown(NodeId peer) { impl_->OnPeerDown(peer); }
void Raft::OnDurable(uint64_t append_seq) { impl_->OnDurable(append_seq); }
void Raft::OnApplied(uint64_t index) { impl_->OnApplied(index); }
void Raft::OnLogRead(NodeId peer, uint64_t begin, std::vector<Entry> entries) {
  impl_->OnLogRead(peer, begin, std::move(entries));
}
void Raft::OnSnapshotSent(NodeId peer, uint64_t index) { impl_->OnSnapshotSent(peer, index); }
void Raft::ApplyConfiguration(const Configuration& configuration) {
  impl_->ApplyConfiguration(Normalized(configuration));
}
bool Raft::OnSnapshotChunk(NodeId from, uint64_t term) { return impl_->OnSnapshotChunk(from, term); }
bool Raft::InstallSnapshot(uint64_t index, uint64_t term, const Configuration& configuration) {
  return impl_->InstallSnapshot(index, term, Normalized(configuration));
}
void Raft::TruncatePrefix(uint64_t index) { impl_->TruncatePrefix(index); }
void Raft::OnLogDamaged(NodeId peer, uint64_t begin) { impl_->OnLogDamaged(peer, begin); }
bool Raft::IsBehindPromise() const { return impl_->IsBehindPromise(); }
void Raft::SetNeedsSnapshot(bool needs_snapshot) { impl_->SetNeedsSnapshot(needs_snapshot); }

bool Raft::HasOutput() const { return impl_->HasOutput(); }
Output Raft::TakeOutput() { return impl_->TakeOutput(); }

NodeId Raft::id() const { return impl_->id(); }
Role Raft::role() const { return impl_->role(); }
uint64_t Raft::term() const { return impl_->term(); }
NodeId Raft::leader() const { return impl_->leader(); }
uint64_t Raft::commit_index() const { return impl_->log().commit_index(); }
uint64_t Raft::applied_index() const { return impl_->log().applied_index(); }
uint64_t Raft::applicable_index() const { return impl_->applicable_index(); }
uint64_t Raft::durable_index() const { return impl_->log().durable_index(); }
uint64_t Raft::first_index() const { return impl_->log().first_index(); }
uint64_t Raft::last_index() const { return impl_->log().last_index(); }
std::optional<uint64_t> Raft::TermAt(uint64_t index) const { return impl_->log().TermAt(index); }
const Entry& Raft::EntryAt(uint64_t index) const { return impl_->log().At(index); }
const Configuration& Raft::configuration() const { return impl_->configuration(); }
bool Raft::IsVoter() const { return impl_->IsVoter(); }
bool Raft::transferring() const { return impl_->transferring(); }
bool Raft::committed_in_term() const { return impl_->committed_in_term(); }
std::vector<PeerProgress> Raft::progress() const { return impl_->progress(); }

}  // namespace keyway::raft
