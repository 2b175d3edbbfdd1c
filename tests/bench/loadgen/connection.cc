// SPDX-License-Identifier: Apache-2.0
#include "connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace keyway::loadgen {
namespace {

constexpr size_t kOutputBytesMax = 256 * 1024;  // Stop asking nghttp2 for more above this.
constexpr int32_t kStreamWindow = 1 << 20;
constexpr int32_t kConnectionWindow = 1 << 24;

nghttp2_nv Header(std::string_view name, std::string_view value) {
  auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

SSL_CTX* tls_context = nullptr;  // Set before the first connection; NULL: plain text.

}  // namespace

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

Connection::Connection(int epoll, std::string endpoint, uint32_t number, Events* events)
    : epoll_(epoll), endpoint_(std::move(endpoint)), number_(number), events_(events) {}

Connection::~Connection() {
  nghttp2_session_del(session_);
  SSL_free(ssl_);
  if (fd_ >= 0) close(fd_);
}

void Connection::UseTls(const std::string& ca_file, const std::string& certificate_file,
                        const std::string& key_file) {
  tls_context = SSL_CTX_new(TLS_client_method());
  const auto fail = [](const std::string& what) {
    char text[160] = "";
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    fprintf(stderr, "%s: %s\n", what.c_str(), text);
    exit(2);
  };
  SSL_CTX_set_min_proto_version(tls_context, TLS1_2_VERSION);
  SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_protos(tls_context, reinterpret_cast<const unsigned char*>("\x02h2"), 3);
  if (SSL_CTX_load_verify_locations(tls_context, ca_file.c_str(), nullptr) != 1) fail(ca_file);
  SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, nullptr);
  if (certificate_file.empty()) return;
  if (SSL_CTX_use_certificate_chain_file(tls_context, certificate_file.c_str()) != 1) fail(certificate_file);
  if (SSL_CTX_use_PrivateKey_file(tls_context, key_file.c_str(), SSL_FILETYPE_PEM) != 1) fail(key_file);
}

ssize_t Connection::TlsResult(int result) {
  const int error = SSL_get_error(ssl_, result);
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
    errno = EAGAIN;
    return -1;
  }
  const unsigned long code = ERR_peek_last_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  const long verified = SSL_get_verify_result(ssl_);
  tls_error_ = "tls: ";
  tls_error_ += verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                : reason != nullptr   ? reason
                                      : "closed by the server";
  ERR_clear_error();
  errno = EPROTO;
  return -1;
}
ssize_t Connection::Read(uint8_t* bytes, size_t size) {
  if (ssl_ == nullptr) return recv(fd_, bytes, size, 0);
  ERR_clear_error();
  const int result = SSL_read(ssl_, bytes, static_cast<int>(size));
  return result > 0 ? result : TlsResult(result);
}
ssize_t Connection::Write(const char* bytes, size_t size) {
  if (ssl_ == nullptr) return send(fd_, bytes, size, MSG_NOSIGNAL);
  ERR_clear_error();
  const int result = SSL_write(ssl_, bytes, static_cast<int>(std::min<size_t>(size, 1 << 30)));
  return result > 0 ? result : TlsResult(result);
}
std::string Connection::ErrorText() const {
  return errno == EPROTO && ssl_ != nullptr ? tls_error_ : strerror(errno);
}

void Connection::Connect() {
  const size_t colon = endpoint_.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (colon == std::string::npos ||
      inet_pton(AF_INET, endpoint_.substr(0, colon).c_str(), &address.sin_addr) != 1) {
    fprintf(stderr, "endpoint '%s' is not IPV4:PORT\n", endpoint_.c_str());
    exit(2);
  }
  address.sin_port = htons(static_cast<uint16_t>(atoi(endpoint_.c_str() + colon + 1)));
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) {
    perror("socket");
    exit(2);
  }
  const int one = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  epoll_event event{};
  event.events = interest_ = EPOLLIN | EPOLLOUT;
  event.data.ptr = this;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd_, &event);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) {
    Lose(strerror(errno));
  }
}

void Connection::Start(Call* call, std::string_view path) {
  call->connection = this;
  call->sent = 0;
  call->deferred = false;
  call->open = true;
  call->grpc_status = -1;
  call->http_status = 0;
  call->reply_bytes = 0;
  call->body.clear();
  call->message.clear();
  call->start_ns = NowNs();
  const nghttp2_nv headers[] = {
      Header(":method", "POST"),       Header(":scheme", "http"), Header(":path", path),
      Header(":authority", endpoint_), Header("te", "trailers"),  Header("content-type", "application/grpc"),
  };
  nghttp2_data_provider provider;
  provider.source.ptr = call;
  provider.read_callback = &ReadBody;
  call->stream_id =
      nghttp2_submit_request(session_, nullptr, headers, sizeof headers / sizeof headers[0], &provider, call);
  if (call->stream_id < 0) {
    fprintf(stderr, "submit: %s\n", nghttp2_strerror(call->stream_id));
    exit(2);
  }
  calls_.push_back(call);
}

void Connection::Send(Call* call, std::string_view message) {
  if (call->sent == call->request.size()) {
    call->request.clear();
    call->sent = 0;
  }
  call->request.append(message);
  if (call->deferred) {
    call->deferred = false;
    nghttp2_session_resume_data(session_, call->stream_id);
  }
}

void Connection::Reset(Call* call) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
}

ssize_t Connection::ReadBody(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                             nghttp2_data_source* source, void*) {
  Call* const call = static_cast<Call*>(source->ptr);
  const size_t count = std::min(size, call->request.size() - call->sent);
  if (count == 0 && !call->half_close) {
    call->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  memcpy(buffer, call->request.data() + call->sent, count);
  call->sent += count;
  if (call->half_close && call->sent == call->request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(count);
}

int Connection::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                         size_t name_size, const uint8_t* value, size_t value_size, uint8_t, void*) {
  auto* const call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
  if (call == nullptr) return 0;
  const std::string_view key(reinterpret_cast<const char*>(name), name_size);
  const std::string_view text(reinterpret_cast<const char*>(value), value_size);
  if (key == ":status") call->http_status = atoi(std::string(text).c_str());
  if (key == "grpc-status") call->grpc_status = atoi(std::string(text).c_str());
  if (key == "grpc-message") call->message = text;
  return 0;
}

int Connection::OnData(nghttp2_session* session, uint8_t, int32_t stream_id, const uint8_t* data, size_t size,
                       void* user) {
  auto* const call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream_id));
  if (call == nullptr) return 0;
  if (call->reply_bytes < call->head.size()) {
    const size_t room = call->head.size() - call->reply_bytes;
    memcpy(call->head.data() + call->reply_bytes, data, std::min(room, size));
  }
  call->reply_bytes += size;
  if (call->keep_body) {
    call->body.append(reinterpret_cast<const char*>(data), size);
    static_cast<Connection*>(user)->events_->OnBody(call);
  }
  return 0;
}

int Connection::OnStreamClose(nghttp2_session* session, int32_t stream_id, uint32_t, void* user) {
  auto* const self = static_cast<Connection*>(user);
  auto* const call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream_id));
  if (call == nullptr) return 0;
  nghttp2_session_set_stream_user_data(session, stream_id, nullptr);
  const auto found = std::find(self->calls_.begin(), self->calls_.end(), call);
  if (found != self->calls_.end()) {
    *found = self->calls_.back();
    self->calls_.pop_back();
  }
  call->open = false;
  self->events_->OnClose(call, call->grpc_status < 0);
  return 0;
}

void Connection::OnReady(uint32_t ready) {
  if (fd_ < 0) return;
  if (!connected_) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return Lose(strerror(error));
    if (ssl_ == nullptr && (ready & EPOLLOUT) == 0) return;
    if (tls_context != nullptr) {
      if (ssl_ == nullptr) {
        ssl_ = SSL_new(tls_context);
        SSL_set_fd(ssl_, fd_);
        SSL_set_connect_state(ssl_);
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_),
                                      endpoint_.substr(0, endpoint_.rfind(':')).c_str());
        Interest(EPOLLIN);
      }
      ERR_clear_error();
      const int result = SSL_do_handshake(ssl_);
      if (result != 1) {
        if (TlsResult(result) < 0 && errno == EAGAIN) return;
        return Lose(ErrorText());
      }
    }
    OnEstablished();
    return;
  }
  if ((ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    static uint8_t buffer[256 * 1024];
    // A read of TLS gives one record.
    const int rounds = ssl_ == nullptr ? 4 : 64;
    for (int round = 0; round < rounds || (ssl_ != nullptr && SSL_pending(ssl_) > 0); ++round) {
      const ssize_t got = Read(buffer, sizeof buffer);
      if (got == 0) return Lose("closed by the server");
      if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) break;
        return Lose(ErrorText());
      }
      const ssize_t used = nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(got));
      if (used < 0) return Lose(nghttp2_strerror(static_cast<int>(used)));
      if (ssl_ == nullptr && static_cast<size_t>(got) < sizeof buffer) break;
    }
  }
  Flush();
}

void Connection::OnEstablished() {
  connected_ = true;
  {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, &OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &OnStreamClose);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
    };
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
  }
  events_->OnConnected(this);
  Flush();
}

void Connection::Flush() {
  if (fd_ < 0 || !connected_) return;
  while (true) {
    while (output_.size() - output_start_ < kOutputBytesMax) {
      const uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size < 0) return Lose(nghttp2_strerror(static_cast<int>(size)));
      if (size == 0) break;
      output_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    }
    if (output_start_ == output_.size()) break;
    const ssize_t sent = Write(output_.data() + output_start_, output_.size() - output_start_);
    if (sent < 0) {
      if (errno == EAGAIN || errno == EINTR) return Interest(EPOLLIN | EPOLLOUT);
      return Lose(ErrorText());
    }
    output_start_ += static_cast<size_t>(sent);
    if (output_start_ == output_.size()) {
      output_.clear();
      output_start_ = 0;
    }
  }
  Interest(EPOLLIN);
  if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
    Lose("session is over (GOAWAY)");
  }
}

void Connection::Interest(uint32_t events) {
  if (events == interest_) return;
  epoll_event event{};
  event.events = interest_ = events;
  event.data.ptr = this;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd_, &event);
}

void Connection::Lose(const std::string& why) {
  SSL_free(ssl_);
  ssl_ = nullptr;
  close(fd_);
  fd_ = -1;
  connected_ = false;
  output_.clear();
  output_start_ = 0;
  std::vector<Call*> calls;
  calls.swap(calls_);
  for (Call* call : calls) {
    nghttp2_session_set_stream_user_data(session_, call->stream_id, nullptr);
    call->open = false;
  }
  nghttp2_session_del(session_);
  session_ = nullptr;
  for (Call* call : calls) events_->OnClose(call, true);
  events_->OnLost(this, why);
}

}  // namespace keyway::loadgen
