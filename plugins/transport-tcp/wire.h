// SPDX-License-Identifier: Apache-2.0
//
// The format on the wire. Everything that travels is a message with a 16-byte header, little-endian:
//
//   0   4  magic      "KWF1"
//   4   2  version    of the protocol: kVersion
//   6   1  kind       Kind
//   7   1  lane       KW_LANE_; 0 for all kinds but kData
//   8   4  size       bytes of the payload
//   12  4  checksum   CRC-32C of bytes 0..11, then the payload
//   16  .. payload
//
// The dialer opens with kHello and sends nothing else until the acceptor's kWelcome; a kRefuse ends the
// connection. After that the dialer sends kData and kPing, the acceptor only kPong.
//
//   kHello    token hash (8, FNV-1a of the token), sender id (8), target id (8, 0: any), token text
//   kWelcome  acceptor id (8)
//   kRefuse   acceptor id (8), reason (UTF-8 text)
//   kData     the frame: head, then body
//   kPing     the sender's clock (8), returned unchanged in kPong
//
// Failure cases: a wrong magic, an unknown kind, a size over the limit of the kind or a wrong checksum
// closes the connection, since the stream has no other place to find the next message at. The magic and
// the place of `version` and `kind` never change, so that a later version can be refused by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::transport_tcp {

inline constexpr uint32_t kMagic = 0x3146574Bu;
inline constexpr uint16_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 16;
inline constexpr uint32_t kFrameBytesMax = 16u << 20;  // Payload of kData.
inline constexpr uint32_t kGreetingBytesMax = 2048;    // Payload of every other kind.
inline constexpr size_t kTokenBytesMax = 1024;

enum class Kind : uint8_t { kHello = 1, kWelcome = 2, kRefuse = 3, kData = 4, kPing = 5, kPong = 6 };

struct Header {
  uint16_t version = kVersion;
  Kind kind = Kind::kData;
  uint8_t lane = 0;
  uint32_t size = 0;
};

// Writes the header with a checksum of zero; SetChecksum completes it.
void WriteHeader(const Header& header, char* out);
// Sets the checksum field of a header from the CRC over its first 12 bytes and the payload.
void SetChecksum(char* header, uint32_t checksum);

enum class ParseResult { kNeedMore, kMessage, kBad };

struct Message {
  Header header;
  std::string_view payload;  // Points into the parsed bytes.
  size_t bytes = 0;          // Header and payload.
};

// Parses the first message of `bytes`. kNeedMore: `message->bytes` is how many bytes it will need, at
// least. kBad: `*error` says why; the text is static. `data_bytes_max` bounds the payload of kData.
ParseResult Parse(std::string_view bytes, uint32_t data_bytes_max, Message* message, const char** error);

// A whole message, for all kinds but kData.
std::string Encode(Kind kind, std::string_view payload, uint16_t version = kVersion);

struct Hello {
  uint64_t token_hash = 0;
  uint64_t sender = 0;
  uint64_t target = 0;
  std::string_view token;
};
std::string EncodeHello(std::string_view token, uint64_t sender, uint64_t target);
bool DecodeHello(std::string_view payload, Hello* out);

// kWelcome and kRefuse share a layout; `reason` is empty in kWelcome.
std::string EncodeAnswer(Kind kind, uint64_t acceptor, std::string_view reason);
bool DecodeAnswer(std::string_view payload, uint64_t* acceptor, std::string_view* reason);

uint64_t HashToken(std::string_view token);

}  // namespace keyway::transport_tcp
