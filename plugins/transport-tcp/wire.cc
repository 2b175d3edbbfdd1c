// SPDX-License-Identifier: Apache-2.0
//
// Encoding and parsing of messages; the layout is in wire.h.
#include "wire.h"

#include <bit>
#include <cstring>

#include "keyway/crc32c.h"

namespace keyway::transport_tcp {

static_assert(std::endian::native == std::endian::little, "fields are copied as they stand in memory");
static_assert(24 + kTokenBytesMax <= kGreetingBytesMax, "a hello must fit");

namespace {

template <typename T>
T Load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <typename T>
void Store(char* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

template <typename T>
void Put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

}  // namespace

void WriteHeader(const Header& header, char* out) {
  Store<uint32_t>(out, kMagic);
  Store<uint16_t>(out + 4, header.version);
  Store<uint8_t>(out + 6, static_cast<uint8_t>(header.kind));
  Store<uint8_t>(out + 7, header.lane);
  Store<uint32_t>(out + 8, header.size);
  Store<uint32_t>(out + 12, 0);
}

void SetChecksum(char* header, uint32_t checksum) { Store<uint32_t>(header + 12, checksum); }

ParseResult Parse(std::string_view bytes, uint32_t data_bytes_max, Message* message, const char** error) {
  if (bytes.size() < kHeaderBytes) {
    // A wrong magic is told from the first bytes on: whoever speaks another protocol may send few.
    char magic[4];
    Store<uint32_t>(magic, kMagic);
    const size_t known = bytes.size() < 4 ? bytes.size() : 4;
    if (std::memcmp(bytes.data(), magic, known) != 0) {
      *error = "not this protocol";
      return ParseResult::kBad;
    }
    message->bytes = kHeaderBytes;
    return ParseResult::kNeedMore;
  }
  const char* at = bytes.data();
  if (Load<uint32_t>(at) != kMagic) {
    *error = "not this protocol";
    return ParseResult::kBad;
  }
  const uint8_t kind = Load<uint8_t>(at + 6);
  message->header.version = Load<uint16_t>(at + 4);
  message->header.lane = Load<uint8_t>(at + 7);
  message->header.size = Load<uint32_t>(at + 8);
  if (kind < static_cast<uint8_t>(Kind::kHello) || kind > static_cast<uint8_t>(Kind::kPong)) {
    *error = "unknown kind of message";
    return ParseResult::kBad;
  }
  message->header.kind = static_cast<Kind>(kind);
  const uint32_t size_max = message->header.kind == Kind::kData ? data_bytes_max : kGreetingBytesMax;
  if (message->header.size > size_max) {
    *error = "message over the size limit";
    return ParseResult::kBad;
  }
  message->bytes = kHeaderBytes + message->header.size;
  if (bytes.size() < message->bytes) return ParseResult::kNeedMore;
  message->payload = bytes.substr(kHeaderBytes, message->header.size);
  const uint32_t checksum = kw_crc32c(kw_crc32c(0, at, 12), message->payload.data(), message->payload.size());
  if (Load<uint32_t>(at + 12) != checksum) {
    *error = "wrong checksum";
    return ParseResult::kBad;
  }
  return ParseResult::kMessage;
}

std::string Encode(Kind kind, std::string_view payload, uint16_t version) {
  std::string out(kHeaderBytes, '\0');
  WriteHeader({version, kind, 0, static_cast<uint32_t>(payload.size())}, out.data());
  SetChecksum(out.data(), kw_crc32c(kw_crc32c(0, out.data(), 12), payload.data(), payload.size()));
  out.append(payload);
  return out;
}

std::string EncodeHello(std::string_view token, uint64_t sender, uint64_t target) {
  std::string payload;
  Put<uint64_t>(&payload, HashToken(token));
  Put<uint64_t>(&payload, sender);
  Put<uint64_t>(&payload, target);
  payload.append(token);
  return Encode(Kind::kHello, payload);
}

bool DecodeHello(std::string_view payload, Hello* out) {
  if (payload.size() < 24) return false;
  out->token_hash = Load<uint64_t>(payload.data());
  out->sender = Load<uint64_t>(payload.data() + 8);
  out->target = Load<uint64_t>(payload.data() + 16);
  out->token = payload.substr(24);
  return out->token.size() <= kTokenBytesMax && out->token_hash == HashToken(out->token);
}

std::string EncodeAnswer(Kind kind, uint64_t acceptor, std::string_view reason) {
  std::string payload;
  Put<uint64_t>(&payload, acceptor);
  payload.append(reason.substr(0, 512));
  return Encode(kind, payload);
}

bool DecodeAnswer(std::string_view payload, uint64_t* acceptor, std::string_view* reason) {
  if (payload.size() < 8) return false;
  *acceptor = Load<uint64_t>(payload.data());
  *reason = payload.substr(8);
  return true;
}

uint64_t HashToken(std::string_view token) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : token) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace keyway::transport_tcp
