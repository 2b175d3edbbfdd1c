// SPDX-License-Identifier: Apache-2.0
//
// Binding and accepting.
#include "listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "connection.h"
#include "keyway/resolve.hpp"

namespace keyway::api_etcd {
namespace {

std::string AddressText(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  return "unix";
}

}  // namespace

int32_t Listener::Open(Server* server, const std::string& url, std::unique_ptr<Listener>* out,
                       kw_error* error) {
  const size_t colon = url.find("://");
  const std::string scheme = url.substr(0, colon);
  const std::string rest = colon == std::string::npos ? "" : url.substr(colon + 3);
  std::unique_ptr<Listener> listener(new Listener(server));
  listener->url_ = url;
  listener->is_tls_ = scheme == "https" || scheme == "unixs";
  listener->is_unix_ = scheme == "unix" || scheme == "unixs";
  if (rest.empty() || (!listener->is_unix_ && scheme != "http" && scheme != "https")) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "listen \"", url,
                      "\": expected http://HOST:PORT, https://HOST:PORT, unix://PATH or "
                      "unixs://PATH");
  }
  const int32_t code = listener->is_unix_ ? listener->BindUnix(rest, error) : listener->BindTcp(rest, error);
  if (code != KW_OK) return code;
  *out = std::move(listener);
  return KW_OK;
}

Listener::~Listener() { Close(); }

int32_t Listener::BindUnix(const std::string& path, kw_error* error) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Fail(error, KW_INVALID_ARGUMENT, "listen \"", url_, "\": the path is too long");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return Fail(error, KW_INTERNAL, "listen ", url_, ": ", std::strerror(errno));
  unlink(path.c_str());  // Left behind by a process that was killed.
  if (bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(fd_, 1024) != 0) {
    return Fail(error, KW_UNAVAILABLE, "listen ", url_, ": ", std::strerror(errno));
  }
  unix_path_ = path;
  return KW_OK;
}

int32_t Listener::BindTcp(const std::string& address, kw_error* error) {
  std::string host_port = address.substr(0, address.find('/'));
  const size_t colon = host_port.rfind(':');
  if (colon == std::string::npos || colon + 1 == host_port.size()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "listen \"", url_, "\": no port");
  }
  std::string host = host_port.substr(0, colon);
  const std::string port = host_port.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  uint16_t port_number = 0;
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), port_number);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "listen \"", url_,
                      "\": the port is not a number in 0..65535");
  }
  std::string why;
  const std::vector<ResolvedAddress> found = ResolveHost(host.empty() ? "0.0.0.0" : host, port_number, &why);
  if (found.empty()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "listen \"", url_, "\": host \"",
                      host, "\": ", std::string_view(why));
  }
  int last_errno = 0;
  for (size_t i = 0; i < found.size() && fd_ < 0; ++i) {
    const int fd = socket(found[i].storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      last_errno = errno;
      continue;
    }
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, reinterpret_cast<const sockaddr*>(&found[i].storage), found[i].size) == 0 &&
        listen(fd, 1024) == 0) {
      fd_ = fd;
    } else {
      last_errno = errno;
      close(fd);
    }
  }
  if (fd_ < 0) {
    return Fail(error, KW_UNAVAILABLE, "listen ", url_, ": ", std::strerror(last_errno));
  }
  return KW_OK;
}

void Listener::Attach(IoThread* accepting, std::vector<IoThread*> serving) {
  accepting_ = accepting;
  threads_ = std::move(serving);
  accepting_->AddListener(this);
}

void Listener::Close() {
  if (fd_ < 0) return;
  if (accepting_ != nullptr) accepting_->timers().Clear(&pause_);
  close(fd_);
  fd_ = -1;
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

// Out of file descriptors or memory: leaves the queue alone for a moment.
void Listener::Pause() {
  accepting_->Repoll(fd_, 0, this);
  pause_.listener = this;
  pause_.fire = [](TimerWheel::Timer* timer) {
    Listener* const self = static_cast<PauseTimer*>(timer)->listener;
    self->accepting_->Repoll(self->fd_, EPOLLIN, self);
  };
  accepting_->timers().Set(&pause_, accepting_->now_ns() + 100'000'000);
}

void Listener::OnEvents(uint32_t) {
  const uint32_t accepts_max = !is_tls_                        ? kAcceptsPerTurnMax
                               : accepting_->OthersAreServed() ? kTlsAcceptsPerTurnYielding
                                                               : kTlsAcceptsPerTurnMax;
  for (uint32_t i = 0; i < accepts_max && fd_ >= 0; ++i) {
    sockaddr_storage address = {};
    socklen_t address_bytes = sizeof address;
    const int fd =
        accept4(fd_, reinterpret_cast<sockaddr*>(&address), &address_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) Pause();
      return;
    }
    if (server_->connection_count.load(std::memory_order_relaxed) >= server_->options.max_connections) {
      server_->metrics.connections_refused.Add();
      close(fd);
      continue;
    }
    if (!is_unix_) {
      const int on = 1;
      const int idle_s = 60;
      const int interval_s = 20;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
      setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
      setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    }
    server_->connection_count.fetch_add(1, std::memory_order_relaxed);
    server_->metrics.connections.Add();
    auto* const accepted = new Arrival();
    accepted->run = &Arrival::Run;
    accepted->server = server_;
    accepted->fd = fd;
    accepted->is_tls = is_tls_;
    accepted->address = is_unix_ ? "unix" : AddressText(address);
    IoThread* const thread = threads_[next_thread_++ % threads_.size()];
    if (thread == accepting_) {
      Arrival::Run(accepted, thread);
    } else {
      thread->Post(accepted);
    }
  }
}

}  // namespace keyway::api_etcd
