// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL set-up: material in PEM, verification, and a socket BIO that never raises SIGPIPE.
#include "tls.h"

#include <openssl/bio.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

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

}  // namespace

void AttachSocket(SSL* ssl, int fd) {
  BIO* bio = BIO_new(SocketMethod());
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
}

std::unique_ptr<SSL, SslDeleter> TlsRole::NewConnection(std::string_view server_name, std::string* error) {
  if (!Refresh(error) && context_ == nullptr) return nullptr;
  std::unique_ptr<SSL, SslDeleter> ssl(SSL_new(context_.get()));
  if (ssl == nullptr) {
    *error = "tls: " + tls::LastError();
    return nullptr;
  }
  if (std::string_view(role_) == "peer-server") {
    SSL_set_accept_state(ssl.get());
    return ssl;
  }
  SSL_set_connect_state(ssl.get());
  tls::ExpectHost(ssl.get(), std::string(server_name));
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
    return false;
  }
  if (material == nullptr) {
    *error = std::string("https:// needs TLS material for ") + role_ + "; the [auth] plugin has none";
    return false;
  }
  const std::unique_ptr<kw_tls, void (*)(kw_tls*)> owner(material, material->release);
  if (context_ != nullptr &&
      (material->generation == generation_ || material->generation == failed_generation_)) {
    return true;
  }
  const bool is_server = std::string_view(role_) == "peer-server";
  tls::ContextPtr next = tls::NewContext(*material, is_server, error);
  if (next == nullptr) {
    *error = std::string(role_) + ": " + *error;
    failed_generation_ = material->generation;
    return false;
  }
  context_ = std::move(next);
  generation_ = material->generation;
  return true;
}

}  // namespace keyway::transport_tcp
