// SPDX-License-Identifier: Apache-2.0
//
// Raft as a pure state machine: no thread, clock, file or plugin. Inputs are calls, outputs are
// collected and taken with TakeOutput(). Owned by [core].
//
// Durability. An Append in the output is given to the log store; OnDurable(seq) says that it and all
// before it are on disk. Messages that promise something durable (votes, append responses) appear in
// the output only after that. The leader sends entries at once, in parallel to its own append, and
// counts itself only when they are durable.
//
// Membership. One change at a time (dissertation 4.1): a change takes effect when its entry is
// applied, by ApplyConfiguration(). A leader accepts a change only after it has committed an entry of
// its own term and no earlier change is unapplied; a node does not campaign while a committed change
// is unapplied.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernel/raft/types.h"

namespace keyway::raft {

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };

struct Options {
  NodeId id = 0;
  uint32_t election_ticks = 10;  // Minimum; randomised up to twice this.
  uint32_t heartbeat_ticks = 1;
  uint64_t random_seed = 1;  // Best another one at each start.
  // 0: the limit of base/limits.h.
  size_t append_bytes_max = 0;    // Of entries in one message; one entry always fits.
  size_t inflight_bytes_max = 0;  // To one follower.
  size_t inflight_messages_max = 0;
  size_t cache_bytes = 0;  // Durable and applied entries kept in memory beyond need; 0: none.
};

// What the log store had at start. `entries` are [first, last], all of them, in memory.
//
// base_index <= applied <= last. If a crash between the two has left the engine ahead of the log store
// (InstallSnapshot() and a reset that was not durable yet: the log does not have the entry (applied,
// its term)), core passes an empty log with `applied` and its term as base, and resets the log store.
struct InitialState {
  HardState hard_state;
  uint64_t base_index = 0;  // first - 1
  uint64_t base_term = 0;
  std::vector<Entry> entries;
  Configuration configuration;  // As of `applied`.
  uint64_t applied = 0;         // base_index <= applied.
  // The last entry that was durable before the log was damaged and what is left was kept; 0, 0 for none.
  // What this node acknowledged and voted by must not be forgotten: see Raft::IsBehindPromise().
  uint64_t promised_index = 0, promised_term = 0;
};

// For the log store. Entries may begin below the last one given before: then the tail is replaced.
struct Append {
  uint64_t seq = 0;
  std::vector<Entry> entries;
  std::optional<HardState> hard_state;
};

// A quorum confirmed: reads with this context may be served once `index` is applied.
struct ReadState {
  uint64_t context = 0;
  uint64_t index = 0;
  bool failed = false;  // Leadership was lost or there is none: ask again later.
};

// Entries [begin, end) are no longer in memory: read them from the log store, at most bytes_max, and
// give them to OnLogRead(), none if that failed. One at a time for each peer.
struct LogRead {
  NodeId peer = 0;
  uint64_t begin = 0, end = 0;
  size_t bytes_max = 0;
};

struct Output {
  std::vector<Message> messages;
  std::optional<Append> append;
  std::vector<ReadState> reads;
  std::vector<LogRead> log_reads;
  std::vector<NodeId> snapshots;  // Peers that need a snapshot; answer with OnSnapshotSent().
};

struct PeerProgress {
  NodeId id = 0;
  uint64_t match_index = 0;
  bool is_learner = false;
  bool recently_active = false;  // Heard of within the last one to two election timeouts.
  bool in_snapshot = false;
};

class Raft {
 public:
  Raft(const Options& options, InitialState state);
  ~Raft();
  Raft(const Raft&) = delete;
  Raft& operator=(const Raft&) = delete;

  // ---- inputs ----
  void Tick();
  // Messages of a node that is not in the configuration are stepped too (a new leader may be known to
  // others first); nonsense is dropped.
  void Step(Message message);
  // Leader only: appends an entry with this data. Returns its index, 0 if not leader or while
  // leadership is being handed over.
  uint64_t Propose(SharedBytes data);
  // Leader only: as Propose for a membership change. Returns 0 and sets nothing if not leader, an
  // earlier change is unapplied, or no entry of this term is committed yet.
  uint64_t ProposeConfiguration(SharedBytes data);
  // Any role: answered by a ReadState with the context. A follower asks its leader; without one the
  // ReadState says failed. Contexts are unique to the caller and grow.
  void ReadIndex(uint64_t context);
  // Leader only: hands leadership to a voter (dissertation 3.10); given up after an election timeout.
  void TransferLeadership(NodeId to);
  void Campaign();  // Starts an election now (tests, TimeoutNow, a single voter at start).
  // A connection to the peer was lost. If it is our leader: stand for election soon (PreVote still asks
  // a quorum that has not heard of a leader). As leader: probe the peer anew.
  void OnPeerDown(NodeId peer);
  void OnDurable(uint64_t append_seq);
  void OnApplied(uint64_t index);
  void OnLogRead(NodeId peer, uint64_t begin, std::vector<Entry> entries);
  // As OnLogRead: what is on disk is damaged. The peer gets a snapshot, since all of that is applied.
  void OnLogDamaged(NodeId peer, uint64_t begin);
  // The peer has installed a snapshot up to `index`, or (0) the transfer failed.
  void OnSnapshotSent(NodeId peer, uint64_t index);
  // Effect of an applied configuration entry, or of an installed snapshot.
  void ApplyConfiguration(const Configuration& configuration);
  // A chunk of a snapshot came from the leader of `term`. Returns false if it is to be refused (old
  // term); else counts as a sign of life of the leader.
  bool OnSnapshotChunk(NodeId from, uint64_t term);
  // The state machine was replaced by a snapshot: the log becomes empty with this base, unless it has
  // the entry (index, term), which then stays with what follows. Returns whether the log was reset.
  // Needs index >= applied_index() and a role other than leader, and the snapshot must be durable.
  bool InstallSnapshot(uint64_t index, uint64_t term, const Configuration& configuration);
  // Entries up to `index` are in the engine and gone or going from the log store. Only what is applied
  // and durable here is dropped.
  void TruncatePrefix(uint64_t index);
  // While set, this node refuses appends with needs_snapshot and does not campaign.
  void SetNeedsSnapshot(bool needs_snapshot);
  // Whether the durable log ends before the promised entry. Until a leader has sent what is missing, this
  // node votes as if it had its log still (Raft paper, 5.4.1, with the promised entry as the last one), and
  // does not campaign: its own vote would break that promise. So a majority that holds a committed entry
  // still meets every majority that elects.
  bool IsBehindPromise() const;

  // ---- outputs ----
  bool HasOutput() const;
  Output TakeOutput();

  // ---- state ----
  NodeId id() const;
  Role role() const;
  uint64_t term() const;
  NodeId leader() const;
  uint64_t commit_index() const;
  uint64_t applied_index() const;
  // Entries up to here may be applied: the committed ones, but a configuration entry not before this node
  // will still know after a restart that it is committed. A member that it removes may leave for good as soon
  // as somebody has applied it; by the old configuration its vote could be needed to find that out.
  uint64_t applicable_index() const;
  // Entries up to here are in the log store for good. A leader may commit beyond it, by the others'
  // copies: the engine must not be made durable beyond it, else a restart finds it ahead of the log.
  uint64_t durable_index() const;
  uint64_t first_index() const;  // Of the log; last_index() + 1 when empty.
  uint64_t last_index() const;
  // Term of an entry of [first_index() - 1, last_index()]; nullopt outside.
  std::optional<uint64_t> TermAt(uint64_t index) const;
  // A committed entry that is not applied yet. It is in memory.
  const Entry& EntryAt(uint64_t index) const;
  const Configuration& configuration() const;
  bool IsVoter() const;
  bool transferring() const;
  bool committed_in_term() const;  // Leader: an entry of this term is committed.
  // Leader: one per other member. Else empty.
  std::vector<PeerProgress> progress() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyway::raft
