// SPDX-License-Identifier: Apache-2.0
//
// Byte coding: fixed-width little-endian (our own messages), big-endian (engine keys, so that they
// sort), and base-128 varints (protobuf's). Readers never pass the end: a short input gives nullopt.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace keyway {

inline void PutFixed32(std::string* out, uint32_t value) {
  out->append(reinterpret_cast<const char*>(&value), 4);
}
inline void PutFixed64(std::string* out, uint64_t value) {
  out->append(reinterpret_cast<const char*>(&value), 8);
}
inline size_t VarintSize(uint64_t value) {
  size_t size = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++size;
  }
  return size;
}
inline char* WriteVarint(char* at, uint64_t value) {
  while (value >= 0x80) {
    *at++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *at++ = static_cast<char>(value);
  return at;
}
inline void PutVarint(std::string* out, uint64_t value) {
  char bytes[10];
  out->append(bytes, static_cast<size_t>(WriteVarint(bytes, value) - bytes));
}
// A varint length, then the bytes.
inline void PutBytes(std::string* out, std::string_view bytes) {
  PutVarint(out, bytes.size());
  out->append(bytes);
}
inline void WriteBigEndian64(char* at, uint64_t value) {
  value = __builtin_bswap64(value);
  std::memcpy(at, &value, 8);
}
inline void WriteBigEndian32(char* at, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(at, &value, 4);
}
inline uint64_t ReadBigEndian64(const char* at) {
  uint64_t value;
  std::memcpy(&value, at, 8);
  return __builtin_bswap64(value);
}
inline uint32_t ReadBigEndian32(const char* at) {
  uint32_t value;
  std::memcpy(&value, at, 4);
  return __builtin_bswap32(value);
}

// Reads a message front to back. After a failed read ok() is false and every read gives zero.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool ok() const { return ok_; }
  bool empty() const { return rest_.empty(); }
  size_t remaining() const { return rest_.size(); }

  uint8_t Byte() {
    if (rest_.empty()) return Fail();
    uint8_t value = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return value;
  }
  uint32_t Fixed32() { return Fixed<uint32_t>(); }
  uint64_t Fixed64() { return Fixed<uint64_t>(); }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return Fail();
      uint8_t byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return Fail();
  }
  std::string_view Raw(size_t size) {
    if (rest_.size() < size) {
      Fail();
      return {};
    }
    std::string_view result = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return result;
  }
  std::string_view Bytes() { return Raw(Varint()); }

 private:
  template <typename T>
  T Fixed() {
    T value = 0;
    if (rest_.size() < sizeof(T)) return static_cast<T>(Fail());
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  uint8_t Fail() {
    ok_ = false;
    rest_ = {};
    return 0;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace keyway
