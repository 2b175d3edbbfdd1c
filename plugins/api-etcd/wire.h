// SPDX-License-Identifier: Apache-2.0
//
// Protobuf's wire format by hand, for the hot messages: exact sizes, encoding into a buffer of that
// size, and a reader whose slices point into the message. The cold messages use generated code.
#pragma once

#include <cstdint>
#include <cstring>

#include "keyway/abi.h"

namespace keyway::api_etcd {

inline constexpr uint32_t kWireVarint = 0;
inline constexpr uint32_t kWireFixed64 = 1;
inline constexpr uint32_t kWireBytes = 2;
inline constexpr uint32_t kWireFixed32 = 5;

constexpr uint32_t Tag(uint32_t field, uint32_t wire_type) { return field << 3 | wire_type; }

// Bytes of `value` as a varint: 1 to 10.
inline size_t VarintBytes(uint64_t value) {
  const uint32_t bits = 64 - static_cast<uint32_t>(__builtin_clzll(value | 1));
  return (bits + 6) / 7;
}
inline size_t TagBytes(uint32_t field) { return VarintBytes(uint64_t{field} << 3); }

// A field that is left out when zero, as proto3 does.
inline size_t NumberFieldBytes(uint32_t field, uint64_t value) {
  return value == 0 ? 0 : TagBytes(field) + VarintBytes(value);
}
// A field of `bytes` bytes, present even when empty.
inline size_t BytesFieldBytes(uint32_t field, size_t bytes) {
  return TagBytes(field) + VarintBytes(bytes) + bytes;
}

inline uint8_t* PutVarint(uint8_t* out, uint64_t value) {
  while (value >= 0x80) {
    *out++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<uint8_t>(value);
  return out;
}
inline uint8_t* PutNumberField(uint8_t* out, uint32_t field, uint64_t value) {
  if (value == 0) return out;
  out = PutVarint(out, Tag(field, kWireVarint));
  return PutVarint(out, value);
}
inline uint8_t* PutBytesHead(uint8_t* out, uint32_t field, size_t bytes) {
  out = PutVarint(out, Tag(field, kWireBytes));
  return PutVarint(out, bytes);
}
inline uint8_t* PutRaw(uint8_t* out, kw_slice bytes) {
  if (bytes.len != 0) std::memcpy(out, bytes.ptr, bytes.len);
  return out + bytes.len;
}

// Reads the fields of one message in order. A malformed message makes Next() return false and ok()
// false; unknown fields are read like known ones and the caller skips them.
class WireReader {
 public:
  explicit WireReader(kw_slice message)
      : at_(message.ptr), end_(message.ptr == nullptr ? nullptr : message.ptr + message.len) {}

  bool Next() {
    if (at_ == end_) return false;
    uint64_t tag = 0;
    if (!ReadVarint(&tag) || tag > 0xffffffff || (tag >> 3) == 0) return Fail();
    field_ = static_cast<uint32_t>(tag >> 3);
    wire_type_ = static_cast<uint32_t>(tag & 7);
    number_ = 0;
    bytes_ = {};
    switch (wire_type_) {
      case kWireVarint:
        return ReadVarint(&number_) || Fail();
      case kWireFixed64:
        return Skip(8) || Fail();
      case kWireFixed32:
        return Skip(4) || Fail();
      case kWireBytes: {
        uint64_t count = 0;
        if (!ReadVarint(&count) || count > static_cast<uint64_t>(end_ - at_)) return Fail();
        bytes_ = {at_, static_cast<size_t>(count)};
        at_ += count;
        return true;
      }
      default:
        return Fail();  // Groups are not used by any message here.
    }
  }
  bool ok() const { return ok_; }
  uint32_t field() const { return field_; }

  // The value of the current field if it has the wire type that `field` must have; a field of
  // another type is a malformed message, as in protobuf's own parsers.
  bool Number(uint64_t* out) {
    if (wire_type_ != kWireVarint) return Fail();
    *out = number_;
    return true;
  }
  bool Signed(int64_t* out) {
    if (wire_type_ != kWireVarint) return Fail();
    *out = static_cast<int64_t>(number_);
    return true;
  }
  bool Bool(bool* out) {
    if (wire_type_ != kWireVarint) return Fail();
    *out = number_ != 0;
    return true;
  }
  bool Bytes(kw_slice* out) {
    if (wire_type_ != kWireBytes) return Fail();
    *out = bytes_;
    return true;
  }

 private:
  bool Fail() {
    ok_ = false;
    at_ = end_;
    return false;
  }
  bool Skip(ptrdiff_t count) {
    if (end_ - at_ < count) return false;
    at_ += count;
    return true;
  }
  bool ReadVarint(uint64_t* out) {
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 70; shift += 7) {
      if (at_ == end_) return false;
      const uint8_t byte = *at_++;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        *out = value;
        return true;
      }
    }
    return false;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  bool ok_ = true;
  uint32_t field_ = 0;
  uint32_t wire_type_ = 0;
  uint64_t number_ = 0;
  kw_slice bytes_ = {};
};

}  // namespace keyway::api_etcd
