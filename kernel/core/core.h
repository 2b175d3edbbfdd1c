// SPDX-License-Identifier: Apache-2.0
//
// Core: all replicated state of one member and the one thread that owns it. Start reading here.
//
// It is driven by Turn(): take what the inbox holds (requests, peer frames, finished jobs, ticks), let
// Raft and the state machine act on it, hand out what came of it (log appends, frames, engine writes,
// replies, watch events). It touches the world through the plugin tables and the Executor only, so the
// daemon and the simulator run the same code.
//
//   core.cc           the turn; ticks; commands
//   core_requests.cc  requests: admission, checks, proposals, replies
//   core_reads.cc     linearizable and serializable reads, engine reads
//   core_apply.cc     committed entries into the state machine
//   core_forward.cc   proposals that go to the leader of another member
//   core_peers.cc     frames, hello, membership of the transport
//   core_snapshot.cc  sending and installing snapshots
//   core_store.cc     engine writes, log truncation, compaction, hash
//   core_digest.cc    the state digest: scrub of the engine, comparison between members
//   core_recover.cc   start
//   core_salvage.cc   a log with a damaged record
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernel/base/outcome.h"
#include "kernel/base/reply.h"
#include "kernel/core/core_config.h"
#include "kernel/core/executor.h"
#include "kernel/core/forwarded_ids.h"
#include "kernel/core/log_writer.h"
#include "kernel/core/peer_wire.h"
#include "kernel/core/proposal.h"
#include "kernel/core/state_digest.h"
#include "kernel/core/store_batch.h"
#include "kernel/core/store_format.h"
#include "kernel/lease/lease_table.h"
#include "kernel/member/membership.h"
#include "kernel/mvcc/mvcc.h"
#include "kernel/raft/raft.h"
#include "kernel/watch/watch_hub.h"

namespace keyway::core {

class SnapshotSender;

// A whole membership as bytes: the body of the first entry of a cluster.
std::string EncodeMembers(const Membership& membership);
bool RestoreMembers(std::string_view bytes, Membership* membership);

// Visits the pairs of a table in order until `visit` returns false. [read] or [control]. False with
// `error` set if the engine fails.
bool ScanTable(const CoreDeps& deps, uint32_t table, std::string* error,
               const std::function<bool(std::string_view key, std::string_view value)>& visit);
// The same within a view.
bool ScanView(const CoreDeps& deps, kw_kv_view* view, uint32_t table, std::string* error,
              const std::function<bool(std::string_view key, std::string_view value)>& visit);

class Core {
 public:
  // `inbox` is where finished jobs come back to; outlives this.
  Core(CoreConfig config, CoreDeps deps, Inbox* inbox);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // [control] Reads the engine and the log back. False with a reason that says what to do.
  [[nodiscard]] bool Recover(std::string* error);
  // [core] First thing: joins the transport, stands for election if alone.
  void Begin(uint64_t now_ns);
  // [core] One turn. Returns whether there is more to do at once.
  bool Turn(uint64_t now_ns);

  // ---- commands, [core], between turns or from Command nodes ----
  void Tick();
  void OnPeerState(uint64_t peer, bool up);
  void OnFrame(uint64_t peer, std::string_view bytes);
  void OpenWatch(uint64_t id, const kw_watch& watch) { hub_->Open(id, watch); }
  void CreditWatch(uint64_t id, uint64_t bytes) { hub_->Credit(id, bytes); }
  void CloseWatch(uint64_t id) { hub_->Close(id); }
  void ProgressWatch(const kw_watch_sink* sink, const std::vector<uint64_t>& ids, void* ctx) {
    hub_->Progress(sink, ids.data(), ids.size(), ctx);
  }
  // Hands leadership over if there is somebody; handed_over() says when it is gone.
  void BeginShutdown();
  bool handed_over() const { return raft_ == nullptr || raft_->role() != raft::Role::kLeader; }
  // Answers everything that waits with STOPPED, and writes what the engine does not have yet.
  void Finish();

  const kw_node_state* state() const { return &state_; }
  bool failed() const { return failed_; }
  const std::string& failure() const { return failure_; }
  uint64_t member_id() const { return identity_.member_id; }

  // For tests and the simulator. The digest is that of the applied index only when compactions are
  // done (they run in the background, at a pace of their own on each member), and not while apply waits
  // for the engine in the middle of an entry, nor before a snapshot is installed in full.
  uint64_t digest() const { return DigestOf(membership_); }
  bool digest_is_final() const { return IsCompacted() && apply_position_ == 0 && !needs_snapshot_; }
  const raft::Raft* raft() const { return raft_.get(); }
  const mvcc::Mvcc& mvcc() const { return *mvcc_; }
  const Membership& membership() const { return membership_; }
  const LeaseTable& leases() const { return leases_; }
  // Whether this node refuses the member from now on if it comes with another data directory.
  bool remembers(uint64_t member) const { return remembered_.contains(member); }

 private:
  // A request that became a proposal and waits to be applied.
  struct PendingProposal {
    kw_request* request = nullptr;
    uint64_t sent_ms = 0;
    uint64_t term = 0;             // It was proposed, or sent to the leader, in this term; 0: not yet.
    std::string member_change;     // KW_REQ_MEMBER_*: encoded once, since an added id is random.
    int64_t lease = 0, ttl_s = 0;  // LEASE_GRANT: as chosen.
  };
  // A read that waits for its ReadIndex, or for apply to reach it, or for the engine.
  struct RangeTask {
    kw_request* request = nullptr;
    ReplyPtr reply;
    std::unique_ptr<mvcc::RangeReader> reader;
  };
  struct ReadBatch {
    uint64_t context = 0, index = 0, started_ms = 0;
    std::vector<kw_request*> requests;
    std::vector<std::function<void(bool)>> waiters;  // Called with false if it timed out.
  };
  struct LeaseForward {  // A keep-alive or time-to-live that the leader answers.
    kw_request* request = nullptr;
    uint64_t sent_ms = 0, deadline_ms = 0;
  };

  // ---- core.cc ----
  void Fatal(std::string message);
  void TakeInbox();
  void DrainRaft();
  void OnRoleMayHaveChanged();
  void HandOver();
  void LeaveIfDiskStalls();
  void PublishState();
  void CompleteLog(LogJob* job);
  uint64_t now_ms() const { return now_ns_ / 1'000'000; }

  // ---- core_requests.cc ----
  void OnRequest(kw_request* request);
  void Admit(kw_request* request);
  void Propose(kw_request* request);
  bool IsOverQuota() const;
  void AddPending(PendingProposal pending);
  bool EncodeProposal(uint64_t id, PendingProposal* pending, std::string* out);
  void SendProposal(uint64_t id, PendingProposal* pending);
  void FlushProposals();
  void RetryProposals();            // Those with term 0.
  void OnEntryTerm(uint64_t term);  // An entry of this term is applied: older proposals are lost.
  void ProposeMemberChange(uint64_t id, std::string_view proposal, uint64_t origin);
  Outcome CheckMemberChange(const MemberChange& change) const;
  void ExpireRequests();
  void PublishSelf();
  void ExpireLeases();
  void RunStatus(kw_request* request);
  void RunMoveLeader(kw_request* request);
  ReplyPtr NewReply() const;
  void Finish(kw_request* request, ReplyPtr reply);
  void Fail(kw_request* request, Outcome outcome, std::string_view text = {});

  // ---- core_reads.cc ----
  void QueueRead(kw_request* request);
  void QueueReadWaiter(std::function<void(bool)> waiter);
  void StartReadIndex();
  void OnReadStates(const std::vector<raft::ReadState>& reads);
  void RunReadyReads();
  void RunRead(kw_request* request);
  void RunRange(kw_request* request);
  void ContinueRange(std::unique_ptr<RangeTask> task);
  void RunReadTxn(kw_request* request);
  void RunLease(kw_request* request);
  void AnswerLease(kw_request* request, int64_t ttl_s, int64_t granted_ttl_s);
  void ForwardLease(kw_request* request);
  void SendLeaseQuery(uint64_t id, const LeaseForward& forward);
  void RunMemberList(kw_request* request);
  // `run` on the lane, then `finish` on [core].
  void OnLane(Lane lane, std::function<void()> run, std::function<void()> finish) {
    deps_.executor->Submit(lane, std::make_unique<FunctionJob>(std::move(run), std::move(finish)));
  }
  // Reads records by revision on a reader, then calls done on [core] with one for each (without a
  // value: absent).
  void ReadRecords(std::vector<mvcc::Revision> revisions, std::function<void(std::vector<SharedBytes>)> done);
  // Counts a read of the engine, so that what it may need is not deleted meanwhile.
  uint64_t BeginEngineRead();
  void EndEngineRead(uint64_t ticket);
  void StartWatchReads();

  // ---- core_apply.cc ----
  void ApplyCommitted();
  bool ApplyEntry(const raft::Entry& entry);  // False: waits for records from the engine.
  bool ApplyProposal(const raft::Entry& entry, const Proposal& proposal);
  bool Prefetch(std::vector<mvcc::Revision> missing);  // False: wait.
  kw_request* TakePending(const Proposal& proposal, PendingProposal* taken);
  void SaveMember(uint64_t id);
  void SaveLease(int64_t id, int64_t ttl_s, bool exists);
  bool PrefetchLease(int64_t lease, bool want_prev);
  bool RevokeLease(int64_t lease, bool want_prev);

  // ---- core_peers.cc ----
  std::string Frame(FrameKind kind, uint64_t to) const;
  void SendFrame(uint64_t to, uint32_t lane, std::string_view head, std::string_view body = {});
  void SendRaft(const raft::Message& message);
  void SendHello(uint64_t peer);
  void Refuse(uint64_t peer, std::string_view reason);
  void UpdatePeers();
  bool CheckSender(const FrameHeader& header);
  void RepeatHellos();
  void Leave();
  void OnRefused(uint64_t from, const std::string& reason);
  bool IsRemembered(const FrameHeader& header);
  // Makes an item of the meta table durable, then calls `done` on [core]. If that fails the node stops.
  void WriteMeta(std::string_view key, const std::string& value, std::function<void()> done);
  void OnHello(const FrameHeader& header, Reader* reader);
  void Adopt(const FrameHeader& header, const std::vector<Member>& members);
  void OnLeaseQuery(const FrameHeader& header, Reader* reader);
  void OnLeaseAnswer(Reader* reader);

  // ---- core_forward.cc ----
  ForwardedIds& ForwardedBy(uint64_t origin);
  void OnPropose(const FrameHeader& header, Reader* reader);
  void OnProposeResult(Reader* reader);
  void OnProposeQuery(uint64_t from, Reader* reader);
  void OnProposeLost(uint64_t from, Reader* reader);
  void AskForProposals(uint64_t older_ms);
  void AskForOldProposals();

  // ---- core_snapshot.cc ----
  void StartSnapshot(uint64_t peer);
  void PumpSnapshot(uint64_t peer);
  void ResendSnapshot(uint64_t peer);
  void EndSnapshot(uint64_t peer, uint64_t index);
  void OnSnapshotChunk(const FrameHeader& header, Reader* reader);
  void OnSnapshotAck(const FrameHeader& header, Reader* reader);
  void SendSnapshotAck(uint64_t to, uint64_t index, uint64_t chunk, bool ok);
  void BeginInstall(uint64_t from, const Applied& applied);
  void FinishInstall();
  void AbandonInstall();

  // ---- core_store.cc ----
  void TakeStoreStats();
  void CollectChanges();
  void MaybeWriteStore(bool now);
  void OnStoreWritten(const Applied& applied);
  void NoteEntryBytes(uint64_t index, size_t bytes);
  void MaybeTruncateLog();
  void StepCompaction();
  void ReleaseDeletes();
  void RunHash(kw_request* request);
  void TryHashes();
  Applied CurrentApplied() const;
  bool IsCompacted() const { return !mvcc_->compacting() && held_deletes_.empty(); }

  // ---- core_digest.cc ----
  uint64_t DigestOf(const Membership& membership) const;
  void ProposeMark();
  void TakeDigest(uint64_t index);
  void FinishMarks();
  void OnDigestReport(uint64_t from, Reader* reader);
  void CountReport(uint64_t from, uint64_t mark, uint64_t digest);
  void ApplyVerdict(const DigestVerdict& verdict);
  void Fence(std::string reason);
  void StartScrub();

  // ---- core_recover.cc ----
  bool ReadEngine(std::string* error, std::optional<Identity>* identity, std::optional<Applied>* applied,
                  bool* installing, bool* log_reset);
  bool SalvageLog(raft::NodeId self, const Applied& applied, const std::string& damage,
                  kw_hard_state* hard_state, kw_log_bounds* bounds, std::string* error);
  bool RestoreFromEngine(std::string* error);
  // Takes an item of the engine or of a snapshot into the state in memory, and into the digest.
  bool RestoreItem(uint32_t table, std::string_view key, std::string_view value, Membership* membership);
  bool ReadLog(const kw_log_bounds& bounds, std::vector<raft::Entry>* entries, std::string* error);
  bool WriteIdentity(std::string* error);
  void StartRaft(raft::InitialState initial);
  bool Bootstrap(std::string* error, raft::InitialState* initial);

  const CoreConfig config_;
  const CoreDeps deps_;
  Inbox* const inbox_;

  // Who we are.
  Identity identity_;
  std::optional<Promise> promise_;  // Of a damaged log: see core_salvage.cc.
  bool joining_ = false;            // No member id yet: a running cluster has to name us.
  bool adopting_ = false;           // It has, and that is being made durable.
  std::vector<std::string> self_peer_urls_;
  std::map<uint64_t, uint64_t> incarnations_;    // Of those that frames came from: the first one.
  std::set<uint64_t> remembered_, remembering_;  // Members whose incarnation the engine has; will have.
  std::map<uint64_t, uint64_t> refused_ms_;      // When each was told last.
  std::map<uint64_t, Member> hello_members_;     // Told by peers, maybe ahead of our own state.

  struct Farewell {
    Member member;
    uint64_t until_ms = 0;
  };
  std::map<uint64_t, Farewell> farewells_;  // Removed members that are still to be told.
  bool leaving_ = false;                    // This node was removed: see Leave().
  kw_request* leave_request_ = nullptr;     // That asked for it, with its reply; may be null.
  ReplyPtr leave_reply_;

  // Replicated state.
  LeaseTable leases_;
  std::unique_ptr<mvcc::Mvcc> mvcc_;
  Membership membership_;
  std::unique_ptr<raft::Raft> raft_;  // Null until this node knows who it is.

  // Watches.
  std::unique_ptr<watch::MvccChangeSource> change_source_;
  std::unique_ptr<watch::WatchHub> hub_;

  // Proposals.
  std::string batch_;                // Encoded, not yet proposed.
  std::vector<uint64_t> batch_ids_;  // Of pending_, in batch_.
  uint64_t next_proposal_id_ = 1;
  absl::flat_hash_map<uint64_t, PendingProposal> pending_;
  std::deque<uint64_t> unsent_;                          // Ids of pending_ with term 0.
  std::deque<std::pair<uint64_t, uint64_t>> deadlines_;  // (ms, id) ascending.
  uint64_t applied_term_ = 0;                            // Of the last applied entry.
  size_t waiting_requests_ = 0;
  std::map<uint64_t, ForwardedIds> forwarded_;  // Of the leader, by origin, in forwarded_term_.
  uint64_t forwarded_term_ = 0;
  uint64_t proposals_asked_ms_ = 0;
  bool publish_sent_ = false;
  uint64_t publish_ms_ = 0;
  kw_request* move_leader_ = nullptr;
  uint64_t move_leader_deadline_ms_ = 0, move_leader_target_ = 0;

  // Reads.
  ReadBatch gathering_;                            // Not yet asked for.
  std::optional<ReadBatch> asked_;                 // Its ReadIndex is under way.
  std::deque<ReadBatch> confirmed_;                // Wait for apply, ascending index.
  std::vector<kw_request*> held_;                  // While a snapshot is being installed.
  std::deque<std::unique_ptr<RangeTask>> ranges_;  // With more slices to do.
  uint64_t next_read_context_ = 1;
  uint64_t read_retry_tick_ = 0;  // Not before this tick.
  uint64_t next_query_id_ = 1;
  std::map<uint64_t, LeaseForward> lease_forwards_;
  uint64_t next_read_ticket_ = 1;
  std::set<uint64_t> engine_reads_;  // Tickets of reads under way.

  // Apply.
  std::vector<mvcc::Revision> missing_;  // Scratch.
  uint64_t apply_position_ = 0;          // Proposals done of the entry that apply stands at.
  bool apply_waiting_ = false;           // For records from the engine.
  bool watch_read_active_ = false;
  uint64_t install_epoch_ = 0;  // Counts snapshots installed: older engine reads are void.

  // Engine and log.
  std::unique_ptr<StoreBatch> unwritten_;
  bool store_busy_ = false;
  size_t writing_bytes_ = 0;
  uint64_t store_live_bytes_ = 0;  // As the engine said last.
  uint64_t unwritten_since_ms_ = 0;
  uint64_t stored_index_ = 0;         // The engine has everything up to it, durably.
  std::deque<uint32_t> entry_bytes_;  // Of the last applied entries, from entry_bytes_from_ on.
  uint64_t entry_bytes_from_ = 0, entry_bytes_total_ = 0;
  bool compacted_saved_ = true;
  std::deque<std::pair<uint64_t, std::vector<mvcc::Revision>>> held_deletes_;  // (read ticket, what)
  std::vector<kw_request*> physical_compactions_;
  std::vector<kw_request*> hashes_;

  // The state digest. A mark is an entry at which all members take theirs.
  struct Mark {
    uint64_t index = 0;
    uint64_t digest = 0;                   // At the mark, with what a compaction had still to remove then.
    uint64_t compactions = 0;              // Applied at the mark: one that comes later voids it.
    uint64_t removed = 0;                  // Of removed_digest_, at the mark.
    bool is_final = false;                 // `digest` is what every member must have at the mark.
    std::optional<DigestVerdict> verdict;  // Came before that.
  };
  StateDigest digest_;          // Of what the engine holds once unwritten_ is written, but the members.
  StateDigest removed_digest_;  // Minus all that compactions have ever removed.
  uint64_t compactions_applied_ = 0;
  std::deque<Mark> marks_;  // The last kMarksMax.
  struct Round {            // Of the leader: the reports of its last mark.
    uint64_t mark = 0;
    std::map<uint64_t, uint64_t> digests;  // By member.
    bool is_judged = false;
  };
  Round round_;
  uint64_t mark_proposed_ms_ = 0;  // Or when this member became leader.
  bool scrubbing_ = false;
  uint64_t scrub_not_before_ms_ = 0;

  // Snapshots.
  std::map<uint64_t, std::unique_ptr<SnapshotSender>> senders_;  // By peer.
  uint64_t next_sender_id_ = 1;
  struct Install {
    uint64_t from = 0, next_chunk = 0, last_ms = 0;
    uint64_t written = 0;   // Chunks below are in the engine.
    Applied applied;        // What the snapshot holds.
    Membership membership;  // Taken over at the end.
  };
  std::optional<Install> install_;
  bool needs_snapshot_ = false;  // The engine is partial.

  // Time, state, failure.
  uint64_t now_ns_ = 0;
  uint64_t tick_count_ = 0;
  raft::Role last_role_ = raft::Role::kFollower;
  uint64_t last_term_ = 0, last_leader_ = 0;
  uint64_t initial_commit_ = 0;
  uint64_t stalled_at_ = 0, stalled_since_ms_ = 0;  // Durable index, and since when it stands still.
  bool serving_asked_ = false;
  bool shutting_down_ = false;
  kw_node_state state_{};
  bool failed_ = false;
  std::string failure_;
  std::mt19937_64 random_;

  // Metrics.
  uint64_t* metric_proposals_committed_;
  uint64_t* metric_proposals_applied_;
  uint64_t* metric_proposals_pending_;
  uint64_t* metric_proposals_failed_;
  uint64_t* metric_leader_changes_;
  uint64_t* metric_has_leader_;
  uint64_t* metric_is_leader_;
  uint64_t* metric_is_learner_;
  uint64_t* metric_slow_reads_failed_;
  uint64_t* metric_revision_;
  uint64_t* metric_compact_revision_;
  uint64_t* metric_keys_;
  uint64_t* metric_watchers_;
  uint64_t* metric_puts_;
  uint64_t* metric_ranges_;
  uint64_t* metric_db_bytes_;
  uint64_t* metric_db_bytes_in_use_;
};

}  // namespace keyway::core
