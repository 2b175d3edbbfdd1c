// SPDX-License-Identifier: Apache-2.0
//
// A record: one version of a key in the wire form of mvccpb.KeyValue (see keyway/kernel.h), encoded
// once and then only shared or spliced. A tombstone is a record with key and mod_revision only; a live
// record always has a create_revision.
#pragma once

#include <compare>
#include <cstdint>
#include <string_view>

#include "kernel/base/bytes.h"
#include "keyway/crc32c.h"

namespace keyway::mvcc {

// A revision: `main` counts the changes of the store, `sub` the keys changed within one. One that comes
// from the index brings the checksum of its record, so that what an engine gives can be checked against
// what was written; it is 0 elsewhere and takes no part in comparisons.
struct Revision {
  int64_t main = 0;
  int32_t sub = 0;
  uint32_t crc32c = 0;
  friend auto operator<=>(const Revision& a, const Revision& b) {
    if (auto order = a.main <=> b.main; order != 0) return order;
    return a.sub <=> b.sub;
  }
  friend bool operator==(const Revision& a, const Revision& b) { return a.main == b.main && a.sub == b.sub; }
};

// Key of a record in the engine's table of revisions: main and sub, big-endian, so that it sorts.
inline constexpr size_t kRevisionKeyBytes = 12;
void EncodeRevisionKey(Revision revision, char* out);
Revision DecodeRevisionKey(std::string_view key);  // key.size() == kRevisionKeyBytes

struct RecordFields {
  std::string_view key, value;
  int64_t create_revision = 0, mod_revision = 0, version = 0, lease = 0;
};
SharedBytes EncodeRecord(const RecordFields& fields);
// The same into memory of the caller: WriteRecord() fills RecordSize() bytes and returns their end.
size_t RecordSize(const RecordFields& fields);
char* WriteRecord(const RecordFields& fields, char* out);
// False on malformed bytes. Views point into `record`.
bool DecodeRecord(std::string_view record, RecordFields* fields);
// Fast paths for a record known to be well-formed.
std::string_view RecordKey(std::string_view record);
inline uint32_t RecordChecksum(std::string_view record) { return kw_crc32c(0, record.data(), record.size()); }

}  // namespace keyway::mvcc
