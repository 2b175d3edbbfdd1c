// SPDX-License-Identifier: Apache-2.0
#include "log_store.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "keyway/crc32c.h"
#include "mutant.h"

namespace keyway::log_segmented {
namespace {

// An idle log proves its last flush with an empty one after this time.
constexpr std::chrono::milliseconds kMarkDelay{200};
constexpr size_t kBuffersKept = 2;
constexpr uint64_t kBufferBytesKept = 2 * kFlushBytesMax;

}  // namespace

LogStore::LogStore(FileSystem& file_system, Options options)
    : file_system_(file_system), options_(std::move(options)) {}

LogStore::~LogStore() { Stop(); }

Status LogStore::Open(const kw_host* maybe_host) {
  log_ = Logger(maybe_host);
  clock_ = Clock(maybe_host);
  fsync_seconds_ = Histogram(maybe_host, "etcd_disk_wal_fsync_duration_seconds",
                             "The latency distributions of fdatasync called by the log.",
                             Histogram::Exponential(0.001, 2, 14));
  write_bytes_ =
      Counter(maybe_host, "etcd_disk_wal_write_bytes_total", "Total number of bytes written to the log.");
  if (Status status = file_system_.CreateDirectory(options_.directory); !status.ok()) return status;
  return file_system_.Lock(options_.directory + "/LOCK", &lock_);
}

Status LogStore::Recover(kw_hard_state* hard_state, kw_log_bounds* bounds) {
  if (pool_ != nullptr) return Error(KW_FAILED_PRECONDITION, "recover: called twice");
  RecoveredLog log;
  Status status = log_segmented::Recover(file_system_, options_.directory, options_.segment_bytes,
                                         options_.ids, log_, &log);
  if (!status.ok()) return status;
  *hard_state = log.hard_state;
  *bounds = log.bounds;
  torn_bytes_ = log.torn_bytes;
  pending_.hard_state = log.hard_state;
  pending_.first = log.bounds.first;
  pending_.last = log.bounds.last;
  pending_.terms = std::move(log.terms);
  pending_.spans = std::move(log.spans);
  pending_.segment = log.segments.back();
  pending_.end_offset = log.write_offset;
  pending_.chain = log.chain;
  needs_mark_ = log.chain.sequence > 0;
  index_ = std::move(log.index);
  segments_.assign(log.segments.begin(), log.segments.end());
  const uint64_t next_number = pending_.segment->header.number + 1;
  const SegmentPool::Options pool_options{options_.directory, options_.segment_bytes, options_.ids,
                                          options_.has_threads};
  pool_ = std::make_unique<SegmentPool>(file_system_, pool_options, next_number, std::move(log.spare), log_);
  pool_->Retire(std::move(log.leftovers));
  if (options_.has_threads) flusher_ = std::thread([this] { RunFlusher(); });
  log_.Info("log_recovered", {{"dir", std::string_view(options_.directory)},
                              {"first", bounds->first},
                              {"last", bounds->last},
                              {"term", hard_state->term},
                              {"segments", log.segments.size()},
                              {"torn_bytes", torn_bytes_}});
  return {};
}

Status LogStore::FindSalvage(uint64_t base_index, uint64_t base_term, kw_log_salvage* out) {
  if (pool_ != nullptr) return Error(KW_FAILED_PRECONDITION, "salvage: the log was recovered");
  auto salvage = std::make_unique<Salvage>();
  Status status =
      log_segmented::FindSalvage(file_system_, options_.directory, base_index, base_term, salvage.get());
  if (!status.ok()) return status;
  *out = salvage->result;
  maybe_salvage_ = std::move(salvage);
  return {};
}

Status LogStore::Rebuild() {
  if (maybe_salvage_ == nullptr) return Error(KW_FAILED_PRECONDITION, "rebuild: nothing was salvaged");
  const std::unique_ptr<Salvage> salvage = std::move(maybe_salvage_);
  Status status = log_segmented::Rebuild(file_system_, options_.directory, options_.segment_bytes,
                                         options_.ids, *salvage);
  if (!status.ok()) return status;
  kw_hard_state hard_state = {};
  kw_log_bounds bounds = {};
  status = Recover(&hard_state, &bounds);
  const kw_log_bounds& wanted = salvage->result.bounds;
  if (status.ok() && (bounds.first != wanted.first || bounds.last != wanted.last)) {
    return Error(KW_INTERNAL, "the rebuilt log is not what was to be built");
  }
  return status;
}

void LogStore::Stop() {
  if (flusher_.joinable()) {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    flusher_.join();
  } else if (pool_ != nullptr) {
    EndFlush();
    do {
      while (BeginFlush()) EndFlush();
    } while (Mark());
  }
  pool_.reset();
  lock_.reset();
}

int32_t LogStore::Refuse(int32_t code, const std::string& text) const {
  log_.Error("log_append_refused", {{"code", code}, {"error", std::string_view(text)}});
  return code;
}

Status LogStore::CheckEntries(std::span<const kw_log_entry> entries, uint64_t* bytes) const {
  *bytes = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    const kw_log_entry& entry = entries[i];
    const auto name = [&] { return "append: entry " + std::to_string(entry.index); };
    if (entry.index != entries[0].index + i) {
      return Error(KW_INVALID_ARGUMENT, name() + ": indexes are not consecutive");
    }
    *bytes += FlushEncoder::EntryBytes(entry.data.len);
    if (entry.data.len > kAppendBytesMax || *bytes > kAppendBytesMax) {
      return Error(KW_INVALID_ARGUMENT, name() + ": more than 1 GiB in one append");
    }
    if (kw_crc32c(0, entry.data.ptr, entry.data.len) != entry.crc32c) {
      return Error(KW_INVALID_ARGUMENT, name() + ": crc32c is not that of the data");
    }
  }
  return {};
}

int32_t LogStore::Append(std::span<const kw_log_entry> entries, const kw_hard_state* maybe_hard_state,
                         kw_completion* completion) {
  uint64_t bytes = 0;
  if (Status status = CheckEntries(entries, &bytes); !status.ok()) {
    return Refuse(status.code, status.text);
  }
  // Only this thread changes the bounds, so they may be read without the mutex.
  if (!entries.empty() && (entries[0].index < pending_.first || entries[0].index > pending_.last + 1)) {
    return Refuse(KW_INVALID_ARGUMENT, "append: entry " + std::to_string(entries[0].index) + " to the log [" +
                                           std::to_string(pending_.first) + ", " +
                                           std::to_string(pending_.last) + "]");
  }
  if (Status status = MakeRoom(bytes); !status.ok()) return Refuse(status.code, status.text);

  std::unique_lock lock(mutex_);
  Flush& flush = FormingFlush(bytes);
  for (const kw_log_entry& entry : entries) {
    flush.encoder.AddEntry(entry, pending_.terms.At(entry.index - 1));
    pending_.terms.Set(entry.index, entry.term);
    pending_.spans.Append(flush.segment->header.number, entry.index);
    pending_.last = entry.index;
  }
  const bool is_lost = mutant::Is(mutant::kVoteAloneLost) && entries.empty();
  if (maybe_hard_state != nullptr && !is_lost) pending_.hard_state = *maybe_hard_state;
  Submit(flush, completion);
  return KW_PENDING;
}

int32_t LogStore::TruncatePrefix(uint64_t first_kept, kw_completion* completion) {
  if (first_kept > pending_.last + 1) {
    return Refuse(KW_INVALID_ARGUMENT, "truncate_prefix: " + std::to_string(first_kept) +
                                           " is above the last entry " + std::to_string(pending_.last));
  }
  if (Status status = MakeRoom(kRecordBytes); !status.ok()) return Refuse(status.code, status.text);

  std::unique_lock lock(mutex_);
  Flush& flush = FormingFlush(kRecordBytes);
  if (first_kept > pending_.first) {
    const uint64_t base = first_kept - 1;
    flush.encoder.AddBase(RecordType::kTruncate, base, pending_.terms.At(base));
    pending_.first = first_kept;
    pending_.terms.DropBelow(base);
    pending_.spans.TruncatePrefix(pending_.first, pending_.last);
  }
  Submit(flush, completion);
  return KW_PENDING;
}

int32_t LogStore::Reset(uint64_t base_index, uint64_t base_term, kw_completion* completion) {
  if (Status status = MakeRoom(kRecordBytes); !status.ok()) return Refuse(status.code, status.text);

  std::unique_lock lock(mutex_);
  Flush& flush = FormingFlush(kRecordBytes);
  flush.encoder.AddBase(RecordType::kReset, base_index, base_term);
  pending_.first = base_index + 1;
  pending_.last = base_index;
  pending_.terms.Reset(base_index, base_term);
  pending_.spans.Clear();
  Submit(flush, completion);
  return KW_PENDING;
}

// Whether MakeRoom() would have nothing to do.
bool LogStore::HasRoom(uint64_t record_bytes) {
  std::unique_lock lock(mutex_);
  if (queued_bytes_ > kQueuedBytesMax) return false;
  const bool forming = !queue_.empty() && !queue_.back()->encoder.closed();
  const uint64_t end = forming ? queue_.back()->encoder.end_offset() : pending_.end_offset;
  return end + record_bytes + kFlushOverheadBytes <= pending_.segment->header.file_bytes;
}

int32_t LogStore::TryAppend(std::span<const kw_log_entry> entries, const kw_hard_state* maybe_hard_state,
                            kw_completion* completion) {
  uint64_t bytes = 0;
  for (const kw_log_entry& entry : entries) bytes += FlushEncoder::EntryBytes(entry.data.len);
  if (bytes > kFlushBytesMax || !HasRoom(bytes)) return KW_UNAVAILABLE;
  return Append(entries, maybe_hard_state, completion);
}

// Switches to the next segment if `record_bytes` do not fit the current one, and waits while too much
// is queued. The segment is taken without the mutex: it may have to be made first.
Status LogStore::MakeRoom(uint64_t record_bytes) {
  std::unique_lock lock(mutex_);
  while (!options_.has_threads && queued_bytes_ > kQueuedBytesMax) {
    lock.unlock();
    (void)BeginFlush();  // One may be begun already.
    EndFlush();
    lock.lock();
  }
  space_.wait(lock, [&] { return queued_bytes_ <= kQueuedBytesMax; });
  const bool forming = !queue_.empty() && !queue_.back()->encoder.closed();
  const uint64_t end = forming ? queue_.back()->encoder.end_offset() : pending_.end_offset;
  const uint64_t needed = record_bytes + kFlushOverheadBytes;
  if (end + needed <= pending_.segment->header.file_bytes) return {};
  lock.unlock();

  SegmentRef next;
  if (Status status = pool_->Take(kHeaderBytes + needed, &next); !status.ok()) return status;

  lock.lock();
  if (!queue_.empty() && !queue_.back()->encoder.closed()) CloseFlush(*queue_.back());
  pending_.segment = std::move(next);
  pending_.end_offset = kHeaderBytes;
  return {};
}

LogStore::Flush& LogStore::FormingFlush(uint64_t record_bytes) {
  const bool forming = !queue_.empty() && !queue_.back()->encoder.closed();
  if (!forming) {
    StartFlush();
  } else if (queue_.back()->encoder.bytes().size() + record_bytes > kFlushBytesMax &&
             !queue_.back()->encoder.records().empty()) {
    CloseFlush(*queue_.back());
    StartFlush();
  }
  return *queue_.back();
}

// A flush that can take records; the first one of a segment begins with its BASE.
void LogStore::StartFlush() {
  std::vector<uint8_t> buffer;
  if (!buffers_.empty()) {
    buffer = std::move(buffers_.back());
    buffers_.pop_back();
  }
  queue_.push_back(
      std::make_unique<Flush>(pending_.segment, pending_.end_offset, pending_.chain, std::move(buffer)));
  if (pending_.end_offset == kHeaderBytes) {
    queue_.back()->encoder.AddBase(RecordType::kBase, pending_.last, pending_.terms.At(pending_.last));
  }
}

void LogStore::CloseFlush(Flush& flush) {
  flush.encoder.Close({pending_.hard_state, pending_.spans.Oldest(flush.segment->header.number),
                       pending_.last, pending_.terms.At(pending_.last)});
  pending_.end_offset = flush.encoder.end_offset();
  pending_.chain = flush.encoder.chain();
  queued_bytes_ += flush.encoder.bytes().size();
}

void LogStore::Submit(Flush& flush, kw_completion* completion) {
  flush.completions.push_back(completion);
  if (flusher_sleeps_) {
    flusher_sleeps_ = false;
    work_.notify_one();
  }
}

// Waits for a flush in the queue; adds an empty one if the log is idle or stops and its last flush is
// not proven yet. False when there is nothing left to do.
bool LogStore::WaitForWork(std::unique_lock<std::mutex>& lock) {
  const auto has_work = [&] { return stopping_ || !queue_.empty(); };
  flusher_sleeps_ = true;
  if (needs_mark_) {
    work_.wait_for(lock, kMarkDelay, has_work);
  } else {
    work_.wait(lock, has_work);
  }
  flusher_sleeps_ = false;
  if (!queue_.empty()) return true;
  return AddMark() || !stopping_;
}

// Adds a flush without entries that proves the last one, if that is not proven yet. Records that change
// nothing carry its COMMIT into the next sector: one sector lost does not take both the end of a flush and
// the proof of it.
bool LogStore::AddMark() {
  const uint64_t sector_end = (pending_.end_offset + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  const bool fits = sector_end + kRecordBytes + kFlushOverheadBytes <= pending_.segment->header.file_bytes;
  if (needs_mark_ && fits) {
    StartFlush();
    FlushEncoder& encoder = queue_.back()->encoder;
    const uint64_t base = pending_.first - 1;
    while (encoder.end_offset() < sector_end) {
      encoder.AddBase(RecordType::kTruncate, base, pending_.terms.At(base));
    }
  }
  needs_mark_ = false;
  return !queue_.empty();
}

bool LogStore::Mark() {
  std::lock_guard lock(mutex_);
  return queue_.empty() && begun_ == nullptr && AddMark();
}

bool LogStore::BeginFlush() {
  std::lock_guard lock(mutex_);
  if (begun_ != nullptr || queue_.empty()) return false;
  begun_ = TakeFlush();
  return true;
}

void LogStore::EndFlush() {
  std::unique_lock lock(mutex_);
  if (begun_ != nullptr) FinishFlush(std::move(begun_), lock);
}

void LogStore::RunFlusher() {
  std::unique_lock lock(mutex_);
  while (WaitForWork(lock)) {
    if (queue_.empty()) continue;
    FinishFlush(TakeFlush(), lock);
  }
}

std::unique_ptr<LogStore::Flush> LogStore::TakeFlush() {
  std::unique_ptr<Flush> flush = std::move(queue_.front());
  queue_.pop_front();
  if (!flush->encoder.closed()) CloseFlush(*flush);
  return flush;
}

// Writes the flush and completes it, without the mutex meanwhile.
void LogStore::FinishFlush(std::unique_ptr<Flush> flush, std::unique_lock<std::mutex>& lock) {
  const bool is_mark = flush->completions.empty();
  lock.unlock();

  if (failure_.ok()) WriteFlush(*flush);
  kw_error error = NoError();
  const int32_t code = failure_.Fill(&error);
  for (kw_completion* completion : flush->completions) Complete(completion, code, &error);

  const uint64_t bytes = flush->encoder.bytes().size();
  std::vector<uint8_t> buffer = flush->encoder.TakeBuffer();
  flush.reset();
  lock.lock();
  needs_mark_ = !is_mark && code == KW_OK;
  queued_bytes_ -= bytes;
  if (buffers_.size() < kBuffersKept && buffer.capacity() <= kBufferBytesKept) {
    buffers_.push_back(std::move(buffer));
  }
  space_.notify_one();
}

// After the first failure nothing is written any more: what the file holds is unknown until recovery.
void LogStore::WriteFlush(Flush& flush) {
  File& file = *flush.segment->file;
  Status status = file.Write(flush.encoder.offset(), flush.encoder.bytes());
  if (status.ok()) {
    const uint64_t before_ns = clock_.MonoNs();
    status = file.Sync();
    if (mutant::Is(mutant::kSyncRetried) && !status.ok()) status = file.Sync();
    fsync_seconds_.ObserveNs(clock_.MonoNs() - before_ns);
  }
  if (!status.ok()) {
    log_.Error("log_write_failed", {{"segment", flush.segment->header.number},
                                    {"offset", flush.encoder.offset()},
                                    {"error", std::string_view(status.text)}});
    failure_ = std::move(status);
    return;
  }
  write_bytes_.Add(flush.encoder.bytes().size());
  Publish(flush);
}

void LogStore::Publish(const Flush& flush) {
  std::vector<SegmentRef> retired;
  {
    std::lock_guard lock(index_mutex_);
    for (const ScannedRecord& record : flush.encoder.records()) {
      switch (record.type) {
        case RecordType::kEntry:
          index_.Append(flush.segment, record.index, record.offset, record.data_bytes);
          break;
        case RecordType::kReset:
          index_.Reset(record.index);
          break;
        case RecordType::kTruncate:
          index_.TruncatePrefix(record.index + 1);
          break;
        case RecordType::kBase:
        case RecordType::kCommit:
        case RecordType::kLast:
          break;
      }
    }
    if (segments_.back() != flush.segment) segments_.push_back(flush.segment);
    const uint64_t oldest = flush.encoder.commit().oldest_segment;
    while (segments_.front()->header.number < oldest) {
      retired.push_back(std::move(segments_.front()));
      segments_.pop_front();
    }
  }
  pool_->Retire(std::move(retired));
}

namespace {

// What Read hands out: the entries, and the bytes that they point into.
struct Batch {
  kw_log_batch base = {};
  std::vector<kw_log_entry> entries;
  std::vector<std::unique_ptr<uint8_t[]>> buffers;

  static void Release(kw_log_batch* base) { delete reinterpret_cast<Batch*>(base); }
};
static_assert(offsetof(Batch, base) == 0);

// Reads places[begin, end), which lie close to each other in one segment, with one read.
Status ReadRun(std::span<const LogIndex::Place> places, uint64_t first_index, Batch* batch) {
  const Segment& segment = *places.front().segment;
  const uint64_t offset = places.front().offset;
  const uint64_t bytes = places.back().offset + places.back().bytes - offset;
  auto buffer = std::make_unique_for_overwrite<uint8_t[]>(bytes);
  size_t count = 0;
  Status status = segment.file->Read(offset, {buffer.get(), bytes}, &count);
  if (!status.ok()) return status;
  for (size_t i = 0; i < places.size(); ++i) {
    const uint64_t at = places[i].offset - offset;
    kw_log_entry entry;
    if (at + places[i].bytes > count || !DecodeEntry({buffer.get() + at, places[i].bytes}, segment.header,
                                                     places[i].offset, first_index + i, &entry)) {
      return Error(KW_DATA_LOSS, segment.name() + " at offset " + std::to_string(places[i].offset) +
                                     ": entry " + std::to_string(first_index + i) + " is damaged");
    }
    batch->entries.push_back(entry);
  }
  batch->buffers.push_back(std::move(buffer));
  return {};
}

}  // namespace

Status LogStore::Read(uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out) {
  if (begin >= end) return Error(KW_INVALID_ARGUMENT, "read: the range is empty");
  std::vector<LogIndex::Place> places;
  {
    std::lock_guard lock(index_mutex_);
    if (begin < index_.first() || end > index_.last() + 1) {
      return Error(KW_OUT_OF_RANGE, "read [" + std::to_string(begin) + ", " + std::to_string(end) +
                                        ") of the log [" + std::to_string(index_.first()) + ", " +
                                        std::to_string(index_.last()) + "]");
    }
    uint64_t bytes = 0;
    end = std::min(end, begin + kReadEntriesMax);
    for (uint64_t index = begin; index < end; ++index) {
      LogIndex::Place place = index_.Find(index);
      bytes += place.data_bytes;
      if (index > begin && bytes > bytes_max) break;
      places.push_back(std::move(place));
    }
  }
  auto batch = std::make_unique<Batch>();
  batch->entries.reserve(places.size());
  for (size_t i = 0; i < places.size();) {
    size_t next = i + 1;
    while (next < places.size() && places[next].segment == places[i].segment &&
           places[next].offset - (places[next - 1].offset + places[next - 1].bytes) <= kReadGapBytesMax) {
      ++next;
    }
    Status status = ReadRun(std::span(places).subspan(i, next - i), begin + i, batch.get());
    if (!status.ok()) return status;
    i = next;
  }
  batch->base = {sizeof(kw_log_batch), 0, batch->entries.data(), batch->entries.size(), &Batch::Release};
  *out = &batch.release()->base;
  return {};
}

}  // namespace keyway::log_segmented
