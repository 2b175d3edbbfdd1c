// SPDX-License-Identifier: Apache-2.0
//
// Reads. A linearizable read waits until a quorum has confirmed the leader (ReadIndex, dissertation
// 6.4) and this member has applied what was committed then; all reads that arrive meanwhile share the
// next round. Records that are not in memory are read from the engine on the read lane.
#include <algorithm>

#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"

namespace keyway::core {
namespace {

constexpr size_t kRangeSliceKeys = 1000;  // About 100 us.

template <typename T>
const T& As(const kw_request* request) {
  return *reinterpret_cast<const T*>(request);
}

std::string Changed(mvcc::Revision revision) {
  return "the record of revision " + std::to_string(revision.main) + "." + std::to_string(revision.sub) +
         " is not what was written";
}

// The records of `revisions`, which come from the index, in order; one without a value if absent. [read]
std::vector<SharedBytes> GetRecords(const CoreDeps& deps, const std::vector<mvcc::Revision>& revisions,
                                    std::string* error) {
  std::vector<SharedBytes> records(revisions.size());
  kw_error failure{};
  failure.size = sizeof failure;
  kw_kv_view* view = nullptr;
  if (deps.store->view_open(deps.store_plugin, &view, &failure) != KW_OK) {
    *error = failure.text;
    return records;
  }
  constexpr size_t kGroup = 256;
  std::vector<char> keys(kGroup * mvcc::kRevisionKeyBytes);
  std::vector<kw_slice> key_slices(kGroup), values(kGroup);
  for (size_t at = 0; at < revisions.size() && error->empty(); at += kGroup) {
    const size_t count = std::min(kGroup, revisions.size() - at);
    for (size_t i = 0; i < count; ++i) {
      char* key = &keys[i * mvcc::kRevisionKeyBytes];
      mvcc::EncodeRevisionKey(revisions[at + i], key);
      key_slices[i] = ToSlice({key, mvcc::kRevisionKeyBytes});
    }
    if (deps.store->get(deps.store_plugin, view, kTableRevisions, key_slices.data(), count, values.data(),
                        &failure) != KW_OK) {
      *error = failure.text;
      break;
    }
    for (size_t i = 0; i < count; ++i) {
      if (values[i].ptr == nullptr) continue;
      records[at + i] = SharedBytes::Copy(ToView(values[i]));
      if (mvcc::RecordChecksum(records[at + i].view()) != revisions[at + i].crc32c &&
          !mutant::Is(mutant::kRecordUnchecked)) {
        *error = Changed(revisions[at + i]);
        break;
      }
    }
  }
  deps.store->view_close(deps.store_plugin, view);
  return records;
}

// What a history read found: the changes, and the last revision that they are complete up to.
struct History {
  std::vector<mvcc::Change> changes;
  int64_t reached = 0;
  std::string error;
};

// Reads whole revisions of [read.from, read.to) until one of the limits of `read`. [read]
void ReadHistory(const CoreDeps& deps, const watch::HistoryRead& read, History* out) {
  kw_error failure{};
  failure.size = sizeof failure;
  kw_kv_view* view = nullptr;
  kw_kv_cursor* cursor = nullptr;
  char begin[mvcc::kRevisionKeyBytes], end[mvcc::kRevisionKeyBytes];
  mvcc::EncodeRevisionKey({read.from, 0}, begin);
  mvcc::EncodeRevisionKey({read.to, 0}, end);
  if (deps.store->view_open(deps.store_plugin, &view, &failure) != KW_OK) {
    out->error = failure.text;
    return;
  }
  if (deps.store->cursor_open(deps.store_plugin, view, kTableRevisions, ToSlice({begin, sizeof begin}),
                              ToSlice({end, sizeof end}), 0, &cursor, &failure) != KW_OK) {
    out->error = failure.text;
    deps.store->view_close(deps.store_plugin, view);
    return;
  }
  constexpr size_t kPairs = 64;
  kw_kv_pair pairs[kPairs];
  size_t bytes = 0, revisions = 0, count = kPairs;
  int64_t last = 0;
  bool full = false;
  out->reached = read.to - 1;
  while (!full && count != 0) {
    if (deps.store->cursor_next(deps.store_plugin, cursor, pairs, kPairs, &count, &failure) != KW_OK) {
      out->error = failure.text;
      break;
    }
    for (size_t i = 0; i < count; ++i) {
      const mvcc::Revision revision = mvcc::DecodeRevisionKey(ToView(pairs[i].key));
      if (revision.main != last) {
        if (bytes >= read.bytes_max || revisions >= read.revisions_max) {
          out->reached = mutant::Is(mutant::kHistoryBoundary) ? revision.main : last;
          full = true;
          break;
        }
        last = revision.main;
        ++revisions;
      }
      mvcc::Change change;
      change.revision = revision;
      change.record = SharedBytes::Copy(ToView(pairs[i].value));
      bytes += change.record.size();
      out->changes.push_back(std::move(change));
    }
  }
  deps.store->cursor_close(deps.store_plugin, cursor);
  deps.store->view_close(deps.store_plugin, view);
}

}  // namespace

// ---- ReadIndex -----------------------------------------------------------------------------------

void Core::QueueRead(kw_request* request) {
  if (gathering_.requests.empty() && gathering_.waiters.empty()) gathering_.started_ms = now_ms();
  gathering_.requests.push_back(request);
}

void Core::QueueReadWaiter(std::function<void(bool)> waiter) {
  if (gathering_.requests.empty() && gathering_.waiters.empty()) gathering_.started_ms = now_ms();
  gathering_.waiters.push_back(std::move(waiter));
}

void Core::StartReadIndex() {
  if (asked_.has_value() || (gathering_.requests.empty() && gathering_.waiters.empty())) return;
  if (raft_->leader() == 0 || read_retry_tick_ > tick_count_) return;
  asked_ = std::move(gathering_);
  gathering_ = {};
  asked_->context = next_read_context_++;
  raft_->ReadIndex(asked_->context);
}

void Core::OnReadStates(const std::vector<raft::ReadState>& reads) {
  for (const raft::ReadState& read : reads) {
    if (!asked_.has_value() || asked_->context != read.context) continue;
    ReadBatch batch = std::move(*asked_);
    asked_.reset();
    if (!read.failed) {
      batch.index = read.index;
      confirmed_.push_back(std::move(batch));
      continue;
    }
    // Not confirmed: ask again with those that came meanwhile, not before the next tick.
    read_retry_tick_ = tick_count_ + 1;
    batch.requests.insert(batch.requests.end(), gathering_.requests.begin(), gathering_.requests.end());
    for (auto& waiter : gathering_.waiters) batch.waiters.push_back(std::move(waiter));
    gathering_ = std::move(batch);
  }
}

void Core::RunReadyReads() {
  while (!confirmed_.empty() && !needs_snapshot_ &&
         (confirmed_.front().index <= raft_->applied_index() || mutant::Is(mutant::kReadNotWaited))) {
    ReadBatch batch = std::move(confirmed_.front());
    confirmed_.pop_front();
    for (kw_request* request : batch.requests) RunRead(request);
    for (auto& waiter : batch.waiters) waiter(true);
  }
}

// ---- running a read on the state as it is -----------------------------------------------------------

void Core::RunRead(kw_request* request) {
  if (needs_snapshot_) {  // The state is partial while a snapshot is being installed.
    held_.push_back(request);
    return;
  }
  switch (request->kind) {
    case KW_REQ_RANGE:
      return RunRange(request);
    case KW_REQ_TXN:
      return RunReadTxn(request);
    case KW_REQ_LEASE_KEEP_ALIVE:
    case KW_REQ_LEASE_TIME_TO_LIVE:
    case KW_REQ_LEASE_LIST:
      return RunLease(request);
    case KW_REQ_MEMBER_LIST:
      return RunMemberList(request);
    default:
      KW_UNREACHABLE();
  }
}

void Core::RunRange(kw_request* request) {
  Add(metric_ranges_, 1);
  auto task = std::make_unique<RangeTask>();
  task->request = request;
  task->reply = NewReply();
  task->reader = std::make_unique<mvcc::RangeReader>(mvcc_.get(), As<kw_range_request>(request).range,
                                                     task->reply.get());
  ContinueRange(std::move(task));
}

void Core::ContinueRange(std::unique_ptr<RangeTask> task) {
  switch (task->reader->Step(kRangeSliceKeys)) {
    case mvcc::RangeReader::Progress::kDone: {
      const Outcome outcome = task->reader->outcome();
      if (outcome.code == KW_DATA_LOSS) {
        Fatal("a record that the index names is not in the store");
        return Fail(task->request, Failure(KW_DETAIL_CORRUPT));
      }
      if (!outcome.ok()) return Fail(task->request, outcome);
      return Finish(task->request, std::move(task->reply));
    }
    case mvcc::RangeReader::Progress::kMore:
      ranges_.push_back(std::move(task));
      return;
    case mvcc::RangeReader::Progress::kBlocked: {
      std::shared_ptr<RangeTask> waiting(std::move(task));
      std::vector<mvcc::Revision> missing = waiting->reader->missing();
      ReadRecords(std::move(missing),
                  [this, waiting, epoch = install_epoch_](std::vector<SharedBytes> records) {
                    if (failed_) return Fail(waiting->request, Failure(KW_DETAIL_STOPPED));
                    if (epoch != install_epoch_) return RunRead(waiting->request);  // Replaced by a snapshot.
                    waiting->reader->Resume(std::move(records));
                    ContinueRange(std::make_unique<RangeTask>(std::move(*waiting)));
                  });
      return;
    }
  }
}

void Core::RunReadTxn(kw_request* request) {
  const kw_txn& txn = As<kw_txn_request>(request).txn;
  std::vector<mvcc::Revision> missing;
  mvcc_->MissingForTxn(txn, false, &missing);
  if (!missing.empty()) {
    std::vector<mvcc::Revision> revisions = missing;
    ReadRecords(std::move(missing), [this, request, revisions = std::move(revisions),
                                     epoch = install_epoch_](std::vector<SharedBytes> records) {
      if (failed_) return Fail(request, Failure(KW_DETAIL_STOPPED));
      if (epoch == install_epoch_) {
        for (size_t i = 0; i < revisions.size(); ++i) {
          // Absent: compacted since; then it is not missing any more either.
          if (records[i].has_value()) mvcc_->Provide(revisions[i], std::move(records[i]));
        }
      }
      RunRead(request);
    });
    return;
  }
  ReplyPtr reply = NewReply();
  const Outcome outcome = mvcc_->ApplyTxn(txn, false, reply.get());
  if (!outcome.ok()) return Fail(request, outcome);
  Finish(request, std::move(reply));
}

void Core::RunMemberList(kw_request* request) {
  ReplyPtr reply = NewReply();
  membership_.FillReply(reply.get());
  reply->revision = 0;  // As etcd: headers of Cluster replies carry none.
  Finish(request, std::move(reply));
}

// ---- leases --------------------------------------------------------------------------------------

void Core::RunLease(kw_request* request) {
  if (request->kind == KW_REQ_LEASE_LIST) {
    ReplyPtr reply = NewReply();
    kw_lease_info* info = reply->arena.New<kw_lease_info>();
    const std::vector<int64_t> ids = leases_.Ids();
    int64_t* copy = reply->arena.NewArray<int64_t>(ids.size());
    std::copy(ids.begin(), ids.end(), copy);
    info->ids = copy;
    info->id_count = ids.size();
    reply->lease = info;
    return Finish(request, std::move(reply));
  }
  if (!leases_.primary() && !mutant::Is(mutant::kFollowerAnswersLease))
    return ForwardLease(request);  // Leadership moved while it waited.
  const int64_t id = As<kw_lease_request>(request).id;
  const int64_t now = static_cast<int64_t>(now_ms());
  if (request->kind == KW_REQ_LEASE_KEEP_ALIVE) {
    return AnswerLease(request, leases_.Renew(id, now), leases_.GrantedTtl(id));
  }
  AnswerLease(request, leases_.Remaining(id, now), leases_.GrantedTtl(id));
}

void Core::AnswerLease(kw_request* request, int64_t ttl_s, int64_t granted_ttl_s) {
  const auto& lease = As<kw_lease_request>(request);
  ReplyPtr reply = NewReply();
  kw_lease_info* info = reply->arena.New<kw_lease_info>();
  info->id = lease.id;
  info->ttl_s = ttl_s;
  info->granted_ttl_s = granted_ttl_s;
  if (request->kind == KW_REQ_LEASE_TIME_TO_LIVE && ttl_s >= 0 &&
      (lease.lease_flags & KW_LEASE_WITH_KEYS) != 0) {
    const std::vector<std::string_view> keys = leases_.Keys(lease.id);
    kw_slice* slices = reply->arena.NewArray<kw_slice>(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) slices[i] = reply->arena.CopyOf(keys[i]);
    info->keys = slices;
    info->key_count = keys.size();
  }
  reply->lease = info;
  Finish(request, std::move(reply));
}

// The leader alone knows when leases run out.
void Core::ForwardLease(kw_request* request) {
  const uint64_t id = next_query_id_++;
  LeaseForward& forward = lease_forwards_[id];
  forward.request = request;
  forward.sent_ms = now_ms();
  forward.deadline_ms = now_ms() + 5000 + 2 * config_.election_ticks * config_.tick_ms;
  SendLeaseQuery(id, forward);
}

void Core::SendLeaseQuery(uint64_t id, const LeaseForward& forward) {
  const uint64_t leader = raft_->leader();
  if (leader == 0) return;  // Sent again by the tick.
  if (leader == identity_.member_id) {
    // Elected meanwhile. Answer through the read queue, outside of the caller's loop.
    inbox_->Push(new Command([this, id] {
      auto at = lease_forwards_.find(id);
      if (at == lease_forwards_.end() || raft_->role() != raft::Role::kLeader) return;
      kw_request* request = at->second.request;
      lease_forwards_.erase(at);
      QueueRead(request);
    }));
    return;
  }
  std::string head = Frame(FrameKind::kLeaseQuery, leader);
  PutFixed64(&head, id);
  head.push_back(forward.request->kind == KW_REQ_LEASE_KEEP_ALIVE ? 1 : 0);
  PutFixed64(&head, static_cast<uint64_t>(As<kw_lease_request>(forward.request).id));
  SendFrame(leader, KW_LANE_CONTROL, head);
}

void Core::OnLeaseQuery(const FrameHeader& header, Reader* reader) {
  const uint64_t query = reader->Fixed64();
  const bool renew = reader->Byte() != 0;
  const int64_t lease = static_cast<int64_t>(reader->Fixed64());
  if (!reader->ok() || raft_->role() != raft::Role::kLeader) return;
  QueueReadWaiter([this, query, renew, lease, from = header.from](bool confirmed) {
    if (!confirmed || !leases_.primary()) return;  // The origin asks again.
    const int64_t now = static_cast<int64_t>(now_ms());
    std::string head = Frame(FrameKind::kLeaseAnswer, from);
    PutFixed64(&head, query);
    PutFixed64(&head,
               static_cast<uint64_t>(renew ? leases_.Renew(lease, now) : leases_.Remaining(lease, now)));
    PutFixed64(&head, static_cast<uint64_t>(leases_.GrantedTtl(lease)));
    SendFrame(from, KW_LANE_CONTROL, head);
  });
}

void Core::OnLeaseAnswer(Reader* reader) {
  const uint64_t query = reader->Fixed64();
  const int64_t ttl_s = static_cast<int64_t>(reader->Fixed64());
  const int64_t granted_ttl_s = static_cast<int64_t>(reader->Fixed64());
  // While a snapshot is being installed, revision and keys are neither the old nor the new ones: it is asked
  // again afterwards.
  if (needs_snapshot_) return;
  auto at = lease_forwards_.find(query);
  if (!reader->ok() || at == lease_forwards_.end()) return;
  kw_request* request = at->second.request;
  lease_forwards_.erase(at);
  AnswerLease(request, ttl_s, granted_ttl_s);
}

// ---- the engine ----------------------------------------------------------------------------------

uint64_t Core::BeginEngineRead() {
  const uint64_t ticket = next_read_ticket_++;
  engine_reads_.insert(ticket);
  return ticket;
}

void Core::EndEngineRead(uint64_t ticket) {
  engine_reads_.erase(ticket);
  ReleaseDeletes();
}

void Core::ReadRecords(std::vector<mvcc::Revision> revisions,
                       std::function<void(std::vector<SharedBytes>)> done) {
  struct Work {
    std::vector<mvcc::Revision> revisions;
    std::vector<SharedBytes> records;
    std::string error;
  };
  auto work = std::make_shared<Work>();
  work->revisions = std::move(revisions);
  const uint64_t ticket = BeginEngineRead();
  OnLane(
      Lane::kRead, [this, work] { work->records = GetRecords(deps_, work->revisions, &work->error); },
      [this, work, ticket, done = std::move(done)] {
        EndEngineRead(ticket);
        if (!work->error.empty()) Fatal(config_.store_name + " cannot be read: " + work->error);
        done(std::move(work->records));
      });
}

// Reads for watches that are behind: old changes, and their previous records.
void Core::StartWatchReads() {
  if (watch_read_active_ || needs_snapshot_) return;
  std::vector<mvcc::Revision> previous = hub_->NextPrevReads();
  if (!previous.empty()) {
    watch_read_active_ = true;
    ReadRecords(std::move(previous), [this, epoch = install_epoch_](std::vector<SharedBytes> records) {
      watch_read_active_ = false;
      if (!failed_ && epoch == install_epoch_) hub_->OnPrevRecords(std::move(records));
    });
    return;
  }
  std::optional<watch::HistoryRead> read = hub_->NextHistoryRead();
  if (!read.has_value()) return;
  read->revisions_max = config_.history_revisions_per_read;
  watch_read_active_ = true;
  auto history = std::make_shared<History>();
  const uint64_t ticket = BeginEngineRead();
  auto run = [this, history, read = *read] { ReadHistory(deps_, read, history.get()); };
  auto finish = [this, history, ticket, epoch = install_epoch_] {
    watch_read_active_ = false;
    EndEngineRead(ticket);
    if (!history->error.empty()) return Fatal(config_.store_name + " cannot be read: " + history->error);
    if (failed_ || epoch != install_epoch_) return;
    for (const mvcc::Change& change : history->changes) {
      if (mvcc_->IsIntact(change.revision, change.record.view())) continue;
      return Fatal(config_.store_name + " cannot be read: " + Changed(change.revision));
    }
    hub_->OnHistory(std::move(history->changes), history->reached);
  };
  OnLane(Lane::kRead, std::move(run), std::move(finish));
}

}  // namespace keyway::core
