// SPDX-License-Identifier: Apache-2.0
//
// TLS: the material of keyway.identity/1, gRPC credentials made from it, and the check of a peer's
// certificate, which is ours and not gRPC's, so that a refusal can say why and can be repeated when the
// material changes.
#pragma once

#include <grpc/grpc_security.h>
#include <openssl/x509.h>

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "keyway/host.h"
#include "keyway/plugin.hpp"

namespace keyway::transport_grpc {

struct X509Deleter {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using X509Ptr = std::unique_ptr<X509, X509Deleter>;

// One generation of a role's material. Immutable.
struct Material {
  ~Material() { X509_STORE_free(store); }
  uint64_t generation = 0;
  bool must_show_certificate = false;  // Of a server: whether clients must.
  std::string chain, key;              // PEM; empty: none to show.
  std::string roots;                   // PEM; empty: none.
  X509_STORE* store = nullptr;         // The roots and the revocation lists; NULL: no roots.
};

// The certificates that the other end showed. Empty: none.
struct PeerChain {
  std::vector<X509Ptr> certificates;  // The leaf first.

  // From PEM; `chain` may or may not repeat the leaf. At most 8 are kept.
  PeerChain(std::string_view leaf, std::string_view chain);
  PeerChain() = default;
  PeerChain(PeerChain&&) = default;
  PeerChain& operator=(PeerChain&&) = default;

  bool empty() const { return certificates.empty(); }
  // DER of the leaf, and of the others one after the other.
  std::string LeafDer() const;
  std::string RestDer() const;
  // Whether the leaf is a certificate for `host`, a name or an address.
  bool IsFor(const std::string& host) const;
  // The names and addresses of the leaf, for messages.
  std::string Names() const;
};

// Checks dates, signatures up to the roots, the purpose and revocation. Empty: good; else the reason.
std::string CheckChain(const Material& material, const PeerChain& peer, bool is_server);

// The material of one role. Any thread.
class TlsRole {
 public:
  // `role` is "peer-server" or "peer-client". `maybe_identity` is NULL if the host does not grant it.
  TlsRole(const kw_host* host, const kw_identity* maybe_identity, const char* role)
      : host_(host), maybe_identity_(maybe_identity), role_(role) {}

  // Asks again; of a new generation that cannot be used the old one is kept. NULL: never had any.
  // `*error` is set if the newest could not be had.
  std::shared_ptr<const Material> Refresh(std::string* error);
  std::shared_ptr<const Material> current();

  // Credentials for a listener, which ask this role at every handshake. This outlives them.
  grpc_server_credentials* NewServerCredentials();
  // Credentials for a connection to `host`. NULL: `*error` says why.
  grpc_channel_credentials* NewChannelCredentials(const std::string& host, std::string* error);

 private:
  static grpc_ssl_certificate_config_reload_status Fetch(void* served,
                                                         grpc_ssl_server_certificate_config** config);
  std::shared_ptr<Material> Build(const kw_tls& material, std::string* error) const;

  const kw_host* const host_;
  const kw_identity* const maybe_identity_;
  const char* const role_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::shared_ptr<const Material> current_;
  uint64_t refused_generation_ = 0;  // Newest that cannot be used, with the reason.
  std::string refused_reason_;
  struct Served {  // What one listener of gRPC has.
    TlsRole* role;
    bool is_any;
    uint64_t generation;
  };
  std::list<Served> served_;
};

}  // namespace keyway::transport_grpc
