// SPDX-License-Identifier: Apache-2.0
#include "recovery.h"

#include <algorithm>

#include "mutant.h"
#include "segment_pool.h"

namespace keyway::log_segmented {
namespace {

class Recovery {
 public:
  Recovery(FileSystem& file_system, const std::string& directory, uint64_t segment_bytes,
           const SegmentIds& ids, const Logger& log, RecoveredLog* out)
      : file_system_(file_system),
        directory_(directory),
        segment_bytes_(segment_bytes),
        ids_(ids),
        log_(log),
        out_(*out) {}

  Status Run() {
    if (Status status = OpenSegments(); !status.ok()) return status;
    if (segments_.empty()) return StartNew();
    if (Status status = FindEnd(); !status.ok()) return status;
    if (Status status = Replay(); !status.ok()) return status;
    if (Status status = CheckTail(); !status.ok()) return status;
    // From here on nothing can be DATA_LOSS: the disk may be changed.
    if (Status status = RemoveUnused(); !status.ok()) return status;
    return RepairTail();
  }

 private:
  Status Damage(const std::string& name, uint64_t offset, const std::string& what) const {
    return Error(KW_DATA_LOSS,
                 name + " at offset " + std::to_string(offset) + ": " + what + " (in " + directory_ + ")");
  }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  Status OpenSegments() {
    std::vector<std::string> names;
    if (Status status = file_system_.List(directory_, &names); !status.ok()) return status;
    std::vector<uint64_t> numbers;
    for (const std::string& name : names) {
      if (name == kSpareName) has_spare_file_ = true;
      if (const uint64_t number = SegmentNumber(name); number != 0) numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    for (const uint64_t number : numbers) {
      auto segment = std::make_shared<Segment>();
      const std::string name = SegmentName(number);
      Status status = file_system_.Open(Path(name), &segment->file);
      if (!status.ok()) return status;
      std::vector<uint8_t> bytes(kHeaderBytes);
      size_t count = 0;
      status = segment->file->Read(0, bytes, &count);
      if (!status.ok()) return status;
      bytes.resize(count);
      if (!DecodeHeader(bytes, &segment->header)) return Damage(name, 0, "damaged segment header");
      if (segment->header.number != number) {
        return Damage(name, 24,
                      "this is segment " + std::to_string(segment->header.number) + " under another name");
      }
      segments_.push_back(std::move(segment));
    }
    return {};
  }

  // A new log. Nothing is durable yet, so nothing can be lost.
  Status StartNew() {
    SegmentRef segment;
    Status status = CreateSegment(file_system_, directory_, ids_, 1, segment_bytes_, &segment);
    if (!status.ok()) return status;
    out_.segments = {std::move(segment)};
    out_.write_offset = kHeaderBytes;
    return {};
  }

  Status Scan(const Segment& segment, const FlushVisitor& visitor, ScanResult* result) {
    bytes_.assign(segment.header.file_bytes, 0);
    size_t count = 0;
    if (Status status = segment.file->Read(0, bytes_, &count); !status.ok()) return status;
    if (count < bytes_.size()) {
      log_.Warn("segment_short", {{"segment", segment.header.number},
                                  {"bytes", count},
                                  {"bytes_expected", segment.header.file_bytes}});
    }
    *result = ScanSegment(bytes_, segment.header, visitor);
    return {};
  }

  // Finds the last segment with a flush, and the segments that the log needs: [begin_, end_).
  Status FindEnd() {
    trailing_.clear();
    for (end_ = segments_.size(); end_ > 0; --end_) {
      ScanResult result;
      if (Status status = Scan(*segments_[end_ - 1], nullptr, &result); !status.ok()) return status;
      if (result.flush_count > 0) {
        last_ = result;
        break;
      }
      trailing_.push_back(result);
    }
    std::reverse(trailing_.begin(), trailing_.end());
    if (end_ == 0) return FindEndOfNew();
    const uint64_t last_number = segments_[end_ - 1]->header.number;
    const uint64_t oldest = last_.commit.oldest_segment;
    if (oldest == 0 || oldest > last_number) {
      return Damage(segments_[end_ - 1]->name(), last_.last_flush_offset, "impossible oldest segment");
    }
    begin_ = end_;
    for (uint64_t number = last_number;; --number) {
      if (begin_ == 0 || segments_[begin_ - 1]->header.number != number) {
        return Damage(SegmentName(number), 0, "the segment is missing");
      }
      --begin_;
      if (number == oldest) return {};
    }
  }

  // No segment has a flush: the log is new, unless one had to have some.
  Status FindEndOfNew() {
    if (segments_[0]->header.number != 1) {
      return Damage(segments_[0]->name(), kHeaderBytes, "the first records are damaged");
    }
    begin_ = 0;
    end_ = 1;
    last_ = trailing_.front();
    trailing_.erase(trailing_.begin());
    return {};
  }

  Status Replay() {
    for (size_t i = begin_; i < end_; ++i) {
      const SegmentRef& segment = segments_[i];
      Status status;
      const FlushVisitor visitor = [&](std::span<const ScannedRecord> records, const Commit& commit) {
        for (const ScannedRecord& record : records) {
          if (status.ok()) status = Apply(segment, record, i == begin_);
        }
        out_.hard_state = commit.hard_state;
      };
      ScanResult result;
      if (Status scanned = Scan(*segment, visitor, &result); !scanned.ok()) return scanned;
      if (i > begin_) {
        const bool continues =
            result.first_sequence == out_.chain.sequence + 1 && result.first_prev_crc == out_.chain.crc;
        if (!continues && result.flush_count > 0) {
          return Damage(segments_[i - 1]->name(), out_.write_offset,
                        "damaged record: segment " + std::to_string(segment->header.number) +
                            " continues from a later one");
        }
      }
      if (!status.ok()) return status;
      if (result.flush_count > 0) out_.chain = result.chain;
      out_.write_offset = result.end_offset;
      out_.segments.push_back(segment);
    }
    out_.bounds = {out_.index.first(), out_.index.last(), out_.terms.At(out_.index.first() - 1)};
    // The hint may be of entries that the same flush would have brought, had it been whole.
    out_.hard_state.commit = std::min(out_.hard_state.commit, out_.bounds.last);
    return {};
  }

  Status Apply(const SegmentRef& segment, const ScannedRecord& record, bool is_oldest) {
    LogIndex& index = out_.index;
    const auto rebase = [&](uint64_t base_index, uint64_t base_term) {
      index.Reset(base_index);
      out_.terms.Reset(base_index, base_term);
      out_.spans.Clear();
    };
    switch (record.type) {
      case RecordType::kBase:
        if (is_oldest) {
          rebase(record.index, record.term);
        } else if (record.index != index.last()) {
          return Damage(segment->name(), record.offset,
                        "the segment starts after entry " + std::to_string(record.index) +
                            ", the log before it ends with " + std::to_string(index.last()));
        }
        return {};
      case RecordType::kReset:
        rebase(record.index, record.term);
        return {};
      case RecordType::kTruncate:
        if (record.index > index.last()) {
          return Damage(segment->name(), record.offset, "truncated above the last entry");
        }
        index.TruncatePrefix(record.index + 1);
        out_.terms.DropBelow(index.first() - 1);
        out_.spans.TruncatePrefix(index.first(), index.last());
        return {};
      case RecordType::kEntry:
        if (record.index == 0 || record.index > index.last() + 1) {
          return Damage(
              segment->name(), record.offset,
              "entry " + std::to_string(record.index) + " after entry " + std::to_string(index.last()));
        }
        // In the oldest segment: the entries before this one were in a dropped segment.
        if (record.index < index.first()) rebase(record.index - 1, record.prev_term);
        index.Append(segment, record.index, record.offset, record.data_bytes);
        out_.terms.Set(record.index, record.term);
        out_.spans.Append(segment->header.number, record.index);
        return {};
      case RecordType::kCommit:
      case RecordType::kLast:
        return {};
    }
    return Damage(segment->name(), record.offset, "unknown record type");
  }

  // Tells a torn flush from a damaged one: a later flush proves that this one had been whole.
  Status CheckTail() {
    const uint64_t torn_sequence = out_.chain.sequence + 1;
    if (mutant::Is(mutant::kTornTailRefused) && last_.stray_sequence_max != 0) return Damage("", 0, "torn");
    if (mutant::Is(mutant::kDamageIsTail)) return {};
    if (last_.stray_sequence_max > torn_sequence) {
      return Damage(segments_[end_ - 1]->name(), last_.end_offset, Later(last_.stray_sequence_max));
    }
    for (size_t i = 0; i < trailing_.size(); ++i) {
      if (trailing_[i].stray_sequence_max > torn_sequence) {
        return Damage(segments_[end_ + i]->name(), kHeaderBytes, Later(trailing_[i].stray_sequence_max));
      }
    }
    if (last_.stray_sequence_max != 0) out_.torn_bytes = last_.stray_end - last_.end_offset;
    return {};
  }
  std::string Later(uint64_t sequence) const {
    return "damaged record: flush " + std::to_string(sequence) + " was written after flush " +
           std::to_string(out_.chain.sequence + 1) + " had become durable";
  }

  Status RemoveUnused() {
    if (has_spare_file_) {
      if (Status status = file_system_.Remove(Path(kSpareName)); !status.ok()) return status;
    }
    for (size_t i = 0; i < trailing_.size(); ++i) {
      const SegmentRef& segment = segments_[end_ + i];
      const uint64_t next = segments_[end_ - 1]->header.number + 1;
      uint64_t file_bytes = 0;
      if (Status status = segment->file->Size(&file_bytes); !status.ok()) return status;
      // One with a torn flush in it is not used again, nor one of another size.
      if (segment->header.number == next && trailing_[i].stray_sequence_max == 0 &&
          segment->header.file_bytes == segment_bytes_ && file_bytes == segment_bytes_) {
        out_.spare = segment;
        continue;
      }
      if (Status status = file_system_.Remove(Path(segment->name())); !status.ok()) return status;
    }
    out_.leftovers.assign(segments_.begin(), segments_.begin() + static_cast<ptrdiff_t>(begin_));
    // Also makes the names durable that only the page cache may have.
    return file_system_.SyncDirectory(directory_);
  }

  // Writes the last flush anew, zeros what is torn, and makes both durable. (Case 9: the page cache
  // may show what an earlier, failed fdatasync did not write, and would not write it again.)
  Status RepairTail() {
    Segment& segment = *segments_[end_ - 1];
    bytes_.assign(segment.header.file_bytes, 0);
    size_t count = 0;
    if (Status status = segment.file->Read(0, bytes_, &count); !status.ok()) return status;
    uint64_t begin = last_.flush_count > 0 ? last_.last_flush_offset : last_.end_offset;
    if (mutant::Is(mutant::kTailBelieved)) return {};
    uint64_t end = std::max(last_.end_offset, last_.stray_end);
    if (count < bytes_.size()) end = bytes_.size();
    std::fill(bytes_.begin() + static_cast<ptrdiff_t>(last_.end_offset),
              bytes_.begin() + static_cast<ptrdiff_t>(end), uint8_t{0});
    Status status = segment.file->Write(begin, {bytes_.data() + begin, end - begin});
    return status.ok() ? segment.file->Sync() : status;
  }

  FileSystem& file_system_;
  const std::string& directory_;
  const uint64_t segment_bytes_;
  const SegmentIds& ids_;
  const Logger& log_;
  RecoveredLog& out_;
  std::vector<SegmentRef> segments_;  // All that were found, by number.
  size_t begin_ = 0, end_ = 0;        // Those of the log.
  std::vector<ScanResult> trailing_;  // Of segments_[end_ ...]: they have no flush.
  ScanResult last_;                   // Of segments_[end_ - 1].
  bool has_spare_file_ = false;
  std::vector<uint8_t> bytes_;  // Of the segment at hand.
};

}  // namespace

Status Recover(FileSystem& file_system, const std::string& directory, uint64_t segment_bytes,
               const SegmentIds& ids, const Logger& log, RecoveredLog* out) {
  return Recovery(file_system, directory, segment_bytes, ids, log, out).Run();
}

}  // namespace keyway::log_segmented
