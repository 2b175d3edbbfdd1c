// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/core.h"

#include <cstddef>

#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/keys_in_order.h"
#include "kernel/core/snapshot.h"
#include "keyway/crc32c.h"

namespace keyway::core {
namespace {

constexpr int kRaftRoundsMax = 64;

kw_request* RequestOf(InboxNode* node) {
  return reinterpret_cast<kw_request*>(reinterpret_cast<char*>(node) - offsetof(kw_request, kernel));
}

}  // namespace

Core::Core(CoreConfig config, CoreDeps deps, Inbox* inbox)
    : config_(std::move(config)), deps_(deps), inbox_(inbox), random_(config_.random_seed) {
  mvcc_ = std::make_unique<mvcc::Mvcc>(
      mvcc::Options{.cache_bytes = config_.cache_bytes, .recent_bytes = config_.recent_bytes}, &leases_);
  change_source_ = std::make_unique<watch::MvccChangeSource>(mvcc_.get());
  unwritten_ = std::make_unique<StoreBatch>();
  state_.size = sizeof state_;
  next_proposal_id_ = mutant::Is(mutant::kIdsOfAnotherLife) ? 1 : random_() | 1;
  MetricsRegistry* metrics = deps_.metrics;
  metric_proposals_committed_ =
      metrics->Gauge("etcd_server_proposals_committed_total", "Index of the last committed entry.");
  metric_proposals_applied_ =
      metrics->Gauge("etcd_server_proposals_applied_total", "Index of the last applied entry.");
  metric_proposals_pending_ =
      metrics->Gauge("etcd_server_proposals_pending", "Proposals that wait to be applied.");
  metric_proposals_failed_ =
      metrics->Counter("etcd_server_proposals_failed_total", "Proposals that failed or timed out.");
  metric_leader_changes_ = metrics->Counter("etcd_server_leader_changes_seen_total", "Leader changes seen.");
  metric_has_leader_ = metrics->Gauge("etcd_server_has_leader", "1 if a leader is known.");
  metric_is_leader_ = metrics->Gauge("etcd_server_is_leader", "1 if this member leads.");
  metric_is_learner_ = metrics->Gauge("etcd_server_is_learner", "1 if this member is a learner.");
  metric_slow_reads_failed_ = metrics->Counter("etcd_server_read_indexes_failed_total",
                                               "Linearizable reads that were not confirmed.");
  metric_revision_ =
      metrics->Gauge("etcd_debugging_mvcc_current_revision", "The current revision of the store.");
  metric_compact_revision_ =
      metrics->Gauge("etcd_debugging_mvcc_compact_revision", "The last compaction's revision.");
  metric_keys_ = metrics->Gauge("etcd_debugging_mvcc_keys_total", "Live keys.");
  metric_watchers_ = metrics->Gauge("etcd_debugging_mvcc_watcher_total", "Open watches.");
  metric_puts_ = metrics->Counter("etcd_mvcc_put_total", "Puts applied, those of transactions too.");
  metric_ranges_ = metrics->Counter("etcd_mvcc_range_total", "Ranges served.");
  metric_db_bytes_ = metrics->Gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the engine on disk.");
  metric_db_bytes_in_use_ =
      metrics->Gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the engine in use.");
  Set(metrics->Gauge("etcd_server_quota_backend_bytes", "The quota of the engine."),
      static_cast<int64_t>(config_.quota_bytes));
}

Core::~Core() = default;

void Core::Fatal(std::string message) {
  if (failed_) return;
  failed_ = true;
  failure_ = std::move(message);
  Log(deps_.logger, KW_LOG_ERROR, "node_failed", {{"reason", failure_}});
}

void Core::Begin(uint64_t now_ns) {
  now_ns_ = now_ns;
  UpdatePeers();
  PublishState();
  if (raft_ == nullptr) return;
  DrainRaft();  // Applies what is committed, the initial members among it.
  if (raft_->IsVoter() && raft_->configuration().voters.size() == 1) raft_->Campaign();
}

void Core::TakeInbox() {
  InboxNode* node = inbox_->Take();
  while (node != nullptr) {
    InboxNode* next = node->next;
    switch (static_cast<InboxKind>(node->kind)) {
      case InboxKind::kRequest:
        OnRequest(RequestOf(node));
        break;
      case InboxKind::kJob: {
        std::unique_ptr<Job> job(static_cast<Job*>(node));
        job->Complete();
        break;
      }
      case InboxKind::kCommand: {
        std::unique_ptr<Command> command(static_cast<Command*>(node));
        command->Run();
        break;
      }
    }
    node = next;
  }
}

bool Core::Turn(uint64_t now_ns) {
  now_ns_ = now_ns;
  TakeInbox();
  bool more = false;
  if (!failed_ && raft_ != nullptr) {
    FlushProposals();
    StartReadIndex();
    DrainRaft();
    RunReadyReads();
    for (size_t count = ranges_.size(); count > 0; --count) {
      std::unique_ptr<RangeTask> task = std::move(ranges_.front());
      ranges_.pop_front();
      ContinueRange(std::move(task));
    }
    StepCompaction();
    if (!needs_snapshot_) {  // Nor after a transfer that was abandoned: there are no events to be found.
      more = hub_->Step(config_.watch_changes_per_slice);
      StartWatchReads();
    }
    MaybeWriteStore(false);
    FlushProposals();
    DrainRaft();
    more = more || !ranges_.empty() || mvcc_->compacting() || raft_->HasOutput();
  }
  hub_->Flush(identity_.cluster_id, identity_.member_id, raft_ == nullptr ? 0 : raft_->term());
  PublishState();
  return more && !failed_;
}

void Core::DrainRaft() {
  for (int round = 0; round < kRaftRoundsMax && !failed_; ++round) {
    ApplyCommitted();
    if (!raft_->HasOutput()) break;
    raft::Output output = raft_->TakeOutput();
    if (output.append.has_value()) {
      auto job = std::make_unique<LogJob>();
      job->entries = std::move(output.append->entries);
      if (output.append->hard_state.has_value()) {
        const raft::HardState& state = *output.append->hard_state;
        job->hard_state =
            kw_hard_state{state.term, mutant::Is(mutant::kVoteUnsaved) ? 0 : state.vote, state.commit};
      }
      job->on_complete = [this, seq = output.append->seq](LogJob* done) {
        CompleteLog(done);
        if (!failed_ && !mutant::Is(mutant::kAckBeforeSync)) raft_->OnDurable(seq);
      };
      deps_.executor->Submit(Lane::kLog, std::move(job));
      if (mutant::Is(mutant::kAckBeforeSync)) raft_->OnDurable(output.append->seq);
    }
    for (const raft::Message& message : output.messages) SendRaft(message);
    OnReadStates(output.reads);
    for (const raft::LogRead& read : output.log_reads) {
      struct Result {
        std::vector<raft::Entry> entries;
        std::string damage;
      };
      auto result = std::make_shared<Result>();
      OnLane(
          Lane::kRead,
          [this, read, result] {
            kw_log_batch* batch = nullptr;
            kw_error error{};
            error.size = sizeof error;
            const int32_t code =
                deps_.log->read(deps_.log_plugin, read.begin, read.end, read.bytes_max, &batch, &error);
            if (code == KW_DATA_LOSS) result->damage = error.text;
            if (code != KW_OK) return;  // Truncated meanwhile: Raft finds out and sends a snapshot.
            for (size_t i = 0; i < batch->entry_count; ++i) {
              const kw_log_entry& entry = batch->entries[i];
              if (kw_crc32c(0, entry.data.ptr, entry.data.len) != entry.crc32c) {
                result->damage = "entry " + std::to_string(entry.index) + " is not what was written";
                break;
              }
              result->entries.push_back({entry.index, entry.term, static_cast<raft::EntryKind>(entry.kind),
                                         entry.crc32c, SharedBytes::Copy(ToView(entry.data))});
            }
            batch->release(batch);
          },
          [this, read, result] {
            if (result->damage.empty()) {
              return raft_->OnLogRead(read.peer, read.begin, std::move(result->entries));
            }
            Log(deps_.logger, KW_LOG_ERROR, "log_damaged",
                {{"error", std::string_view(result->damage)}, {"sends_snapshot_to", HexId(read.peer)}});
            raft_->OnLogDamaged(read.peer, read.begin);
          });
    }
    for (raft::NodeId peer : output.snapshots) StartSnapshot(peer);
  }
  OnRoleMayHaveChanged();
}

void Core::CompleteLog(LogJob* job) {
  if (job->code == KW_OK || mutant::Is(mutant::kLogErrorIgnored)) return;
  // What the disk holds now is unknown (fsyncgate): only a restart, which reads it back, can tell.
  Fatal("the log cannot be written: " + job->error);
}

void Core::OnRoleMayHaveChanged() {
  const raft::Role role = raft_->role();
  const uint64_t leader = raft_->leader(), term = raft_->term();
  if (role == last_role_ && leader == last_leader_ && term == last_term_) return;
  if (role == raft::Role::kLeader && (last_role_ != raft::Role::kLeader || term != last_term_)) {
    Log(deps_.logger, KW_LOG_INFO, "leader_elected",
        {{"member", HexId(identity_.member_id)}, {"term", term}});
    leases_.Promote(static_cast<int64_t>(now_ms()), 0);
    mark_proposed_ms_ = now_ms();  // A start or a failover is no time for a full read of the store.
  }
  if (role != raft::Role::kLeader && last_role_ == raft::Role::kLeader) {
    Log(deps_.logger, KW_LOG_INFO, "leadership_lost", {{"term", term}, {"leader", HexId(leader)}});
    leases_.Demote();
    while (!senders_.empty()) EndSnapshot(senders_.begin()->first, 0);
  }
  if (leader != last_leader_ || term != last_term_) {
    if (leader != 0) {
      if (leader != last_leader_) Add(metric_leader_changes_, 1);
      if (role != raft::Role::kLeader) {
        Log(deps_.logger, KW_LOG_INFO, "following", {{"leader", HexId(leader)}, {"term", term}});
      }
      for (const auto& [id, forward] : lease_forwards_) SendLeaseQuery(id, forward);
    } else if (last_leader_ != 0) {
      Log(deps_.logger, KW_LOG_WARN, "leader_lost", {{"leader", HexId(last_leader_)}, {"term", term}});
    }
  }
  last_role_ = role;
  last_leader_ = leader;
  last_term_ = term;
  if (mutant::Is(mutant::kRetriedAtOnce)) OnEntryTerm(UINT64_MAX);
  if (leader != 0) {
    RetryProposals();
    PublishSelf();
  }
}

void Core::Tick() {
  ++tick_count_;
  if (failed_) return;
  if (raft_ != nullptr) {
    raft_->Tick();
    DrainRaft();
    ExpireRequests();
    RetryProposals();
    AskForOldProposals();
    ExpireLeases();
    PublishSelf();
    TryHashes();
    ProposeMark();
    FinishMarks();
    LeaveIfDiskStalls();
    RepeatHellos();
    if (std::erase_if(farewells_, [&](const auto& item) { return item.second.until_ms <= now_ms(); }) != 0) {
      UpdatePeers();
    }
    std::vector<uint64_t> stalled;
    for (auto& [peer, sender] : senders_) {
      if (sender->Stalled(now_ms())) {
        stalled.push_back(peer);
      } else if (sender->ShouldResend(now_ms())) {
        ResendSnapshot(peer);
      }
    }
    for (uint64_t peer : stalled) EndSnapshot(peer, 0);
    if (install_.has_value() && now_ms() - install_->last_ms > kSnapshotStallMs) AbandonInstall();
    MaybeWriteStore(false);
  }
  const auto stats = hub_->stats();
  Set(metric_watchers_, static_cast<int64_t>(stats.watches));
  Set(metric_revision_, mvcc_->revision());
  Set(metric_compact_revision_, mvcc_->compact_revision());
  Set(metric_keys_, static_cast<int64_t>(mvcc_->key_count()));
  Set(metric_proposals_pending_, static_cast<int64_t>(pending_.size()));
  if (tick_count_ % 10 == 1) TakeStoreStats();
}

// A leader may commit by the others' disks while its own hangs. It then goes on answering, but slower and
// slower, and keeps the entries in memory: somebody else should lead (reliability R7).
void Core::LeaveIfDiskStalls() {
  if (mutant::Is(mutant::kStalledLeaderStays)) return;
  const uint64_t durable = raft_->durable_index();
  if (raft_->role() != raft::Role::kLeader || durable == raft_->last_index() || durable != stalled_at_) {
    stalled_at_ = durable;
    stalled_since_ms_ = now_ms();
    return;
  }
  if (now_ms() < stalled_since_ms_ + uint64_t{config_.election_ticks} * config_.tick_ms) return;
  stalled_since_ms_ = now_ms();
  Log(deps_.logger, KW_LOG_WARN, "disk_stalls",
      {{"durable_index", durable}, {"last_index", raft_->last_index()}});
  HandOver();
}

namespace {
template <typename T>
void Store(T* field, T value) {
  std::atomic_ref<T>(*field).store(value, std::memory_order_relaxed);
}
}  // namespace

void Core::PublishState() {
  Store(&state_.cluster_id, identity_.cluster_id);
  Store(&state_.member_id, identity_.member_id);
  Store(&state_.revision, mvcc_->revision());
  if (raft_ == nullptr) return;
  const uint64_t leader = raft_->leader();
  Store(&state_.leader_id, leader);
  Store(&state_.raft_term, raft_->term());
  Store<uint64_t>(&state_.is_learner, raft_->IsVoter() ? 0 : 1);
  if (leader != 0) {
    Store<uint64_t>(&state_.leader_lost_ns, 0);
  } else if (state_.leader_lost_ns == 0) {
    Store(&state_.leader_lost_ns, now_ns_);
  }
  Set(metric_has_leader_, leader != 0);
  Set(metric_is_leader_, raft_->role() == raft::Role::kLeader);
  Set(metric_is_learner_, !raft_->IsVoter());
  Set(metric_proposals_committed_, static_cast<int64_t>(raft_->commit_index()));
  Set(metric_proposals_applied_, static_cast<int64_t>(raft_->applied_index()));
  if (state_.serving == 0 && !serving_asked_ && leader != 0 && !needs_snapshot_ &&
      raft_->applied_index() >= initial_commit_) {
    if (!raft_->IsVoter()) {
      Store<uint64_t>(&state_.serving, 1);  // A learner serves what a learner may.
      return;
    }
    serving_asked_ = true;
    QueueReadWaiter([this](bool confirmed) {
      if (confirmed) {
        Store<uint64_t>(&state_.serving, 1);
      } else {
        serving_asked_ = false;
      }
    });
    inbox_->Push(new Command([] {}));  // Another turn, to ask.
  }
}

void Core::BeginShutdown() {
  shutting_down_ = true;
  HandOver();
}

// Hands leadership to the voter that has most of the log, if one is there.
void Core::HandOver() {
  if (raft_ == nullptr || raft_->role() != raft::Role::kLeader) return;
  uint64_t best = 0, best_match = 0;
  for (const raft::PeerProgress& peer : raft_->progress()) {
    if (!peer.is_learner && peer.recently_active && peer.match_index >= best_match) {
      best = peer.id;
      best_match = peer.match_index;
    }
  }
  if (best != 0) raft_->TransferLeadership(best);
}

void Core::Finish() {
  const Outcome stopped = Failure(KW_DETAIL_STOPPED);
  for (uint64_t id : KeysInOrder(pending_)) {
    const PendingProposal& pending = pending_.find(id)->second;
    if (pending.request != nullptr) Fail(pending.request, stopped);
  }
  pending_.clear();
  auto fail_batch = [&](ReadBatch& batch) {
    for (kw_request* request : batch.requests) Fail(request, stopped);
    batch.requests.clear();
    batch.waiters.clear();
  };
  fail_batch(gathering_);
  if (asked_.has_value()) fail_batch(*asked_);
  for (ReadBatch& batch : confirmed_) fail_batch(batch);
  for (kw_request* request : held_) Fail(request, stopped);
  held_.clear();
  for (auto& task : ranges_) Fail(task->request, stopped);
  ranges_.clear();
  for (auto& [id, forward] : lease_forwards_) Fail(forward.request, stopped);
  lease_forwards_.clear();
  for (kw_request* request : hashes_) Fail(request, stopped);
  hashes_.clear();
  for (kw_request* request : physical_compactions_) Fail(request, stopped);
  physical_compactions_.clear();
  if (move_leader_ != nullptr) Fail(std::exchange(move_leader_, nullptr), stopped);
  if (leave_request_ != nullptr) Fail(std::exchange(leave_request_, nullptr), stopped);
  while (!senders_.empty()) EndSnapshot(senders_.begin()->first, 0);
  if (!failed_ && raft_ != nullptr && !install_.has_value()) MaybeWriteStore(true);
  if (!failed_) failure_ = "stopped";
  failed_ = true;  // Jobs that complete from now on answer STOPPED.
}

}  // namespace keyway::core
