// SPDX-License-Identifier: Apache-2.0
//
// The I/O thread: its life, its tables of connections, and what other threads hand to it.
#include "io.h"

#include <grpc/support/time.h>
#include <pthread.h>

#include <algorithm>
#include <set>
#include <utility>

#include "dialer.h"
#include "inbound.h"

namespace keyway::transport_grpc {
namespace {

constexpr size_t kQuotaBytes = 256u << 20;
constexpr int kStreamWindowBytes = 4 << 20;
constexpr uint64_t kTlsCheckNs = 1'000'000'000;

grpc_arg Number(const char* key, int value) {
  grpc_arg arg = {};
  arg.type = GRPC_ARG_INTEGER;
  arg.key = const_cast<char*>(key);
  arg.value.integer = value;
  return arg;
}

}  // namespace

// One question to the authenticator. Lives until its completion fired, whoever asked.
struct Io::AuthCall {
  kw_completion completion = {};
  Io* io = nullptr;
  uint64_t ticket = 0;
  std::string leaf, rest, address, error;
  kw_evidence evidence = {};
  kw_principal principal = {};
  int32_t code = KW_OK;
};

Io::Io(const kw_host* host, const Options& options)
    : host_(host),
      options_(options),
      maybe_identity_(HostService<kw_identity>(host, KW_IDENTITY)),
      log_(host),
      clock_(host),
      tls_client_(host, maybe_identity_, "peer-client"),
      tls_server_(host, maybe_identity_, "peer-server"),
      quota_(grpc_resource_quota_create("keyway-transport")),
      queue_(std::make_unique<grpc::CompletionQueue>()),
      alarm_(std::make_unique<grpc::Alarm>()) {
  grpc_resource_quota_resize(quota_, kQuotaBytes);
  server_ = std::make_unique<Server>(this);
}

Io::~Io() {
  Stop();
  grpc_resource_quota_unref(quota_);
}

std::vector<grpc_arg> Io::CommonArguments() const {
  const int interval_ms = static_cast<int>(options_.keepalive_interval_ns / 1'000'000);
  std::vector<grpc_arg> args = {
      Number(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, static_cast<int>(kMessageBytesMax)),
      Number(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1),
      // A host that vanished is noticed after five intervals.
      Number(GRPC_ARG_KEEPALIVE_TIME_MS, interval_ms),
      Number(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 4 * interval_ms),
      Number(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0),
      Number(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
      Number(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes),
      Number(GRPC_ARG_HTTP2_BDP_PROBE, 0),
      Number(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
      Number(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
      Number(GRPC_ARG_ENABLE_CENSUS, 0),
      Number(GRPC_ARG_ENABLE_CHANNELZ, 0),
  };
  grpc_arg quota = {};
  quota.type = GRPC_ARG_POINTER;
  quota.key = const_cast<char*>(GRPC_ARG_RESOURCE_QUOTA);
  quota.value.pointer.p = quota_;
  quota.value.pointer.vtable = grpc_resource_quota_arg_vtable();
  args.push_back(quota);
  return args;
}

bool Io::Listen(const Url& url, std::string* error) { return server_->Listen(url, error); }

void Io::Run(uint64_t self_id, std::string token, const kw_transport_sink* sink) {
  self_id_ = self_id;
  token_ = std::move(token);
  sink_ = sink;
  thread_ = std::thread([this] { ThreadMain(); });
}

void Io::Stop() {
  if (queue_ == nullptr) return;
  if (thread_.joinable()) {
    {
      std::lock_guard lock(mutex_);
      must_stop_ = true;
    }
    Wake();
    thread_.join();
  } else {
    Drain();  // Never ran.
  }
  server_.reset();
  alarm_.reset();
  queue_.reset();
  for (AuthCall* call : auth_done_) delete call;
  auth_done_.clear();
  auth_open_ = 0;
}

void Io::Wake() {
  if (!is_waking_.exchange(true))
    alarm_->Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Tag*>(&wake_tag_));
}

void Io::PostPeers(uint64_t self_id, std::vector<PlannedPeer> peers) {
  {
    std::lock_guard lock(mutex_);
    has_post_ = true;
    posted_self_id_ = self_id;
    posted_peers_ = std::move(peers);
  }
  Wake();
}

void Io::ThreadMain() {
  pthread_setname_np(pthread_self(), "kw-grpc");
  server_->Run();
  while (!is_stopping_) {
    const uint64_t now = now_ns();
    if (now >= due_ns_) {
      due_ns_ = kNever;
      OnTime(now);
      retired_.clear();
    }
    Next(due_ns_);
    retired_.clear();
  }
  dialers_.clear();
  inbound_of_.clear();
  inbounds_.clear();
  retired_.clear();
  Drain();
}

// Handles one event. False: the queue is shut down and empty.
bool Io::Next(uint64_t until_ns) {
  gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
  if (until_ns != kNever) {
    const uint64_t now = now_ns();
    const uint64_t left = until_ns > now ? until_ns - now : 0;
    deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                            gpr_time_from_nanos(static_cast<int64_t>(left), GPR_TIMESPAN));
  }
  const grpc_event event = grpc_completion_queue_next(queue(), deadline, nullptr);
  if (event.type == GRPC_OP_COMPLETE) {
    void* tag = nullptr;
    bool ok = event.success != 0;
    static_cast<grpc::internal::CompletionQueueTag*>(event.tag)->FinalizeResult(&tag, &ok);
    static_cast<Tag*>(tag)->Complete(ok);
  }
  return event.type != GRPC_QUEUE_SHUTDOWN;
}

// Ends what is left of gRPC's, once the tables are empty.
void Io::Drain() {
  server_->ShutDown();
  while (!server_->IsIdle() || stream_count_ > 0) Next(kNever);
  {
    // A completion wakes under the lock, so none comes after this.
    std::unique_lock lock(mutex_);
    auth_all_done_.wait(lock, [this] { return auth_open_ == auth_done_.size(); });
  }
  grpc_completion_queue_shutdown(queue());
  while (Next(kNever)) {
  }
}

void Io::OnWake() {
  is_waking_.store(false);
  bool has_post = false;
  uint64_t self_id = 0;
  std::vector<PlannedPeer> peers;
  std::vector<AuthCall*> done;
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = must_stop_;
    if (is_stopping_) return;
    has_post = std::exchange(has_post_, false);
    self_id = posted_self_id_;
    if (has_post) peers.swap(posted_peers_);
    done.swap(auth_done_);
    auth_open_ -= done.size();
  }
  for (const auto& [id, dialer] : dialers_) dialer->Pump();
  if (has_post) ApplyPeers(self_id, std::move(peers));
  for (AuthCall* call : done) {
    FinishAuthentication(call, call->code, call->error);
    delete call;
  }
}

void Io::ApplyPeers(uint64_t self_id, std::vector<PlannedPeer> peers) {
  std::set<uint64_t> wanted;
  for (const PlannedPeer& planned : peers) wanted.insert(planned.peer->id);
  for (auto it = dialers_.begin(); it != dialers_.end();) {
    if (wanted.count(it->first) != 0) {
      ++it;
      continue;
    }
    const auto inbound = inbound_of_.find(it->first);
    if (inbound != inbound_of_.end()) OnInboundEnded(inbound->second, false);
    Retire(std::move(it->second));
    it = dialers_.erase(it);
  }
  const bool is_renamed = std::exchange(self_id_, self_id) != self_id;
  for (PlannedPeer& planned : peers) {
    auto& dialer = dialers_[planned.peer->id];
    if (dialer == nullptr || dialer->peer() != planned.peer.get()) {
      if (dialer != nullptr) Retire(std::move(dialer));
      dialer = std::make_unique<Dialer>(this, planned.peer);
    } else if (is_renamed) {
      dialer->Restart();
    }
    dialer->SetUrls(std::move(planned.urls));
  }
}

void Io::OnTime(uint64_t now) {
  if (now >= tls_check_ns_) {
    tls_check_ns_ = now + kTlsCheckNs;
    CheckMaterial();
  }
  NoteDeadline(tls_check_ns_);
  for (const auto& [id, dialer] : dialers_) dialer->OnTime(now);
  for (auto it = inbounds_.begin(); it != inbounds_.end();) {
    Inbound* inbound = (it++)->first;  // It may end, and leave the table.
    inbound->OnTime(now);
  }
}

void Io::WatchTls() {
  if (tls_check_ns_ != kNever) return;
  tls_check_ns_ = now_ns() + kTlsCheckNs;
  NoteDeadline(tls_check_ns_);
}

// Looks for new material. Connections stay, if their certificates are good by it.
void Io::CheckMaterial() {
  TlsRole* const roles[] = {&tls_client_, &tls_server_};
  bool has_moved[2] = {false, false};
  for (size_t i = 0; i < 2; ++i) {
    if (roles[i]->current() == nullptr) continue;  // Not used.
    std::string error;
    const std::shared_ptr<const Material> material = roles[i]->Refresh(&error);
    if (!error.empty() && error != tls_error_) log_.Warn("tls_material_refused", {{"reason", error}});
    if (!error.empty()) tls_error_ = error;
    const uint64_t old = std::exchange(tls_generations_[i], material->generation);
    has_moved[i] = old != material->generation;
  }
  if (has_moved[0]) {
    for (const auto& [id, dialer] : dialers_) dialer->CheckAgain();
  }
  for (auto it = inbounds_.begin(); has_moved[1] && it != inbounds_.end();) {
    Inbound* inbound = (it++)->first;
    inbound->CheckAgain();
  }
}

void Io::OnCall(Stream* stream, const Hello& hello) {
  const std::string address = PlainAddress(stream->Peer());
  if (hello.lane >= std::size(kPaths)) {
    NoteRejected(address, "a call of another service");
    stream->Refuse(GRPC_STATUS_UNIMPLEMENTED, "this port is for members of a Keyway cluster");
    return stream->Release();
  }
  if (stream_count_ > kStreamsMax) {
    NoteRejected(address, "too many connections");
    stream->Refuse(GRPC_STATUS_RESOURCE_EXHAUSTED, "too many connections");
    return stream->Release();
  }
  if (hello.lane == KW_LANE_BULK) {
    for (const auto& [inbound, owned] : inbounds_) {
      if (inbound->TakeBulk(stream, hello)) return;
    }
    stream->Refuse(GRPC_STATUS_FAILED_PRECONDITION, "no control stream goes with it");
    return stream->Release();
  }
  auto inbound = std::make_unique<Inbound>(this, stream, address);
  Inbound* const key = inbound.get();
  inbounds_[key] = std::move(inbound);
  key->Greet(hello);
}

void Io::OnGreeted(Inbound* inbound) {
  if (inbound->peer() == 0) return;  // Members that do not know their id yet may be several.
  Inbound* const old = std::exchange(inbound_of_[inbound->peer()], inbound);
  if (old != nullptr && old != inbound) {
    if (replaced_muffler_.Allow(now_ns())) {
      log_.Info("peer_replaced",
                {{"peer", Hex(inbound->peer())}, {"address", inbound->address()}, {"old", old->address()}});
    }
    OnInboundEnded(old, false);
  }
  const auto dialer = dialers_.find(inbound->peer());
  if (dialer != dialers_.end()) dialer->second->OnInboundGreeted();
}

void Io::OnInboundEnded(Inbound* inbound, bool by_peer) {
  const auto found = inbounds_.find(inbound);
  if (found == inbounds_.end()) return;
  inbound->Close();
  Retire(std::move(found->second));
  inbounds_.erase(found);
  const auto current = inbound_of_.find(inbound->peer());
  if (current == inbound_of_.end() || current->second != inbound) return;
  inbound_of_.erase(current);
  const auto dialer = dialers_.find(inbound->peer());
  if (by_peer && dialer != dialers_.end()) dialer->second->OnInboundLost();
}

Peer* Io::FindPeer(uint64_t id) {
  const auto found = dialers_.find(id);
  return found == dialers_.end() ? nullptr : found->second->peer();
}

const std::vector<Url>* Io::FindUrls(uint64_t id) const {
  const auto found = dialers_.find(id);
  return found == dialers_.end() ? nullptr : &found->second->urls();
}

void Io::NoteRejected(const std::string& address, const std::string& reason) {
  ++rejected_;
  if (!rejected_muffler_.Allow(now_ns())) return;
  log_.Warn("connection_rejected", {{"address", address},
                                    {"reason", reason},
                                    {"total", rejected_},
                                    {"suppressed", rejected_muffler_.TakeSuppressed()}});
}

uint64_t Io::Authenticate(const PeerChain& peer, const std::string& address, Authenticated done) {
  if (peer.empty() || maybe_identity_ == nullptr) {
    done("", "");
    return 0;
  }
  auto call = std::make_unique<AuthCall>();
  call->io = this;
  call->ticket = ++last_ticket_;
  call->address = address;
  call->leaf = peer.LeafDer();
  call->rest = peer.RestDer();
  static const std::string kRole = "peer";
  call->evidence = {sizeof(kw_evidence), KW_EVIDENCE_X509,  Slice(kRole),
                    Slice(call->leaf),   Slice(call->rest), Slice(call->address)};
  call->principal.size = sizeof(kw_principal);
  call->completion.ctx = call.get();
  call->completion.done = [](kw_completion* self, int32_t code, const kw_error* error) {
    auto* finished = static_cast<AuthCall*>(self->ctx);
    Io* io = finished->io;
    finished->code = code;
    if (code != KW_OK) finished->error = error != nullptr ? error->text : "unauthenticated";
    std::lock_guard lock(io->mutex_);
    io->auth_done_.push_back(finished);
    io->Wake();
    io->auth_all_done_.notify_all();
  };
  const uint64_t ticket = call->ticket;
  authenticating_[ticket] = std::move(done);
  {
    std::lock_guard lock(mutex_);
    ++auth_open_;
  }
  AuthCall* raw = call.release();
  const int32_t code =
      maybe_identity_->authenticate(host_, &raw->evidence, &raw->principal, &raw->completion);
  if (code == KW_PENDING) return ticket;
  {
    std::lock_guard lock(mutex_);
    --auth_open_;
  }
  FinishAuthentication(raw, code, code == KW_OK ? "" : "the authenticator refused the certificate");
  delete raw;
  return 0;
}

void Io::FinishAuthentication(AuthCall* call, int32_t code, const std::string& text) {
  const auto found = authenticating_.find(call->ticket);
  if (found == authenticating_.end()) return;
  const Authenticated done = std::move(found->second);
  authenticating_.erase(found);
  const size_t size = std::min<size_t>(call->principal.len, sizeof(call->principal.name));
  done(code == KW_OK ? std::string(call->principal.name, size) : "",
       code == KW_OK ? "" : "not authenticated: " + text);
}

}  // namespace keyway::transport_grpc
