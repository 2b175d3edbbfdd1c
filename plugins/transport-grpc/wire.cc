// SPDX-License-Identifier: Apache-2.0
//
// Encoding and parsing of frames; the layout is in wire.h.
#include "wire.h"

#include <bit>
#include <charconv>
#include <cstring>

#include "keyway/crc32c.h"
#include "keyway/transport.h"

namespace keyway::transport_grpc {

static_assert(std::endian::native == std::endian::little, "fields are copied as they stand in memory");

namespace {

template <typename T>
T Load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

}  // namespace

void WriteHeader(const Header& header, uint8_t* out) {
  std::memset(out, 0, kHeaderBytes);
  std::memcpy(out, &header.size, sizeof(header.size));
  out[4] = static_cast<uint8_t>(header.kind);
  out[5] = header.lane;
}

void SetChecksum(uint8_t* header, uint32_t checksum) { std::memcpy(header + 8, &checksum, sizeof(checksum)); }

ParseResult Parse(std::string_view* bytes, Header* header, std::string_view* payload, const char** error) {
  if (bytes->empty()) return ParseResult::kEnd;
  const auto bad = [error](const char* why) {
    *error = why;
    return ParseResult::kBad;
  };
  if (bytes->size() < kHeaderBytes) return bad("a cut frame header");
  const char* at = bytes->data();
  header->size = Load<uint32_t>(at);
  const uint8_t kind = Load<uint8_t>(at + 4);
  header->lane = Load<uint8_t>(at + 5);
  if (kind < static_cast<uint8_t>(Kind::kData) || kind > static_cast<uint8_t>(Kind::kPong)) {
    return bad("unknown kind of frame");
  }
  header->kind = static_cast<Kind>(kind);
  if (header->lane > KW_LANE_BULK || Load<uint16_t>(at + 6) != 0)
    return bad("unknown lane or flags of a frame");
  if (header->size > kFrameBytesMax) return bad("frame over the size limit");
  if (header->size > bytes->size() - kHeaderBytes) return bad("a cut frame");
  *payload = bytes->substr(kHeaderBytes, header->size);
  if (Load<uint32_t>(at + 8) != kw_crc32c(kw_crc32c(0, at, 8), payload->data(), payload->size())) {
    return bad("wrong checksum");
  }
  bytes->remove_prefix(kHeaderBytes + header->size);
  return ParseResult::kFrame;
}

std::string Encode(Kind kind, std::string_view payload) {
  std::string out(kHeaderBytes, '\0');
  auto* header = reinterpret_cast<uint8_t*>(out.data());
  WriteHeader({kind, 0, static_cast<uint32_t>(payload.size())}, header);
  SetChecksum(header, kw_crc32c(kw_crc32c(0, header, 8), payload.data(), payload.size()));
  out.append(payload);
  return out;
}

std::string Hex(uint64_t id) {
  char text[20];
  const auto result = std::to_chars(text, text + sizeof(text), id, 16);
  return std::string(text, result.ptr);
}

bool ParseHex(std::string_view text, uint64_t* out) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), *out, 16);
  return result.ec == std::errc() && result.ptr == text.data() + text.size() && !text.empty();
}

}  // namespace keyway::transport_grpc
