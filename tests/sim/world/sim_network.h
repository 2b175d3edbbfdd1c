// SPDX-License-Identifier: Apache-2.0
//
// SimNetwork: keyway.transport/1 for every process, over links that delay, lose and block frames. A link has
// a direction; each side of a pair opens a connection of its own to send on, as the contract says.
//
// The contract lets frames be lost, and keeps the order within a lane while a connection lasts. Beyond it,
// if a seed says so, frames of Raft's own protocol come twice and out of order, which Raft must bear.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "keyway/transport.h"
#include "tests/sim/world/boundary.h"
#include "tests/sim/world/random.h"
#include "tests/sim/world/scheduler.h"
#include "tests/sim/world/trace.h"

namespace keyway::sim {

struct LinkFaults {
  uint64_t delay_min_ns = 100 * kMicrosecond, delay_max_ns = 500 * kMicrosecond;
  uint32_t loss_ppm = 0, duplicate_ppm = 0, reorder_ppm = 0;
  uint32_t stall_ppm = 0;  // A lane stops for up to some seconds, as TCP does when it has to send again.
};

class SimNetwork {
 public:
  SimNetwork(Scheduler* scheduler, Trace* trace, uint64_t seed, size_t slots);
  ~SimNetwork();

  static std::string UrlOf(size_t slot) { return "http://n" + std::to_string(slot + 1) + ":2380"; }

  // ---- a process, by the slot that it runs in ----
  // A new life. The plugin is valid until Close().
  kw_plugin* Open(size_t slot, Boundary* boundary);
  void Close(size_t slot);
  const kw_transport* table() const;

  // ---- faults ----
  LinkFaults faults;  // Of all links.
  // Until when a process is paused: its frames wait in its sockets, and are read some time after that.
  std::function<uint64_t(size_t slot)> paused_until_ns;
  // A lane stops for so long.
  std::function<void(uint64_t stall_ns)> on_stall;
  void Block(size_t from, size_t to, bool is_blocked);
  bool IsBlocked(size_t from, size_t to) const { return blocked_[from * slots_ + to]; }
  void HealAll();
  // No link is blocked or slow.
  bool IsWhole() const;
  // A link that is slow: this much more delay.
  void SetSlow(size_t from, size_t to, uint64_t extra_ns) { extra_ns_[from * slots_ + to] = extra_ns; }
  // Resets what is connected between the two. What is under way then is read this much later: behind what
  // comes over the next connection.
  void Reset(size_t a, size_t b, uint64_t late_ns);

  // Each frame that a process sends, before anything happens to it.
  std::function<void(size_t slot, const kw_frame& frame)> on_send;
  // May change a frame of the bulk lane before it goes out; may be empty.
  std::function<void(size_t slot, std::string* frame)> change_bulk;

  uint64_t frames_sent() const { return frames_sent_; }
  uint64_t frames_lost() const { return frames_lost_; }

 private:
  // Frames that arrive together: what one process sends at one time over one lane.
  using Packet = std::vector<std::string>;
  // What was sent before a connection was reset.
  struct Leftover {
    uint64_t before_ns = 0, late_ns = 0;
  };
  struct Connection {
    size_t slot = SIZE_MAX;  // Where it goes to.
    bool is_up = false;
    uint64_t epoch = 0;        // Counts its lives.
    uint64_t target_life = 0;  // Of the process at the other end.
    uint64_t last_arrival[2] = {0, 0};
    std::shared_ptr<Packet> last_packet[2];
    uint64_t last_sent_ns[2] = {0, 0};
    uint64_t blocked_since_ns = 0;
  };
  struct Endpoint {
    bool is_open = false, is_listening = false;
    uint64_t life = 0;
    uint64_t self_id = 0;
    Boundary* boundary = nullptr;
    const kw_transport_sink* sink = nullptr;
    std::map<uint64_t, Connection> connections;  // By peer id.
    kw_plugin plugin{};
    SimNetwork* network = nullptr;
    size_t slot = 0;
  };

  static Endpoint& Self(kw_plugin* plugin) { return *static_cast<Endpoint*>(plugin->self); }
  void SetPeers(Endpoint& endpoint, uint64_t self_id, const kw_peer* peers, size_t count);
  void Connect(size_t slot, uint64_t peer, uint64_t epoch, uint64_t delay_ns);
  void TryConnect(size_t slot, uint64_t peer, uint64_t epoch);
  void Lose(Endpoint& endpoint, uint64_t peer, Connection& connection);
  void Notify(size_t slot, uint64_t peer, uint32_t state, uint64_t delay_ns);
  size_t Send(Endpoint& endpoint, const kw_frame* frames, size_t count);
  void NoteFrame(size_t from, size_t to, const kw_frame& frame);
  void SendOne(Endpoint& endpoint, const kw_frame& frame);
  void Deliver(size_t from, size_t to, uint64_t life, uint64_t sender, uint32_t lane,
               std::shared_ptr<const Packet> packet, uint64_t sent_ns, uint64_t delay_ns);
  void Watch();

  Scheduler* const scheduler_;
  Trace* const trace_;
  Random random_;
  const size_t slots_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::vector<bool> blocked_;             // [from * slots + to]
  std::vector<uint64_t> extra_ns_;        // The same.
  std::vector<Leftover> leftovers_;       // The same.
  std::vector<uint64_t> read_delays_ns_;  // Of a process after a pause. [slot]
  uint64_t next_epoch_ = 1;
  std::vector<kw_frame> arriving_;
  uint64_t frames_sent_ = 0, frames_lost_ = 0;
};

}  // namespace keyway::sim
