// SPDX-License-Identifier: Apache-2.0
// Just enough of the protobuf wire format to build etcd requests and to look into the replies:
// the load generator must cost a small part of what the server costs, so nothing is parsed fully.
#ifndef KEYWAY_TESTS_BENCH_LOADGEN_WIRE_H_
#define KEYWAY_TESTS_BENCH_LOADGEN_WIRE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::loadgen {

inline void PutVarint(std::string* out, uint64_t value) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

// Appends a varint field; zero is the default of proto3 and is left out.
inline void PutInteger(std::string* out, uint32_t field, uint64_t value) {
  if (value == 0) return;
  PutVarint(out, field << 3);
  PutVarint(out, value);
}

// Appends a length-delimited field: bytes, string or an encoded message.
inline void PutBytes(std::string* out, uint32_t field, std::string_view value) {
  PutVarint(out, (field << 3) | 2);
  PutVarint(out, value.size());
  out->append(value);
}

// Prefixes `message` with the five bytes of the gRPC framing (not compressed, length).
inline void AppendGrpcFrame(std::string* out, std::string_view message) {
  const uint32_t size = static_cast<uint32_t>(message.size());
  const char prefix[5] = {0, static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                          static_cast<char>(size >> 8), static_cast<char>(size)};
  out->append(prefix, sizeof prefix);
  out->append(message);
}

// Walks the fields of one encoded message. After Next() returned true, field() and either integer()
// or bytes() describe the field. ok() is false when the input was cut short or is not protobuf.
class Fields {
 public:
  explicit Fields(std::string_view input) : input_(input) {}

  bool Next() {
    if (input_.empty()) return false;
    uint64_t tag = 0;
    if (!Varint(&tag)) return Fail();
    field_ = static_cast<uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0:
        return Varint(&integer_) || Fail();
      case 1:
        return Skip(8) || Fail();
      case 2: {
        uint64_t size = 0;
        if (!Varint(&size)) return Fail();
        size_ = size;
        bytes_ = input_.substr(0, size);  // Shorter than size() when the input is only a head.
        const bool whole = size <= input_.size();
        input_.remove_prefix(whole ? size : input_.size());
        if (!whole) ok_ = false;
        return true;
      }
      case 5:
        return Skip(4) || Fail();
      default:
        return Fail();
    }
  }

  uint32_t field() const { return field_; }
  uint64_t integer() const { return integer_; }
  std::string_view bytes() const { return bytes_; }
  bool ok() const { return ok_; }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64 && !input_.empty(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(input_.front());
      input_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Skip(size_t count) {
    if (input_.size() < count) return false;
    input_.remove_prefix(count);
    return true;
  }
  bool Fail() {
    ok_ = false;
    input_ = {};
    return false;
  }

  std::string_view input_;
  std::string_view bytes_;
  uint64_t integer_ = 0;
  uint64_t size_ = 0;
  uint32_t field_ = 0;
  bool ok_ = true;
};

// The revision in the ResponseHeader (field 1 of every etcd reply), or 0 when there is none.
inline int64_t ReplyRevision(std::string_view message) {
  Fields reply(message);
  if (!reply.Next() || reply.field() != 1) return 0;
  Fields header(reply.bytes());
  while (header.Next()) {
    if (header.field() == 3) return static_cast<int64_t>(header.integer());
  }
  return 0;
}

}  // namespace keyway::loadgen

#endif  // KEYWAY_TESTS_BENCH_LOADGEN_WIRE_H_
