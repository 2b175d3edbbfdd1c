// SPDX-License-Identifier: Apache-2.0
//
// The server's context: sdk/cpp/keyway/tls.hpp plus ALPN h2 and http/1.1.
#include "tls.h"

#include <string>

namespace keyway::api_etcd {
namespace {

constexpr uint64_t kQuietNs = 1'000'000'000;

int SelectAlpn(SSL*, const unsigned char** out, unsigned char* out_bytes, const unsigned char* in,
               unsigned int in_bytes, void*) {
  static constexpr unsigned char kProtocols[] = "\x02h2\x08http/1.1";
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, out_bytes, kProtocols, sizeof kProtocols - 1, in, in_bytes) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

void TlsProvider::Start() {
  for (size_t i = 0; i < tls::kRefusalCount; ++i) {
    reasons_[i].count =
        Counter(server_->host, "keyway_tls_refusals_total", "Connections refused for their certificate.",
                {LogField("port", "client"), LogField("reason", tls::kRefusalNames[i])});
  }
  evictions_ = Counter(server_->host, "keyway_tls_handshakes_evicted_total",
                       "Unfinished handshakes that made room for newer ones.", {LogField("port", "client")});
}

int32_t TlsProvider::Refresh(kw_error* error) {
  kw_tls* material = nullptr;
  const int32_t code = server_->identity == nullptr
                           ? KW_OK
                           : server_->identity->tls(server_->host, "client-server", &material, error);
  if (code != KW_OK) return code;
  if (material == nullptr) {
    return Fail(error, KW_FAILED_PRECONDITION,
                "https listeners need an authenticator with TLS material for client-server");
  }
  const std::unique_ptr<kw_tls, void (*)(kw_tls*)> owner(material, material->release);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (context_ != nullptr && material->generation == generation()) return KW_OK;
    if (context_ != nullptr && material->generation == failed_generation_) return KW_OK;
  }
  std::string why;
  const Context context(tls::NewContext(*material, true, &why).release(), SSL_CTX_free);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (context == nullptr) {
    failed_generation_ = material->generation;
    return Fail(error, KW_INVALID_ARGUMENT, "TLS material: ", std::string_view(why));
  }
  SSL_CTX_set_alpn_select_cb(context.get(), &SelectAlpn, nullptr);
  context_ = context;
  generation_.store(material->generation, std::memory_order_release);
  return KW_OK;
}

SSL* TlsProvider::NewSession(int fd) {
  Context context;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    context = context_;
  }
  if (context == nullptr) return nullptr;
  SSL* const ssl = SSL_new(context.get());
  if (ssl == nullptr) return nullptr;
  if (SSL_set_fd(ssl, fd) != 1) {
    SSL_free(ssl);
    return nullptr;
  }
  SSL_set_accept_state(ssl);
  return ssl;
}

void TlsProvider::NoteRefusal(tls::Refusal refusal, std::string_view address, std::string_view text) {
  Reason& reason = reasons_[static_cast<size_t>(refusal)];
  reason.count.Add();
  const uint64_t now_ns = server_->clock.MonoNs();
  uint64_t suppressed = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (now_ns < reason.quiet_until_ns) {
      ++reason.suppressed;
      return;
    }
    reason.quiet_until_ns = now_ns + kQuietNs;
    suppressed = std::exchange(reason.suppressed, 0);
  }
  server_->log.Warn(
      "client_refused",
      {{"address", address}, {"reason", tls::Name(refusal)}, {"detail", text}, {"suppressed", suppressed}});
}

void TlsProvider::NoteEviction() { evictions_.Add(); }

}  // namespace keyway::api_etcd
