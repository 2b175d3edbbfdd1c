// SPDX-License-Identifier: Apache-2.0
//
// Where each entry of the log is: 8 bytes an entry, by segment. And the terms, by runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "file_system.h"
#include "segment_format.h"

namespace keyway::log_segmented {

// One open segment file. Shared by the index and by readers; never written to by them.
struct Segment {
  SegmentHeader header;
  std::unique_ptr<File> file;
  std::string name() const { return SegmentName(header.number); }
};
using SegmentRef = std::shared_ptr<Segment>;

// The terms of the entries [first - 1, last], by runs of equal term. Not thread-safe.
class TermRuns {
 public:
  // Forgets everything; entry `base_index` has `base_term`.
  void Reset(uint64_t base_index, uint64_t base_term) { runs_ = {{base_index, base_term}}; }
  // Entry `index` gets `term`; what was at and after it goes.
  void Set(uint64_t index, uint64_t term) {
    while (!runs_.empty() && runs_.back().first >= index) runs_.pop_back();
    if (runs_.empty() || runs_.back().term != term) runs_.push_back({index, term});
  }
  void DropBelow(uint64_t index) {
    while (runs_.size() > 1 && runs_[1].first <= index) runs_.pop_front();
    if (runs_.front().first < index) runs_.front().first = index;
  }
  // Of an entry that is covered.
  uint64_t At(uint64_t index) const {
    auto run = std::upper_bound(runs_.begin(), runs_.end(), index,
                                [](uint64_t at, const Run& other) { return at < other.first; });
    return run == runs_.begin() ? 0 : std::prev(run)->term;
  }

 private:
  struct Run {
    uint64_t first, term;
  };
  std::deque<Run> runs_ = {{0, 0}};
};

// Not thread-safe.
class LogIndex {
 public:
  // Entries [first, last] that lie one after the other in a segment.
  struct Place {
    SegmentRef segment;
    uint64_t offset;  // Of the entry's record,
    uint64_t bytes;   // header and padded data.
    uint32_t data_bytes;
  };

  uint64_t first() const { return first_; }
  uint64_t last() const { return last_; }

  void Reset(uint64_t base_index) {
    spans_.clear();
    first_ = base_index + 1;
    last_ = base_index;
  }
  // `index` is at most last() + 1; entries at and after it are dropped first.
  void Append(const SegmentRef& segment, uint64_t index, uint64_t offset, uint32_t data_bytes) {
    while (!spans_.empty() && spans_.back().first >= index) spans_.pop_back();
    if (!spans_.empty())
      spans_.back().places.resize(
          std::min<uint64_t>(spans_.back().places.size(), index - spans_.back().first));
    if (spans_.empty() || spans_.back().segment != segment) spans_.push_back({segment, index, {}});
    spans_.back().places.push_back({static_cast<uint32_t>(offset / 8), data_bytes});
    last_ = index;
    if (index < first_) first_ = index;
  }
  // Entries below `first` go; `first` is at most last() + 1.
  void TruncatePrefix(uint64_t first) {
    first_ = std::max(first_, first);
    while (!spans_.empty() && spans_.front().first + spans_.front().places.size() <= first_) {
      spans_.pop_front();
    }
  }
  // Of an entry of [first, last].
  Place Find(uint64_t index) const {
    auto span = std::upper_bound(spans_.begin(), spans_.end(), index,
                                 [](uint64_t at, const Span& other) { return at < other.first; });
    --span;
    const Location location = span->places[index - span->first];
    return {span->segment, uint64_t{location.offset_words} * 8, FlushEncoder::EntryBytes(location.data_bytes),
            location.data_bytes};
  }

 private:
  struct Location {
    uint32_t offset_words;  // In units of 8 bytes.
    uint32_t data_bytes;
  };
  struct Span {
    SegmentRef segment;
    uint64_t first;
    std::deque<Location> places;
  };
  uint64_t first_ = 1, last_ = 0;
  std::deque<Span> spans_;
};

// The first live entry of each segment, to tell the oldest segment that is needed. Not thread-safe.
class SegmentSpans {
 public:
  void Clear() { spans_.clear(); }
  void Append(uint64_t segment_number, uint64_t index) {
    while (!spans_.empty() && spans_.back().first >= index) spans_.pop_back();
    if (spans_.empty() || spans_.back().number != segment_number) {
      spans_.push_back({segment_number, index});
    }
  }
  // The log now is [first, last].
  void TruncatePrefix(uint64_t first, uint64_t last) {
    if (first > last) spans_.clear();
    while (spans_.size() > 1 && spans_[1].first <= first) spans_.pop_front();
  }
  uint64_t Oldest(uint64_t current_number) const {
    return spans_.empty() ? current_number : spans_.front().number;
  }

 private:
  struct Span {
    uint64_t number, first;
  };
  std::deque<Span> spans_;
};

}  // namespace keyway::log_segmented
