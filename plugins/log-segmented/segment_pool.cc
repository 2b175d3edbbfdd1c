// SPDX-License-Identifier: Apache-2.0
#include "segment_pool.h"

#include <algorithm>
#include <atomic>
#include <random>

#include "mutant.h"

namespace keyway::log_segmented {
namespace {

constexpr uint64_t kFillBytes = 1 << 20;
constexpr size_t kReserveMax = 2;

Status FillWithZeros(File& file, uint64_t file_bytes) {
  const std::vector<uint8_t> zeros(std::min(kFillBytes, file_bytes), 0);
  for (uint64_t offset = 0; offset < file_bytes; offset += zeros.size()) {
    const uint64_t bytes = std::min<uint64_t>(zeros.size(), file_bytes - offset);
    if (Status status = file.Write(offset, {zeros.data(), bytes}); !status.ok()) return status;
    // Small steps: one large write-back in front of the log's own flushes would delay them all.
    if (Status status = file.Sync(); !status.ok()) return status;
  }
  return {};
}

// Gives the file of `segment`, now under kSpareName, its header and then its name, durably.
Status Finish(FileSystem& file_system, const std::string& directory, Segment& segment) {
  std::vector<uint8_t> header(kHeaderBytes);
  EncodeHeader(segment.header, std::span<uint8_t, kHeaderBytes>(header.data(), kHeaderBytes));
  if (Status status = segment.file->Write(0, header); !status.ok()) return status;
  if (Status status = segment.file->Sync(); !status.ok()) return status;
  const std::string from = directory + "/" + kSpareName;
  const std::string to = directory + "/" + segment.name();
  if (Status status = file_system.Rename(from, to); !status.ok()) return status;
  return mutant::Is(mutant::kNameUnsynced) ? Status() : file_system.SyncDirectory(directory);
}

}  // namespace

uint64_t RandomSegmentId() {
  std::random_device source;
  return (uint64_t{source()} << 32) | source();
}

Status CreateSegment(FileSystem& file_system, const std::string& directory, const SegmentIds& ids,
                     uint64_t number, uint64_t file_bytes, SegmentRef* segment) {
  auto made = std::make_shared<Segment>();
  made->header = {ids(), number, file_bytes};
  const std::string path = directory + "/" + kSpareName;
  // Never truncate what a failed attempt may have left: until the directory is synced, it may still
  // be a dropped segment after a crash.
  (void)file_system.Remove(path);
  Status status = file_system.Create(path, &made->file);
  if (!status.ok()) return status;
  status = FillWithZeros(*made->file, file_bytes);
  if (status.ok()) status = Finish(file_system, directory, *made);
  if (!status.ok()) {
    (void)file_system.Remove(path);  // Gives the space back; a leftover is removed by recovery.
    return status;
  }
  *segment = std::move(made);
  return {};
}

SegmentPool::SegmentPool(FileSystem& file_system, Options options, uint64_t next_number,
                         SegmentRef maybe_spare, const Logger& log)
    : file_system_(file_system),
      options_(std::move(options)),
      log_(log),
      next_number_(next_number),
      wanted_bytes_(options_.segment_bytes),
      spare_(std::move(maybe_spare)) {
  if (options_.has_thread) thread_ = std::thread([this] { Run(); });
}

SegmentPool::~SegmentPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status SegmentPool::Take(uint64_t file_bytes_min, SegmentRef* segment) {
  std::unique_lock lock(mutex_);
  wanted_bytes_ = std::max(options_.segment_bytes, (file_bytes_min + 4095) / 4096 * 4096);
  failure_ = {};
  work_.notify_all();
  const auto is_ready = [&] { return spare_ != nullptr && spare_->header.file_bytes >= wanted_bytes_; };
  if (!options_.has_thread) {
    while (!is_ready() && failure_.ok()) Step(lock);
  }
  ready_.wait(lock, [&] { return is_ready() || !failure_.ok(); });
  const bool took = is_ready();
  wanted_bytes_ = options_.segment_bytes;
  if (!took) return failure_;
  *segment = std::move(spare_);
  spare_ = nullptr;
  next_number_ += 1;
  work_.notify_all();
  return {};
}

void SegmentPool::Retire(std::vector<SegmentRef> segments) {
  if (segments.empty()) return;
  std::lock_guard lock(mutex_);
  for (SegmentRef& segment : segments) retired_.push_back(std::move(segment));
  failure_ = {};  // There may be space now.
  work_.notify_all();
}

Status SegmentPool::WaitIdle() {
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [&] { return !busy_ && (!failure_.ok() || (spare_ != nullptr && retired_.empty())); });
  return failure_;
}

bool SegmentPool::HasWork() const {
  const bool wants = spare_ == nullptr || spare_->header.file_bytes < wanted_bytes_;
  return !retired_.empty() || (wants && failure_.ok());
}

void SegmentPool::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || HasWork(); });
    if (stopping_) return;
    Step(lock);
  }
}

void SegmentPool::RunOnce() {
  std::unique_lock lock(mutex_);
  if (HasWork()) Step(lock);
}

// Sorts out what was dropped and makes a segment if there is none. The disk is used without the mutex.
void SegmentPool::Step(std::unique_lock<std::mutex>& lock) {
  std::vector<SegmentRef> removed;
  for (SegmentRef& segment : retired_) {
    const bool keeps = reserve_.size() < kReserveMax && segment->header.file_bytes == options_.segment_bytes;
    (keeps ? reserve_ : removed).push_back(std::move(segment));
  }
  retired_.clear();
  const uint64_t number = next_number_;
  const uint64_t bytes = wanted_bytes_;
  const bool makes = spare_ == nullptr || spare_->header.file_bytes < bytes;
  SegmentRef old;
  if (makes && spare_ != nullptr) removed.push_back(std::move(spare_));
  if (makes && bytes == options_.segment_bytes && !reserve_.empty()) {
    old = std::move(reserve_.back());
    reserve_.pop_back();
  }
  busy_ = true;
  lock.unlock();

  SegmentRef made;
  Status status = Remove(removed);
  if (status.ok() && makes) status = Make(number, bytes, std::move(old), &made);
  if (!status.ok()) {
    log_.Warn("segment_failed", {{"segment", number}, {"error", std::string_view(status.text)}});
  }

  lock.lock();
  busy_ = false;
  if (makes) spare_ = std::move(made);
  failure_ = std::move(status);
  ready_.notify_all();
}

Status SegmentPool::Remove(const std::vector<SegmentRef>& segments) {
  if (segments.empty()) return {};
  for (const SegmentRef& segment : segments) {
    if (Status status = file_system_.Remove(Path(segment->name())); !status.ok()) return status;
  }
  return file_system_.SyncDirectory(options_.directory);
}

Status SegmentPool::Make(uint64_t number, uint64_t file_bytes, SegmentRef maybe_old, SegmentRef* segment) {
  if (maybe_old == nullptr) {
    return CreateSegment(file_system_, options_.directory, options_.ids, number, file_bytes, segment);
  }
  // A segment that a reader still holds is never written to again: its file goes when it is closed.
  // No new reader can come, since the index does not have it any more.
  if (maybe_old.use_count() > 1) {
    if (Status status = Remove({maybe_old}); !status.ok()) return status;
    return CreateSegment(file_system_, options_.directory, options_.ids, number, file_bytes, segment);
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  const std::string spare = Path(kSpareName);
  Status status = file_system_.Rename(Path(maybe_old->name()), spare);
  if (status.ok()) status = file_system_.SyncDirectory(options_.directory);
  if (!status.ok()) return status;
  auto made = std::make_shared<Segment>();
  made->header = {options_.ids(), number, file_bytes};
  made->file = std::move(maybe_old->file);
  status = Finish(file_system_, options_.directory, *made);
  if (!status.ok()) {
    (void)file_system_.Remove(spare);
    return status;
  }
  *segment = std::move(made);
  return {};
}

}  // namespace keyway::log_segmented
