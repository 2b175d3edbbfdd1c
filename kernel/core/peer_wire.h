// SPDX-License-Identifier: Apache-2.0
//
// Frames between members: a fixed header, then a body by kind. All little-endian.
//
//   u8 version (1) | u8 kind | u16 0 | u32 0 | u64 cluster id | u64 sender | u64 receiver |
//   u64 incarnation of the sender's data directory
//
// The header is on every frame, so that a message meant for another cluster, for a removed member or
// from a member whose data directory was emptied is never taken for a good one (reliability R4).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/coding.h"

namespace keyway::core {

inline constexpr uint8_t kPeerWireVersion = 1;
inline constexpr size_t kPeerHeaderBytes = 40;

enum class FrameKind : uint8_t {
  kHello = 1,          // u64 incarnation known of the receiver (0: none) | bytes members
  kRefused = 2,        // bytes reason: the receiver is not to take part under this id
  kRaft = 3,           // raft::EncodeMessage
  kPropose = 4,        // u64 term | u8 is configuration change | proposals
  kProposeResult = 5,  // u64 proposal id | i32 code | u32 detail: refused by the leader
  kLeaseQuery = 6,     // u64 query id | u8 renew | i64 lease
  kLeaseAnswer = 7,    // u64 query id | i32 code | u32 detail | i64 ttl | i64 granted ttl
  kSnapshotChunk = 8,  // see snapshot.h
  kSnapshotAck = 9,    // u64 snapshot index | u64 chunk | u8 ok
  kDigestReport = 10,  // u64 index of the mark | u64 digest
  kProposeQuery = 11,  // u64 term | u32 count | u64 ids: which of these have not come?
  kProposeLost = 12,   // u64 term | u32 count | u64 ids: these, and they will not be taken any more
};

struct FrameHeader {
  FrameKind kind = FrameKind::kHello;
  uint64_t cluster_id = 0, from = 0, to = 0, incarnation = 0;
};

inline void EncodeFrameHeader(const FrameHeader& header, std::string* out) {
  out->push_back(static_cast<char>(kPeerWireVersion));
  out->push_back(static_cast<char>(header.kind));
  out->append(6, '\0');
  PutFixed64(out, header.cluster_id);
  PutFixed64(out, header.from);
  PutFixed64(out, header.to);
  PutFixed64(out, header.incarnation);
}

// False on a short or foreign header; the reader then stands anywhere.
inline bool DecodeFrameHeader(Reader* reader, FrameHeader* header) {
  if (reader->Byte() != kPeerWireVersion) return false;
  header->kind = static_cast<FrameKind>(reader->Byte());
  reader->Raw(6);
  header->cluster_id = reader->Fixed64();
  header->from = reader->Fixed64();
  header->to = reader->Fixed64();
  header->incarnation = reader->Fixed64();
  return reader->ok();
}

}  // namespace keyway::core
