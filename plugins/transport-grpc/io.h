// SPDX-License-Identifier: Apache-2.0
//
// Io: the I/O thread's half of an instance. The one thread drives one completion queue, and with it all
// of gRPC's sockets; it owns every stream and all that is known about connections.
#pragma once

#include <grpc/grpc.h>
#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

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
#include "keyway/plugin.hpp"
#include "keyway/transport.h"
#include "muffler.h"
#include "outbox.h"
#include "server.h"
#include "stream.h"
#include "tls.h"
#include "url.h"

namespace keyway::transport_grpc {

struct Options {
  uint64_t connect_timeout_ns = 1'000'000'000;
  uint64_t keepalive_interval_ns = 1'000'000'000;
  size_t send_buffer_bytes = 32u << 20;
};

inline constexpr uint64_t kNever = UINT64_MAX;
inline constexpr uint64_t kGreetingTimeoutNs = 5'000'000'000;
inline constexpr size_t kControlLaneBytes = 4u << 20;
inline constexpr size_t kStreamsMax = 512;

// A number that is read back, with a metrics cell that follows it. Any thread.
class Tally {
 public:
  void set_counter(Counter counter) { counter_ = counter; }  // Before the first Add().
  void Add(uint64_t n) {
    value_.fetch_add(n, std::memory_order_relaxed);
    counter_.Add(n);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
  Counter counter_;
};

// What the core and the I/O thread both hold of one peer.
struct Peer {
  Peer(uint64_t peer_id, size_t bulk_bytes) : id(peer_id), outbox(kControlLaneBytes, bulk_bytes) {}
  const uint64_t id;
  Tally sent_bytes, received_bytes, send_failures;
  std::atomic<uint64_t> round_trip_ns{0};
  Outbox outbox;
};

class Dialer;
class Inbound;

class Io {
 public:
  struct PlannedPeer {
    std::shared_ptr<Peer> peer;
    std::vector<Url> urls;
  };

  Io(const kw_host* host, const Options& options);
  ~Io();

  // [control] In this order; Stop() undoes all.
  bool Listen(const Url& url, std::string* error);
  void Run(uint64_t self_id, std::string token, const kw_transport_sink* sink);
  void Stop();
  // [core] The newest post counts.
  void PostPeers(uint64_t self_id, std::vector<PlannedPeer> peers);
  // Any thread. The I/O thread looks at posts and outboxes soon.
  void Wake();

  // All below is [io].
  grpc_completion_queue* queue() { return queue_->cq(); }
  uint64_t now_ns() const { return clock_.MonoNs(); }
  const Logger& log() const { return log_; }
  const Options& options() const { return options_; }
  const kw_transport_sink& sink() const { return *sink_; }
  uint64_t self_id() const { return self_id_; }
  const std::string& token() const { return token_; }
  TlsRole& tls_client() { return tls_client_; }
  TlsRole& tls_server() { return tls_server_; }
  size_t* stream_count() { return &stream_count_; }
  // Channel arguments of both sides. The pointers are good while this object lives.
  std::vector<grpc_arg> CommonArguments() const;

  // OnTime() of the owners is called by then.
  void NoteDeadline(uint64_t at_ns) {
    if (at_ns < due_ns_) due_ns_ = at_ns;
  }
  // Frees the object after the current event.
  void Retire(std::unique_ptr<Stream::Owner> object) { retired_.push_back(std::move(object)); }

  // A call of another member, to be answered, refused or let go. `stream` has no owner yet.
  void OnCall(Stream* stream, const Hello& hello);
  // The hello of `inbound` was right: an older session of the same peer ends.
  void OnGreeted(Inbound* inbound);
  // `by_peer`: the other side ended it.
  void OnInboundEnded(Inbound* inbound, bool by_peer);
  Peer* FindPeer(uint64_t id);
  // The URLs that the core names for a member. NULL: unknown.
  const std::vector<Url>* FindUrls(uint64_t id) const;
  // Counts and, now and then, logs a connection that this side rejects.
  void NoteRejected(const std::string& address, const std::string& reason);
  // Asks for TLS material again from time to time, from now on.
  void WatchTls();

  // Asks the authenticator about a certificate that was found good. `done` is called once, maybe before
  // the return, unless ForgetAuthentication(ticket) comes first. An error text means: reject.
  using Authenticated = std::function<void(std::string principal, const std::string& error)>;
  uint64_t Authenticate(const PeerChain& peer, const std::string& address, Authenticated done);
  void ForgetAuthentication(uint64_t ticket) { authenticating_.erase(ticket); }

 private:
  struct AuthCall;
  class WakeTag : public Tag {
   public:
    explicit WakeTag(Io* io) : io_(io) {}
    void Complete(bool) override { io_->OnWake(); }

   private:
    Io* const io_;
  };
  void ThreadMain();
  bool Next(uint64_t until_ns);
  void Drain();
  void OnWake();
  void ApplyPeers(uint64_t self_id, std::vector<PlannedPeer> peers);
  void OnTime(uint64_t now_ns);
  void CheckMaterial();
  void FinishAuthentication(AuthCall* call, int32_t code, const std::string& text);

  const kw_host* const host_;
  const Options options_;
  const kw_identity* const maybe_identity_;
  const Logger log_;
  const Clock clock_;
  TlsRole tls_client_, tls_server_;
  grpc_resource_quota* const quota_;
  std::unique_ptr<grpc::CompletionQueue> queue_;
  std::unique_ptr<grpc::Alarm> alarm_;
  WakeTag wake_tag_{this};
  std::atomic<bool> is_waking_{false};
  std::unique_ptr<Server> server_;
  std::thread thread_;
  const kw_transport_sink* sink_ = nullptr;  // Constant once the thread runs; so is the token.
  std::string token_;

  // [io]
  bool is_stopping_ = false;
  uint64_t self_id_ = 0;
  uint64_t due_ns_ = kNever;
  size_t stream_count_ = 0;
  std::vector<std::unique_ptr<Stream::Owner>> retired_;
  std::map<uint64_t, std::unique_ptr<Dialer>> dialers_;
  std::map<Inbound*, std::unique_ptr<Inbound>> inbounds_;
  std::map<uint64_t, Inbound*> inbound_of_;  // By peer id; not for the id 0.
  uint64_t rejected_ = 0;
  Muffler rejected_muffler_, replaced_muffler_;
  uint64_t tls_check_ns_ = kNever;
  uint64_t tls_generations_[2] = {0, 0};
  std::string tls_error_;
  uint64_t last_ticket_ = 0;
  std::map<uint64_t, Authenticated> authenticating_;

  std::mutex mutex_;
  // Guarded by mutex_.
  bool must_stop_ = false;
  bool has_post_ = false;
  uint64_t posted_self_id_ = 0;
  std::vector<PlannedPeer> posted_peers_;
  std::vector<AuthCall*> auth_done_;
  size_t auth_open_ = 0;
  std::condition_variable auth_all_done_;
};

}  // namespace keyway::transport_grpc
