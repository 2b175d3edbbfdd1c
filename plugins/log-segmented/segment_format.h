// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a log segment: pure functions, no file is touched here.
//
// A log is a run of segment files, log-<number in 16 hex digits>.seg, of consecutive numbers. Each is
// written with zeros (or taken over from a dropped segment) and given its header before it gets that
// name, so its size never changes while it is in use. All integers are little-endian.
//
//   segment   0     header
//             4096  flush, flush, ... then zeros, or stale bytes of the file's earlier life
//   flush     record, record, ..., LAST, COMMIT    (what one fdatasync made durable)
//   record    64 bytes, then `data_bytes` of data padded with zeros to a multiple of 8
//
//   header    0  char[8] magic "KWLOGSEG"    8 u32 version 2     12 u32 crc32c of the other fields
//             16 u64 id (random)            24 u64 number       32 u64 file_bytes
//   record    0  u32 crc32c of bytes 4..63, seeded with the segment's id and the record's offset
//             4  u32 tag (of the id)         8 u32 type         12 u32 crc32c of the record before
//             16 u64 sequence (of the flush)
//     ENTRY   24 u64 index  32 u64 term  40 u64 prev_term (of entry index - 1)
//             48 u32 data_bytes  52 u32 kind  56 u32 crc32c of the data  60 u32 zero
//     BASE, RESET, TRUNCATE
//             24 u64 base_index  32 u64 base_term  40 zeros
//     LAST    24 u64 index       32 u64 term       40 zeros   (the last entry of the log after this flush)
//     COMMIT  24 u64 term  32 u64 vote  40 u64 commit  (the hard state)
//             48 u64 oldest_segment  56 u32 flush_bytes  60 u32 record_count (without LAST and itself)
//
// Meaning, replayed in order. BASE opens every segment: the last entry before it, so that a segment
// can be the oldest one. ENTRY appends; one with an index that is taken first drops the entries from
// there on. RESET empties the log. TRUNCATE drops the entries up to base_index. COMMIT makes the
// records since the last COMMIT count, all or none, and replaces the hard state; segments below
// oldest_segment are then no longer part of the log. Sequences rise by one from flush to flush, over
// all segments, and the chain of crcs runs through all segments too.
//
// The writer starts flush n + 1 only after flush n was durable. So *any* record of sequence n + 1 that
// checks out proves that flush n had been acknowledged, or could have been.
//
// Crash cases (n is the last flush that checks out):
//   1. In the middle of flush n + 1: some of its sectors are old. No record of sequence n + 2 exists.
//      It was never acknowledged: dropped whole. What looks like its records is zeroed before use.
//   2. After flush n + 1 was durable, before it was acknowledged: it is kept; nobody minds.
//   3. Damage below: flush n + 1 does not check out, but a record of sequence n + 2 or later does, in
//      this or a later segment. DATA_LOSS with file and offset; nothing is changed on disk. salvage.h
//      tells what the flushes after the damage prove, and can build the log anew behind it.
//   4. Damage in the very last flush looks like 1. To shrink that window to the last moments, the
//      writer adds a flush without entries when it goes idle and at stop. Its COMMIT lies in another
//      sector than the end of the flush before it, so that one lost sector does not hide the loss.
//   5. Switching segments: the next one has its name and header long before. Case 1 in its first
//      flush leaves a segment without flushes behind: it is removed.
//   6. Making a segment: it is called spare.tmp until its content is durable; removed if found.
//   7. Recycling: the dropped segment is renamed to spare.tmp, durably, before a byte of it changes.
//      Its old records carry another id, so they never check out.
//   8. Dropping segments: only after a COMMIT that names a higher oldest_segment is durable. A crash
//      may leave any of them: they are removed. One at or above oldest_segment missing: DATA_LOSS.
//   9. The process died, or an fdatasync failed, and the page cache shows what the disk does not have:
//      only the last flush can be so; recovery writes it anew before it trusts it.
//  10. The file is shorter than its header says: the missing bytes count as zeros.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "keyway/log_store.h"

namespace keyway::log_segmented {

inline constexpr uint64_t kHeaderBytes = 4096;  // Its own page: never rewritten with records.
inline constexpr uint64_t kRecordBytes = 64;
inline constexpr uint64_t kSegmentBytesMin = 16 << 10;
inline constexpr uint64_t kSegmentBytesMax = uint64_t{1} << 31;

struct SegmentHeader {
  uint64_t id = 0;
  uint64_t number = 0;
  uint64_t file_bytes = 0;
};

enum class RecordType : uint32_t { kEntry = 1, kBase = 2, kReset = 3, kTruncate = 4, kCommit = 5, kLast = 6 };

// One record's place and meaning; for kBase, kReset and kTruncate index and term are the base's.
struct ScannedRecord {
  RecordType type;
  uint32_t data_bytes;
  uint64_t index;
  uint64_t term;
  uint64_t prev_term;
  uint64_t offset;
};

// How a flush ends: its LAST and its COMMIT.
struct Commit {
  kw_hard_state hard_state = {};
  uint64_t oldest_segment = 0;
  uint64_t last = 0, last_term = 0;
};

// What comes with the records of a flush: a BASE before them, LAST and COMMIT after them.
inline constexpr uint64_t kFlushOverheadBytes = 3 * kRecordBytes;

// The end of a run of flushes: what the next one continues.
struct Chain {
  uint32_t crc = 0;
  uint64_t sequence = 0;
};

constexpr uint64_t PaddedBytes(uint64_t data_bytes) { return (data_bytes + 7) & ~uint64_t{7}; }

// The file name of segment `number`, and back. Returns 0 for another name.
std::string SegmentName(uint64_t number);
uint64_t SegmentNumber(const std::string& name);

void EncodeHeader(const SegmentHeader& header, std::span<uint8_t, kHeaderBytes> out);
// False if the bytes are no header of this version, or damaged.
[[nodiscard]] bool DecodeHeader(std::span<const uint8_t> bytes, SegmentHeader* out);

// Builds one flush for a given place. Add records, then Close().
class FlushEncoder {
 public:
  // The flush continues `chain` and will be written at `offset` of the segment. `buffer` is memory to
  // be used again; its content does not matter.
  FlushEncoder(const SegmentHeader& segment, uint64_t offset, Chain chain, std::vector<uint8_t> buffer = {});

  void AddBase(RecordType type, uint64_t base_index, uint64_t base_term);
  void AddEntry(const kw_log_entry& entry, uint64_t prev_term);
  void Close(const Commit& commit);

  uint64_t offset() const { return offset_; }
  uint64_t end_offset() const { return offset_ + bytes_.size(); }
  bool closed() const { return closed_; }
  const Commit& commit() const { return commit_; }
  // What the next flush continues. Only when closed.
  Chain chain() const { return chain_; }
  std::span<const uint8_t> bytes() const { return bytes_; }
  std::span<const ScannedRecord> records() const { return records_; }
  std::vector<uint8_t> TakeBuffer() { return std::move(bytes_); }

  static constexpr uint64_t EntryBytes(uint64_t data_bytes) { return kRecordBytes + PaddedBytes(data_bytes); }

 private:
  uint8_t* AddRecord(RecordType type, uint64_t data_bytes);
  void Seal(uint8_t* record, uint64_t record_offset);

  const SegmentHeader segment_;
  const uint64_t offset_;
  Chain chain_;
  Commit commit_;
  bool closed_ = false;
  std::vector<uint8_t> bytes_;
  std::vector<ScannedRecord> records_;
};

// What a scan of one segment found.
struct ScanResult {
  uint64_t flush_count = 0;
  uint32_t first_prev_crc = 0;         // The chain before the first flush.
  uint64_t first_sequence = 0;         // 0 if there is no flush.
  Chain chain;                         // After the last flush.
  Commit commit;                       // Of the last flush.
  uint64_t last_flush_offset = 0;      // Where the last flush starts,
  uint64_t end_offset = kHeaderBytes;  // and ends.
  // Records of this segment at or after end_offset that check out by themselves.
  uint64_t stray_sequence_max = 0;  // 0 if there is none.
  uint64_t stray_end = 0;           // The end of the last one.
};

// Called for each flush that checks out, in order, with the records before its COMMIT.
using FlushVisitor = std::function<void(std::span<const ScannedRecord> records, const Commit&)>;

// Scans a whole segment. `bytes` start at the file's start. Accepts flushes as long as they check out:
// crc, chain, consecutive sequences, data, and a COMMIT that counts them.
ScanResult ScanSegment(std::span<const uint8_t> bytes, const SegmentHeader& header,
                       const FlushVisitor& visitor);

// Called for each flush of ScanIntact, with its records before LAST and the chain at both of its ends.
using IntactVisitor =
    std::function<void(std::span<const ScannedRecord> records, const Commit&, Chain before, Chain after)>;

// Finds flushes that check out by themselves anywhere in a segment, whatever lies between them, in the order
// of their offsets. Returns the highest sequence of any record that checks out, 0 if there is none.
uint64_t ScanIntact(std::span<const uint8_t> bytes, const SegmentHeader& header,
                    const IntactVisitor& visitor);

// Checks one ENTRY record that an index points to, `bytes` starting at its header; fills `out`, whose
// data points into `bytes`. False if the record or its data are damaged or another entry's.
[[nodiscard]] bool DecodeEntry(std::span<const uint8_t> bytes, const SegmentHeader& header, uint64_t offset,
                               uint64_t index, kw_log_entry* out);

}  // namespace keyway::log_segmented
