// SPDX-License-Identifier: Apache-2.0
#include "kernel/member/membership.h"

#include <algorithm>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"

namespace keyway {
namespace {

// FNV-1a with a final mix. Fields are hashed with their length, so that they cannot run together.
class Hash {
 public:
  void Add(std::string_view bytes) {
    Add(static_cast<uint64_t>(bytes.size()));
    for (char byte : bytes) AddByte(static_cast<uint8_t>(byte));
  }
  void Add(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) AddByte(static_cast<uint8_t>(number >> shift));
  }
  // Never 0.
  uint64_t Value() const {
    uint64_t value = state_;
    value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdull;
    value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ull;
    value ^= value >> 33;
    return value == 0 ? 1 : value;
  }

 private:
  void AddByte(uint8_t byte) { state_ = (state_ ^ byte) * 0x100000001b3ull; }

  uint64_t state_ = 0xcbf29ce484222325ull;
};

uint64_t MemberId(const std::vector<std::string>& peer_urls, std::string_view token, uint64_t random) {
  Hash hash;
  for (const std::string& url : peer_urls) hash.Add(url);
  hash.Add(token);
  hash.Add(random);
  return hash.Value();
}

bool IsPort(std::string_view text) {
  if (text.empty() || text.size() > 5) return false;
  uint32_t port = 0;
  for (char digit : text) {
    if (digit < '0' || digit > '9') return false;
    port = port * 10 + static_cast<uint32_t>(digit - '0');
  }
  return port <= 65535;
}

// "host:port"; an IPv6 address stands in brackets.
bool IsHostPort(std::string_view text) {
  size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || !IsPort(text.substr(colon + 1))) return false;
  std::string_view host = text.substr(0, colon);
  if (!host.empty() && host.front() == '[') {
    return host.size() > 2 && host.find(']') == host.size() - 1;
  }
  return host.find_first_of(":[]") == std::string_view::npos;
}

bool IsUrl(std::string_view url) {
  if (url.size() > kMemberUrlBytesMax) return false;
  for (char c : url) {
    if (static_cast<uint8_t>(c) <= 0x20 || c == 0x7f) return false;
  }
  size_t scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return false;
  std::string_view scheme = url.substr(0, scheme_end);
  std::string_view rest = url.substr(scheme_end + 3);
  if (scheme == "unix" || scheme == "unixs") return !rest.empty();
  if (scheme != "http" && scheme != "https") return false;
  return rest.find_first_of("/?#@") == std::string_view::npos && IsHostPort(rest);
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool HasUrls(ChangeKind kind) {
  return kind == ChangeKind::kAdd || kind == ChangeKind::kAddLearner || kind == ChangeKind::kUpdateUrls;
}

bool IsAdd(ChangeKind kind) { return kind == ChangeKind::kAdd || kind == ChangeKind::kAddLearner; }

bool IsStarted(const Member& member) { return member.incarnation != 0 || !member.name.empty(); }

}  // namespace

Outcome NormalizeUrls(std::vector<std::string>* urls) {
  if (urls->empty() || urls->size() > kMemberUrlsMax) return Failure(KW_DETAIL_MEMBER_BAD_URLS);
  std::vector<std::string> normalized;
  for (const std::string& url : *urls) {
    std::string_view trimmed = Trim(url);
    if (!IsUrl(trimmed)) return Failure(KW_DETAIL_MEMBER_BAD_URLS);
    normalized.emplace_back(trimmed);
  }
  std::sort(normalized.begin(), normalized.end());
  normalized.erase(std::unique(normalized.begin(), normalized.end()), normalized.end());
  *urls = std::move(normalized);
  return {};
}

Outcome Membership::Bootstrap(const std::vector<InitialMember>& initial, std::string_view token) {
  if (initial.empty()) return Failure(KW_DETAIL_MEMBER_BAD_URLS);
  Membership result;
  for (const InitialMember& given : initial) {
    Member member;
    member.name = given.name;
    member.peer_urls = given.peer_urls;
    Outcome outcome = NormalizeUrls(&member.peer_urls);
    if (!outcome.ok()) return outcome;
    if (result.FindByName(member.name) != nullptr) return Failure(KW_DETAIL_MEMBER_EXISTS);
    if (result.PeerUrlTaken(member.peer_urls, 0)) return Failure(KW_DETAIL_PEER_URL_EXISTS);
    member.id = MemberId(member.peer_urls, token, 0);
    if (result.members_.count(member.id) != 0) return Failure(KW_DETAIL_MEMBER_EXISTS);
    result.members_[member.id] = std::move(member);
  }
  Hash hash;
  hash.Add(token);
  for (const auto& [id, member] : result.members_) {
    hash.Add(id);
    hash.Add(member.name);
  }
  result.cluster_id_ = hash.Value();
  *this = std::move(result);
  return {};
}

uint64_t Membership::NewMemberId(const std::vector<std::string>& peer_urls, uint64_t random) const {
  for (;; ++random) {  // Ends: known and removed ids are finite.
    uint64_t id = MemberId(peer_urls, "", random);
    if (members_.count(id) == 0 && removed_.count(id) == 0) return id;
  }
}

Outcome Membership::Check(const MemberChange& change) const {
  const Member& given = change.member;
  if (given.id == 0 || IsRemoved(given.id)) return Failure(KW_DETAIL_MEMBER_NOT_FOUND);
  const Member* known = Find(given.id);
  if (IsAdd(change.kind)) {
    if (known != nullptr) return Failure(KW_DETAIL_MEMBER_EXISTS);
  } else if (known == nullptr) {
    return Failure(KW_DETAIL_MEMBER_NOT_FOUND);
  }
  if (HasUrls(change.kind)) {
    std::vector<std::string> urls = given.peer_urls;
    Outcome outcome = NormalizeUrls(&urls);
    if (!outcome.ok()) return outcome;
    if (PeerUrlTaken(urls, given.id)) return Failure(KW_DETAIL_PEER_URL_EXISTS);
  }
  raft::Configuration configuration = Configuration();
  switch (change.kind) {
    case ChangeKind::kAddLearner:
      if (configuration.learners.size() >= kLearnersMax) {
        return Failure(KW_DETAIL_TOO_MANY_LEARNERS);
      }
      return {};
    case ChangeKind::kRemove:
      if (!known->is_learner && configuration.voters.size() == 1) {
        return Failure(KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS);
      }
      return {};
    case ChangeKind::kPromote:
      return known->is_learner ? Outcome{} : Failure(KW_DETAIL_MEMBER_NOT_LEARNER);
    case ChangeKind::kPublish:
      if (given.name.size() > kMemberUrlBytesMax || given.client_urls.size() > kMemberUrlsMax) {
        return Failure(KW_DETAIL_MEMBER_BAD_URLS);
      }
      return {};
    case ChangeKind::kAdd:
    case ChangeKind::kUpdateUrls:
      return {};
  }
  KW_UNREACHABLE();
}

// Source: etcd, server/etcdserver/api/membership/cluster.go, IsReadyToAddVotingMember and others.
Outcome Membership::CheckStarted(const MemberChange& change) const {
  const Member* known = Find(change.member.id);
  size_t voters = 0, started = 0;
  for (const auto& [id, member] : members_) {
    if (member.is_learner) continue;
    if (change.kind == ChangeKind::kRemove && id == change.member.id) continue;
    ++voters;
    if (IsStarted(member)) ++started;
  }
  switch (change.kind) {
    case ChangeKind::kAdd:
      ++voters;
      // A cluster of one that grows to two: its only member has started, so let it.
      if (started == 1 && voters == 2) return {};
      break;
    case ChangeKind::kPromote:
      ++voters;
      ++started;
      break;
    case ChangeKind::kRemove:
      if (known == nullptr || known->is_learner) return {};
      break;
    case ChangeKind::kAddLearner:
    case ChangeKind::kUpdateUrls:
    case ChangeKind::kPublish:
      return {};
  }
  if (started < voters / 2 + 1) return Failure(KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS);
  return {};
}

Outcome Membership::Apply(const MemberChange& change) {
  Outcome outcome = Check(change);
  if (!outcome.ok()) return outcome;
  const Member& given = change.member;
  switch (change.kind) {
    case ChangeKind::kAdd:
    case ChangeKind::kAddLearner: {
      Member& member = members_[given.id];
      member.id = given.id;
      member.peer_urls = given.peer_urls;
      outcome = NormalizeUrls(&member.peer_urls);
      member.is_learner = change.kind == ChangeKind::kAddLearner;
      break;
    }
    case ChangeKind::kRemove:
      members_.erase(given.id);
      removed_.insert(given.id);
      break;
    case ChangeKind::kPromote:
      members_[given.id].is_learner = false;
      break;
    case ChangeKind::kUpdateUrls: {
      Member& member = members_[given.id];
      member.peer_urls = given.peer_urls;
      outcome = NormalizeUrls(&member.peer_urls);
      break;
    }
    case ChangeKind::kPublish: {
      Member& member = members_[given.id];
      member.name = given.name;
      member.client_urls = given.client_urls;
      std::sort(member.client_urls.begin(), member.client_urls.end());
      member.incarnation = given.incarnation;
      if (mutant::Is(mutant::kLearnerPromoted)) member.is_learner = false;
      break;
    }
  }
  KW_CHECK(outcome.ok());
  return outcome;
}

const Member* Membership::Find(uint64_t id) const {
  auto at = members_.find(id);
  return at == members_.end() ? nullptr : &at->second;
}

const Member* Membership::FindByName(std::string_view name) const {
  for (const auto& [id, member] : members_) {
    if (member.name == name) return &member;
  }
  return nullptr;
}

const Member* Membership::FindByPeerUrls(const std::vector<std::string>& peer_urls) const {
  for (const auto& [id, member] : members_) {
    for (const std::string& url : peer_urls) {
      if (std::binary_search(member.peer_urls.begin(), member.peer_urls.end(), url)) return &member;
    }
  }
  return nullptr;
}

bool Membership::PeerUrlTaken(const std::vector<std::string>& urls, uint64_t except_id) const {
  for (const auto& [id, member] : members_) {
    if (id == except_id) continue;
    for (const std::string& url : urls) {
      if (std::binary_search(member.peer_urls.begin(), member.peer_urls.end(), url)) return true;
    }
  }
  return false;
}

raft::Configuration Membership::Configuration() const {
  raft::Configuration configuration;
  for (const auto& [id, member] : members_) {
    (member.is_learner ? configuration.learners : configuration.voters).push_back(id);
  }
  return configuration;
}

void Membership::Clear() { *this = Membership(); }

void Membership::FillReply(Reply* reply) const {
  Arena& arena = reply->arena;
  auto copy_urls = [&arena](const std::vector<std::string>& urls) {
    kw_slice* slices = arena.NewArray<kw_slice>(urls.size());
    for (size_t i = 0; i < urls.size(); ++i) slices[i] = arena.CopyOf(urls[i]);
    return slices;
  };
  kw_member* at = arena.NewArray<kw_member>(members_.size());
  reply->cluster_id = cluster_id_;
  reply->members = at;
  reply->member_count = members_.size();
  for (const auto& [id, member] : members_) {
    at->id = id;
    at->name = arena.CopyOf(member.name);
    at->peer_urls = copy_urls(member.peer_urls);
    at->peer_url_count = member.peer_urls.size();
    at->client_urls = copy_urls(member.client_urls);
    at->client_url_count = member.client_urls.size();
    at->is_learner = member.is_learner ? 1 : 0;
    ++at;
  }
}

}  // namespace keyway
