// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/store_format.h"

#include "kernel/base/coding.h"

namespace keyway::core {

std::string EncodeIdentity(const Identity& identity) {
  std::string out;
  PutFixed64(&out, identity.cluster_id);
  PutFixed64(&out, identity.member_id);
  PutFixed64(&out, identity.incarnation);
  return out;
}

std::optional<Identity> DecodeIdentity(std::string_view bytes) {
  Reader reader(bytes);
  Identity identity;
  identity.cluster_id = reader.Fixed64();
  identity.member_id = reader.Fixed64();
  identity.incarnation = reader.Fixed64();
  if (!reader.ok() || !reader.empty()) return std::nullopt;
  return identity;
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
  return out;
}

std::optional<Applied> DecodeApplied(std::string_view bytes) {
  Reader reader(bytes);
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
