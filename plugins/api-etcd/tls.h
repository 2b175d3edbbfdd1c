// SPDX-License-Identifier: Apache-2.0
//
// TLS contexts from the material of keyway.identity/1, renewed when its generation moves, and the record
// of refused connections.
#pragma once

#include <openssl/ssl.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string_view>

#include "keyway/tls.hpp"
#include "server.h"

namespace keyway::api_etcd {

// [any] thread.
class TlsProvider {
 public:
  explicit TlsProvider(Server* server) : server_(server) {}

  // Fetches the material and builds a context if it is new. FAILED_PRECONDITION if this role speaks
  // plain text. A bad new generation leaves the old context in use.
  int32_t Refresh(kw_error* error);
  // Of the context in use; what was authenticated under another one has to be authenticated again.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  // A new server-side session for `fd`, NULL without a context. The caller frees it.
  SSL* NewSession(int fd);

  // Makes the metrics. [control]
  void Start();
  // Counts a refusal and logs it, each reason at most once a second.
  void NoteRefusal(tls::Refusal refusal, std::string_view address, std::string_view text);
  // A handshake that made room for a newer one.
  void NoteEviction();

 private:
  using Context = std::shared_ptr<SSL_CTX>;
  struct Reason {
    Counter count;
    uint64_t quiet_until_ns = 0;  // Guarded by mutex_.
    uint64_t suppressed = 0;      // Guarded by mutex_.
  };

  Server* const server_;
  std::array<Reason, tls::kRefusalCount> reasons_;
  Counter evictions_;
  std::atomic<uint64_t> generation_ = 0;
  std::mutex mutex_;
  Context context_;                 // Guarded by mutex_.
  uint64_t failed_generation_ = 0;  // Guarded by mutex_.
};

}  // namespace keyway::api_etcd
