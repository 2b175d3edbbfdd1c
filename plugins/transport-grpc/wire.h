// SPDX-License-Identifier: Apache-2.0
//
// The format on the wire. A peer pair uses two bidirectional gRPC streams of opaque messages on one
// HTTP/2 connection, one for each lane:
//
//   /keyway.transport.v1/control    /keyway.transport.v1/bulk
//
// Greeting, in the metadata of the call (ids are hexadecimal text):
//
//   kw-version     the protocol version, decimal
//   kw-token-bin   the cluster token
//   kw-sender      member id of the dialer, 0 if it does not know it yet
//   kw-target      member id that it wants to reach, 0: any
//   kw-session     a random number that ties the bulk stream to its control stream
//
// The acceptor answers with the initial metadata kw-version and kw-member (its id), or ends the call
// with FAILED_PRECONDITION and the reason as text. The dialer opens the bulk stream after the answer on
// the control stream, and sends nothing before the answer to each.
//
// A message is one or more whole frames. Each has a 12-byte header, little-endian:
//
//   0   4  size       bytes of the payload
//   4   1  kind       Kind
//   5   1  lane       KW_LANE_; 0 for all kinds but kData
//   6   2  reserved   0
//   8   4  checksum   CRC-32C of bytes 0..7, then the payload
//   12  .. payload
//
// The dialer sends kData (head, then body of a kw_frame) and kPing (its clock, 8 bytes) and the acceptor
// returns the payload of each kPing as kPong. Failure cases: a size beyond the message or the limit, an
// unknown kind, a wrong lane or checksum ends the session; frames before it in the message were whole
// and are delivered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::transport_grpc {

inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 12;
inline constexpr uint32_t kFrameBytesMax = 16u << 20;  // Payload of kData.
inline constexpr size_t kTokenBytesMax = 1024;
// A message takes frames until it is this large, and one frame more.
inline constexpr size_t kMessageBytesWanted = 256u << 10;
inline constexpr size_t kMessageBytesMax = kMessageBytesWanted + kFrameBytesMax + kHeaderBytes;

inline constexpr const char* kPaths[] = {"/keyway.transport.v1/control", "/keyway.transport.v1/bulk"};

enum class Kind : uint8_t { kData = 1, kPing = 2, kPong = 3 };

struct Header {
  Kind kind = Kind::kData;
  uint8_t lane = 0;
  uint32_t size = 0;
};

// Writes the header with a checksum of zero; SetChecksum completes it.
void WriteHeader(const Header& header, uint8_t* out);
void SetChecksum(uint8_t* header, uint32_t checksum);

enum class ParseResult { kFrame, kEnd, kBad };

// Takes the first frame off `*bytes`, a message. kBad: `*error` says why; the text is static.
ParseResult Parse(std::string_view* bytes, Header* header, std::string_view* payload, const char** error);

// A whole frame with its header, for kPing and kPong.
std::string Encode(Kind kind, std::string_view payload);

// What the metadata of a call says. Ids are 0 where they are missing or malformed.
struct Hello {
  uint32_t lane = 0;
  bool has_version = false;
  uint32_t version = 0;
  uint64_t sender = 0, target = 0, session = 0;
  std::string token;
};

// A member id as etcd writes it, and back (false: not hexadecimal, or over 64 bits).
std::string Hex(uint64_t id);
bool ParseHex(std::string_view text, uint64_t* out);

}  // namespace keyway::transport_grpc
