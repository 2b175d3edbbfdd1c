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
#include "stream.h"

namespace keyway::transport_tcp {

// Connects an SSL object to a socket, without SIGPIPE on a closed one.
void AttachSocket(SSL* ssl, int fd);
// The reason of the last failure of `ssl`, the certificate's included.
std::string TlsErrorText(SSL* ssl);

class TlsRole {
 public:
  // `role` is "peer-server" or "peer-client". `maybe_identity` is NULL if the host does not grant it.
  TlsRole(const kw_host* host, const kw_identity* maybe_identity, const char* role)
      : host_(host), maybe_identity_(maybe_identity), role_(role) {}
  ~TlsRole();

  // A connection's state for this role. `server_name` is checked against the acceptor's certificate.
  // NULL: `*error` says why there is none.
  std::unique_ptr<SSL, SslDeleter> NewConnection(std::string_view server_name, std::string* error);

 private:
  bool Refresh(std::string* error);
  SSL_CTX* Build(const kw_tls& material, std::string* error) const;

  const kw_host* const host_;
  const kw_identity* const maybe_identity_;
  const char* const role_;
  SSL_CTX* context_ = nullptr;
  uint64_t generation_ = 0;
};

// The DER forms of the certificate of the other end and of the rest of its chain. False: it showed none.
bool PeerCertificate(SSL* ssl, std::string* leaf, std::string* chain);

}  // namespace keyway::transport_tcp
