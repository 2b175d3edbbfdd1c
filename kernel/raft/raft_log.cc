// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/raft_log.h"

#include <algorithm>
#include <iterator>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"

namespace keyway::raft {

RaftLog::RaftLog(uint64_t base_index, uint64_t base_term, std::vector<Entry>&& entries, uint64_t commit,
                 uint64_t applied, size_t cache_bytes_max)
    : cache_bytes_max_(cache_bytes_max),
      base_index_(base_index),
      base_term_(base_term),
      cached_first_(base_index + 1),
      commit_(commit),
      applied_(applied),
      evictable_(base_index) {
  for (Entry& entry : entries) {
    KW_CHECK(entry.index == last_index() + 1);
    KW_CHECK(entry.term >= last_term());
    Index(entry);
    entries_.push_back(std::move(entry));
  }
  KW_CHECK(base_index_ <= applied_);
  KW_CHECK(applied_ <= commit_);
  KW_CHECK(commit_ <= last_index());
  durable_ = last_index();
  untaken_ = last_index() + 1;
  Evict();
}

void RaftLog::Index(const Entry& entry) {
  if (entry.term != last_term() || runs_.empty()) runs_.push_back({entry.index, entry.term});
  if (entry.kind == EntryKind::kConfiguration && entry.index > applied_) {
    configurations_.push_back(entry.index);
  }
}

std::optional<uint64_t> RaftLog::TermAt(uint64_t index) const {
  if (index < base_index_ || index > last_index()) return std::nullopt;
  if (index == base_index_) return base_term_;
  if (index >= runs_.back().first) return runs_.back().term;
  auto after = std::upper_bound(runs_.begin(), runs_.end(), index,
                                [](uint64_t value, const TermRun& run) { return value < run.first; });
  return std::prev(after)->term;
}

std::pair<uint64_t, uint64_t> RaftLog::FindConflictByTerm(uint64_t index, uint64_t term) const {
  index = std::min(index, last_index());
  for (auto run = runs_.rbegin(); run != runs_.rend() && index > base_index_; ++run) {
    if (run->first > index) continue;
    if (run->term <= term) return {index, run->term};
    index = run->first - 1;
  }
  if (index < base_index_) return {index, 0};
  if (base_term_ <= term) return {base_index_, base_term_};
  return {base_index_ == 0 ? 0 : base_index_ - 1, 0};
}

const Entry& RaftLog::At(uint64_t index) const {
  KW_CHECK(index >= cached_first_ && index <= last_index());
  return entries_[index - cached_first_];
}

std::vector<Entry> RaftLog::Copy(uint64_t begin, size_t bytes_max) const {
  KW_CHECK(begin >= cached_first_);
  size_t bytes = 0;
  uint64_t end = begin;
  while (end <= last_index()) {
    bytes += Cost(entries_[end - cached_first_]);
    if (bytes > bytes_max && end > begin) break;
    ++end;
  }
  auto at = entries_.begin() + static_cast<ptrdiff_t>(begin - cached_first_);
  return std::vector<Entry>(at, at + static_cast<ptrdiff_t>(end - begin));
}

void RaftLog::Append(Entry entry) {
  KW_CHECK(entry.index == last_index() + 1);
  KW_CHECK(entry.term >= last_term());
  Index(entry);
  entries_.push_back(std::move(entry));
}

void RaftLog::TruncateFrom(uint64_t index) {
  KW_CHECK(index > commit_);
  KW_CHECK(index >= cached_first_);
  if (index > last_index()) return;
  entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(index - cached_first_), entries_.end());
  while (!runs_.empty() && runs_.back().first >= index) runs_.pop_back();
  while (!configurations_.empty() && configurations_.back() >= index) configurations_.pop_back();
  if (!mutant::Is(mutant::kDurableNotCut)) durable_ = std::min(durable_, index - 1);
  untaken_ = std::min(untaken_, index);
  if (mutant::Is(mutant::kStaleWriteCounts)) return;
  for (Write& write : writes_) write.last = std::min(write.last, index - 1);
}

bool RaftLog::CommitTo(uint64_t index) {
  KW_CHECK(index <= last_index());
  if (index <= commit_) return false;
  commit_ = index;
  return true;
}

void RaftLog::ApplyTo(uint64_t index) {
  KW_CHECK(index >= applied_ && index <= commit_);
  applied_ = index;
  while (!configurations_.empty() && configurations_.front() <= index) configurations_.pop_front();
  Evict();
}

void RaftLog::TruncatePrefix(uint64_t index) {
  KW_CHECK(index <= applied_ && index <= durable_);
  if (index <= base_index_) return;
  base_term_ = *TermAt(index);
  base_index_ = index;
  while (cached_first_ <= index) {
    evictable_bytes_ -= Cost(entries_.front());
    entries_.pop_front();
    ++cached_first_;
  }
  while (runs_.size() > 1 && runs_[1].first <= index + 1) runs_.pop_front();
  if (last_index() == index) {
    runs_.clear();
  } else {
    runs_.front().first = std::max(runs_.front().first, index + 1);
  }
}

void RaftLog::Reset(uint64_t index, uint64_t term) {
  KW_CHECK(index >= commit_);
  entries_.clear();
  runs_.clear();
  configurations_.clear();
  base_index_ = index;
  base_term_ = term;
  cached_first_ = index + 1;
  commit_ = index;
  applied_ = index;
  durable_ = index;
  untaken_ = index + 1;
  evictable_ = index;
  evictable_bytes_ = 0;
  for (Write& write : writes_) write.last = index;
}

std::vector<Entry> RaftLog::TakeUnstable(uint64_t seq) {
  KW_CHECK(writes_.empty() || seq > writes_.back().seq);
  if (!HasUnstable()) return {};
  auto at = entries_.begin() + static_cast<ptrdiff_t>(untaken_ - cached_first_);
  std::vector<Entry> result(at, entries_.end());
  untaken_ = last_index() + 1;
  writes_.push_back({seq, last_index()});
  return result;
}

void RaftLog::OnDurable(uint64_t seq) {
  while (!writes_.empty() && writes_.front().seq <= seq) {
    durable_ = std::max(durable_, writes_.front().last);
    writes_.pop_front();
  }
  KW_CHECK(durable_ < untaken_);
  Evict();
}

void RaftLog::Evict() {
  const uint64_t bound = std::min(durable_, applied_);
  while (evictable_ < bound) {
    ++evictable_;
    evictable_bytes_ += Cost(At(evictable_));
  }
  while (evictable_bytes_ > cache_bytes_max_ && cached_first_ <= evictable_) {
    evictable_bytes_ -= Cost(entries_.front());
    entries_.pop_front();
    ++cached_first_;
  }
}

size_t RaftLog::Cost(const std::vector<Entry>& entries) {
  size_t bytes = 0;
  for (const Entry& entry : entries) bytes += Cost(entry);
  return bytes;
}

}  // namespace keyway::raft
