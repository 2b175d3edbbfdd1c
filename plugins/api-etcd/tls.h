// SPDX-License-Identifier: Apache-2.0
//
// TLS contexts from the material of keyway.identity/1, renewed when its generation moves.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <mutex>

#include "server.h"

namespace keyway::api_etcd {

// [any] thread.
class TlsProvider {
 public:
  explicit TlsProvider(Server* server) : server_(server) {}

  // Fetches the material and builds a context if it is new. FAILED_PRECONDITION if this role speaks
  // plain text. A bad new generation leaves the old context in use.
  int32_t Refresh(kw_error* error);
  // A new server-side session for `fd`, NULL without a context. The caller frees it.
  SSL* NewSession(int fd);

 private:
  struct ContextDeleter {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  using Context = std::shared_ptr<SSL_CTX>;

  static int32_t Build(const kw_tls& material, Context* out, kw_error* error);

  Server* const server_;
  std::mutex mutex_;
  Context context_;          // Guarded by mutex_.
  uint64_t generation_ = 0;  // Guarded by mutex_.
};

}  // namespace keyway::api_etcd
