// SPDX-License-Identifier: Apache-2.0
//
// Start: what the engine and the log hold, whether they fit together, and who this node is.
//
//   engine   log     what it is
//   empty    empty   a new data directory: bootstrap, or wait to be named by a running cluster
//   there    there   a restart; the log covers the engine's applied point, or is reset to it (a crash
//                    between the last step of a snapshot and the reset)
//   there    empty   only right after the identity was written; with anything applied: the log was lost,
//                    and with it votes and acknowledged entries: refused
//   empty    there   the store was lost: refused
#include "kernel/base/limits.h"
#include "kernel/core/core.h"
#include "kernel/core/replace_hint.h"
#include "kernel/core/snapshot.h"
#include "keyway/crc32c.h"

namespace keyway::core {

bool Core::ReadEngine(std::string* error, std::optional<Identity>* identity, std::optional<Applied>* applied,
                      bool* installing, bool* log_reset) {
  bool sound = true;
  std::string fenced;
  bool scanned = ScanTable(deps_, kTableMeta, error, [&](std::string_view key, std::string_view value) {
    if (key == kMetaIdentity) {
      *identity = DecodeIdentity(value);
      sound = sound && identity->has_value();
    } else if (key == kMetaApplied) {
      *applied = DecodeApplied(value);
      sound = sound && applied->has_value();
    } else if (key == kMetaInstalling) {
      *installing = true;
    } else if (key == kMetaLogReset) {
      *log_reset = true;
    } else if (key == kMetaLogPromise) {
      promise_ = DecodePromise(value);
      sound = sound && promise_.has_value();
    } else if (key == kMetaFenced) {
      fenced = value;
    } else if (const uint64_t member = MemberOfMetaPeerKey(key); member != 0) {
      Reader reader(value);
      incarnations_[member] = reader.Fixed64();
      remembered_.insert(member);
      sound = sound && reader.ok();
    }
    return true;
  });
  if (!scanned) {
    *error = config_.store_name + " cannot be read: " + *error + kReplaceHint;
    return false;
  }
  if (!sound) *error = "the store's meta table cannot be decoded: it is of another version, or corrupt";
  if (!fenced.empty()) *error = "this member has fenced itself: " + fenced + kReplaceHint;
  return sound && fenced.empty();
}

bool Core::RestoreItem(uint32_t table, std::string_view key, std::string_view value, Membership* membership) {
  switch (table) {
    case kTableLeases: {
      Reader reader(value);
      const uint64_t ttl_s = reader.Varint();
      if (key.size() != 8 || !reader.ok()) return false;
      leases_.Restore(static_cast<int64_t>(ReadBigEndian64(key.data())), static_cast<int64_t>(ttl_s));
      digest_.Add(kTableLeases, key, value);
      return true;
    }
    case kTableMembers:
      if (key.size() != 8) return false;
      return ReadBigEndian64(key.data()) == 0 ? membership->RestoreCluster(value)
                                              : membership->RestoreMember(value);
    case kTableRevisions: {
      mvcc::RecordFields fields;
      if (key.size() != mvcc::kRevisionKeyBytes || !mvcc::DecodeRecord(value, &fields)) return false;
      const mvcc::Revision revision = mvcc::DecodeRevisionKey(key);
      if (fields.mod_revision != revision.main) return false;
      digest_.Add(mvcc_->RestoreRecord(revision, value));
      return true;
    }
    default:
      return false;
  }
}

bool Core::RestoreFromEngine(std::string* error) {
  for (uint32_t table : kSnapshotTables) {
    bool sound = true;
    if (!ScanTable(deps_, table, error, [&](std::string_view key, std::string_view value) {
          sound = RestoreItem(table, key, value, &membership_);
          return sound;
        })) {
      *error = config_.store_name + " cannot be read: " + *error + kReplaceHint;
      return false;
    }
    if (!sound) {
      *error = "table " + std::to_string(table) +
               " of the store holds an item that cannot be decoded: it is corrupt" + kReplaceHint;
      return false;
    }
  }
  return true;
}

bool Core::ReadLog(const kw_log_bounds& bounds, std::vector<raft::Entry>* entries, std::string* error) {
  kw_error failure{};
  failure.size = sizeof failure;
  uint64_t next = bounds.first;
  while (next <= bounds.last) {
    kw_log_batch* batch = nullptr;
    if (deps_.log->read(deps_.log_plugin, next, bounds.last + 1, 4u << 20, &batch, &failure) != KW_OK) {
      *error = std::string("the log cannot be read: ") + failure.text;
      return false;
    }
    for (size_t i = 0; i < batch->entry_count; ++i) {
      const kw_log_entry& entry = batch->entries[i];
      if (entry.index != next || kw_crc32c(0, entry.data.ptr, entry.data.len) != entry.crc32c) {
        *error = "log entry " + std::to_string(next) + " is not what was written" + kReplaceHint;
        batch->release(batch);
        return false;
      }
      entries->push_back({entry.index, entry.term, static_cast<raft::EntryKind>(entry.kind), entry.crc32c,
                          SharedBytes::Copy(ToView(entry.data))});
      ++next;
    }
    const bool empty = batch->entry_count == 0;
    batch->release(batch);
    if (empty) {
      *error = "the log store gave no entry for index " + std::to_string(next);
      return false;
    }
  }
  return true;
}

bool Core::WriteIdentity(std::string* error) {
  StoreBatch batch;
  batch.Put(kTableMeta, kMetaIdentity, SharedBytes::Copy(EncodeIdentity(identity_)));
  return batch.WriteTo(deps_.store_plugin, deps_.store, error) == KW_OK;
}

// A new cluster: every initial member writes the same first entry.
bool Core::Bootstrap(std::string* error, raft::InitialState* initial) {
  Membership membership;
  if (!membership.Bootstrap(config_.initial_members, config_.cluster_token).ok()) {
    *error = "[cluster.members] names a peer URL twice, or one that is not http(s)://host:port";
    return false;
  }
  const Member* self = membership.FindByName(config_.name);
  KW_CHECK(self != nullptr);  // Recover() has checked it.
  identity_.cluster_id = membership.cluster_id();
  identity_.member_id = self->id;
  if (!WriteIdentity(error)) return false;

  std::string proposal;
  EncodeMemberProposal(0, 0, ProposalKind::kBootstrap, EncodeMembers(membership), &proposal);
  raft::Entry entry;
  entry.index = 1;
  entry.term = 1;
  entry.kind = raft::EntryKind::kConfiguration;
  entry.data = SharedBytes::Copy(proposal);
  entry.crc32c = kw_crc32c(0, proposal.data(), proposal.size());
  initial->hard_state = {.term = 1, .vote = 0, .commit = 1};
  initial->entries.push_back(entry);

  LogJob job;
  job.entries = initial->entries;
  job.hard_state = kw_hard_state{1, 0, 1};
  RunLogJob(deps_.log_plugin, deps_.log, &job);
  if (job.code != KW_OK) *error = "the log cannot be written: " + job.error;
  Log(deps_.logger, KW_LOG_INFO, "cluster_bootstrapped",
      {{"cluster", HexId(identity_.cluster_id)},
       {"member", HexId(identity_.member_id)},
       {"members", membership.members().size()}});
  return job.code == KW_OK;
}

bool Core::Recover(std::string* error) {
  for (const InitialMember& member : config_.initial_members) {
    if (member.name == config_.name) self_peer_urls_ = member.peer_urls;
  }
  if (self_peer_urls_.empty() || !NormalizeUrls(&self_peer_urls_).ok()) {
    *error = "[cluster.members] does not name this node (\"" + config_.name +
             "\"), or not with URLs of the form http(s)://host:port";
    return false;
  }
  std::optional<Identity> identity;
  std::optional<Applied> applied;
  bool installing = false, log_reset = false;
  if (!ReadEngine(error, &identity, &applied, &installing, &log_reset)) return false;

  kw_hard_state hard_state{};
  kw_log_bounds bounds{};
  kw_error failure{};
  failure.size = sizeof failure;
  const int32_t code = deps_.log->recover(deps_.log_plugin, &hard_state, &bounds, &failure);
  if (code == KW_DATA_LOSS && identity.has_value() && applied.has_value() && !installing && !log_reset) {
    if (!SalvageLog(identity->member_id, *applied, failure.text, &hard_state, &bounds, error)) return false;
  } else if (code != KW_OK) {
    *error = std::string("the log cannot be recovered: ") + failure.text;
    if (code == KW_DATA_LOSS) *error += kReplaceHint;
    return false;
  }
  const bool log_empty = bounds.last < bounds.first && hard_state.term == 0 && bounds.first == 1;

  if (!identity.has_value()) {
    if (!log_empty) {
      *error = std::string("the store is empty, but the log is not: the store was lost") + kReplaceHint;
      return false;
    }
    identity_.incarnation = random_() | 1;
    hub_ = std::make_unique<watch::WatchHub>(change_source_.get(), mvcc_->revision());
    if (config_.join_existing) {
      joining_ = true;
      mvcc_->FinishRestore(1, 0, true);
      if (!WriteIdentity(error)) return false;
      Log(deps_.logger, KW_LOG_INFO, "waiting_for_cluster", {{"name", config_.name}});
      return true;
    }
    raft::InitialState initial;
    if (!Bootstrap(error, &initial)) return false;
    mvcc_->FinishRestore(1, 0, true);
    StartRaft(std::move(initial));
    return true;
  }

  identity_ = *identity;
  if (identity_.member_id == 0) {  // Stopped while it waited to be named.
    joining_ = true;
    mvcc_->FinishRestore(1, 0, true);
    hub_ = std::make_unique<watch::WatchHub>(change_source_.get(), mvcc_->revision());
    return true;
  }
  if (log_empty && applied.has_value() && applied->index > 0) {
    *error = std::string(
                 "the log is empty, but the store is not: the log was lost, and with it votes "
                 "and acknowledged entries") +
             kReplaceHint;
    return false;
  }
  if (log_empty && !applied.has_value() && !config_.join_existing && !installing) {
    // The first start ended between the identity and the first entry.
    hub_ = std::make_unique<watch::WatchHub>(change_source_.get(), mvcc_->revision());
    raft::InitialState initial;
    if (!Bootstrap(error, &initial)) return false;
    mvcc_->FinishRestore(1, 0, true);
    StartRaft(std::move(initial));
    return true;
  }

  raft::InitialState initial;
  initial.hard_state = {hard_state.term, hard_state.vote, hard_state.commit};
  const Applied at = installing ? Applied{} : applied.value_or(Applied{});
  if (!installing) {
    if (!RestoreFromEngine(error)) return false;
    if (applied.has_value() && DigestOf(membership_) != at.digest) {
      *error = config_.store_name + " does not hold what was applied up to index " +
               std::to_string(at.index) + ": the digest of its contents is " + HexId(DigestOf(membership_)) +
               ", it should be " + HexId(at.digest) + kReplaceHint;
      return false;
    }
    mvcc_->FinishRestore(at.revision, at.compact_revision, at.compacted);
    mvcc_->OnStored(at.revision);
  } else {
    mvcc_->FinishRestore(1, 0, true);
    needs_snapshot_ = true;
    Log(deps_.logger, KW_LOG_WARN, "snapshot_was_interrupted", {});
  }
  compacted_saved_ = at.compacted;
  stored_index_ = at.index;
  applied_term_ = at.term;
  if (hard_state.term < at.term && log_reset) {
    // The node ended between the last batch of the snapshot and the hard state. It has not voted in the
    // snapshot's term: a vote is durable before it is sent.
    initial.hard_state.term = at.term;
    initial.hard_state.vote = 0;
  } else if (hard_state.term < at.term) {
    *error = "the log is of an earlier time than the store: it knows term " +
             std::to_string(hard_state.term) + ", the store has applied entries of term " +
             std::to_string(at.term) + ". Votes and acknowledged entries were lost with the right one" +
             kReplaceHint;
    return false;
  }
  const uint64_t base = bounds.first - 1;
  std::vector<raft::Entry> entries;
  bool reset = at.index > bounds.last;
  if (!reset && !installing && at.index < base) {
    *error = "the log begins at " + std::to_string(bounds.first) + ", but the store holds only up to " +
             std::to_string(at.index) + ": entries are missing" + kReplaceHint;
    return false;
  }
  if (!reset) {
    if (!ReadLog(bounds, &entries, error)) return false;
    uint64_t term = at.term;
    if (at.index == base) term = bounds.base_term;
    if (at.index > base) term = entries[at.index - bounds.first].term;
    reset = !installing && at.index > 0 && term != at.term;
  }
  if (reset && !log_reset) {
    *error = "the log ends at " + std::to_string(bounds.last) + ", but the store has applied entry " +
             std::to_string(at.index) + " of term " + std::to_string(at.term) +
             ": they are not of the same time, and entries or votes were lost" + kReplaceHint;
    return false;
  }
  if (reset) {  // A snapshot was installed and the log not yet reset to it.
    entries.clear();
    LogJob job;
    job.op = LogJob::Kind::kReset;
    job.index = at.index;
    job.term = at.term;
    RunLogJob(deps_.log_plugin, deps_.log, &job);
    if (job.code != KW_OK) {
      *error = "the log cannot be reset: " + job.error;
      return false;
    }
    initial.base_index = at.index;
    initial.base_term = at.term;
    initial.hard_state.commit = at.index;
  } else {
    initial.base_index = base;
    initial.base_term = bounds.base_term;
  }
  initial.entries = std::move(entries);
  for (const raft::Entry& entry : initial.entries) {
    if (entry.index <= at.index) NoteEntryBytes(entry.index, entry.data.size());
  }
  initial.applied = installing ? initial.base_index : at.index;
  initial.hard_state.commit = std::max(initial.hard_state.commit, initial.applied);
  initial.configuration = membership_.Configuration();
  if (promise_.has_value()) {
    initial.promised_index = promise_->index;
    initial.promised_term = promise_->term;
  }
  hub_ = std::make_unique<watch::WatchHub>(change_source_.get(), mvcc_->revision());
  Log(deps_.logger, KW_LOG_INFO, "recovered",
      {{"member", HexId(identity_.member_id)},
       {"revision", mvcc_->revision()},
       {"keys", mvcc_->key_count()},
       {"applied", at.index},
       {"log_first", initial.base_index + 1},
       {"log_last", initial.base_index + initial.entries.size()},
       {"term", initial.hard_state.term}});
  StartRaft(std::move(initial));
  return true;
}

void Core::StartRaft(raft::InitialState initial) {
  initial_commit_ = initial.hard_state.commit;
  raft::Options options;
  options.id = identity_.member_id;
  options.election_ticks = config_.election_ticks;
  options.heartbeat_ticks = 1;
  options.random_seed = random_();
  options.append_bytes_max = kAppendMessageBytesMax;
  options.inflight_bytes_max = kInflightBytesMax;
  options.inflight_messages_max = config_.inflight_messages_max;
  options.cache_bytes = kRaftCacheBytes;
  raft_ = std::make_unique<raft::Raft>(options, std::move(initial));
  if (needs_snapshot_) raft_->SetNeedsSnapshot(true);
  if (membership_.IsRemoved(identity_.member_id)) Leave();
}

}  // namespace keyway::core
