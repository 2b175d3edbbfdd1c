// SPDX-License-Identifier: Apache-2.0
//
// Names to addresses by c-ares, on the I/O thread, without blocking it: its sockets are in the epoll set.
#pragma once

#include <ares.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "loop.h"
#include "url.h"

namespace keyway::transport_tcp {

// [io] Destroyed before the loop.
class Resolver {
 public:
  // `addresses` is empty on a failure, and `error` says why.
  using Done = std::function<void(std::vector<Address> addresses, const std::string& error)>;

  explicit Resolver(Loop* loop) : loop_(loop) {}
  ~Resolver();

  // `servers` as of ares_set_servers_ports_csv; empty: those of the system.
  bool Open(const std::string& servers, std::string* error);
  // Calls `done` once, maybe before it returns. `*ticket` may be given to Forget() until then.
  void Resolve(const std::string& host, uint16_t port, Done done, uint64_t* ticket);
  // `done` of that ticket is not called any more.
  void Forget(uint64_t ticket);
  // To be called when the loop says that a deadline passed.
  void OnTime();

 private:
  class Socket;
  struct Query {
    Resolver* resolver;
    uint64_t ticket;
    uint16_t port;
  };
  static void OnSocketState(void* self, int fd, int readable, int writable);
  static void OnAddresses(void* query, int status, int timeouts, ares_addrinfo* result);
  void NoteDeadline();

  Loop* const loop_;
  ares_channel channel_ = nullptr;
  uint64_t last_ticket_ = 0;
  std::map<uint64_t, Done> waiting_;
  std::map<int, std::unique_ptr<Pollable>> sockets_;
};

}  // namespace keyway::transport_tcp
