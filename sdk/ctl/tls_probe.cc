// SPDX-License-Identifier: Apache-2.0
#include "tls_probe.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "keyway/tls.hpp"

namespace keyway::ctl {
namespace {

// A blocking connection whose calls give up in time; -1: none.
int ConnectTo(const std::string& host, const std::string& port, int limit_ms) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return -1;
  const timeval limit = {limit_ms / 1000, limit_ms % 1000 * 1000};
  int fd = -1;
  for (const addrinfo* at = found; at != nullptr && fd < 0; at = at->ai_next) {
    fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, at->ai_addr, at->ai_addrlen) == 0) break;
    close(fd);
    fd = -1;
  }
  freeaddrinfo(found);
  return fd;
}

std::string Words(SSL* ssl, const Flags& flags) {
  const int reason = ERR_GET_REASON(ERR_peek_last_error());
  const bool has_certificate = !flags.certificate_file.empty();
  const tls::Failure failure = tls::FailureOf(ssl);
  switch (failure.refusal) {
    case tls::Refusal::kRefusedRemotely:
      if (!has_certificate || reason == SSL_AD_REASON_OFFSET + TLS13_AD_CERTIFICATE_REQUIRED) {
        return "the server requires a client certificate (--cert and --key): " + failure.text;
      }
      return "the server does not accept the certificate of --cert: " + failure.text;
    case tls::Refusal::kNotTls:
      return "the server does not speak TLS; use http:// and no certificates";
    case tls::Refusal::kOther:
      return "";
    default:
      return "the certificate of the server is not accepted (" + std::string(tls::Name(failure.refusal)) +
             "): " + failure.text;
  }
}

}  // namespace

std::string ExplainTls(const std::string& target, bool is_tls, const Flags& flags, int limit_ms) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos) return "";
  std::string host = target.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const tls::ContextPtr context(SSL_CTX_new(TLS_client_method()));
  if (is_tls) {
    if (!flags.skips_tls_verify) SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    if (flags.ca_file.empty()) {
      SSL_CTX_set_default_verify_paths(context.get());
    } else if (SSL_CTX_load_verify_locations(context.get(), flags.ca_file.c_str(), nullptr) != 1) {
      return "no usable certificate in \"" + flags.ca_file + "\": " + tls::LastError();
    }
    if (!flags.certificate_file.empty()) {
      if (SSL_CTX_use_certificate_chain_file(context.get(), flags.certificate_file.c_str()) != 1) {
        return "no usable certificate in \"" + flags.certificate_file + "\": " + tls::LastError();
      }
      if (SSL_CTX_use_PrivateKey_file(context.get(), flags.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
        return "\"" + flags.key_file + "\" is not the key of \"" + flags.certificate_file +
               "\": " + tls::LastError();
      }
    }
  }
  const int fd = ConnectTo(host, target.substr(colon + 1), limit_ms);
  if (fd < 0) return "";
  const std::unique_ptr<SSL, tls::Deleter<SSL_free>> ssl(SSL_new(context.get()));
  SSL_set_fd(ssl.get(), fd);
  if (is_tls) tls::ExpectHost(ssl.get(), host);
  SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char*>("\x02h2"), 3);
  ERR_clear_error();
  std::string words;
  const bool is_done = SSL_connect(ssl.get()) == 1;
  if (!is_tls) {
    const bool is_alert = ERR_GET_REASON(ERR_peek_last_error()) >= SSL_AD_REASON_OFFSET;
    if (is_done || is_alert) words = "the server speaks TLS; use https:// or --cacert";
  } else if (!is_done) {
    words = Words(ssl.get(), flags);
  } else {
    // With TLS 1.3 the server judges the client's certificate after the client is done.
    char byte;
    if (SSL_read(ssl.get(), &byte, 1) <= 0) words = Words(ssl.get(), flags);
  }
  close(fd);
  return words;
}

}  // namespace keyway::ctl
