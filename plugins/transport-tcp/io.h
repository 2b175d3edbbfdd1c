// SPDX-License-Identifier: Apache-2.0
//
// Io: the I/O thread's half of an instance. It owns every socket and all that is known about them.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "keyway/host.h"
#include "keyway/transport.h"
#include "log.h"
#include "loop.h"
#include "outbox.h"
#include "resolver.h"
#include "tls.h"
#include "url.h"

namespace keyway::transport_tcp {

struct Options {
  uint64_t connect_timeout_ns = 1'000'000'000;
  uint64_t keepalive_interval_ns = 1'000'000'000;
  size_t send_buffer_bytes = 32u << 20;
  std::string name_servers;  // For tests; empty: those of the system.
};

inline constexpr uint64_t kGreetingTimeoutNs = 5'000'000'000;
inline constexpr size_t kControlLaneBytes = 4u << 20;
inline constexpr size_t kHalfOpenMax = 64;
// A handshake costs as much as a thousand frames: frames wait for few of them.
inline constexpr int kHandshakeStepsPerTurn = 4;
inline constexpr uint64_t kTlsRefreshNs = 1'000'000'000;
inline constexpr size_t kInboundMax = 512;

// What the core and the I/O thread both hold of one peer.
struct Peer {
  Peer(uint64_t peer_id, size_t bulk_bytes)
      : id(peer_id), outbox(kControlLaneBytes, bulk_bytes, &sent_bytes) {}
  const uint64_t id;
  Counter sent_bytes, received_bytes, send_failures;
  std::atomic<uint64_t> round_trip_ns{0};
  Outbox outbox;  // Last: it uses a counter.
};

class Dialer;
class Inbound;
class Listener;

class Io {
 public:
  struct PlannedPeer {
    std::shared_ptr<Peer> peer;
    std::vector<Url> urls;
  };

  Io(const kw_host* host, const kw_clock* clock, const Options& options);
  ~Io();

  // [control] In this order; Stop() undoes all.
  bool Open(std::string* error);
  bool Listen(const Url& url, std::string* error);
  void Run(uint64_t self_id, std::string token, const kw_transport_sink* sink);
  void Stop();
  // [core] The newest post counts.
  void PostPeers(uint64_t self_id, std::vector<PlannedPeer> peers);

  // All below is [io].
  Loop& loop() { return loop_; }
  Resolver& resolver() { return resolver_; }
  const Log& log() const { return log_; }
  const Options& options() const { return options_; }
  const kw_transport_sink& sink() const { return *sink_; }
  uint64_t self_id() const { return self_id_; }
  const std::string& token() const { return token_; }
  TlsRole& tls_client() { return tls_client_; }
  TlsRole& tls_server() { return tls_server_; }
  int dead_after_ms() const;

  void OnAccepted(int fd, bool is_tls);
  // The hello of `inbound` was right: an older connection of the same peer ends.
  void OnGreeted(Inbound* inbound);
  // `by_peer`: the other side ended it.
  void OnInboundEnded(Inbound* inbound, bool by_peer);
  Peer* FindPeer(uint64_t id);
  // Counts and, now and then, logs a connection that this side rejects.
  void NoteRejected(const std::string& address, const std::string& reason);
  // The same for a certificate, with a count and a line for each kind of refusal.
  void NoteRefused(const std::string& address, tls::Refusal refusal, const std::string& text);
  // False: enough handshakes for this turn; epoll tells of the connection again.
  bool TakeHandshakeStep() { return handshake_steps_left_-- > 0; }
  // Empty, or why the certificate is not one of the member `id`: it has a name of none of its URLs.
  std::string NameMismatch(uint64_t id, const tls::Evidence& shown) const;

  // Asks the authenticator about the certificate of a TLS connection. `done` is called once, unless
  // Forget(ticket) comes first; if that was before the return, the ticket is 0. An error text means:
  // reject; it has been counted and logged then.
  using Authenticated = std::function<void(std::string principal, const std::string& error)>;
  uint64_t Authenticate(const tls::Evidence& shown, const std::string& address, Authenticated done);
  void ForgetAuthentication(uint64_t ticket) { authenticating_.erase(ticket); }

 private:
  struct AuthCall;
  void ThreadMain();
  void TakePosts();
  void ApplyPeers(uint64_t self_id, std::vector<PlannedPeer> peers);
  void OnTime();
  void MakeMetrics();
  void RefreshTls(uint64_t now_ns);
  bool EvictHalfOpen();
  void FinishAuthentication(AuthCall* call, int32_t code, const std::string& text);

  const kw_host* const host_;
  const Options options_;
  const kw_identity* const maybe_identity_;
  const Log log_;
  Loop loop_;
  Resolver resolver_;
  TlsRole tls_client_, tls_server_;
  std::thread thread_;
  const kw_transport_sink* sink_ = nullptr;  // Constant once the thread runs; so is the token.
  std::string token_;
  std::vector<std::unique_ptr<Listener>> listeners_;

  // [io]
  uint64_t self_id_ = 0;
  std::map<uint64_t, std::unique_ptr<Dialer>> dialers_;
  std::map<Inbound*, std::unique_ptr<Inbound>> inbounds_;
  std::map<uint64_t, Inbound*> inbound_of_;  // By peer id; not for the id 0.
  size_t half_open_ = 0;
  int handshake_steps_left_ = kHandshakeStepsPerTurn;
  bool uses_tls_ = false;
  uint64_t next_refresh_ns_ = 0;
  uint64_t last_arrival_ = 0;
  uint64_t rejected_ = 0;
  std::array<Counter, tls::kRefusalCount> refusals_;
  std::array<Muffler, tls::kRefusalCount> refusal_mufflers_;
  Counter evictions_;
  Muffler rejected_muffler_, replaced_muffler_, refresh_muffler_;
  uint64_t last_ticket_ = 0;
  std::map<uint64_t, Authenticated> authenticating_;

  std::mutex mutex_;
  // Guarded by mutex_.
  bool stopping_ = false;
  bool has_post_ = false;
  uint64_t posted_self_id_ = 0;
  std::vector<PlannedPeer> posted_peers_;
  std::vector<AuthCall*> auth_done_;
  size_t auth_open_ = 0;
  std::condition_variable auth_all_done_;
};

}  // namespace keyway::transport_tcp
