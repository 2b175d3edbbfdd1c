// SPDX-License-Identifier: Apache-2.0
//
// A message as bytes (fixed: little-endian; varint: base 128):
//
//   kind     1 byte
//   flags    1 byte: 1 reject, 2 needs_snapshot, 4 forced, 8 lost_log; other bits 0
//   from, to fixed64
//   term, index, log_term, commit, hint, context   varint
//   count    varint, entries; not 0 only for kAppend
//   entry    varint kind, varint term, fixed32 crc32c of data,
//            varint 0: no data, else 1 + size, and the data
//
// The index of entry i is that of the message + 1 + i. Nothing follows the last entry.
#include "kernel/raft/wire.h"

#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/coding.h"
#include "kernel/base/limits.h"
#include "keyway/crc32c.h"

namespace keyway::raft {
namespace {

constexpr uint8_t kReject = 1;
constexpr uint8_t kNeedsSnapshot = 2;
constexpr uint8_t kForced = 4;
constexpr uint8_t kLostLog = 8;
constexpr size_t kEntryBytesMin = 7;  // Two varints, the checksum, no data.

void EncodeEntry(const Entry& entry, std::string* out) {
  PutVarint(out, static_cast<uint32_t>(entry.kind));
  PutVarint(out, entry.term);
  PutFixed32(out, entry.crc32c);
  if (!entry.data.has_value()) return PutVarint(out, 0);
  PutVarint(out, uint64_t{entry.data.size()} + 1);
  out->append(entry.data.view());
}

bool DecodeEntry(Reader* reader, Entry* entry) {
  const uint64_t kind = reader->Varint();
  if (kind > static_cast<uint32_t>(EntryKind::kConfiguration)) return false;
  entry->kind = static_cast<EntryKind>(kind);
  entry->term = reader->Varint();
  entry->crc32c = reader->Fixed32();
  const uint64_t size_and_one = reader->Varint();
  if (!reader->ok()) return false;
  if (size_and_one == 0) return entry->crc32c == 0;
  const std::string_view data = reader->Raw(size_and_one - 1);
  if (!reader->ok() || data.size() > kEntryBytesMax) return false;
  if (kw_crc32c(0, data.data(), data.size()) != entry->crc32c) return false;
  entry->data = SharedBytes::Copy(data);
  return true;
}

}  // namespace

void EncodeMessage(const Message& message, std::string* out) {
  size_t bytes = 2 + 16 + 7 * 10;
  for (const Entry& entry : message.entries) bytes += entry.data.size() + 19;
  out->reserve(out->size() + bytes);
  out->push_back(static_cast<char>(message.kind));
  out->push_back(static_cast<char>((message.reject ? kReject : 0) |
                                   (message.needs_snapshot ? kNeedsSnapshot : 0) |
                                   (message.forced ? kForced : 0) | (message.lost_log ? kLostLog : 0)));
  PutFixed64(out, message.from);
  PutFixed64(out, message.to);
  PutVarint(out, message.term);
  PutVarint(out, message.index);
  PutVarint(out, message.log_term);
  PutVarint(out, message.commit);
  PutVarint(out, message.hint);
  PutVarint(out, message.context);
  PutVarint(out, message.entries.size());
  uint64_t index = message.index;
  for (const Entry& entry : message.entries) {
    KW_CHECK(entry.index == ++index);
    EncodeEntry(entry, out);
  }
}

std::optional<Message> DecodeMessage(std::string_view bytes) {
  Reader reader(bytes);
  Message message;
  const uint8_t kind = reader.Byte();
  const uint8_t flags = reader.Byte();
  message.from = reader.Fixed64();
  message.to = reader.Fixed64();
  message.term = reader.Varint();
  message.index = reader.Varint();
  message.log_term = reader.Varint();
  message.commit = reader.Varint();
  message.hint = reader.Varint();
  message.context = reader.Varint();
  const uint64_t count = reader.Varint();
  if (!reader.ok()) return std::nullopt;
  if (kind < static_cast<uint8_t>(MessageKind::kPreVote) ||
      kind > static_cast<uint8_t>(MessageKind::kTimeoutNow)) {
    return std::nullopt;
  }
  if ((flags & ~(kReject | kNeedsSnapshot | kForced | kLostLog)) != 0) return std::nullopt;
  message.kind = static_cast<MessageKind>(kind);
  message.reject = (flags & kReject) != 0;
  message.needs_snapshot = (flags & kNeedsSnapshot) != 0;
  message.forced = (flags & kForced) != 0;
  message.lost_log = (flags & kLostLog) != 0;
  if (count > 0 && message.kind != MessageKind::kAppend) return std::nullopt;
  if (count > reader.remaining() / kEntryBytesMin) return std::nullopt;
  if (message.index > UINT64_MAX - count) return std::nullopt;
  message.entries.resize(count);
  for (uint64_t i = 0; i < count; ++i) {
    message.entries[i].index = message.index + 1 + i;
    if (!DecodeEntry(&reader, &message.entries[i])) return std::nullopt;
  }
  if (!reader.ok() || !reader.empty()) return std::nullopt;
  return message;
}

}  // namespace keyway::raft
