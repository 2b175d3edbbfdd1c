// SPDX-License-Identifier: Apache-2.0
#include "resolver.h"

#include <netinet/in.h>
#include <sys/time.h>

#include <cstring>
#include <utility>

namespace keyway::transport_tcp {
namespace {

constexpr size_t kAddressesMax = 16;  // Of one name.

}  // namespace

// One socket of c-ares in the epoll set.
class Resolver::Socket : public Pollable {
 public:
  Socket(Resolver* resolver, int fd) : resolver_(resolver), fd_(fd) {}
  void OnEvents(uint32_t events) override {
    const bool failed = (events & (EPOLLERR | EPOLLHUP)) != 0;
    ares_process_fd(resolver_->channel_, failed || (events & EPOLLIN) != 0 ? fd_ : ARES_SOCKET_BAD,
                    failed || (events & EPOLLOUT) != 0 ? fd_ : ARES_SOCKET_BAD);
    resolver_->NoteDeadline();
  }

 private:
  Resolver* const resolver_;
  const int fd_;
};

Resolver::~Resolver() {
  waiting_.clear();
  if (channel_ != nullptr) ares_destroy(channel_);
  ares_library_cleanup();
}

bool Resolver::Open(const std::string& servers, std::string* error) {
  int status = ares_library_init(ARES_LIB_INIT_ALL);
  ares_options options = {};
  options.timeout = 1000;
  options.tries = 2;
  options.sock_state_cb = &Resolver::OnSocketState;
  options.sock_state_cb_data = this;
  if (status == ARES_SUCCESS) {
    status =
        ares_init_options(&channel_, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
  }
  if (status == ARES_SUCCESS && !servers.empty()) {
    status = ares_set_servers_ports_csv(channel_, servers.c_str());
  }
  if (status != ARES_SUCCESS) *error = std::string("c-ares: ") + ares_strerror(status);
  return status == ARES_SUCCESS;
}

void Resolver::OnSocketState(void* self, int fd, int readable, int writable) {
  auto* resolver = static_cast<Resolver*>(self);
  const uint32_t events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u);
  const auto found = resolver->sockets_.find(fd);
  if (events == 0) {
    if (found == resolver->sockets_.end()) return;
    resolver->loop_->Remove(fd);
    resolver->loop_->Retire(std::move(found->second));
    resolver->sockets_.erase(found);
  } else if (found != resolver->sockets_.end()) {
    resolver->loop_->Change(fd, events, found->second.get());
  } else {
    auto socket = std::make_unique<Socket>(resolver, fd);
    resolver->loop_->Add(fd, events, socket.get());
    resolver->sockets_[fd] = std::move(socket);
  }
}

void Resolver::Resolve(const std::string& host, uint16_t port, Done done, uint64_t* ticket) {
  *ticket = ++last_ticket_;
  waiting_[last_ticket_] = std::move(done);
  ares_addrinfo_hints hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = ARES_AI_NOSORT;
  ares_getaddrinfo(channel_, host.c_str(), nullptr, &hints, &Resolver::OnAddresses,
                   new Query{this, last_ticket_, port});
  NoteDeadline();
}

void Resolver::Forget(uint64_t ticket) { waiting_.erase(ticket); }

void Resolver::OnAddresses(void* raw_query, int status, int, ares_addrinfo* result) {
  const std::unique_ptr<Query> query(static_cast<Query*>(raw_query));
  std::vector<Address> addresses;
  if (status == ARES_SUCCESS) {
    for (const ares_addrinfo_node* node = result->nodes; node != nullptr; node = node->ai_next) {
      if (addresses.size() == kAddressesMax || node->ai_addrlen > sizeof(sockaddr_storage)) break;
      Address address;
      std::memcpy(&address.storage, node->ai_addr, node->ai_addrlen);
      address.size = static_cast<socklen_t>(node->ai_addrlen);
      if (node->ai_family == AF_INET) {
        reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = htons(query->port);
      } else if (node->ai_family == AF_INET6) {
        reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port = htons(query->port);
      } else {
        continue;
      }
      addresses.push_back(address);
    }
  }
  if (result != nullptr) ares_freeaddrinfo(result);
  if (status == ARES_EDESTRUCTION) return;
  Resolver* resolver = query->resolver;
  const auto found = resolver->waiting_.find(query->ticket);
  if (found == resolver->waiting_.end()) return;
  const Done done = std::move(found->second);
  resolver->waiting_.erase(found);
  done(std::move(addresses), status == ARES_SUCCESS ? "the name has no address" : ares_strerror(status));
}

void Resolver::OnTime() {
  if (channel_ == nullptr || sockets_.empty()) return;
  ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  NoteDeadline();
}

void Resolver::NoteDeadline() {
  timeval left;
  if (ares_timeout(channel_, nullptr, &left) == nullptr) return;
  loop_->NoteDeadline(loop_->ReadClock() + static_cast<uint64_t>(left.tv_sec) * 1'000'000'000 +
                      static_cast<uint64_t>(left.tv_usec) * 1'000 + 1'000'000);
}

}  // namespace keyway::transport_tcp
