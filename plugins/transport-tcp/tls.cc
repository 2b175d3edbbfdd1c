// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL set-up: material in PEM, verification, and a socket BIO that never raises SIGPIPE.
#include "tls.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cerrno>

namespace keyway::transport_tcp {
namespace {

int SocketOf(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }

int BioWrite(BIO* bio, const char* bytes, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent = send(SocketOf(bio), bytes, static_cast<size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int BioRead(BIO* bio, char* bytes, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t got = recv(SocketOf(bio), bytes, static_cast<size_t>(size), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) BIO_set_retry_read(bio);
  if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return static_cast<int>(got);
}

long BioControl(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD* SocketMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "keyway socket");
    BIO_meth_set_write(made, BioWrite);
    BIO_meth_set_read(made, BioRead);
    BIO_meth_set_ctrl(made, BioControl);
    return made;
  }();
  return method;
}

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPtr = std::unique_ptr<BIO, BioDeleter>;

BioPtr Memory(kw_slice pem) { return BioPtr(BIO_new_mem_buf(pem.ptr, static_cast<int>(pem.len))); }

std::string LastError() {
  char text[160] = "unknown";
  const unsigned long code = ERR_get_error();
  if (code != 0) ERR_error_string_n(code, text, sizeof(text));
  ERR_clear_error();
  return text;
}

bool UseChain(SSL_CTX* context, kw_slice pem) {
  BioPtr bio = Memory(pem);
  X509* leaf = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr);
  bool ok = leaf != nullptr && SSL_CTX_use_certificate(context, leaf) == 1;
  X509_free(leaf);
  for (X509* next; ok && (next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) != nullptr;) {
    ok = SSL_CTX_add0_chain_cert(context, next) == 1;
    if (!ok) X509_free(next);
  }
  return ok;
}

bool UseRoots(SSL_CTX* context, kw_slice roots, kw_slice crl) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  size_t count = 0;
  BioPtr bio = Memory(roots);
  for (X509* next; (next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) != nullptr; ++count) {
    const bool ok = X509_STORE_add_cert(store, next) == 1;
    X509_free(next);
    if (!ok) return false;
  }
  if (count == 0) return false;
  if (crl.len == 0) return true;
  bio = Memory(crl);
  X509_CRL* list = PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr);
  const bool ok = list != nullptr && X509_STORE_add_crl(store, list) == 1;
  X509_CRL_free(list);
  return ok && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) == 1;
}

bool AppendDer(X509* certificate, std::string* out) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  if (size <= 0) return false;
  out->append(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return true;
}

}  // namespace

void AttachSocket(SSL* ssl, int fd) {
  BIO* bio = BIO_new(SocketMethod());
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
}

std::string TlsErrorText(SSL* ssl) {
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) {
    ERR_clear_error();
    return std::string("certificate: ") + X509_verify_cert_error_string(verified);
  }
  return LastError();
}

TlsRole::~TlsRole() { SSL_CTX_free(context_); }

std::unique_ptr<SSL, SslDeleter> TlsRole::NewConnection(std::string_view server_name, std::string* error) {
  if (!Refresh(error)) return nullptr;
  std::unique_ptr<SSL, SslDeleter> ssl(SSL_new(context_));
  if (ssl == nullptr) {
    *error = "tls: " + LastError();
    return nullptr;
  }
  if (std::string_view(role_) == "peer-server") {
    SSL_set_accept_state(ssl.get());
    return ssl;
  }
  SSL_set_connect_state(ssl.get());
  const std::string name(server_name);
  char scratch[16];
  if (inet_pton(AF_INET, name.c_str(), scratch) == 1 || inet_pton(AF_INET6, name.c_str(), scratch) == 1) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), name.c_str());
  } else {
    SSL_set_tlsext_host_name(ssl.get(), name.c_str());
    SSL_set1_host(ssl.get(), name.c_str());
  }
  return ssl;
}

bool TlsRole::Refresh(std::string* error) {
  if (maybe_identity_ == nullptr) {
    *error = "https:// needs an [auth] plugin that has TLS material; none is granted to this transport";
    return false;
  }
  kw_tls* material = nullptr;
  kw_error failure = {};
  failure.size = sizeof(failure);
  if (maybe_identity_->tls(host_, role_, &material, &failure) != KW_OK) {
    *error = std::string("no TLS material for ") + role_ + ": " + failure.text;
    return context_ != nullptr;
  }
  if (material == nullptr) {
    *error = std::string("https:// needs TLS material for ") + role_ + "; the [auth] plugin has none";
    return false;
  }
  bool ok = true;
  if (context_ == nullptr || generation_ != material->generation) {
    SSL_CTX* next = Build(*material, error);
    if (next != nullptr) {
      SSL_CTX_free(context_);
      context_ = next;
      generation_ = material->generation;
    }
    ok = context_ != nullptr;
  }
  material->release(material);
  return ok;
}

SSL_CTX* TlsRole::Build(const kw_tls& material, std::string* error) const {
  const bool is_server = std::string_view(role_) == "peer-server";
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(
      SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method()), &SSL_CTX_free);
  const std::string_view version(reinterpret_cast<const char*>(material.min_version.ptr),
                                 material.min_version.len);
  SSL_CTX_set_min_proto_version(context.get(), version == "1.3" ? TLS1_3_VERSION : TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  const auto fail = [&](const char* what) {
    *error = std::string(role_) + ": " + what + ": " + LastError();
    return nullptr;
  };
  if (material.ciphers.len > 0) {
    const std::string list(reinterpret_cast<const char*>(material.ciphers.ptr), material.ciphers.len);
    if (SSL_CTX_set_cipher_list(context.get(), list.c_str()) != 1) return fail("ciphers");
  }
  if (material.chain.len > 0) {
    if (!UseChain(context.get(), material.chain)) return fail("certificate chain");
    BioPtr bio = Memory(material.key);
    EVP_PKEY* key = PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr);
    const bool ok = key != nullptr && SSL_CTX_use_PrivateKey(context.get(), key) == 1;
    EVP_PKEY_free(key);
    if (!ok || SSL_CTX_check_private_key(context.get()) != 1) return fail("private key");
  } else if (is_server) {
    return fail("no certificate chain");
  }
  if (material.roots.len > 0 && !UseRoots(context.get(), material.roots, material.crl)) {
    return fail("roots");
  }
  const bool must_verify = !is_server || (material.flags & KW_TLS_REQUIRE_PEER_CERTIFICATE) != 0;
  if (must_verify && material.roots.len == 0) return fail("no roots to verify the other end with");
  SSL_CTX_set_verify(context.get(),
                     must_verify ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE,
                     nullptr);
  return context.release();
}

bool PeerCertificate(SSL* ssl, std::string* leaf, std::string* chain) {
  X509* certificate = SSL_get0_peer_certificate(ssl);
  if (certificate == nullptr || !AppendDer(certificate, leaf)) return false;
  STACK_OF(X509)* rest = SSL_get_peer_cert_chain(ssl);
  // The client's view of the chain starts with the leaf, the server's does not.
  for (int i = SSL_is_server(ssl) ? 0 : 1; rest != nullptr && i < sk_X509_num(rest) && i < 8; ++i) {
    if (!AppendDer(sk_X509_value(rest, i), chain)) return false;
  }
  return true;
}

}  // namespace keyway::transport_tcp
