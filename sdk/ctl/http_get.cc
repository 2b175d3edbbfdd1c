// SPDX-License-Identifier: Apache-2.0
#include "http_get.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace keyway::ctl {
namespace {

constexpr size_t kAnswerBytesMax = 4 << 20;

struct Target {
  std::string host, port;
  bool is_tls = false;
};

bool ParseTarget(const Context& context, std::string text, Target* out) {
  const Flags& flags = context.flags;
  out->is_tls = !flags.ca_file.empty() || !flags.certificate_file.empty();
  if (text.rfind("http://", 0) == 0) {
    text = text.substr(7);
    out->is_tls = false;
  } else if (text.rfind("https://", 0) == 0) {
    text = text.substr(8);
    out->is_tls = true;
  }
  if (!text.empty() && text.back() == '/') text.pop_back();
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  out->host = text.substr(0, colon);
  out->port = text.substr(colon + 1);
  if (out->host.front() == '[' && out->host.back() == ']')
    out->host = out->host.substr(1, out->host.size() - 2);
  return true;
}

timeval ToTimeval(std::chrono::nanoseconds duration) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  return {us / 1'000'000, us % 1'000'000};
}

// A connected socket with its timeouts set, or -1 with the reason.
int Connect(const Context& context, const Target& target, std::string* error) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int result = getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &list);
  if (result != 0) {
    *error = gai_strerror(result);
    return -1;
  }
  int connected = -1;
  for (const addrinfo* each = list; each != nullptr && connected < 0; each = each->ai_next) {
    const int fd = socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC, each->ai_protocol);
    // The timeout for sending is the one for connecting, too.
    const timeval dial = ToTimeval(context.dial_timeout);
    const timeval command = ToTimeval(context.command_timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &dial, sizeof dial);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &command, sizeof command);
    if (fd >= 0 && connect(fd, each->ai_addr, each->ai_addrlen) == 0) {
      connected = fd;
    } else {
      *error = errno == EINPROGRESS ? "timed out" : std::strerror(errno);
      if (fd >= 0) close(fd);
    }
  }
  freeaddrinfo(list);
  return connected;
}

std::string TlsError() {
  const unsigned long code = ERR_get_error();
  return code == 0 ? "the connection was closed" : ERR_reason_error_string(code);
}

// A connection with or without TLS.
class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}
  ~Stream() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    close(fd_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  bool StartTls(const Flags& flags, const std::string& host, std::string* error) {
    context_ = SSL_CTX_new(TLS_client_method());
    ssl_ = nullptr;
    bool ok = SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION) == 1;
    ok = ok && (flags.ca_file.empty()
                    ? SSL_CTX_set_default_verify_paths(context_)
                    : SSL_CTX_load_verify_locations(context_, flags.ca_file.c_str(), nullptr)) == 1;
    if (ok && !flags.certificate_file.empty()) {
      ok = SSL_CTX_use_certificate_chain_file(context_, flags.certificate_file.c_str()) == 1 &&
           SSL_CTX_use_PrivateKey_file(context_, flags.key_file.c_str(), SSL_FILETYPE_PEM) == 1;
    }
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    ssl_ = ok ? SSL_new(context_) : nullptr;
    ok = ssl_ != nullptr && SSL_set_fd(ssl_, fd_) == 1;
    X509_VERIFY_PARAM* verify = ok ? SSL_get0_param(ssl_) : nullptr;
    if (ok && X509_VERIFY_PARAM_set1_ip_asc(verify, host.c_str()) != 1) {
      ok = SSL_set1_host(ssl_, host.c_str()) == 1 && SSL_set_tlsext_host_name(ssl_, host.c_str()) == 1;
    }
    ERR_clear_error();
    if (ok && SSL_connect(ssl_) == 1) return true;
    const long verified = ssl_ == nullptr ? X509_V_OK : SSL_get_verify_result(ssl_);
    *error = verified != X509_V_OK ? X509_verify_cert_error_string(verified) : TlsError();
    return false;
  }
  bool Write(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const size_t left = text.size() - at;
      const ssize_t sent = ssl_ != nullptr ? SSL_write(ssl_, text.data() + at, static_cast<int>(left))
                                           : send(fd_, text.data() + at, left, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      at += static_cast<size_t>(sent);
    }
    return true;
  }
  // Until the other side closes.
  bool ReadAll(std::string* out) {
    char bytes[16384];
    while (out->size() < kAnswerBytesMax) {
      const ssize_t got =
          ssl_ != nullptr ? SSL_read(ssl_, bytes, sizeof bytes) : recv(fd_, bytes, sizeof bytes, 0);
      if (got == 0 || (ssl_ != nullptr && got < 0 &&
                       SSL_get_error(ssl_, static_cast<int>(got)) == SSL_ERROR_ZERO_RETURN)) {
        return true;
      }
      if (got < 0) return ssl_ != nullptr && !out->empty();  // Closed without a close_notify.
      out->append(bytes, static_cast<size_t>(got));
    }
    return false;
  }

 private:
  const int fd_;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
};

}  // namespace

int HttpGet(const Context& context, const std::string& endpoint, const std::string& path, std::string* body,
            std::string* error) {
  Target target;
  if (!ParseTarget(context, endpoint, &target)) {
    *error = "endpoint \"" + endpoint + "\" is not of the form host:port";
    return kBadConnection;
  }
  const std::string place = "endpoint " + endpoint + ": ";
  const int fd = Connect(context, target, error);
  if (fd < 0) {
    *error = place + *error;
    return kBadConnection;
  }
  Stream stream(fd);
  if (target.is_tls && !stream.StartTls(context.flags, target.host, error)) {
    *error = place + *error;
    return kBadConnection;
  }
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: " + target.host + "\r\nConnection: close\r\n\r\n";
  std::string answer;
  if (!stream.Write(request) || !stream.ReadAll(&answer)) {
    *error = place + "the answer did not come in time, or not whole";
    return kBadConnection;
  }
  const size_t head_end = answer.find("\r\n\r\n");
  const std::string status = answer.substr(0, answer.find("\r\n"));
  if (status.rfind("HTTP/1.1 200", 0) != 0 || head_end == std::string::npos) {
    *error = place + "GET " + path + " was answered with \"" + status.substr(0, 100) + "\"";
    return kError;
  }
  *body = answer.substr(head_end + 4);
  return kOk;
}

}  // namespace keyway::ctl
