// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL contexts: TLS 1.2 or newer, ALPN h2 and http/1.1, client certificates against the
// configured roots and revocation lists.
#include "tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <string>

namespace keyway::api_etcd {
namespace {

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct X509Deleter {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
struct CrlDeleter {
  void operator()(X509_CRL* crl) const { X509_CRL_free(crl); }
};
struct KeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Bio = std::unique_ptr<BIO, BioDeleter>;
using Certificate = std::unique_ptr<X509, X509Deleter>;

Bio Memory(kw_slice bytes) { return Bio(BIO_new_mem_buf(bytes.ptr, static_cast<int>(bytes.len))); }

int32_t OpenSslError(kw_error* error, std::string_view what) {
  char text[160] = "no detail";
  const unsigned long code = ERR_get_error();
  if (code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return Fail(error, KW_INVALID_ARGUMENT, "TLS material: ", what, ": ", std::string_view(text));
}

bool LoadChain(SSL_CTX* context, kw_slice pem) {
  const Bio bio = Memory(pem);
  const Certificate leaf(PEM_read_bio_X509_AUX(bio.get(), nullptr, nullptr, nullptr));
  if (leaf == nullptr || SSL_CTX_use_certificate(context, leaf.get()) != 1) return false;
  while (X509* const next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    if (SSL_CTX_add0_chain_cert(context, next) != 1) {
      X509_free(next);
      return false;
    }
  }
  ERR_clear_error();  // The end of the file.
  return true;
}

bool LoadKey(SSL_CTX* context, kw_slice pem) {
  const Bio bio = Memory(pem);
  const std::unique_ptr<EVP_PKEY, KeyDeleter> key(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  return key != nullptr && SSL_CTX_use_PrivateKey(context, key.get()) == 1 &&
         SSL_CTX_check_private_key(context) == 1;
}

bool LoadRoots(SSL_CTX* context, kw_slice pem) {
  X509_STORE* const store = SSL_CTX_get_cert_store(context);
  const Bio bio = Memory(pem);
  size_t count = 0;
  while (X509* const next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    const Certificate certificate(next);
    if (X509_STORE_add_cert(store, next) != 1 || SSL_CTX_add_client_CA(context, next) != 1) {
      return false;
    }
    ++count;
  }
  ERR_clear_error();
  return count != 0;
}

bool LoadCrls(SSL_CTX* context, kw_slice pem) {
  X509_STORE* const store = SSL_CTX_get_cert_store(context);
  const Bio bio = Memory(pem);
  size_t count = 0;
  while (X509_CRL* const next = PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr)) {
    const std::unique_ptr<X509_CRL, CrlDeleter> crl(next);
    if (X509_STORE_add_crl(store, next) != 1) return false;
    ++count;
  }
  ERR_clear_error();
  return count != 0 && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) == 1;
}

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

int32_t TlsProvider::Build(const kw_tls& material, Context* out, kw_error* error) {
  ERR_clear_error();
  const Context context(SSL_CTX_new(TLS_server_method()), ContextDeleter());
  if (context == nullptr) return OpenSslError(error, "context");
  SSL_CTX* const raw = context.get();
  const int min_version = View(material.min_version) == "1.3" ? TLS1_3_VERSION : TLS1_2_VERSION;
  SSL_CTX_set_min_proto_version(raw, min_version);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(
      raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  // A resumed session would skip the check of a certificate that was revoked meanwhile.
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(raw, 0);
  SSL_CTX_set_options(raw, SSL_OP_NO_TICKET);
  SSL_CTX_set_alpn_select_cb(raw, &SelectAlpn, nullptr);
  if (material.ciphers.len != 0) {
    const std::string ciphers(View(material.ciphers));
    if (SSL_CTX_set_cipher_list(raw, ciphers.c_str()) != 1) return OpenSslError(error, "ciphers");
  }
  if (!LoadChain(raw, material.chain)) return OpenSslError(error, "certificate chain");
  if (!LoadKey(raw, material.key)) return OpenSslError(error, "private key");
  const bool is_required = (material.flags & KW_TLS_REQUIRE_PEER_CERTIFICATE) != 0;
  if (material.roots.len != 0) {
    if (!LoadRoots(raw, material.roots)) return OpenSslError(error, "roots");
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | (is_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  } else if (is_required) {
    return Fail(error, KW_INVALID_ARGUMENT,
                "TLS material: client certificates are required, but there are no roots");
  }
  if (material.crl.len != 0 && !LoadCrls(raw, material.crl)) {
    return OpenSslError(error, "revocation list");
  }
  *out = context;
  return KW_OK;
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
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (context_ != nullptr && material->generation == generation_) {
      material->release(material);
      return KW_OK;
    }
  }
  Context context;
  const int32_t built = Build(*material, &context, error);
  if (built == KW_OK) {
    const std::lock_guard<std::mutex> lock(mutex_);
    context_ = std::move(context);
    generation_ = material->generation;
  }
  material->release(material);
  return built;
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

}  // namespace keyway::api_etcd
