// SPDX-License-Identifier: Apache-2.0
//
// Sending snapshots to members that are behind the log, and installing them.
//
// Installing replaces the engine's contents. First the mark "installing" is made durable, last it goes
// in the same batch that sets the applied point; with the mark the engine is known to be partial, so a
// crash in between only means that the member asks for a snapshot again. Raft's log and hard state stay
// until the end: the member keeps its promises (votes, acknowledged entries) meanwhile.
#include <algorithm>

#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"
#include "kernel/core/keys_in_order.h"
#include "kernel/core/snapshot.h"
#include "keyway/crc32c.h"

namespace keyway::core {

namespace {
constexpr uint64_t kSnapshotInstalled = UINT64_MAX;  // As a chunk number: all of it, or not needed.
}

// ---- sending ----------------------------------------------------------------------------------------

void Core::StartSnapshot(uint64_t peer) {
  if (senders_.count(peer) != 0) return;
  auto& sender = senders_[peer];
  sender = std::make_unique<SnapshotSender>(deps_, config_.snapshot_chunk_bytes, now_ms());
  sender->id = next_sender_id_++;
  Log(deps_.logger, KW_LOG_INFO, "snapshot_send_started", {{"to", HexId(peer)}});
  PumpSnapshot(peer);
}

void Core::PumpSnapshot(uint64_t peer) {
  auto at = senders_.find(peer);
  if (at == senders_.end()) return;
  SnapshotSender& sender = *at->second;
  if (sender.reading || sender.done || sender.next_chunk - sender.acknowledged >= kSnapshotChunksInflight) {
    return;
  }
  struct Work {
    std::string items;
    bool last = false, ok = false;
  };
  auto work = std::make_shared<Work>();
  sender.reading = true;
  const bool open = sender.next_chunk == 0;
  const uint64_t ticket = BeginEngineRead();
  OnLane(
      Lane::kRead,
      [work, reader = sender.reader, open] {
        work->ok = (!open || reader->Open()) && reader->Next(&work->items, &work->last);
      },
      [this, work, peer, ticket, open, id = sender.id, reader = sender.reader] {
        EndEngineRead(ticket);
        auto at = senders_.find(peer);
        if (failed_ || at == senders_.end() || at->second->id != id) return;
        SnapshotSender& sender = *at->second;
        sender.reading = false;
        if (!work->ok) {
          Log(deps_.logger, KW_LOG_WARN, "snapshot_send_failed",
              {{"to", HexId(peer)}, {"reason", reader->error()}});
          return EndSnapshot(peer, 0);
        }
        if (!mutant::Is(mutant::kSnapshotTorn)) sender.applied = reader->applied();
        if (mutant::Is(mutant::kSnapshotTorn) && open) sender.applied = CurrentApplied();
        std::string head = Frame(FrameKind::kSnapshotChunk, peer);
        PutFixed64(&head, raft_->term());
        PutFixed64(&head, sender.next_chunk++);
        head.push_back(work->last ? 1 : 0);
        PutBytes(&head, EncodeApplied(sender.applied));
        PutFixed32(&head, kw_crc32c(0, work->items.data(), work->items.size()));
        sender.done = work->last;
        sender.progress_ms = now_ms();
        sender.unacknowledged.push_back({std::move(head), std::move(work->items)});
        SendFrame(peer, KW_LANE_BULK, sender.unacknowledged.back().head, sender.unacknowledged.back().items);
        PumpSnapshot(peer);
      });
}

void Core::OnSnapshotAck(const FrameHeader& header, Reader* reader) {
  const uint64_t index = reader->Fixed64();
  const uint64_t chunk = reader->Fixed64();
  const bool ok = reader->Byte() != 0;
  auto at = senders_.find(header.from);
  if (!reader->ok() || at == senders_.end()) return;
  SnapshotSender& sender = *at->second;
  if (chunk == kSnapshotInstalled && ok) return EndSnapshot(header.from, index);
  if (index != sender.index()) return;
  if (!ok) return EndSnapshot(header.from, 0);
  for (; sender.acknowledged <= chunk && !sender.unacknowledged.empty(); ++sender.acknowledged) {
    sender.unacknowledged.pop_front();
  }
  sender.progress_ms = now_ms();
  PumpSnapshot(header.from);
}

// After a reconnection, or when nothing was acknowledged for a while: the transfer goes on where the
// receiver stands. One that has started anew refuses, and gets a new transfer.
void Core::ResendSnapshot(uint64_t peer) {
  auto at = senders_.find(peer);
  if (at == senders_.end()) return;
  at->second->resent_ms = now_ms();
  for (const SnapshotSender::Chunk& chunk : at->second->unacknowledged) {
    SendFrame(peer, KW_LANE_BULK, chunk.head, chunk.items);
  }
}

void Core::EndSnapshot(uint64_t peer, uint64_t index) {
  if (senders_.erase(peer) == 0) return;
  Log(deps_.logger, index != 0 ? KW_LOG_INFO : KW_LOG_WARN,
      index != 0 ? "sent database snapshot" : "snapshot_send_abandoned",
      {{"to", HexId(peer)}, {"index", index}});
  if (!failed_) raft_->OnSnapshotSent(peer, index);
}

// ---- installing -------------------------------------------------------------------------------------

void Core::SendSnapshotAck(uint64_t to, uint64_t index, uint64_t chunk, bool ok) {
  std::string head = Frame(FrameKind::kSnapshotAck, to);
  PutFixed64(&head, index);
  PutFixed64(&head, chunk);
  head.push_back(ok ? 1 : 0);
  SendFrame(to, KW_LANE_CONTROL, head);
}

void Core::BeginInstall(uint64_t from, const Applied& applied) {
  Log(deps_.logger, KW_LOG_INFO, "snapshot_install_started",
      {{"from", HexId(from)}, {"index", applied.index}, {"revision", applied.revision}});
  install_ = Install();  // Not emplace(): clang takes Install for not constructible there.
  install_->from = from;
  install_->applied = applied;
  needs_snapshot_ = true;
  raft_->SetNeedsSnapshot(true);
  // What is under way over the old state is void: reads start again afterwards.
  ++install_epoch_;
  apply_waiting_ = false;
  apply_position_ = 0;
  watch_read_active_ = false;
  for (auto& task : ranges_) held_.push_back(task->request);
  ranges_.clear();
  held_deletes_.clear();
  for (kw_request* request : std::exchange(hashes_, {})) {
    Fail(request, Failure(KW_DETAIL_TIMEOUT));
  }
  for (kw_request* request : std::exchange(physical_compactions_, {})) Finish(request, NewReply());
  mvcc_->Clear();
  leases_.Clear();
  digest_.Clear();
  marks_.clear();
  entry_bytes_.clear();
  entry_bytes_total_ = 0;
  unwritten_ = std::make_unique<StoreBatch>();
  if (!mutant::Is(mutant::kSnapshotUnmarked)) {
    unwritten_->Put(kTableMeta, kMetaInstalling, SharedBytes::Copy("1"));
    unwritten_->Delete(kTableMeta, kMetaApplied);
  }
  for (uint32_t table : kSnapshotTables) unwritten_->Clear(table);
}

void Core::OnSnapshotChunk(const FrameHeader& header, Reader* reader) {
  const uint64_t term = reader->Fixed64();
  const uint64_t chunk = reader->Fixed64();
  const bool last = reader->Byte() != 0;
  const std::optional<Applied> applied = DecodeApplied(reader->Bytes());
  const uint32_t crc = reader->Fixed32();
  const std::string_view items = reader->Raw(reader->remaining());
  if (!reader->ok() || !applied.has_value() || kw_crc32c(0, items.data(), items.size()) != crc) return;
  if (!raft_->OnSnapshotChunk(header.from, term)) return;
  if (!needs_snapshot_ && applied->index <= raft_->applied_index()) {
    return SendSnapshotAck(header.from, raft_->applied_index(), kSnapshotInstalled, true);
  }
  // A new leader's engine may lag behind what this node had applied before an earlier transfer took its
  // state: Raft cannot go back. The leader's next snapshot will be newer.
  if (applied->index < raft_->applied_index()) {
    return SendSnapshotAck(header.from, applied->index, chunk, false);
  }
  const bool is_known = install_.has_value() && install_->from == header.from &&
                        install_->applied.index == applied->index &&
                        install_->applied.digest == applied->digest;
  if (is_known && chunk != install_->next_chunk) {
    // Sent again, or one before it was lost and will be sent again.
    if (chunk < install_->written) SendSnapshotAck(header.from, applied->index, install_->written - 1, true);
    return;
  }
  if (!is_known && chunk != 0) return SendSnapshotAck(header.from, applied->index, chunk, false);
  if (!is_known) BeginInstall(header.from, *applied);
  ++install_->next_chunk;
  install_->last_ms = now_ms();

  auto batch = std::make_shared<StoreBatch>(std::move(*unwritten_));
  unwritten_ = std::make_unique<StoreBatch>();
  Reader rest(items);
  while (rest.ok() && !rest.empty()) {
    const uint32_t table = rest.Byte();
    const std::string_view key = rest.Bytes();
    const std::string_view value = rest.Bytes();
    if (!rest.ok() || key.empty() || key.size() > 16 || table == kTableMeta || table >= KW_KV_TABLE_COUNT ||
        !RestoreItem(table, key, value, &install_->membership)) {
      return AbandonInstall();
    }
    batch->Put(table, key, SharedBytes::Copy(value));
  }
  if (last && DigestOf(install_->membership) != applied->digest && !mutant::Is(mutant::kSnapshotUnchecked) &&
      !mutant::Is(mutant::kSnapshotTorn)) {
    Log(deps_.logger, KW_LOG_ERROR, "snapshot_digest_differs",
        {{"from", HexId(header.from)},
         {"index", applied->index},
         {"digest", HexId(DigestOf(install_->membership))},
         {"expected", HexId(applied->digest)}});
    return AbandonInstall();
  }
  if (last) {
    batch->Put(kTableMeta, kMetaApplied, SharedBytes::Copy(EncodeApplied(*applied)));
    batch->Delete(kTableMeta, kMetaInstalling);
    if (!mutant::Is(mutant::kLogResetUnmarked)) batch->Put(kTableMeta, kMetaLogReset, SharedBytes::Copy("1"));
  }
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
      [this, result, chunk, last, epoch = install_epoch_, from = header.from, index = applied->index] {
        if (result->code != KW_OK) {
          return Fatal(config_.store_name + " cannot be written: " + result->error);
        }
        if (failed_ || !install_.has_value() || epoch != install_epoch_) return;
        install_->written = chunk + 1;
        if (last) return FinishInstall();
        SendSnapshotAck(from, index, chunk, true);
      });
}

void Core::FinishInstall() {
  Install install = std::move(*install_);
  install_.reset();
  const Applied& applied = install.applied;
  mvcc_->FinishRestore(applied.revision, applied.compact_revision, applied.compacted);
  mvcc_->OnStored(applied.revision);
  compacted_saved_ = applied.compacted;
  membership_ = std::move(install.membership);
  applied_term_ = applied.term;
  stored_index_ = applied.index;
  needs_snapshot_ = false;
  ++install_epoch_;
  if (raft_->InstallSnapshot(applied.index, applied.term, membership_.Configuration())) {
    auto job = std::make_unique<LogJob>();
    job->op = LogJob::Kind::kReset;
    job->index = applied.index;
    job->term = applied.term;
    job->on_complete = [this](LogJob* done) {
      CompleteLog(done);
      if (!failed_ && !needs_snapshot_) unwritten_->Delete(kTableMeta, kMetaLogReset);
    };
    deps_.executor->Submit(Lane::kLog, std::move(job));
  } else {
    unwritten_->Delete(kTableMeta, kMetaLogReset);
  }
  raft_->SetNeedsSnapshot(false);
  Log(deps_.logger, KW_LOG_INFO, "applied snapshot",
      {{"index", applied.index}, {"term", applied.term}, {"revision", applied.revision}});
  hub_->OnRestored(applied.revision);
  if (applied.compact_revision > 0) hub_->OnCompacted(applied.compact_revision);
  // Whether our own proposals are in the snapshot cannot be known: they must not be proposed again.
  for (uint64_t id : KeysInOrder(pending_)) {
    auto at = pending_.find(id);
    if (at->second.term == 0 || mutant::Is(mutant::kRetriedAfterSnapshot)) continue;
    Fail(at->second.request, Failure(KW_DETAIL_TIMEOUT_LEADER_FAILED));
    pending_.erase(at);
  }
  UpdatePeers();
  SendSnapshotAck(install.from, applied.index, kSnapshotInstalled, true);
  for (kw_request* request : std::exchange(held_, {})) RunRead(request);
}

// The transfer ended early. The engine is partial until the next one.
void Core::AbandonInstall() {
  Log(deps_.logger, KW_LOG_WARN, "snapshot_install_abandoned",
      {{"from", HexId(install_->from)}, {"chunks", install_->next_chunk}});
  SendSnapshotAck(install_->from, install_->applied.index, install_->next_chunk, false);
  install_.reset();
  ++install_epoch_;
}

}  // namespace keyway::core
