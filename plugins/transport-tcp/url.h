// SPDX-License-Identifier: Apache-2.0
//
// Addresses of members: http://host:port, tcp://host:port, https://host:port, unix://path.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::transport_tcp {

struct Url {
  bool is_unix = false;
  bool is_tls = false;
  std::string host;  // Without brackets; the path if is_unix.
  uint16_t port = 0;
  std::string text;  // As given.

  friend bool operator==(const Url& a, const Url& b) { return a.text == b.text; }
};

// False: `*error` names the URL and what is wrong with it.
bool ParseUrl(std::string_view text, Url* out, std::string* error);

// One socket address.
struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;

  std::string ToString() const;
};

// True if `url` needs no name resolution; then `*out` is its address.
bool NumericAddress(const Url& url, Address* out);

}  // namespace keyway::transport_tcp
