// SPDX-License-Identifier: Apache-2.0
#include "segment_format.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "keyway/crc32c.h"
#include "mutant.h"

namespace keyway::log_segmented {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "integers are stored as they are in memory");

constexpr char kMagic[8] = {'K', 'W', 'L', 'O', 'G', 'S', 'E', 'G'};
constexpr uint32_t kVersion = 2;
constexpr uint64_t kHeaderFieldBytes = 40;

template <typename Number>
Number Load(const uint8_t* at) {
  Number number;
  std::memcpy(&number, at, sizeof number);
  return number;
}
template <typename Number>
void Store(uint8_t* at, Number number) {
  std::memcpy(at, &number, sizeof number);
}

// Never 0, so that zeros are never taken for a record.
uint32_t Tag(uint64_t id) { return static_cast<uint32_t>(id ^ (id >> 32)) | 1u; }

uint32_t RecordCrc(const SegmentHeader& header, uint64_t offset, const uint8_t* record) {
  const uint64_t seed[2] = {header.id, offset};
  const uint32_t crc = kw_crc32c(0, seed, sizeof seed);
  return kw_crc32c(crc, record + 4, kRecordBytes - 4);
}

bool RecordChecksOut(const SegmentHeader& header, uint64_t offset, const uint8_t* record) {
  return Load<uint32_t>(record + 4) == Tag(header.id) &&
         Load<uint32_t>(record) == RecordCrc(header, offset, record);
}

uint32_t HeaderCrc(const uint8_t* bytes) {
  const uint32_t crc = kw_crc32c(0, bytes, 12);
  return kw_crc32c(crc, bytes + 16, kHeaderFieldBytes - 16);
}

// Decodes a record that checks out; false if its type is unknown.
bool Decode(const uint8_t* record, uint64_t offset, ScannedRecord* out) {
  *out = {};
  out->type = static_cast<RecordType>(Load<uint32_t>(record + 8));
  out->offset = offset;
  switch (out->type) {
    case RecordType::kEntry:
      out->prev_term = Load<uint64_t>(record + 40);
      out->data_bytes = Load<uint32_t>(record + 48);
      [[fallthrough]];
    case RecordType::kBase:
    case RecordType::kReset:
    case RecordType::kTruncate:
    case RecordType::kLast:
      out->index = Load<uint64_t>(record + 24);
      out->term = Load<uint64_t>(record + 32);
      return true;
    case RecordType::kCommit:
      return true;
  }
  return false;
}

Commit DecodeCommit(const uint8_t* record) {
  Commit commit;
  commit.hard_state = {Load<uint64_t>(record + 24), Load<uint64_t>(record + 32), Load<uint64_t>(record + 40)};
  commit.oldest_segment = Load<uint64_t>(record + 48);
  return commit;
}

// Scans the flush at `offset`, which must continue `chain` unless it is the segment's first one.
// Returns its end, or 0 if it does not check out.
uint64_t ScanFlush(std::span<const uint8_t> bytes, const SegmentHeader& header, uint64_t offset,
                   bool is_first, Chain* chain, std::vector<ScannedRecord>* records, Commit* commit) {
  const uint64_t start = offset;
  ScannedRecord last = {};
  bool has_last = false;
  records->clear();
  while (offset + kRecordBytes <= bytes.size()) {
    const uint8_t* record = bytes.data() + offset;
    if (!RecordChecksOut(header, offset, record)) return 0;
    const uint64_t sequence = Load<uint64_t>(record + 16);
    if (is_first && records->empty()) {
      chain->crc = Load<uint32_t>(record + 12);
      chain->sequence = sequence - 1;
    }
    if (Load<uint32_t>(record + 12) != chain->crc || sequence != chain->sequence + 1) return 0;
    ScannedRecord scanned;
    if (!Decode(record, offset, &scanned)) return 0;
    const bool opens_segment = is_first && records->empty();
    if (opens_segment != (scanned.type == RecordType::kBase)) return 0;
    chain->crc = Load<uint32_t>(record);
    offset += kRecordBytes;

    // LAST comes once, and COMMIT after it.
    if (has_last != (scanned.type == RecordType::kCommit)) return 0;
    if (scanned.type == RecordType::kLast) {
      last = scanned;
      has_last = true;
      continue;
    }
    if (scanned.type == RecordType::kCommit) {
      if (Load<uint32_t>(record + 56) != offset - start) return 0;
      if (Load<uint32_t>(record + 60) != records->size()) return 0;
      *commit = DecodeCommit(record);
      commit->last = last.index;
      commit->last_term = last.term;
      chain->sequence = sequence;
      return offset;
    }
    if (scanned.type == RecordType::kEntry) {
      if (PaddedBytes(scanned.data_bytes) > bytes.size() - offset) return 0;
      const uint32_t crc = kw_crc32c(0, bytes.data() + offset, scanned.data_bytes);
      if (crc != Load<uint32_t>(record + 56) && !mutant::Is(mutant::kDataUnchecked)) return 0;
      offset += PaddedBytes(scanned.data_bytes);
    }
    records->push_back(scanned);
  }
  return 0;
}

}  // namespace

std::string SegmentName(uint64_t number) {
  char name[32];
  std::snprintf(name, sizeof name, "log-%016llx.seg", static_cast<unsigned long long>(number));
  return name;
}

uint64_t SegmentNumber(const std::string& name) {
  if (name.size() != 24 || name.compare(0, 4, "log-") != 0) return 0;
  uint64_t number = 0;
  const auto result = std::from_chars(name.data() + 4, name.data() + 20, number, 16);
  if (result.ec != std::errc() || SegmentName(number) != name) return 0;
  return number;
}

void EncodeHeader(const SegmentHeader& header, std::span<uint8_t, kHeaderBytes> out) {
  std::memset(out.data(), 0, out.size());
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  Store<uint32_t>(out.data() + 8, kVersion);
  Store<uint64_t>(out.data() + 16, header.id);
  Store<uint64_t>(out.data() + 24, header.number);
  Store<uint64_t>(out.data() + 32, header.file_bytes);
  Store<uint32_t>(out.data() + 12, HeaderCrc(out.data()));
}

bool DecodeHeader(std::span<const uint8_t> bytes, SegmentHeader* out) {
  if (bytes.size() < kHeaderBytes) return false;
  if (std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return false;
  if (Load<uint32_t>(bytes.data() + 8) != kVersion) return false;
  if (Load<uint32_t>(bytes.data() + 12) != HeaderCrc(bytes.data())) return false;
  out->id = Load<uint64_t>(bytes.data() + 16);
  out->number = Load<uint64_t>(bytes.data() + 24);
  out->file_bytes = Load<uint64_t>(bytes.data() + 32);
  return out->file_bytes >= kSegmentBytesMin && out->file_bytes <= kSegmentBytesMax;
}

FlushEncoder::FlushEncoder(const SegmentHeader& segment, uint64_t offset, Chain chain,
                           std::vector<uint8_t> buffer)
    : segment_(segment), offset_(offset), chain_(chain), bytes_(std::move(buffer)) {
  bytes_.clear();
}

uint8_t* FlushEncoder::AddRecord(RecordType type, uint64_t data_bytes) {
  const size_t at = bytes_.size();
  bytes_.resize(at + kRecordBytes + PaddedBytes(data_bytes));
  uint8_t* record = bytes_.data() + at;
  Store<uint32_t>(record + 4, Tag(segment_.id));
  Store<uint32_t>(record + 8, static_cast<uint32_t>(type));
  Store<uint32_t>(record + 12, chain_.crc);
  Store<uint64_t>(record + 16, chain_.sequence + 1);
  return record;
}

void FlushEncoder::Seal(uint8_t* record, uint64_t record_offset) {
  chain_.crc = RecordCrc(segment_, record_offset, record);
  Store<uint32_t>(record, chain_.crc);
}

void FlushEncoder::AddBase(RecordType type, uint64_t base_index, uint64_t base_term) {
  const uint64_t offset = end_offset();
  uint8_t* record = AddRecord(type, 0);
  Store<uint64_t>(record + 24, base_index);
  Store<uint64_t>(record + 32, base_term);
  Seal(record, offset);
  records_.push_back({type, 0, base_index, base_term, 0, offset});
}

void FlushEncoder::AddEntry(const kw_log_entry& entry, uint64_t prev_term) {
  const uint64_t offset = end_offset();
  uint8_t* record = AddRecord(RecordType::kEntry, entry.data.len);
  Store<uint64_t>(record + 24, entry.index);
  Store<uint64_t>(record + 32, entry.term);
  Store<uint64_t>(record + 40, prev_term);
  Store<uint32_t>(record + 48, static_cast<uint32_t>(entry.data.len));
  Store<uint32_t>(record + 52, entry.kind);
  Store<uint32_t>(record + 56, entry.crc32c);
  if (entry.data.len != 0) std::memcpy(record + kRecordBytes, entry.data.ptr, entry.data.len);
  Seal(record, offset);
  records_.push_back({RecordType::kEntry, static_cast<uint32_t>(entry.data.len), entry.index, entry.term,
                      prev_term, offset});
}

void FlushEncoder::Close(const Commit& commit) {
  const uint64_t last_offset = end_offset();
  uint8_t* record = AddRecord(RecordType::kLast, 0);
  Store<uint64_t>(record + 24, commit.last);
  Store<uint64_t>(record + 32, commit.last_term);
  Seal(record, last_offset);
  const uint64_t offset = end_offset();
  record = AddRecord(RecordType::kCommit, 0);
  Store<uint64_t>(record + 24, commit.hard_state.term);
  Store<uint64_t>(record + 32, commit.hard_state.vote);
  Store<uint64_t>(record + 40, commit.hard_state.commit);
  Store<uint64_t>(record + 48, commit.oldest_segment);
  Store<uint32_t>(record + 56, static_cast<uint32_t>(bytes_.size()));
  Store<uint32_t>(record + 60, static_cast<uint32_t>(records_.size()));
  Seal(record, offset);
  chain_.sequence += 1;
  commit_ = commit;
  closed_ = true;
}

ScanResult ScanSegment(std::span<const uint8_t> bytes, const SegmentHeader& header,
                       const FlushVisitor& visitor) {
  ScanResult result;
  std::vector<ScannedRecord> records;
  while (true) {
    Chain chain = result.chain;
    Commit commit;
    const bool is_first = result.flush_count == 0;
    if (is_first && result.end_offset + kRecordBytes <= bytes.size()) {
      result.first_prev_crc = Load<uint32_t>(bytes.data() + result.end_offset + 12);
    }
    const uint64_t end = ScanFlush(bytes, header, result.end_offset, is_first, &chain, &records, &commit);
    if (end == 0) break;
    if (is_first) result.first_sequence = chain.sequence;
    result.flush_count += 1;
    result.chain = chain;
    result.commit = commit;
    result.last_flush_offset = result.end_offset;
    result.end_offset = end;
    if (visitor) visitor(records, commit);
  }
  const uint32_t tag = Tag(header.id);
  for (uint64_t at = result.end_offset; at + kRecordBytes <= bytes.size(); at += 8) {
    const uint8_t* record = bytes.data() + at;
    if (Load<uint32_t>(record + 4) != tag || !RecordChecksOut(header, at, record)) continue;
    const uint64_t sequence = Load<uint64_t>(record + 16);
    if (sequence > result.stray_sequence_max) result.stray_sequence_max = sequence;
    result.stray_end = at + kRecordBytes;
  }
  return result;
}

uint64_t ScanIntact(std::span<const uint8_t> bytes, const SegmentHeader& header,
                    const IntactVisitor& visitor) {
  const uint32_t tag = Tag(header.id);
  uint64_t sequence_max = 0;
  std::vector<ScannedRecord> records;
  for (uint64_t at = kHeaderBytes; at + kRecordBytes <= bytes.size(); at += 8) {
    const uint8_t* record = bytes.data() + at;
    if (Load<uint32_t>(record + 4) != tag || !RecordChecksOut(header, at, record)) continue;
    sequence_max = std::max(sequence_max, Load<uint64_t>(record + 16));
    if (Load<uint32_t>(record + 8) != static_cast<uint32_t>(RecordType::kCommit)) continue;
    // A COMMIT knows how long its flush is, so where it starts.
    const uint64_t end = at + kRecordBytes;
    const uint64_t flush_bytes = Load<uint32_t>(record + 56);
    if (flush_bytes < 2 * kRecordBytes || flush_bytes > end - kHeaderBytes) continue;
    const uint64_t start = end - flush_bytes;
    const uint8_t* first = bytes.data() + start;
    const Chain before = {Load<uint32_t>(first + 12), Load<uint64_t>(first + 16) - 1};
    Chain after = before;
    Commit commit;
    if (ScanFlush(bytes, header, start, start == kHeaderBytes, &after, &records, &commit) != end) continue;
    visitor(records, commit, before, after);
  }
  return sequence_max;
}

bool DecodeEntry(std::span<const uint8_t> bytes, const SegmentHeader& header, uint64_t offset, uint64_t index,
                 kw_log_entry* out) {
  if (bytes.size() < kRecordBytes || !RecordChecksOut(header, offset, bytes.data())) return false;
  ScannedRecord record;
  if (!Decode(bytes.data(), offset, &record)) return false;
  if (record.type != RecordType::kEntry || record.index != index) return false;
  if (record.data_bytes > bytes.size() - kRecordBytes) return false;
  out->index = record.index;
  out->term = record.term;
  out->kind = Load<uint32_t>(bytes.data() + 52);
  out->crc32c = Load<uint32_t>(bytes.data() + 56);
  out->data = {bytes.data() + kRecordBytes, record.data_bytes};
  return kw_crc32c(0, out->data.ptr, out->data.len) == out->crc32c;
}

}  // namespace keyway::log_segmented
