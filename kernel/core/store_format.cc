// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/store_format.h"

#include <utility>

#include "kernel/base/coding.h"
#include "keyway/crc32c.h"

namespace keyway::core {
namespace {

// Both are believed without anything else that could tell a changed bit: an applied index that is too high
// would have the log reset. So they end with a checksum.
std::string Sealed(std::string bytes) {
  const uint32_t crc = kw_crc32c(0, bytes.data(), bytes.size());
  PutFixed32(&bytes, crc);
  return bytes;
}

// Without the checksum; empty if it does not fit.
std::string_view Unsealed(std::string_view bytes) {
  if (bytes.size() < 4) return {};
  Reader reader(bytes.substr(bytes.size() - 4));
  bytes.remove_suffix(4);
  return kw_crc32c(0, bytes.data(), bytes.size()) == reader.Fixed32() ? bytes : std::string_view();
}

}  // namespace

std::string MetaPeerKey(uint64_t member) {
  std::string key(kMetaPeerPrefix);
  key.resize(kMetaPeerPrefix.size() + sizeof member);
  WriteBigEndian64(key.data() + kMetaPeerPrefix.size(), member);
  return key;
}

uint64_t MemberOfMetaPeerKey(std::string_view key) {
  if (!key.starts_with(kMetaPeerPrefix) || key.size() != kMetaPeerPrefix.size() + sizeof(uint64_t)) return 0;
  return ReadBigEndian64(key.data() + kMetaPeerPrefix.size());
}

std::string EncodeIdentity(const Identity& identity) {
  std::string out;
  PutFixed64(&out, identity.cluster_id);
  PutFixed64(&out, identity.member_id);
  PutFixed64(&out, identity.incarnation);
  return Sealed(std::move(out));
}

std::optional<Identity> DecodeIdentity(std::string_view bytes) {
  Reader reader(Unsealed(bytes));
  Identity identity;
  identity.cluster_id = reader.Fixed64();
  identity.member_id = reader.Fixed64();
  identity.incarnation = reader.Fixed64();
  if (!reader.ok() || !reader.empty()) return std::nullopt;
  return identity;
}

std::string EncodePromise(const Promise& promise) {
  std::string out;
  PutFixed64(&out, promise.index);
  PutFixed64(&out, promise.term);
  return Sealed(std::move(out));
}

std::optional<Promise> DecodePromise(std::string_view bytes) {
  Reader reader(Unsealed(bytes));
  Promise promise;
  promise.index = reader.Fixed64();
  promise.term = reader.Fixed64();
  if (!reader.ok() || !reader.empty()) return std::nullopt;
  return promise;
}

std::string EncodeApplied(const Applied& applied) {
  std::string out;
  PutFixed64(&out, applied.index);
  PutFixed64(&out, applied.term);
  PutFixed64(&out, static_cast<uint64_t>(applied.revision));
  PutFixed64(&out, static_cast<uint64_t>(applied.compact_revision));
  out.push_back(applied.compacted ? 1 : 0);
  PutFixed64(&out, applied.cluster_id);
  PutFixed64(&out, applied.digest);
  return Sealed(std::move(out));
}

std::optional<Applied> DecodeApplied(std::string_view bytes) {
  Reader reader(Unsealed(bytes));
  Applied applied;
  applied.index = reader.Fixed64();
  applied.term = reader.Fixed64();
  applied.revision = static_cast<int64_t>(reader.Fixed64());
  applied.compact_revision = static_cast<int64_t>(reader.Fixed64());
  applied.compacted = reader.Byte() != 0;
  applied.cluster_id = reader.Fixed64();
  applied.digest = reader.Fixed64();
  if (!reader.ok() || !reader.empty()) return std::nullopt;
  return applied;
}

}  // namespace keyway::core
