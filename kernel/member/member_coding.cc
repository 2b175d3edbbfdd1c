// SPDX-License-Identifier: Apache-2.0
//
// Bytes of members and changes: a version byte (1), then varints and length-prefixed strings.
//   member:  1 | id | name | peer urls (count, each) | client urls | learner (0, 1) | incarnation
//   change:  1 | kind | member without its version byte
//   cluster: 1 | cluster id | removed ids (count, each)
// Written by one engine or log write each, so a torn one is the engine's or the log's to detect.
#include "kernel/base/coding.h"
#include "kernel/member/membership.h"

namespace keyway {
namespace {

constexpr uint8_t kVersion = 1;

void PutUrls(std::string* out, const std::vector<std::string>& urls) {
  PutVarint(out, urls.size());
  for (const std::string& url : urls) PutBytes(out, url);
}

bool ReadUrls(Reader* reader, std::vector<std::string>* urls) {
  uint64_t count = reader->Varint();
  if (count > kMemberUrlsMax) return false;
  urls->clear();
  for (uint64_t i = 0; i < count; ++i) urls->emplace_back(reader->Bytes());
  return reader->ok();
}

void PutMember(std::string* out, const Member& member) {
  PutFixed64(out, member.id);
  PutBytes(out, member.name);
  PutUrls(out, member.peer_urls);
  PutUrls(out, member.client_urls);
  PutVarint(out, member.is_learner ? 1 : 0);
  PutFixed64(out, member.incarnation);
}

bool ReadMember(Reader* reader, Member* member) {
  member->id = reader->Fixed64();
  member->name = reader->Bytes();
  if (!ReadUrls(reader, &member->peer_urls)) return false;
  if (!ReadUrls(reader, &member->client_urls)) return false;
  uint64_t is_learner = reader->Varint();
  member->is_learner = is_learner == 1;
  member->incarnation = reader->Fixed64();
  return reader->ok() && reader->empty() && is_learner <= 1 && member->id != 0;
}

}  // namespace

std::string EncodeMemberChange(const MemberChange& change) {
  std::string out;
  out.push_back(kVersion);
  out.push_back(static_cast<char>(change.kind));
  PutMember(&out, change.member);
  return out;
}

bool DecodeMemberChange(std::string_view bytes, MemberChange* change) {
  Reader reader(bytes);
  if (reader.Byte() != kVersion) return false;
  uint8_t kind = reader.Byte();
  if (kind < static_cast<uint8_t>(ChangeKind::kAdd)) return false;
  if (kind > static_cast<uint8_t>(ChangeKind::kPublish)) return false;
  change->kind = static_cast<ChangeKind>(kind);
  return ReadMember(&reader, &change->member);
}

std::string EncodeMember(const Member& member) {
  std::string out;
  out.reserve(256);  // Enough for most: every change of the store digests all members.
  out.push_back(kVersion);
  PutMember(&out, member);
  return out;
}

bool DecodeMember(std::string_view bytes, Member* member) {
  Reader reader(bytes);
  return reader.Byte() == kVersion && ReadMember(&reader, member);
}

std::string Membership::EncodeCluster() const {
  std::string out;
  out.push_back(kVersion);
  PutFixed64(&out, cluster_id_);
  PutVarint(&out, removed_.size());
  for (uint64_t id : removed_) PutFixed64(&out, id);
  return out;
}

bool Membership::RestoreCluster(std::string_view bytes) {
  Reader reader(bytes);
  if (reader.Byte() != kVersion) return false;
  uint64_t cluster_id = reader.Fixed64();
  uint64_t count = reader.Varint();
  if (!reader.ok() || cluster_id == 0 || count != reader.remaining() / 8) return false;
  std::set<uint64_t> removed;
  while (!reader.empty()) removed.insert(removed.end(), reader.Fixed64());
  if (!reader.ok() || removed.size() != count) return false;
  cluster_id_ = cluster_id;
  removed_ = std::move(removed);
  return true;
}

bool Membership::RestoreMember(std::string_view bytes) {
  Member member;
  if (!DecodeMember(bytes, &member)) return false;
  members_[member.id] = std::move(member);
  return true;
}

}  // namespace keyway
