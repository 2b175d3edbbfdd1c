// SPDX-License-Identifier: Apache-2.0
#include "salvage.h"

#include <algorithm>

namespace keyway::log_segmented {
namespace {

// A flush that checks out by itself.
struct Intact {
  SegmentRef segment;
  std::vector<ScannedRecord> records;
  Commit commit;
  Chain before, after;
};

class Finder {
 public:
  Finder(FileSystem& file_system, const std::string& directory, Salvage* out)
      : file_system_(file_system), directory_(directory), out_(*out) {}

  Status Run(uint64_t base_index, uint64_t base_term) {
    if (Status status = ReadSegments(); !status.ok()) return status;
    if (flushes_.empty()) return Damage("no record is intact");
    std::sort(flushes_.begin(), flushes_.end(),
              [](const Intact& a, const Intact& b) { return a.after.sequence < b.after.sequence; });
    const Intact& newest = flushes_.back();
    // One more may be torn: it was never acknowledged.
    if (sequence_max_ > newest.after.sequence + 1) {
      return Damage("flush " + std::to_string(sequence_max_) + ", the last one, is damaged too");
    }
    if (unreadable_number_ > newest.segment->header.number) {
      return Damage(SegmentName(unreadable_number_) +
                    ", the last segment, has a damaged header: what was in it cannot be known");
    }
    out_.chain = newest.after;
    out_.result.hard_state = newest.commit.hard_state;
    out_.result.last = newest.commit.last;
    out_.result.last_term = newest.commit.last_term;
    Replay();
    Choose(base_index, base_term);
    return {};
  }

 private:
  Status Damage(const std::string& what) const {
    return Error(KW_DATA_LOSS, what + " (in " + directory_ + ")");
  }

  Status ReadSegments() {
    std::vector<std::string> names;
    if (Status status = file_system_.List(directory_, &names); !status.ok()) return status;
    std::vector<uint8_t> bytes;
    for (const std::string& name : names) {
      const uint64_t number = SegmentNumber(name);
      if (number == 0) continue;
      out_.next_number = std::max(out_.next_number, number + 1);
      auto segment = std::make_shared<Segment>();
      if (Status status = file_system_.Open(directory_ + "/" + name, &segment->file); !status.ok())
        return status;
      bytes.resize(kHeaderBytes);
      size_t count = 0;
      if (Status status = segment->file->Read(0, bytes, &count); !status.ok()) return status;
      bytes.resize(count);
      if (!DecodeHeader(bytes, &segment->header) || segment->header.number != number) {
        unreadable_number_ = std::max(unreadable_number_, number);
        continue;
      }
      bytes.resize(segment->header.file_bytes);
      if (Status status = segment->file->Read(0, bytes, &count); !status.ok()) return status;
      bytes.resize(count);
      const uint64_t sequence_max = ScanIntact(
          bytes, segment->header,
          [&](std::span<const ScannedRecord> records, const Commit& commit, Chain before, Chain after) {
            flushes_.push_back({segment, {records.begin(), records.end()}, commit, before, after});
          });
      sequence_max_ = std::max(sequence_max_, sequence_max);
    }
    return {};
  }

  // Replays the run of flushes that ends with the newest: `entries_` are those that it has.
  void Replay() {
    size_t begin = flushes_.size() - 1;
    while (begin > 0 && flushes_[begin - 1].after.sequence == flushes_[begin].before.sequence &&
           flushes_[begin - 1].after.crc == flushes_[begin].before.crc) {
      --begin;
    }
    for (size_t i = begin; i < flushes_.size(); ++i) {
      for (const ScannedRecord& record : flushes_[i].records) {
        if (record.type == RecordType::kReset) entries_.clear();
        if (record.type != RecordType::kEntry) continue;
        const uint64_t first = entries_.empty() ? record.index : entries_.front().record.index;
        const uint64_t kept = record.index >= first ? record.index - first : 0;
        // Beyond the end: never written so. What is left out then does not pass Choose().
        if (kept > entries_.size()) entries_.clear();
        entries_.resize(std::min<size_t>(kept, entries_.size()));
        entries_.push_back({flushes_[i].segment, record});
      }
    }
  }

  // The entries behind the base, if they are all there.
  void Choose(uint64_t base_index, uint64_t base_term) {
    kw_log_salvage& result = out_.result;
    result.bounds = {base_index + 1, base_index, base_term};
    if (HasAllBehind(base_index, base_term)) {
      out_.entries.assign(entries_.begin() + static_cast<ptrdiff_t>(base_index + 1 - FirstIndex()),
                          entries_.end());
      result.bounds.last = result.last;
    }
    result.hard_state.commit = std::clamp(result.hard_state.commit, base_index, result.bounds.last);
  }
  uint64_t FirstIndex() const { return entries_.front().record.index; }

  bool HasAllBehind(uint64_t base_index, uint64_t base_term) const {
    const kw_log_salvage& result = out_.result;
    if (entries_.empty() || base_index >= result.last) return false;
    if (entries_.back().record.index != result.last || entries_.back().record.term != result.last_term) {
      return false;
    }
    if (FirstIndex() > base_index + 1) return false;
    const ScannedRecord& next = entries_[base_index + 1 - FirstIndex()].record;
    if (next.prev_term != base_term) return false;
    uint64_t bytes = 0;
    for (uint64_t index = base_index + 1; index <= result.last; ++index) {
      bytes += FlushEncoder::EntryBytes(entries_[index - FirstIndex()].record.data_bytes);
    }
    return bytes <= kSalvageBytesMax;
  }

  FileSystem& file_system_;
  const std::string& directory_;
  Salvage& out_;
  std::vector<Intact> flushes_;
  std::vector<Salvage::Entry> entries_;
  uint64_t sequence_max_ = 0;
  uint64_t unreadable_number_ = 0;  // The highest one.
};

}  // namespace

Status FindSalvage(FileSystem& file_system, const std::string& directory, uint64_t base_index,
                   uint64_t base_term, Salvage* out) {
  return Finder(file_system, directory, out).Run(base_index, base_term);
}

Status Rebuild(FileSystem& file_system, const std::string& directory, uint64_t segment_bytes,
               const SegmentIds& ids, const Salvage& salvage) {
  uint64_t bytes = kHeaderBytes + kFlushOverheadBytes;
  for (const Salvage::Entry& entry : salvage.entries) {
    bytes += FlushEncoder::EntryBytes(entry.record.data_bytes);
  }
  SegmentRef segment;
  const uint64_t file_bytes = std::max(segment_bytes, (bytes + 4095) / 4096 * 4096);
  Status status = CreateSegment(file_system, directory, ids, salvage.next_number, file_bytes, &segment);
  if (!status.ok()) return status;

  const kw_log_salvage& result = salvage.result;
  FlushEncoder flush(segment->header, kHeaderBytes, salvage.chain);
  flush.AddBase(RecordType::kBase, result.bounds.first - 1, result.bounds.base_term);
  std::vector<uint8_t> record;
  for (const Salvage::Entry& entry : salvage.entries) {
    record.resize(FlushEncoder::EntryBytes(entry.record.data_bytes));
    size_t count = 0;
    status = entry.segment->file->Read(entry.record.offset, record, &count);
    if (!status.ok()) return status;
    kw_log_entry decoded;
    if (count < record.size() ||
        !DecodeEntry(record, entry.segment->header, entry.record.offset, entry.record.index, &decoded)) {
      return Error(KW_DATA_LOSS, entry.segment->name() + " at offset " + std::to_string(entry.record.offset) +
                                     ": the record changes from one read to the next");
    }
    flush.AddEntry(decoded, entry.record.prev_term);
  }
  const bool is_whole = result.bounds.last == result.last;
  flush.Close({result.hard_state, salvage.next_number, result.bounds.last,
               is_whole ? result.last_term : result.bounds.base_term});
  status = segment->file->Write(flush.offset(), flush.bytes());
  if (status.ok()) status = segment->file->Sync();
  if (!status.ok()) return status;

  // Damaged headers below would still be damage.
  std::vector<std::string> names;
  status = file_system.List(directory, &names);
  for (const std::string& name : names) {
    if (!status.ok()) return status;
    const uint64_t number = SegmentNumber(name);
    if (number != 0 && number < salvage.next_number) status = file_system.Remove(directory + "/" + name);
  }
  return status.ok() ? file_system.SyncDirectory(directory) : status;
}

}  // namespace keyway::log_segmented
