// SPDX-License-Identifier: Apache-2.0
//
// The addresses of a host name, for listeners that are opened on the [control] thread. By c-ares, which
// gives up in time; getaddrinfo may sit in a resolver for half a minute. For plugins that link c-ares.
#pragma once

#include <ares.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace keyway {

struct ResolvedAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;
};

namespace resolve_detail {

struct Query {
  uint16_t port = 0;
  bool is_done = false;
  int status = ARES_SUCCESS;
  std::vector<ResolvedAddress> addresses;
};

inline void Done(void* raw, int status, int, ares_addrinfo* result) {
  auto* const query = static_cast<Query*>(raw);
  query->is_done = true;
  query->status = status;
  constexpr size_t kAddressesMax = 16;
  for (const ares_addrinfo_node* node = result == nullptr ? nullptr : result->nodes;
       node != nullptr && query->addresses.size() < kAddressesMax; node = node->ai_next) {
    ResolvedAddress address;
    if (node->ai_addrlen > sizeof address.storage) continue;
    std::memcpy(&address.storage, node->ai_addr, node->ai_addrlen);
    address.size = static_cast<socklen_t>(node->ai_addrlen);
    if (node->ai_family == AF_INET) {
      reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = htons(query->port);
    } else if (node->ai_family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port = htons(query->port);
    } else {
      continue;
    }
    query->addresses.push_back(address);
  }
  if (result != nullptr) ares_freeaddrinfo(result);
}

}  // namespace resolve_detail

// [control] Blocks for at most about six seconds. Empty: `*error` says why. `maybe_servers` is for
// tests: name servers instead of the system's, "127.0.0.1:5353".
inline std::vector<ResolvedAddress> ResolveHost(const std::string& host, uint16_t port, std::string* error,
                                                const char* maybe_servers = nullptr) {
  constexpr int kRoundsMax = 1000;
  constexpr int kAttemptMs = 1000;
  ares_options options = {};
  options.timeout = kAttemptMs;
  options.tries = 2;
  ares_channel channel = nullptr;
  int status = ares_library_init(ARES_LIB_INIT_ALL);
  if (status == ARES_SUCCESS) {
    status = ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  }
  if (status == ARES_SUCCESS && maybe_servers != nullptr) {
    status = ares_set_servers_ports_csv(channel, maybe_servers);
  }
  resolve_detail::Query query;
  query.port = port;
  if (status == ARES_SUCCESS) {
    ares_addrinfo_hints hints = {};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = ARES_AI_NOSORT;
    ares_getaddrinfo(channel, host.c_str(), nullptr, &hints, &resolve_detail::Done, &query);
    for (int round = 0; round < kRoundsMax && !query.is_done; ++round) {
      ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
      const int bits = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
      pollfd polled[ARES_GETSOCK_MAXNUM];
      nfds_t count = 0;
      for (int i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
        const bool reads = ARES_GETSOCK_READABLE(bits, i);
        const bool writes = ARES_GETSOCK_WRITABLE(bits, i);
        if (!reads && !writes) continue;
        polled[count++] = {sockets[i], static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0};
      }
      timeval longest = {1, 0};
      timeval left = {};
      const timeval* const wait = ares_timeout(channel, &longest, &left);
      poll(polled, count, static_cast<int>(wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1));
      bool is_ready = false;
      for (nfds_t i = 0; i < count; ++i) {
        if (polled[i].revents == 0) continue;
        is_ready = true;
        ares_process_fd(channel, (polled[i].revents & ~POLLOUT) != 0 ? polled[i].fd : ARES_SOCKET_BAD,
                        (polled[i].revents & POLLOUT) != 0 ? polled[i].fd : ARES_SOCKET_BAD);
      }
      if (!is_ready) ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    }
    status = query.is_done ? query.status : static_cast<int>(ARES_ETIMEOUT);
  }
  if (channel != nullptr) ares_destroy(channel);  // Ends a query that is open still.
  ares_library_cleanup();
  if (status != ARES_SUCCESS) {
    query.addresses.clear();
    *error = ares_strerror(status);
  } else if (query.addresses.empty()) {
    *error = "the name has no address";
  }
  return query.addresses;
}

}  // namespace keyway
