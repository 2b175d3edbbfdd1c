// SPDX-License-Identifier: Apache-2.0
//
// The test client.
#include "api_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>

#include "keyway/slice.hpp"

extern "C" const kw_entry* kw_plugin_entry_api_etcd(void);

namespace keyway::api_etcd::testing {

std::string Frame(const std::string& message, bool is_compressed) {
  const auto bytes = static_cast<uint32_t>(message.size());
  std::string out(1, is_compressed ? '\1' : '\0');
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(bytes >> shift));
  return out + message;
}

std::vector<std::string> Unframe(const std::string& body) {
  std::vector<std::string> messages;
  size_t at = 0;
  while (at + 5 <= body.size()) {
    uint32_t bytes = 0;
    for (size_t i = 1; i < 5; ++i) bytes = bytes << 8 | static_cast<uint8_t>(body[at + i]);
    if (at + 5 + bytes > body.size()) break;
    messages.push_back(body.substr(at + 5, bytes));
    at += 5 + bytes;
  }
  return messages;
}

// Below the ephemeral range, so that no client's own port can take it meanwhile.
int FreePort() {
  static std::mt19937 random{std::random_device{}()};
  for (int i = 0; i < 1000; ++i) {
    const auto port = static_cast<uint16_t>(20000 + random() % 12000);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    const bool is_free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(fd);
    if (is_free) return port;
  }
  return 0;
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  const timeval timeout = {20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

std::string ReadAll(int fd, const std::function<bool(const std::string&)>& done) {
  std::string out;
  char buffer[4096];
  while (!done || !done(out)) {
    const ssize_t count = recv(fd, buffer, sizeof buffer, 0);
    if (count <= 0) break;
    out.append(buffer, static_cast<size_t>(count));
  }
  return out;
}

std::string Http1(int port, const std::string& request) {
  const int fd = Connect(port);
  EXPECT_GE(fd, 0);
  send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  std::string response = ReadAll(fd);
  close(fd);
  return response;
}

// ---- the plugin -----------------------------------------------------------------------------------

Api::Api(ApiOptions options) : options_(std::move(options)) {
  bool has_listen = false;
  for (const auto& [key, value] : options_) has_listen = has_listen || key == "listen";
  if (has_listen) return;
  port_ = FreePort();
  options_.emplace_back("listen", "http://127.0.0.1:" + std::to_string(port_));
  kw_error error = {};
  error.size = sizeof error;
  const int32_t code = Start(&error);
  EXPECT_EQ(code, KW_OK) << error.text;
}

int32_t Api::Start(kw_error* error) {
  std::vector<kw_config_item> items;
  for (const auto& [key, value] : options_) items.push_back({key.c_str(), Slice(value), 1, 0});
  const kw_descriptor* const descriptor = kw_plugin_entry_api_etcd()->plugins[0];
  const int32_t code = descriptor->create(kernel_.host(), items.data(), items.size(), &plugin_, error);
  return code != KW_OK ? code : plugin_->start(plugin_, error);
}

void Api::Stop() {
  if (plugin_ == nullptr) return;
  plugin_->stop(plugin_);
  plugin_->destroy(plugin_);
  plugin_ = nullptr;
}
Api::~Api() { Stop(); }

// ---- the client -----------------------------------------------------------------------------------

Client::Client(int port, uint32_t initial_window, bool auto_window) {
  fd_ = Connect(port);
  EXPECT_GE(fd_, 0);
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_header_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                    const uint8_t* value, size_t value_bytes, uint8_t, void* user) {
        auto* const self = static_cast<Client*>(user);
        self->replies_[frame->hd.stream_id]
            .headers[std::string(reinterpret_cast<const char*>(name), name_bytes)] =
            std::string(reinterpret_cast<const char*>(value), value_bytes);
        return 0;
      });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* bytes, size_t count, void* user) {
        static_cast<Client*>(user)->replies_[id].body.append(reinterpret_cast<const char*>(bytes), count);
        return 0;
      });
  nghttp2_session_callbacks_set_on_stream_close_callback(
      callbacks, [](nghttp2_session*, int32_t id, uint32_t code, void* user) {
        Reply& reply = static_cast<Client*>(user)->replies_[id];
        reply.is_closed = true;
        reply.error_code = code;
        return 0;
      });
  nghttp2_session_callbacks_set_on_frame_recv_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
        auto* const self = static_cast<Client*>(user);
        if (frame->hd.type == NGHTTP2_GOAWAY) {
          self->has_goaway_ = true;
          self->goaway_code_ = frame->goaway.error_code;
        }
        if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
          ++self->ping_acks_;
        }
        return 0;
      });
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_auto_window_update(option, auto_window ? 0 : 1);
  nghttp2_session_client_new2(&session_, callbacks, this, option);
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, initial_window};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &entry, initial_window == 0 ? 0 : 1);
}

Client::~Client() {
  nghttp2_session_del(session_);
  close(fd_);
}

ssize_t Client::ReadPending(nghttp2_session*, int32_t stream_id, uint8_t* out, size_t count, uint32_t* flags,
                            nghttp2_data_source*, void* user) {
  Pending& pending = static_cast<Client*>(user)->pending_[stream_id];
  const size_t part = std::min(count, pending.bytes.size());
  if (part == 0 && !pending.is_end) {
    pending.is_deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  std::memcpy(out, pending.bytes.data(), part);
  pending.bytes.erase(0, part);
  if (pending.bytes.empty() && pending.is_end) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(part);
}

int32_t Client::Open(const std::string& path, const Headers& extra, const std::string& body, bool is_end,
                     const std::string& content_type, const std::string& method) {
  Headers all = {{":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "t"}};
  if (!content_type.empty()) all.emplace_back("content-type", content_type);
  all.emplace_back("te", "trailers");
  all.insert(all.end(), extra.begin(), extra.end());
  std::vector<nghttp2_nv> fields;
  for (auto& [name, value] : all) {
    fields.push_back({reinterpret_cast<uint8_t*>(name.data()), reinterpret_cast<uint8_t*>(value.data()),
                      name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  }
  nghttp2_data_provider provider = {};
  provider.read_callback = &ReadPending;
  const bool has_body = !body.empty() || !is_end;
  const int32_t id = nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(),
                                            has_body ? &provider : nullptr, nullptr);
  pending_[id] = {body, is_end, false};
  return id;
}

void Client::Send(int32_t stream_id, const std::string& bytes, bool is_end) {
  Pending& pending = pending_[stream_id];
  pending.bytes += bytes;
  pending.is_end = is_end;
  if (pending.is_deferred) {
    pending.is_deferred = false;
    nghttp2_session_resume_data(session_, stream_id);
  }
}
void Client::Reset(int32_t stream_id, uint32_t error_code) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream_id, error_code);
}

void Client::Flush() {
  const uint8_t* bytes = nullptr;
  ssize_t count = 0;
  while (!is_dead_ && (count = nghttp2_session_mem_send(session_, &bytes)) > 0) {
    size_t sent = 0;
    while (sent < static_cast<size_t>(count)) {
      const ssize_t part = send(fd_, bytes + sent, static_cast<size_t>(count) - sent, MSG_NOSIGNAL);
      if (part <= 0) {
        is_dead_ = true;
        break;
      }
      sent += static_cast<size_t>(part);
    }
  }
}

bool Client::Until(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::chrono::steady_clock::now() < deadline) {
    Flush();
    if (condition()) return true;
    pollfd poll_fd = {fd_, POLLIN, 0};
    if (poll(&poll_fd, 1, 100) == 0) continue;
    uint8_t buffer[65536];
    const ssize_t count = recv(fd_, buffer, sizeof buffer, 0);
    if (count <= 0) {
      is_dead_ = true;
      return condition();
    }
    if (nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(count)) < 0) return false;
  }
  return false;
}

int Client::StatusOf(int32_t stream_id) {
  const auto& headers = replies_[stream_id].headers;
  const auto found = headers.find("grpc-status");
  return found == headers.end() ? -1 : std::stoi(found->second);
}

// ---- watches --------------------------------------------------------------------------------------

WatchClient::WatchClient(Client* client, const Headers& extra) : client_(client) {
  id_ = client->Open("/etcdserverpb.Watch/Watch", extra, "", false);
}
void WatchClient::Create(const std::function<void(etcdserverpb::WatchCreateRequest*)>& fill) {
  etcdserverpb::WatchRequest request;
  fill(request.mutable_create_request());
  client_->Send(id_, Frame(request.SerializeAsString()), false);
}
void WatchClient::Cancel(int64_t id) {
  etcdserverpb::WatchRequest request;
  request.mutable_cancel_request()->set_watch_id(id);
  client_->Send(id_, Frame(request.SerializeAsString()), false);
}
void WatchClient::Progress() {
  etcdserverpb::WatchRequest request;
  request.mutable_progress_request();
  client_->Send(id_, Frame(request.SerializeAsString()), false);
}
size_t WatchClient::count() { return client_->reply(id_).message_count(); }
etcdserverpb::WatchResponse WatchClient::At(size_t index) {
  EXPECT_TRUE(client_->Until([&] { return count() > index; })) << "no response " << index;
  etcdserverpb::WatchResponse response;
  const std::vector<std::string> messages = Unframe(client_->reply(id_).body);
  if (index < messages.size()) {
    EXPECT_TRUE(response.ParseFromString(messages[index]));
  }
  return response;
}

int PutKey(Client* client, const std::string& key, const std::string& value,
           etcdserverpb::PutResponse* response) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  return client->Unary("/etcdserverpb.KV/Put", request, response);
}

}  // namespace keyway::api_etcd::testing
