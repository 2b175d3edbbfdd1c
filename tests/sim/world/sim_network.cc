// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_network.h"

#include <algorithm>
#include <utility>

#include "kernel/core/peer_wire.h"
#include "kernel/core/proposal.h"
#include "kernel/raft/wire.h"

namespace keyway::sim {
namespace {

constexpr uint64_t kRetryMinNs = 50 * kMillisecond, kRetryMaxNs = 300 * kMillisecond;
constexpr uint64_t kSilenceNs = 3 * kSecond;  // A connection that is cut ends after this time.

// Whether Raft itself bears it twice or late. A proposal is sent once, over a transport that does not
// repeat frames: it is not meant to.
bool MayRepeat(kw_slice head) {
  Reader reader({reinterpret_cast<const char*>(head.ptr), head.len});
  core::FrameHeader header;
  return core::DecodeFrameHeader(&reader, &header) && header.kind == core::FrameKind::kRaft;
}

}  // namespace

SimNetwork::SimNetwork(Scheduler* scheduler, Trace* trace, uint64_t seed, size_t slots)
    : scheduler_(scheduler),
      trace_(trace),
      random_(seed),
      slots_(slots),
      blocked_(slots * slots, false),
      extra_ns_(slots * slots, 0),
      leftovers_(slots * slots) {
  for (size_t slot = 0; slot < slots; ++slot) {
    auto& endpoint = endpoints_.emplace_back(std::make_unique<Endpoint>());
    endpoint->network = this;
    endpoint->slot = slot;
    endpoint->plugin.size = sizeof endpoint->plugin;
    endpoint->plugin.self = endpoint.get();
    read_delays_ns_.push_back(random_.Below(30 * kMillisecond));
  }
  Watch();
}

SimNetwork::~SimNetwork() = default;

kw_plugin* SimNetwork::Open(size_t slot, Boundary* boundary) {
  Endpoint& endpoint = *endpoints_[slot];
  endpoint.is_open = true;
  endpoint.is_listening = false;
  ++endpoint.life;
  endpoint.boundary = boundary;
  endpoint.connections.clear();
  return &endpoint.plugin;
}

void SimNetwork::Close(size_t slot) {
  Endpoint& endpoint = *endpoints_[slot];
  if (!endpoint.is_open) return;
  endpoint.is_open = endpoint.is_listening = false;
  endpoint.connections.clear();
  endpoint.sink = nullptr;
  for (size_t other = 0; other < slots_; ++other) {
    if (other == slot || !endpoints_[other]->is_open) continue;
    for (auto& [peer, connection] : endpoints_[other]->connections) {
      if (connection.slot != slot || !connection.is_up) continue;
      // The other side hears of it if the network lets it, else when it has heard nothing for a while.
      if (!IsBlocked(slot, other)) Lose(*endpoints_[other], peer, connection);
    }
  }
}

// ---- connections ---------------------------------------------------------------------------------------

void SimNetwork::SetPeers(Endpoint& endpoint, uint64_t self_id, const kw_peer* peers, size_t count) {
  endpoint.self_id = self_id;
  std::map<uint64_t, Connection> before = std::exchange(endpoint.connections, {});
  for (size_t i = 0; i < count; ++i) {
    size_t slot = SIZE_MAX;
    for (size_t j = 0; j < slots_; ++j) {
      if (peers[i].url_count > 0 && UrlOf(j) == peers[i].urls[0]) slot = j;
    }
    const auto at = before.find(peers[i].id);
    if (at != before.end() && at->second.slot == slot) {
      endpoint.connections.emplace(peers[i].id, at->second);
      continue;
    }
    Connection connection;
    connection.slot = slot;
    connection.epoch = next_epoch_++;
    endpoint.connections.emplace(peers[i].id, connection);
    if (slot != SIZE_MAX) {
      Connect(endpoint.slot, peers[i].id, connection.epoch, random_.Between(1, 10) * kMillisecond);
    }
  }
}

void SimNetwork::Connect(size_t slot, uint64_t peer, uint64_t epoch, uint64_t delay_ns) {
  scheduler_->After(delay_ns, [this, slot, peer, epoch] { TryConnect(slot, peer, epoch); });
}

void SimNetwork::TryConnect(size_t slot, uint64_t peer, uint64_t epoch) {
  Endpoint& endpoint = *endpoints_[slot];
  const auto at = endpoint.connections.find(peer);
  if (!endpoint.is_open || at == endpoint.connections.end() || at->second.epoch != epoch) return;
  Connection& connection = at->second;
  const Endpoint& target = *endpoints_[connection.slot];
  if (!target.is_listening || IsBlocked(slot, connection.slot) || IsBlocked(connection.slot, slot)) {
    return Connect(slot, peer, epoch, random_.Between(kRetryMinNs, kRetryMaxNs));
  }
  connection.is_up = true;
  connection.target_life = target.life;
  connection.blocked_since_ns = 0;
  trace_->Add(scheduler_->now_ns(), "connect", slot + 1, connection.slot + 1);
  Notify(slot, peer, KW_PEER_UP, 0);
}

// The connection is gone: says so, and dials again.
void SimNetwork::Lose(Endpoint& endpoint, uint64_t peer, Connection& connection) {
  connection.is_up = false;
  connection.epoch = next_epoch_++;
  connection.last_arrival[0] = connection.last_arrival[1] = 0;
  connection.last_packet[0] = connection.last_packet[1] = nullptr;
  trace_->Add(scheduler_->now_ns(), "lost", endpoint.slot + 1, connection.slot + 1);
  Notify(endpoint.slot, peer, KW_PEER_DOWN, random_.Between(100, 2000) * kMicrosecond);
  Connect(endpoint.slot, peer, connection.epoch, random_.Between(kRetryMinNs, kRetryMaxNs));
}

void SimNetwork::Notify(size_t slot, uint64_t peer, uint32_t state, uint64_t delay_ns) {
  scheduler_->After(delay_ns, [this, slot, peer, state, life = endpoints_[slot]->life] {
    const Endpoint& endpoint = *endpoints_[slot];
    if (!endpoint.is_open || endpoint.life != life || endpoint.sink == nullptr) return;
    endpoint.sink->peer_state(endpoint.sink->self, peer, state, kw_slice{});
  });
}

void SimNetwork::Reset(size_t a, size_t b, uint64_t late_ns) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    leftovers_[from * slots_ + to] = {scheduler_->now_ns(), late_ns};
    for (auto& [peer, connection] : endpoints_[from]->connections) {
      if (connection.slot == to && connection.is_up) Lose(*endpoints_[from], peer, connection);
    }
  }
}

// Ends connections over links that have been cut for long, or whose process is another one by now.
void SimNetwork::Watch() {
  for (auto& endpoint : endpoints_) {
    if (!endpoint->is_open) continue;
    for (auto& [peer, connection] : endpoint->connections) {
      if (!connection.is_up) continue;
      const Endpoint& target = *endpoints_[connection.slot];
      const bool cut =
          IsBlocked(endpoint->slot, connection.slot) && IsBlocked(connection.slot, endpoint->slot);
      const bool stale = !target.is_open || target.life != connection.target_life;
      if (!cut && !stale) {
        connection.blocked_since_ns = 0;
      } else if (connection.blocked_since_ns == 0) {
        connection.blocked_since_ns = scheduler_->now_ns();
      } else if (!cut || scheduler_->now_ns() >= connection.blocked_since_ns + kSilenceNs) {
        Lose(*endpoint, peer, connection);
      }
    }
  }
  scheduler_->After(500 * kMillisecond, [this] { Watch(); });
}

void SimNetwork::Block(size_t from, size_t to, bool is_blocked) { blocked_[from * slots_ + to] = is_blocked; }

bool SimNetwork::IsWhole() const {
  return std::find(blocked_.begin(), blocked_.end(), true) == blocked_.end() &&
         std::all_of(extra_ns_.begin(), extra_ns_.end(), [](uint64_t extra_ns) { return extra_ns == 0; });
}

void SimNetwork::HealAll() {
  std::fill(blocked_.begin(), blocked_.end(), false);
  std::fill(extra_ns_.begin(), extra_ns_.end(), 0);
}

// ---- frames --------------------------------------------------------------------------------------------

size_t SimNetwork::Send(Endpoint& endpoint, const kw_frame* frames, size_t count) {
  if (endpoint.boundary->Cross(Call::kTransportSend) != KW_OK) return count;
  for (size_t i = 0; i < count; ++i) {
    if (on_send) on_send(endpoint.slot, frames[i]);
    SendOne(endpoint, frames[i]);
  }
  return count;
}

void SimNetwork::SendOne(Endpoint& endpoint, const kw_frame& frame) {
  const auto at = endpoint.connections.find(frame.peer);
  if (at == endpoint.connections.end() || !at->second.is_up) return;
  Connection& connection = at->second;
  ++frames_sent_;
  if (trace_->is_text()) NoteFrame(endpoint.slot, connection.slot, frame);
  if (IsBlocked(endpoint.slot, connection.slot) || random_.Chance(faults.loss_ppm)) {
    ++frames_lost_;
    return;
  }
  std::string bytes;
  bytes.reserve(frame.head.len + frame.body.len);
  bytes.append(reinterpret_cast<const char*>(frame.head.ptr), frame.head.len);
  bytes.append(reinterpret_cast<const char*>(frame.body.ptr), frame.body.len);
  if (change_bulk && frame.lane != KW_LANE_CONTROL) change_bulk(endpoint.slot, &bytes);
  const uint64_t now = scheduler_->now_ns();
  const bool may_repeat = (faults.reorder_ppm | faults.duplicate_ppm) != 0 && MayRepeat(frame.head);
  const bool is_late = may_repeat && random_.Chance(faults.reorder_ppm);
  const bool is_twice = may_repeat && random_.Chance(faults.duplicate_ppm);
  const size_t lane = frame.lane == KW_LANE_CONTROL ? 0 : 1;
  if (!is_late && !is_twice && connection.last_packet[lane] != nullptr &&
      connection.last_sent_ns[lane] == now) {
    return connection.last_packet[lane]->push_back(std::move(bytes));
  }
  auto packet = std::make_shared<Packet>();
  packet->push_back(std::move(bytes));
  uint64_t arrival = now + random_.Between(faults.delay_min_ns, faults.delay_max_ns) +
                     extra_ns_[endpoint.slot * slots_ + connection.slot];
  if (faults.stall_ppm != 0 && random_.Chance(faults.stall_ppm)) {
    const uint64_t stall_ns = random_.Between(200, 4000) * kMillisecond;
    arrival += stall_ns;
    if (on_stall) on_stall(stall_ns);
  }
  if (is_late) {
    arrival += random_.Below(20 * kMillisecond);
  } else {
    uint64_t& last = connection.last_arrival[lane];
    arrival = last = std::max(arrival, last + 1);
    connection.last_sent_ns[lane] = now;
    connection.last_packet[lane] = is_twice ? nullptr : packet;
  }
  if (is_twice) {
    Deliver(endpoint.slot, connection.slot, connection.target_life, endpoint.self_id, frame.lane, packet, now,
            arrival - now + random_.Below(200 * kMillisecond));
  }
  Deliver(endpoint.slot, connection.slot, connection.target_life, endpoint.self_id, frame.lane,
          std::move(packet), now, arrival - now);
}

namespace {

// Who asked for what, in an entry or on its way into one.
std::string ProposalsIn(std::string_view bytes) {
  Arena arena;
  core::Proposal proposal;
  std::string text;
  for (core::ProposalReader reader(bytes); reader.Next(&arena, &proposal);) {
    text += " " + std::to_string(static_cast<int>(proposal.kind)) + ":" +
            std::to_string(proposal.origin % 1000) + "/" + std::to_string(proposal.id % 1'000'000);
  }
  return text;
}

}  // namespace

// What a frame is, for whoever reads a trace.
void SimNetwork::NoteFrame(size_t from, size_t to, const kw_frame& frame) {
  Reader reader({reinterpret_cast<const char*>(frame.head.ptr), frame.head.len});
  core::FrameHeader header;
  if (!core::DecodeFrameHeader(&reader, &header)) return;
  std::string text = "sends to n" + std::to_string(to + 1) + " kind " +
                     std::to_string(static_cast<int>(header.kind)) + ", " +
                     std::to_string(frame.head.len + frame.body.len) + " bytes";
  if (header.kind == core::FrameKind::kRaft) {
    if (const auto message = raft::DecodeMessage(reader.Raw(reader.remaining())); message.has_value()) {
      text += ": message " + std::to_string(static_cast<int>(message->kind)) + " term " +
              std::to_string(message->term) + " index " + std::to_string(message->index) + " log term " +
              std::to_string(message->log_term) + " commit " + std::to_string(message->commit) + " reject " +
              std::to_string(message->reject) + " entries " + std::to_string(message->entries.size());
      for (size_t i = 0; i < message->entries.size() && message->entries.size() < 4; ++i) {
        text += " [" + ProposalsIn(message->entries[i].data.view()) + " ]";
      }
    }
  }
  if (header.kind == core::FrameKind::kPropose) {
    const std::string all = std::string(reader.Raw(reader.remaining())) +
                            std::string(reinterpret_cast<const char*>(frame.body.ptr), frame.body.len);
    text += ":" + ProposalsIn(std::string_view(all).substr(9));
  }
  trace_->Note(scheduler_->now_ns(), from + 1, text);
}

void SimNetwork::Deliver(size_t from, size_t to, uint64_t life, uint64_t sender, uint32_t lane,
                         std::shared_ptr<const Packet> packet, uint64_t sent_ns, uint64_t delay_ns) {
  scheduler_->After(delay_ns, [this, from, to, life, sender, lane, sent_ns, packet = std::move(packet)] {
    const Endpoint& target = *endpoints_[to];
    if (!target.is_listening || target.life != life || IsBlocked(from, to)) {
      frames_lost_ += packet->size();
      return;
    }
    if (const uint64_t until = paused_until_ns ? paused_until_ns(to) : 0; until > scheduler_->now_ns()) {
      const uint64_t read_ns = until + read_delays_ns_[to];
      return Deliver(from, to, life, sender, lane, packet, sent_ns, read_ns - scheduler_->now_ns());
    }
    if (const Leftover& leftover = leftovers_[from * slots_ + to]; sent_ns < leftover.before_ns) {
      const uint64_t read_ns = leftover.before_ns + leftover.late_ns;
      if (read_ns > scheduler_->now_ns()) {
        return Deliver(from, to, life, sender, lane, packet, sent_ns, read_ns - scheduler_->now_ns());
      }
    }
    arriving_.clear();
    for (const std::string& bytes : *packet) {
      trace_->Add(scheduler_->now_ns(), "frame", to + 1, from + 1, Trace::HashOf(bytes));
      kw_frame& frame = arriving_.emplace_back();
      frame.peer = sender;
      frame.lane = lane;
      frame.head = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    }
    target.sink->frames(target.sink->self, arriving_.data(), arriving_.size());
  });
}

const kw_transport* SimNetwork::table() const {
  static constexpr kw_transport kTable = {
      sizeof(kw_transport),
      0,
      16u << 20,
      [](kw_plugin* plugin, uint64_t self_id, const char*, const char* const*, size_t,
         const kw_transport_sink* sink, kw_error* error) -> int32_t {
        Endpoint& self = Self(plugin);
        if (const int32_t code = self.boundary->Cross(Call::kTransportListen); code != KW_OK) {
          error->code = code;
          return code;
        }
        self.self_id = self_id;
        self.sink = sink;
        self.is_listening = true;
        return KW_OK;
      },
      [](kw_plugin* plugin, uint64_t self_id, const kw_peer* peers, size_t count,
         kw_error* error) -> int32_t {
        Endpoint& self = Self(plugin);
        if (const int32_t code = self.boundary->Cross(Call::kTransportSetPeers); code != KW_OK) {
          error->code = code;
          return code;
        }
        self.network->SetPeers(self, self_id, peers, count);
        return KW_OK;
      },
      [](kw_plugin* plugin, const kw_frame* frames, size_t count) -> size_t {
        Endpoint& self = Self(plugin);
        return self.network->Send(self, frames, count);
      },
      [](kw_plugin* plugin, uint64_t peer, kw_transport_stats* out) -> int32_t {
        if (Self(plugin).connections.count(peer) == 0) return KW_NOT_FOUND;
        *out = kw_transport_stats{};
        return KW_OK;
      }};
  return &kTable;
}

}  // namespace keyway::sim
