// SPDX-License-Identifier: Apache-2.0
//
// The engine and the log behind apply: changes go to the engine in large batches, each with the applied
// index; the log is truncated below what the engine has made durable; compaction deletes old versions.
#include <algorithm>

#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"
#include "kernel/core/snapshot.h"
#include "keyway/crc32c.h"

namespace keyway::core {
namespace {

constexpr uint64_t kWriteAfterMs = 1000;       // At the latest, when there is anything.
constexpr uint64_t kLogBytesKept = 64u << 20;  // Beyond what the engine has.

}  // namespace

void Core::CollectChanges() {
  std::vector<mvcc::Change> changes = mvcc_->TakeChanges();
  if (changes.empty()) return;
  for (const mvcc::Change& change : changes) {
    digest_.Add(change.revision);
    unwritten_->PutRecord(change.revision, change.record);
  }
  hub_->Publish(changes);
}

Applied Core::CurrentApplied() const {
  Applied applied;
  applied.index = raft_->applied_index();
  applied.term = applied_term_;
  applied.revision = mvcc_->revision();
  applied.compact_revision = mvcc_->compact_revision();
  applied.compacted = IsCompacted() || mutant::Is(mutant::kCompactionForgotten);
  applied.cluster_id = identity_.cluster_id;
  applied.digest = DigestOf(membership_);
  return applied;
}

// Hands the changes so far to the [store] lane, if there are enough of them, they have waited long, or
// `now`. One batch at a time: the next forms meanwhile.
void Core::MaybeWriteStore(bool now) {
  if (store_busy_ || failed_ || needs_snapshot_) return;
  if (apply_position_ != 0 && !mutant::Is(mutant::kMidEntryWrite)) return;
  // A leader may commit by the others' copies: the engine never gets ahead of our own log.
  if (raft_->durable_index() < raft_->applied_index() && !mutant::Is(mutant::kEngineAheadOfLog)) return;
  const bool dirty =
      !unwritten_->empty() || raft_->applied_index() > stored_index_ || (!compacted_saved_ && IsCompacted());
  if (!dirty) return;
  if (unwritten_since_ms_ == 0) unwritten_since_ms_ = std::max<uint64_t>(1, now_ms());
  const bool waited = now_ms() >= unwritten_since_ms_ + kWriteAfterMs;
  const bool wanted = !hashes_.empty() || !physical_compactions_.empty();
  if (!now && !waited && !wanted && unwritten_->bytes() < kStoreBatchBytes) return;

  if (promise_.has_value() && !raft_->IsBehindPromise()) {
    Log(deps_.logger, KW_LOG_INFO, "log_repaired",
        {{"index", raft_->durable_index()}, {"promised", promise_->index}});
    unwritten_->Delete(kTableMeta, kMetaLogPromise);
    promise_.reset();
  }
  const Applied applied = CurrentApplied();
  unwritten_->Put(kTableMeta, kMetaApplied, SharedBytes::Copy(EncodeApplied(applied)));
  std::shared_ptr<StoreBatch> batch(std::move(unwritten_));
  unwritten_ = std::make_unique<StoreBatch>();
  unwritten_since_ms_ = 0;
  writing_bytes_ = batch->bytes();
  store_busy_ = true;
  struct Result {
    int32_t code = KW_OK;
    std::string error;
  };
  auto result = std::make_shared<Result>();
  OnLane(
      Lane::kStore,
      [this, batch, result] {
        result->code = batch->WriteTo(deps_.store_plugin, deps_.store, &result->error);
      },
      [this, batch, result, applied, epoch = install_epoch_] {
        store_busy_ = false;
        writing_bytes_ = 0;
        if (result->code != KW_OK) {
          return Fatal(config_.store_name + " cannot be written: " + result->error);
        }
        if (epoch == install_epoch_) OnStoreWritten(applied);
      });
}

void Core::TakeStoreStats() {
  kw_kv_stats stats{};
  stats.size = sizeof stats;
  kw_error error{};
  error.size = sizeof error;
  if (deps_.store->stats(deps_.store_plugin, &stats, &error) != KW_OK) return;
  store_live_bytes_ = stats.live_bytes;
  Set(metric_db_bytes_, static_cast<int64_t>(stats.disk_bytes));
  Set(metric_db_bytes_in_use_, static_cast<int64_t>(stats.live_bytes));
}

void Core::OnStoreWritten(const Applied& applied) {
  stored_index_ = applied.index;
  TakeStoreStats();
  mvcc_->OnStored(applied.revision);
  if (applied.compacted && applied.compact_revision == mvcc_->compact_revision()) {
    if (!compacted_saved_) {
      Log(deps_.logger, KW_LOG_INFO, "finished scheduled compaction",
          {{"compact_revision", applied.compact_revision}});
    }
    compacted_saved_ = true;
    for (kw_request* request : std::exchange(physical_compactions_, {})) {
      Finish(request, NewReply());
    }
  }
  MaybeTruncateLog();
  TryHashes();
  FinishMarks();
}

// ---- log truncation --------------------------------------------------------------------------------

void Core::NoteEntryBytes(uint64_t index, size_t bytes) {
  if (entry_bytes_.empty()) entry_bytes_from_ = index;
  entry_bytes_.push_back(static_cast<uint32_t>(bytes));
  entry_bytes_total_ += bytes;
}

void Core::MaybeTruncateLog() {
  // Keep what followers may still need: a number of entries and of bytes below the applied index.
  while (!entry_bytes_.empty() &&
         (entry_bytes_.size() > config_.log_entries_kept || entry_bytes_total_ > kLogBytesKept)) {
    entry_bytes_total_ -= entry_bytes_.front();
    entry_bytes_.pop_front();
    ++entry_bytes_from_;
  }
  uint64_t first_kept = entry_bytes_.empty() ? stored_index_ + 1 : entry_bytes_from_;
  if (!mutant::Is(mutant::kLogReleasedEarly)) first_kept = std::min(first_kept, stored_index_ + 1);
  for (const auto& [peer, sender] : senders_) {
    first_kept = std::min(first_kept, std::max<uint64_t>(sender->index(), 1));
  }
  if (first_kept < raft_->first_index() + config_.log_entries_per_truncation) return;
  raft_->TruncatePrefix(first_kept - 1);
  auto job = std::make_unique<LogJob>();
  job->op = LogJob::Kind::kTruncatePrefix;
  job->index = first_kept;
  job->on_complete = [this](LogJob* done) { CompleteLog(done); };
  deps_.executor->Submit(Lane::kLog, std::move(job));
}

// ---- compaction -------------------------------------------------------------------------------------

// A slice of the compaction. A read of the engine that began before may still need what is deleted, so
// the deletes wait for it.
void Core::StepCompaction() {
  if (!mvcc_->compacting() || needs_snapshot_) return;
  std::vector<mvcc::Revision> deleted;
  mvcc_->CompactStep(config_.compact_keys_per_turn, &deleted);
  if (!deleted.empty()) held_deletes_.emplace_back(next_read_ticket_, std::move(deleted));
  ReleaseDeletes();
}

void Core::ReleaseDeletes() {
  uint64_t oldest = engine_reads_.empty() ? UINT64_MAX : *engine_reads_.begin();
  if (mutant::Is(mutant::kCompactionUnderRead)) oldest = UINT64_MAX;
  while (!held_deletes_.empty() && held_deletes_.front().first <= oldest) {
    for (mvcc::Revision revision : held_deletes_.front().second) {
      digest_.Remove(revision);
      removed_digest_.Remove(revision);
      unwritten_->DeleteRecord(revision);
    }
    held_deletes_.pop_front();
  }
}

// ---- HashKV -----------------------------------------------------------------------------------------

// A hash over the records that a member must hold at a revision: those newer than the last compaction,
// and of each key the one that the compaction kept. Equal on all members whatever their engine.
void Core::RunHash(kw_request* request) {
  hashes_.push_back(request);
  TryHashes();
}

void Core::TryHashes() {
  if (hashes_.empty() || failed_ || needs_snapshot_) return;
  // The engine must hold everything, all proposals of an entry, and no more than the compaction keeps.
  if (store_busy_ || apply_position_ != 0 || !unwritten_->empty() || mvcc_->compacting() ||
      !held_deletes_.empty() || !compacted_saved_ || stored_index_ < raft_->applied_index()) {
    MaybeWriteStore(false);
    return;
  }
  std::vector<kw_request*> requests = std::exchange(hashes_, {});
  for (kw_request* request : requests) {
    int64_t revision = reinterpret_cast<const kw_compact_request*>(request)->revision;
    if (revision > mvcc_->revision()) {
      Fail(request, Failure(KW_DETAIL_FUTURE_REVISION));
      continue;
    }
    if (revision > 0 && revision < mvcc_->compact_revision()) {
      Fail(request, Failure(KW_DETAIL_COMPACTED));
      continue;
    }
    if (revision <= 0) revision = mvcc_->revision();
    struct Work {
      uint32_t hash = 0;
      std::string error;
    };
    auto work = std::make_shared<Work>();
    const uint64_t ticket = BeginEngineRead();
    OnLane(
        Lane::kRead,
        [this, work, revision] {
          ScanTable(deps_, kTableRevisions, &work->error, [&](std::string_view key, std::string_view record) {
            if (mvcc::DecodeRevisionKey(key).main > revision) return false;
            work->hash = kw_crc32c(work->hash, key.data(), key.size());
            work->hash = kw_crc32c(work->hash, record.data(), record.size());
            return true;
          });
        },
        [this, work, ticket, request, revision, epoch = install_epoch_, current = mvcc_->revision(),
         compact_revision = mvcc_->compact_revision()] {
          EndEngineRead(ticket);
          if (!work->error.empty()) {
            Fatal(config_.store_name + " cannot be read: " + work->error);
            return Fail(request, Failure(KW_DETAIL_CORRUPT));
          }
          if (failed_ || epoch != install_epoch_) {  // Over what a snapshot has replaced.
            return Fail(request, Failure(failed_ ? KW_DETAIL_STOPPED : KW_DETAIL_TIMEOUT));
          }
          ReplyPtr reply = NewReply();
          reply->revision = current;
          kw_hash* hash = reply->arena.New<kw_hash>();
          hash->hash = work->hash;
          hash->compact_revision = compact_revision == 0 ? -1 : compact_revision;  // As etcd.
          hash->hash_revision = revision;
          reply->hash = hash;
          Finish(request, std::move(reply));
        });
  }
}

bool ScanTable(const CoreDeps& deps, uint32_t table, std::string* error,
               const std::function<bool(std::string_view, std::string_view)>& visit) {
  kw_error failure{};
  failure.size = sizeof failure;
  kw_kv_view* view = nullptr;
  if (deps.store->view_open(deps.store_plugin, &view, &failure) != KW_OK) {
    *error = failure.text;
    return false;
  }
  const bool scanned = ScanView(deps, view, table, error, visit);
  deps.store->view_close(deps.store_plugin, view);
  return scanned;
}

bool ScanView(const CoreDeps& deps, kw_kv_view* view, uint32_t table, std::string* error,
              const std::function<bool(std::string_view, std::string_view)>& visit) {
  kw_error failure{};
  failure.size = sizeof failure;
  kw_kv_cursor* cursor = nullptr;
  bool going = deps.store->cursor_open(deps.store_plugin, view, table, ToSlice({"\0", 1}), kw_slice{}, 0,
                                       &cursor, &failure) == KW_OK;
  if (!going) *error = failure.text;
  constexpr size_t kPairs = 256;
  std::vector<kw_kv_pair> pairs(kPairs);
  while (going) {
    size_t count = 0;
    if (deps.store->cursor_next(deps.store_plugin, cursor, pairs.data(), kPairs, &count, &failure) != KW_OK) {
      *error = failure.text;
      break;
    }
    for (size_t i = 0; i < count && going; ++i) {
      going = visit(ToView(pairs[i].key), ToView(pairs[i].value));
    }
    if (count == 0) break;
  }
  if (cursor != nullptr) deps.store->cursor_close(deps.store_plugin, cursor);
  return error->empty();
}

}  // namespace keyway::core
