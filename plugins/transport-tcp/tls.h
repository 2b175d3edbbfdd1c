// SPDX-License-Identifier: Apache-2.0
//
// TLS contexts from the material of keyway.identity/1. One TlsRole is owned by the I/O thread.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "keyway/host.h"
#include "keyway/tls.hpp"
#include "stream.h"

namespace keyway::transport_tcp {

// Connects an SSL object to a socket, without SIGPIPE on a closed one.
void AttachSocket(SSL* ssl, int fd);

class TlsRole {
 public:
  // `role` is "peer-server" or "peer-client". `maybe_identity` is NULL if the host does not grant it.
  TlsRole(const kw_host* host, const kw_identity* maybe_identity, const char* role)
      : host_(host), maybe_identity_(maybe_identity), role_(role) {}

  // A connection's state for this role. `server_name` is checked against the acceptor's certificate.
  // NULL: `*error` says why there is none.
  std::unique_ptr<SSL, SslDeleter> NewConnection(std::string_view server_name, std::string* error);
  // Takes over new material. False: there is none, or the new one is bad; `*error` says why, and what was
  // in use stays so.
  bool Refresh(std::string* error);
  // Of the context in use; 0: none was asked for yet.
  uint64_t generation() const { return generation_; }

 private:
  const kw_host* const host_;
  const kw_identity* const maybe_identity_;
  const char* const role_;
  tls::ContextPtr context_;
  uint64_t generation_ = 0;
  uint64_t failed_generation_ = 0;
};

}  // namespace keyway::transport_tcp
