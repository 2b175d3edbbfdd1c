// SPDX-License-Identifier: Apache-2.0
//
// Frames to and from other members, and who may send them.
//
// Every frame names cluster, sender, receiver and the incarnation of the sender's data directory. A
// voter whose data directory was emptied comes back with another incarnation: it may have voted and
// acknowledged what it no longer knows, so it is refused under its old id (reliability R4). ADR 5.
#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/core/core.h"
#include "kernel/core/snapshot.h"
#include "kernel/raft/wire.h"

namespace keyway::core {
namespace {

std::string Joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) {
    if (!out.empty()) out += ",";
    out += part;
  }
  return out;
}

// The entry of `id` in what is remembered by sender. Ids come from the network, so what is kept of
// those that are no members is bounded: at the bound they are all forgotten.
template <typename Map>
uint64_t& Remembered(Map* map, uint64_t id, const Membership& membership) {
  constexpr size_t kSendersMax = 1024;
  if (map->size() >= kSendersMax && !map->contains(id)) {
    std::erase_if(*map, [&](const auto& item) { return membership.Find(item.first) == nullptr; });
  }
  return (*map)[id];
}

}  // namespace

std::string Core::Frame(FrameKind kind, uint64_t to) const {
  std::string head;
  head.reserve(kPeerHeaderBytes + 96);
  EncodeFrameHeader({.kind = kind,
                     .cluster_id = identity_.cluster_id,
                     .from = identity_.member_id,
                     .to = to,
                     .incarnation = identity_.incarnation},
                    &head);
  return head;
}

void Core::SendFrame(uint64_t to, uint32_t lane, std::string_view head, std::string_view body) {
  kw_frame frame{};
  frame.peer = to;
  frame.lane = lane;
  frame.head = ToSlice(head);
  frame.body = ToSlice(body);
  deps_.transport->send(deps_.transport_plugin, &frame, 1);  // Lossy: Raft sends again.
}

void Core::SendRaft(const raft::Message& message) {
  std::string frame = Frame(FrameKind::kRaft, message.to);
  raft::EncodeMessage(message, &frame);
  const bool bulk = message.kind == raft::MessageKind::kAppend && !message.entries.empty();
  SendFrame(message.to, bulk ? KW_LANE_BULK : KW_LANE_CONTROL, frame);
}

// ---- who the peers are -----------------------------------------------------------------------------

// Tells the transport whom to connect to: the members as we know them, and those that a peer named
// and we have not applied yet.
void Core::UpdatePeers() {
  std::map<uint64_t, std::vector<std::string>> peers;
  for (const auto& [id, member] : hello_members_) {
    if (!membership_.IsRemoved(id)) peers[id] = member.peer_urls;
  }
  for (const auto& [id, member] : membership_.members()) peers[id] = member.peer_urls;
  for (const auto& [id, farewell] : farewells_) peers[id] = farewell.member.peer_urls;
  peers.erase(identity_.member_id);
  std::vector<std::vector<const char*>> urls;
  std::vector<kw_peer> list;
  urls.reserve(peers.size());
  for (const auto& [id, peer_urls] : peers) {
    urls.emplace_back();
    for (const std::string& url : peer_urls) urls.back().push_back(url.c_str());
    list.push_back({id, urls.back().data(), urls.back().size()});
  }
  kw_error error{};
  error.size = sizeof error;
  if (deps_.transport->set_peers(deps_.transport_plugin, identity_.member_id, list.data(), list.size(),
                                 &error) != KW_OK) {
    Log(deps_.logger, KW_LOG_ERROR, "set_peers_failed", {{"reason", error.text}});
  }
}

void Core::OnPeerState(uint64_t peer, bool up) {
  if (failed_ || raft_ == nullptr) return;
  Log(deps_.logger, up ? KW_LOG_INFO : KW_LOG_WARN, up ? "peer_connected" : "peer_lost",
      {{"peer", HexId(peer)}});
  if (up) {
    SendHello(peer);
    ResendSnapshot(peer);
    if (peer == raft_->leader()) AskForProposals(0);
    return;
  }
  raft_->OnPeerDown(peer);
}

void Core::SendHello(uint64_t peer) {
  const Member* member = membership_.Find(peer);
  std::string frame = Frame(FrameKind::kHello, peer);
  PutFixed64(&frame, member == nullptr ? 0 : member->incarnation);
  PutFixed32(&frame, static_cast<uint32_t>(membership_.members().size()));
  for (const auto& [id, known] : membership_.members()) PutBytes(&frame, EncodeMember(known));
  SendFrame(peer, KW_LANE_CONTROL, frame);
}

// A hello may be lost like any frame. One that joins waits for it, to be named; one that was removed waits for
// the answer to its own.
void Core::RepeatHellos() {
  for (const auto& [id, member] : membership_.members()) {
    const bool may_wait = member.incarnation == 0 && tick_count_ % config_.election_ticks == 0;
    if (id != identity_.member_id && (leaving_ || may_wait)) SendHello(id);
  }
}

void Core::Refuse(uint64_t peer, std::string_view reason) {
  uint64_t& told_ms = Remembered(&refused_ms_, peer, membership_);
  if (told_ms != 0 && now_ms() < told_ms + 1000) return;
  told_ms = now_ms();
  Log(deps_.logger, KW_LOG_WARN, "peer_refused", {{"peer", HexId(peer)}, {"reason", reason}});
  std::string frame = Frame(FrameKind::kRefused, peer);
  PutBytes(&frame, reason);
  SendFrame(peer, KW_LANE_CONTROL, frame);
}

bool Core::CheckSender(const FrameHeader& header) {
  if (membership_.IsRemoved(header.from)) {
    Refuse(header.from, "member " + HexId(header.from) +
                            " was removed from the cluster; to take part again, add it as a new member "
                            "and start it with an empty data directory and [cluster] state = \"existing\"");
    return false;
  }
  const Member* member = membership_.Find(header.from);
  uint64_t known = member == nullptr ? 0 : member->incarnation;
  if (known == 0) {
    uint64_t& seen = Remembered(&incarnations_, header.from, membership_);
    if (seen == 0) seen = header.incarnation;
    known = seen;
  }
  if (known == header.incarnation || mutant::Is(mutant::kIncarnationIgnored)) return true;
  Refuse(header.from, "member " + HexId(header.from) +
                          " comes with another data directory than before: the old one was emptied "
                          "or replaced. It may "
                          "have voted and acknowledged writes that it no longer knows, so it "
                          "cannot take part under "
                          "this id. Replace it: `keywayctl member remove " +
                          HexId(header.from) +
                          "`, `keywayctl member add`, then start it with an empty data directory "
                          "and [cluster] state = "
                          "\"existing\"");
  return false;
}

// Whether this node will still know the sender's incarnation after a restart. What it promises counts only
// then: until it is published, nobody else may know that the member has been there before. If not, that is
// being made durable; the frame is lost meanwhile, as any frame may be.
bool Core::IsRemembered(const FrameHeader& header) {
  const uint64_t id = header.from;
  if (remembered_.contains(id) || membership_.Find(id) == nullptr) return true;
  Remembered(&incarnations_, id, membership_) = header.incarnation;
  if (!remembering_.insert(id).second) return false;
  std::string value;
  PutFixed64(&value, header.incarnation);
  WriteMeta(MetaPeerKey(id), value, [this, id] {
    remembering_.erase(id);
    remembered_.insert(id);
  });
  return false;
}

void Core::WriteMeta(std::string_view key, const std::string& value, std::function<void()> done) {
  StoreBatch batch;
  batch.Put(kTableMeta, key, SharedBytes::Copy(value));
  auto error = std::make_shared<std::string>();
  OnLane(
      Lane::kStore,
      [this, batch = std::move(batch), error] {
        if (batch.WriteTo(deps_.store_plugin, deps_.store, error.get()) != KW_OK && error->empty()) {
          *error = "no reason given";
        }
      },
      [this, error, done = std::move(done)] {
        if (!error->empty()) return Fatal(config_.store_name + " cannot be written: " + *error);
        done();
      });
}

// This node was removed. It stays, as a follower that may not campaign, until a member refuses it, which has
// then applied the removal: somebody who has not heard of it could else need this node's vote. In a cluster of
// two, where the leader is removed, that is all of the others.
void Core::Leave() {
  if (membership_.Configuration().voters.empty()) {
    return Fatal("this member (" + HexId(identity_.member_id) + ") was removed from the cluster");
  }
  leaving_ = true;
  Log(deps_.logger, KW_LOG_WARN, "member_removed", {{"member", HexId(identity_.member_id)}});
}

void Core::OnRefused(uint64_t from, const std::string& reason) {
  if (leave_request_ != nullptr) Finish(std::exchange(leave_request_, nullptr), std::move(leave_reply_));
  Fatal("refused by member " + HexId(from) + ": " + reason);
}

void Core::OnFrame(uint64_t peer, std::string_view bytes) {
  if (failed_ || bytes.size() > kFrameBytesMax) return;
  Reader reader(bytes);
  FrameHeader header;
  if (!DecodeFrameHeader(&reader, &header) || header.from != peer || header.from == 0) return;
  if (raft_ == nullptr) {  // Joining: the one thing to wait for is who we are.
    if (joining_ && header.kind == FrameKind::kHello) OnHello(header, &reader);
    if (joining_ && header.kind == FrameKind::kRefused) {
      Fatal("the cluster refused this node: " + std::string(reader.Bytes()));
    }
    return;
  }
  if (header.cluster_id != identity_.cluster_id) {
    uint64_t& told_ms = Remembered(&refused_ms_, peer, membership_);
    if (told_ms == 0 || now_ms() >= told_ms + 10000) {
      told_ms = now_ms();
      Log(deps_.logger, KW_LOG_WARN, "peer_of_another_cluster",
          {{"peer", HexId(peer)},
           {"cluster", HexId(header.cluster_id)},
           {"ours", HexId(identity_.cluster_id)}});
    }
    return;
  }
  if (header.to != identity_.member_id) return;  // For who was at this address before.
  if (header.kind == FrameKind::kRefused) return OnRefused(header.from, std::string(reader.Bytes()));
  if (!CheckSender(header)) return;
  if (!IsRemembered(header) && header.kind != FrameKind::kHello) return;
  switch (header.kind) {
    case FrameKind::kHello:
      return OnHello(header, &reader);
    case FrameKind::kRaft: {
      std::optional<raft::Message> message = raft::DecodeMessage(reader.Raw(reader.remaining()));
      if (!message.has_value() || message->from != header.from || message->to != header.to) return;
      return raft_->Step(std::move(*message));
    }
    case FrameKind::kPropose:
      return OnPropose(header, &reader);
    case FrameKind::kProposeResult:
      return OnProposeResult(&reader);
    case FrameKind::kLeaseQuery:
      return OnLeaseQuery(header, &reader);
    case FrameKind::kLeaseAnswer:
      return OnLeaseAnswer(&reader);
    case FrameKind::kSnapshotChunk:
      return OnSnapshotChunk(header, &reader);
    case FrameKind::kSnapshotAck:
      return OnSnapshotAck(header, &reader);
    case FrameKind::kDigestReport:
      return OnDigestReport(header.from, &reader);
    case FrameKind::kProposeQuery:
      return OnProposeQuery(header.from, &reader);
    case FrameKind::kProposeLost:
      return OnProposeLost(header.from, &reader);
    case FrameKind::kRefused:
      return;
  }
}

// ---- hello and joining -----------------------------------------------------------------------------

void Core::OnHello(const FrameHeader& header, Reader* reader) {
  const uint64_t our_incarnation = reader->Fixed64();
  const uint32_t count = reader->Fixed32();
  std::vector<Member> members;
  for (uint32_t i = 0; i < count && reader->ok(); ++i) {
    Member member;
    if (!DecodeMember(reader->Bytes(), &member)) return;
    members.push_back(std::move(member));
  }
  if (!reader->ok()) return;
  if (raft_ == nullptr) {
    if (our_incarnation != 0) {
      return Fatal("member " + HexId(header.to) + " at " + Joined(self_peer_urls_) +
                   " has started before, with another data directory. Replace it: `keywayctl member "
                   "remove " +
                   HexId(header.to) +
                   "`, `keywayctl member add`, then start it with an empty data directory");
    }
    return Adopt(header, members);
  }
  bool changed = false;
  for (Member& member : members) {
    if (membership_.Find(member.id) != nullptr || membership_.IsRemoved(member.id)) continue;
    changed = hello_members_.insert_or_assign(member.id, member).second || changed;
  }
  if (changed) UpdatePeers();
}

// Joining: takes the id that the running cluster has for our peer URLs.
void Core::Adopt(const FrameHeader& header, const std::vector<Member>& members) {
  for (const Member& member : members) {
    if (member.id != header.to || member.peer_urls != self_peer_urls_) continue;
    if (adopting_) return;
    adopting_ = true;
    identity_.cluster_id = header.cluster_id;
    identity_.member_id = header.to;
    for (const Member& other : members) hello_members_[other.id] = other;
    WriteMeta(kMetaIdentity, EncodeIdentity(identity_), [this] {
      joining_ = false;
      Log(deps_.logger, KW_LOG_INFO, "joined_cluster",
          {{"cluster", HexId(identity_.cluster_id)}, {"member", HexId(identity_.member_id)}});
      StartRaft({});
      UpdatePeers();
    });
    return;
  }
  Log(deps_.logger, KW_LOG_WARN, "hello_for_somebody_else",
      {{"from", HexId(header.from)}, {"our_peer_urls", Joined(self_peer_urls_)}});
}

}  // namespace keyway::core
