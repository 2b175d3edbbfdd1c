// SPDX-License-Identifier: Apache-2.0
//
// Encoding of records. Layout (protobuf wire form, every field left out when zero or empty):
//   0a key · 10 create_revision · 18 mod_revision · 20 version · 2a value · 30 lease
#include "kernel/mvcc/record.h"

#include "kernel/base/coding.h"

namespace keyway::mvcc {
namespace {

enum Tag : uint8_t {
  kKey = 0x0a,
  kCreateRevision = 0x10,
  kModRevision = 0x18,
  kVersion = 0x20,
  kValue = 0x2a,
  kLease = 0x30,
};

size_t BytesFieldSize(std::string_view bytes) {
  return bytes.empty() ? 0 : 1 + VarintSize(bytes.size()) + bytes.size();
}
size_t NumberFieldSize(int64_t number) {
  return number == 0 ? 0 : 1 + VarintSize(static_cast<uint64_t>(number));
}
char* WriteBytesField(char* at, Tag tag, std::string_view bytes) {
  if (bytes.empty()) return at;
  *at++ = static_cast<char>(tag);
  at = WriteVarint(at, bytes.size());
  std::memcpy(at, bytes.data(), bytes.size());
  return at + bytes.size();
}
char* WriteNumberField(char* at, Tag tag, int64_t number) {
  if (number == 0) return at;
  *at++ = static_cast<char>(tag);
  return WriteVarint(at, static_cast<uint64_t>(number));
}

}  // namespace

void EncodeRevisionKey(Revision revision, char* out) {
  WriteBigEndian64(out, static_cast<uint64_t>(revision.main));
  WriteBigEndian32(out + 8, static_cast<uint32_t>(revision.sub));
}

Revision DecodeRevisionKey(std::string_view key) {
  KW_CHECK(key.size() == kRevisionKeyBytes);
  return {static_cast<int64_t>(ReadBigEndian64(key.data())),
          static_cast<int32_t>(ReadBigEndian32(key.data() + 8))};
}

size_t RecordSize(const RecordFields& fields) {
  return BytesFieldSize(fields.key) + NumberFieldSize(fields.create_revision) +
         NumberFieldSize(fields.mod_revision) + NumberFieldSize(fields.version) +
         BytesFieldSize(fields.value) + NumberFieldSize(fields.lease);
}

char* WriteRecord(const RecordFields& fields, char* at) {
  at = WriteBytesField(at, kKey, fields.key);
  at = WriteNumberField(at, kCreateRevision, fields.create_revision);
  at = WriteNumberField(at, kModRevision, fields.mod_revision);
  at = WriteNumberField(at, kVersion, fields.version);
  at = WriteBytesField(at, kValue, fields.value);
  return WriteNumberField(at, kLease, fields.lease);
}

SharedBytes EncodeRecord(const RecordFields& fields) {
  SharedBytes record = SharedBytes::Allocate(RecordSize(fields));
  char* begin = record.mutable_data();
  char* end = WriteRecord(fields, begin);
  KW_DCHECK(static_cast<size_t>(end - begin) == record.size());
  (void)end;
  return record;
}

bool DecodeRecord(std::string_view record, RecordFields* fields) {
  *fields = RecordFields();
  Reader reader(record);
  while (!reader.empty()) {
    switch (reader.Byte()) {
      case kKey:
        fields->key = reader.Bytes();
        break;
      case kCreateRevision:
        fields->create_revision = static_cast<int64_t>(reader.Varint());
        break;
      case kModRevision:
        fields->mod_revision = static_cast<int64_t>(reader.Varint());
        break;
      case kVersion:
        fields->version = static_cast<int64_t>(reader.Varint());
        break;
      case kValue:
        fields->value = reader.Bytes();
        break;
      case kLease:
        fields->lease = static_cast<int64_t>(reader.Varint());
        break;
      default:
        return false;
    }
    if (!reader.ok()) return false;
  }
  return !fields->key.empty() && fields->mod_revision > 0;
}

std::string_view RecordKey(std::string_view record) {
  Reader reader(record);
  uint8_t tag = reader.Byte();
  std::string_view key = reader.Bytes();
  KW_CHECK(tag == kKey && reader.ok());
  return key;
}

}  // namespace keyway::mvcc
