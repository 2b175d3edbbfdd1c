// SPDX-License-Identifier: Apache-2.0
//
// The I/O thread: its life, its tables of connections, and what other threads hand to it.
#include "io.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "dialer.h"
#include "inbound.h"
#include "keyway/resolve.hpp"

namespace keyway::transport_tcp {

// One question to the authenticator. Lives until its completion fired, whoever asked.
struct Io::AuthCall {
  kw_completion completion = {};
  Io* io = nullptr;
  uint64_t ticket = 0;
  tls::Evidence shown;
  std::string address, error;
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

void Io::MakeMetrics() {
  const auto* metrics = static_cast<const kw_metrics*>(host_->get(host_, KW_METRICS));
  if (metrics == nullptr) return;
  const auto field = [](const char* key, std::string_view value) { return kw_field{key, Slice(value)}; };
  for (size_t i = 0; i < tls::kRefusalCount; ++i) {
    const kw_field labels[] = {field("port", "peer"), field("reason", tls::kRefusalNames[i])};
    refusals_[i].set_cell(metrics->cell(host_, KW_METRIC_COUNTER, "keyway_tls_refusals_total",
                                        "Connections refused for their certificate.", labels, 2));
  }
  const kw_field port = field("port", "peer");
  evictions_.set_cell(metrics->cell(host_, KW_METRIC_COUNTER, "keyway_tls_handshakes_evicted_total",
                                    "Unfinished handshakes that made room for newer ones.", &port, 1));
}

bool Io::Open(std::string* error) {
  MakeMetrics();
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
    uses_tls_ = true;
  }
  std::vector<Address> addresses(1);
  if (!NumericAddress(url, &addresses[0])) {
    addresses.clear();
    std::string why;
    for (const ResolvedAddress& found :
         ResolveHost(url.host, url.port, &why,
                     options_.name_servers.empty() ? nullptr : options_.name_servers.c_str())) {
      Address address;
      address.storage = found.storage;
      address.size = found.size;
      addresses.push_back(address);
    }
    if (addresses.empty()) {
      *error = "name \"" + url.host + "\": " + why;
      return false;
    }
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
  RefreshTls(loop_.now_ns());
  while (true) {
    handshake_steps_left_ = kHandshakeStepsPerTurn;
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
    for (const Url& url : planned.urls) uses_tls_ |= url.is_tls;
    dialer->SetUrls(std::move(planned.urls));
  }
  RefreshTls(loop_.now_ns());
  // A member that is known only now, or has other addresses, may have shown a certificate of another.
  for (auto it = inbounds_.begin(); it != inbounds_.end();) {
    Inbound* inbound = (it++)->first;
    if (inbound->is_greeted()) inbound->CheckName();
  }
}

void Io::OnTime() {
  const uint64_t now = loop_.now_ns();
  resolver_.OnTime();
  RefreshTls(now);
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
  // The oldest of those that have not greeted is the least likely to be a member.
  if (half_open_ >= kHalfOpenMax || inbounds_.size() >= kInboundMax) EvictHalfOpen();
  if (inbounds_.size() >= kInboundMax) {
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
  auto inbound =
      std::make_unique<Inbound>(this, std::make_unique<Stream>(fd, std::move(ssl)), address, ++last_arrival_);
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

void Io::NoteRefused(const std::string& address, tls::Refusal refusal, const std::string& text) {
  const auto index = static_cast<size_t>(refusal);
  refusals_[index].Add(1);
  if (!refusal_mufflers_[index].Allow(loop_.now_ns())) return;
  log_.Write(KW_LOG_WARN, "connection_rejected",
             {{"address", address},
              {"reason", tls::Name(refusal)},
              {"detail", text},
              {"suppressed", std::to_string(refusal_mufflers_[index].TakeSuppressed())}});
}

std::string Io::NameMismatch(uint64_t id, const tls::Evidence& shown) const {
  const auto dialer = dialers_.find(id);
  if (id == 0 || shown.leaf.empty() || dialer == dialers_.end()) return "";
  const tls::X509Ptr leaf = tls::LeafOf(shown);
  std::string hosts;
  for (const Url& url : dialer->second->urls()) {
    if (url.is_unix) continue;
    if (leaf != nullptr && tls::IsFor(leaf.get(), url.host)) return "";
    hosts += (hosts.empty() ? "" : ", ") + url.host;
  }
  if (hosts.empty()) return "";
  return tls::Describe(leaf.get()) + ", has no name of member " + Hex(id) + " (" + hosts + ")";
}

bool Io::EvictHalfOpen() {
  Inbound* oldest = nullptr;
  for (const auto& [inbound, owner] : inbounds_) {
    if (inbound->is_greeted()) continue;
    if (oldest == nullptr || inbound->arrival() < oldest->arrival()) oldest = inbound;
  }
  if (oldest == nullptr) return false;
  evictions_.Add(1);
  oldest->Evict();
  return true;
}

// Takes over new material, and has the certificates of open connections judged by it.
void Io::RefreshTls(uint64_t now_ns) {
  if (!uses_tls_) return;
  if (now_ns < next_refresh_ns_) return loop_.NoteDeadline(next_refresh_ns_);
  next_refresh_ns_ = now_ns + kTlsRefreshNs;
  loop_.NoteDeadline(next_refresh_ns_);
  for (TlsRole* role : {&tls_server_, &tls_client_}) {
    const uint64_t before = role->generation();
    std::string error;
    if (!role->Refresh(&error)) {
      if (refresh_muffler_.Allow(now_ns)) {
        log_.Write(KW_LOG_ERROR, "tls_refresh_failed", {{"reason", error}});
      }
      continue;
    }
    if (before == 0 || role->generation() == before) continue;
    if (role == &tls_client_) {
      for (const auto& [id, dialer] : dialers_) dialer->Reauthenticate();
      continue;
    }
    for (auto it = inbounds_.begin(); it != inbounds_.end();) {
      Inbound* inbound = (it++)->first;  // It may end, and leave the table.
      inbound->Reauthenticate();
    }
  }
}

uint64_t Io::Authenticate(const tls::Evidence& shown, const std::string& address, Authenticated done) {
  if (shown.leaf.empty()) {
    done("", "");
    return 0;
  }
  auto call = std::make_unique<AuthCall>();
  call->io = this;
  call->ticket = ++last_ticket_;
  call->address = address;
  call->shown = shown;
  const auto slice = [](const std::string& text) {
    return kw_slice{reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  };
  static const std::string kRole = "peer";
  call->evidence = {sizeof(kw_evidence),     KW_EVIDENCE_X509,         slice(kRole),
                    slice(call->shown.leaf), slice(call->shown.chain), slice(call->address)};
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
  if (code != KW_OK) NoteRefused(call->address, tls::RefusalOfText(text), "not authenticated: " + text);
  const size_t size = std::min<size_t>(call->principal.len, sizeof(call->principal.name));
  done(code == KW_OK ? std::string(call->principal.name, size) : "",
       code == KW_OK ? "" : "not authenticated: " + text);
}

}  // namespace keyway::transport_tcp
