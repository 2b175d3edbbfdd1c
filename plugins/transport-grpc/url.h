// SPDX-License-Identifier: Apache-2.0
//
// Member URLs: http://host:port (tcp:// is the same), https://host:port with TLS, unix:///path.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::transport_grpc {

struct Url {
  std::string text;  // As given.
  bool is_tls = false;
  bool is_unix = false;
  std::string host;  // A name, or an address without brackets; for Unix sockets the path.
  uint16_t port = 0;

  // As gRPC names it: for dialing, names through the c-ares resolver; and for listening.
  std::string Target() const;
  std::string ListenAddress() const;
  // True if `host` is an IPv4 or IPv6 address rather than a name.
  bool IsNumeric() const;

  bool operator==(const Url& other) const { return text == other.text; }
};

// False: `*error` names the URL and the fault.
bool ParseUrl(std::string_view text, Url* out, std::string* error);

// "ipv4:127.0.0.1:40312" (of gRPC, percent-encoded) as "127.0.0.1:40312".
std::string PlainAddress(std::string_view grpc_address);

}  // namespace keyway::transport_grpc
