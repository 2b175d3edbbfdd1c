// SPDX-License-Identifier: Apache-2.0
//
// The I/O thread: its life, its tables of connections, and what other threads hand to it.
#include "io.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "dialer.h"
#include "inbound.h"

namespace keyway::transport_tcp {

// One question to the authenticator. Lives until its completion fired, whoever asked.
struct Io::AuthCall {
  kw_completion completion = {};
  Io* io = nullptr;
  uint64_t ticket = 0;
  std::string leaf, chain, address, error;
  kw_evidence evidence = {};
  kw_principal principal = {};
  int32_t code = KW_OK;
};

Io::Io(const kw_host* host, const kw_clock* clock, const Options& options)
    : host_(host),
      options_(options),
      maybe_identity_(static_cast<const kw_identity*>(host->get(host, KW_IDENTITY))),
      log_(host, static_cast<const kw_log*>(host->get(host, KW_LOG))),
      loop_(host, clock),
      resolver_(&loop_),
      tls_client_(host, maybe_identity_, "peer-client"),
      tls_server_(host, maybe_identity_, "peer-server") {}

Io::~Io() { Stop(); }

bool Io::Open(std::string* error) {
  if (!loop_.Open()) {
    *error = "epoll: out of file descriptors";
    return false;
  }
  return resolver_.Open(options_.name_servers, error);
}

int Io::dead_after_ms() const {
  return static_cast<int>(
      std::clamp<uint64_t>(options_.keepalive_interval_ns * 5 / 1'000'000, 1000, 300'000));
}

bool Io::Listen(const Url& url, std::string* error) {
  if (url.is_tls) {
    // Told now, rather than at the first connection.
    if (tls_server_.NewConnection("", error) == nullptr) return false;
  }
  std::vector<Address> addresses(1);
  if (!NumericAddress(url, &addresses[0])) {
    addresses.clear();
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* found = nullptr;
    const int result = getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
    if (result != 0) {
      *error = "name \"" + url.host + "\": " + gai_strerror(result);
      return false;
    }
    for (const addrinfo* at = found; at != nullptr && addresses.size() < 16; at = at->ai_next) {
      Address address;
      std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
      address.size = at->ai_addrlen;
      addresses.push_back(address);
    }
    freeaddrinfo(found);
  }
  size_t opened = 0;
  for (const Address& address : addresses) {
    const int fd = OpenListener(address, error);
    if (fd < 0) {
      *error = address.ToString() + ": " + *error;
      // A name may have an IPv6 address on a machine without IPv6; one address is enough then.
      if (address.storage.ss_family == AF_INET6 && addresses.size() > 1) continue;
      return false;
    }
    listeners_.push_back(std::make_unique<Listener>(this, fd, url.is_tls, url.is_unix ? url.host : ""));
    ++opened;
  }
  return opened > 0;
}

void Io::Run(uint64_t self_id, std::string token, const kw_transport_sink* sink) {
  self_id_ = self_id;
  token_ = std::move(token);
  sink_ = sink;
  for (const auto& listener : listeners_) listener->Start();
  thread_ = std::thread([this] { ThreadMain(); });
}

void Io::Stop() {
  if (thread_.joinable()) {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    loop_.Wake();
    thread_.join();
  }
  listeners_.clear();
  std::unique_lock lock(mutex_);
  auth_all_done_.wait(lock, [this] { return auth_open_ == auth_done_.size(); });
  for (AuthCall* call : auth_done_) delete call;
  auth_done_.clear();
  auth_open_ = 0;
}

void Io::PostPeers(uint64_t self_id, std::vector<PlannedPeer> peers) {
  {
    std::lock_guard lock(mutex_);
    has_post_ = true;
    posted_self_id_ = self_id;
    posted_peers_ = std::move(peers);
  }
  loop_.Wake();
}

void Io::ThreadMain() {
  pthread_setname_np(pthread_self(), "kw-tcp");
  while (true) {
    if (loop_.Poll()) OnTime();
    {
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    TakePosts();
  }
  dialers_.clear();
  inbound_of_.clear();
  inbounds_.clear();
}

void Io::TakePosts() {
  bool has_post = false;
  uint64_t self_id = 0;
  std::vector<PlannedPeer> peers;
  std::vector<AuthCall*> done;
  {
    std::lock_guard lock(mutex_);
    has_post = std::exchange(has_post_, false);
    self_id = posted_self_id_;
    if (has_post) peers.swap(posted_peers_);
    done.swap(auth_done_);
    auth_open_ -= done.size();
  }
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
    if (inbound != inbound_of_.end()) {
      Inbound* ended = inbound->second;
      loop_.Remove(ended->fd());
      OnInboundEnded(ended, false);
    }
    loop_.Retire(std::move(it->second));
    it = dialers_.erase(it);
  }
  const bool is_renamed = std::exchange(self_id_, self_id) != self_id;
  for (PlannedPeer& planned : peers) {
    auto& dialer = dialers_[planned.peer->id];
    if (dialer == nullptr || dialer->peer() != planned.peer.get()) {
      if (dialer != nullptr) loop_.Retire(std::move(dialer));
      dialer = std::make_unique<Dialer>(this, planned.peer);
    } else if (is_renamed) {
      dialer->Restart();
    }
    dialer->SetUrls(std::move(planned.urls));
  }
}

void Io::OnTime() {
  const uint64_t now = loop_.now_ns();
  resolver_.OnTime();
  for (const auto& listener : listeners_) listener->OnTime(now);
  for (const auto& [id, dialer] : dialers_) dialer->OnTime(now);
  for (auto it = inbounds_.begin(); it != inbounds_.end();) {
    Inbound* inbound = (it++)->first;  // It may end, and leave the table.
    inbound->OnTime(now);
  }
}

void Io::OnAccepted(int fd, bool is_tls) {
  const std::string address = PeerAddress(fd);
  std::unique_ptr<SSL, SslDeleter> ssl;
  std::string error;
  if (half_open_ >= kHalfOpenMax || inbounds_.size() >= kInboundMax) {
    error = "too many connections";
  } else if (is_tls) {
    ssl = tls_server_.NewConnection("", &error);
  }
  if (is_tls ? ssl == nullptr : !error.empty()) {
    NoteRejected(address, error);
    close(fd);
    return;
  }
  TuneSocket(fd, dead_after_ms());
  auto inbound = std::make_unique<Inbound>(this, std::make_unique<Stream>(fd, std::move(ssl)), address);
  Inbound* key = inbound.get();
  loop_.Add(fd, EPOLLIN | EPOLLRDHUP, key);
  inbounds_[key] = std::move(inbound);
  ++half_open_;
}

void Io::OnGreeted(Inbound* inbound) {
  --half_open_;
  if (inbound->peer() == 0) return;  // Members that do not know their id yet may be several.
  Inbound*& current = inbound_of_[inbound->peer()];
  Inbound* old = std::exchange(current, inbound);
  if (old != nullptr) {
    if (replaced_muffler_.Allow(loop_.now_ns())) {
      log_.Write(KW_LOG_INFO, "peer_replaced",
                 {{"peer", Hex(inbound->peer())}, {"address", inbound->address()}, {"old", old->address()}});
    }
    loop_.Remove(old->fd());
    OnInboundEnded(old, false);
  }
  const auto dialer = dialers_.find(inbound->peer());
  if (dialer != dialers_.end()) dialer->second->OnInboundGreeted();
}

void Io::OnInboundEnded(Inbound* inbound, bool by_peer) {
  const auto found = inbounds_.find(inbound);
  if (found == inbounds_.end()) return;
  loop_.Retire(std::move(found->second));
  inbounds_.erase(found);
  if (!inbound->is_greeted()) {
    --half_open_;
    return;
  }
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

void Io::NoteRejected(const std::string& address, const std::string& reason) {
  ++rejected_;
  if (!rejected_muffler_.Allow(loop_.now_ns())) return;
  log_.Write(KW_LOG_WARN, "connection_rejected",
             {{"address", address},
              {"reason", reason},
              {"total", std::to_string(rejected_)},
              {"suppressed", std::to_string(rejected_muffler_.TakeSuppressed())}});
}

uint64_t Io::Authenticate(SSL* ssl, const std::string& address, Authenticated done) {
  auto call = std::make_unique<AuthCall>();
  call->io = this;
  call->ticket = ++last_ticket_;
  call->address = address;
  if (!PeerCertificate(ssl, &call->leaf, &call->chain)) {
    done("", "");
    return 0;
  }
  const auto slice = [](const std::string& text) {
    return kw_slice{reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  };
  static const std::string kRole = "peer";
  call->evidence = {sizeof(kw_evidence), KW_EVIDENCE_X509,   slice(kRole),
                    slice(call->leaf),   slice(call->chain), slice(call->address)};
  call->principal.size = sizeof(kw_principal);
  call->completion.ctx = call.get();
  call->completion.done = [](kw_completion* self, int32_t code, const kw_error* error) {
    auto* finished = static_cast<AuthCall*>(self->ctx);
    Io* io = finished->io;
    finished->code = code;
    if (code != KW_OK) finished->error = error != nullptr ? error->text : "unauthenticated";
    std::lock_guard lock(io->mutex_);
    io->auth_done_.push_back(finished);
    io->loop_.Wake();
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

}  // namespace keyway::transport_tcp
