// SPDX-License-Identifier: Apache-2.0
//
// What the tests of transports stand on: a host with the real clock, a sink that remembers, a member.
// A test binary links one transport statically and says which in TransportUnderTest().
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "keyway/host.h"
#include "keyway/transport.h"

namespace keyway::transport_test {

// Defined by the test binary: the entry of its transport.
const kw_entry* TransportUnderTest();

class TestHost {
 public:
  explicit TestHost(const kw_identity* maybe_identity = nullptr) : maybe_identity_(maybe_identity) {
    host_ = {sizeof(kw_host), KW_ABI_MAJOR, KW_ABI_MINOR, this, "keyway test", &TestHost::Get};
    log_ = {sizeof(kw_log), KW_LOG_DEBUG, &TestHost::WriteLog};
    clock_ = {};
    clock_.size = sizeof(kw_clock);
    clock_.mono_ns = [](const kw_host*) { return Now(); };
    metrics_ = {sizeof(kw_metrics), 0, &TestHost::Cell, nullptr};
  }
  const kw_host* get() const { return &host_; }

  static uint64_t Now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }

  // Waits until a log line contains `text`.
  bool WaitForLog(const std::string& text, int timeout_ms = 5000) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                             [&] { return CountLocked(text) > 0; });
  }
  int CountLog(const std::string& text) {
    std::lock_guard lock(mutex_);
    return CountLocked(text);
  }
  uint64_t Metric(const std::string& name_and_label) {
    std::lock_guard lock(mutex_);
    const auto found = cells_.find(name_and_label);
    return found == cells_.end() ? 0 : __atomic_load_n(found->second.get(), __ATOMIC_RELAXED);
  }

 private:
  static TestHost* Self(const kw_host* host) { return static_cast<TestHost*>(host->self); }
  static const void* Get(const kw_host* host, const char* service) {
    TestHost* self = Self(host);
    const std::string id = service;
    if (id == KW_LOG) return &self->log_;
    if (id == KW_CLOCK) return &self->clock_;
    if (id == KW_METRICS) return &self->metrics_;
    if (id == KW_IDENTITY) return self->maybe_identity_;
    return nullptr;
  }
  static void WriteLog(const kw_host* host, uint32_t, const char* event, const kw_field* fields,
                       size_t count) {
    std::string line = event;
    for (size_t i = 0; i < count; ++i) {
      line += std::string(" ") + fields[i].key + "=" +
              std::string(reinterpret_cast<const char*>(fields[i].value.ptr), fields[i].value.len);
    }
    TestHost* self = Self(host);
    std::lock_guard lock(self->mutex_);
    self->lines_.push_back(line);
    self->changed_.notify_all();
  }
  static uint64_t* Cell(const kw_host* host, uint32_t, const char* name, const char*, const kw_field* labels,
                        size_t count) {
    std::string key = name;
    for (size_t i = 0; i < count; ++i) {
      key += std::string("{") + labels[i].key + "=" +
             std::string(reinterpret_cast<const char*>(labels[i].value.ptr), labels[i].value.len) + "}";
    }
    TestHost* self = Self(host);
    std::lock_guard lock(self->mutex_);
    auto& cell = self->cells_[key];
    if (cell == nullptr) cell = std::make_unique<uint64_t>(0);
    return cell.get();
  }
  int CountLocked(const std::string& text) const {
    int count = 0;
    for (const std::string& line : lines_) count += line.find(text) != std::string::npos;
    return count;
  }

  kw_host host_;
  kw_log log_;
  kw_clock clock_;
  kw_metrics metrics_;
  const kw_identity* const maybe_identity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  std::map<std::string, std::unique_ptr<uint64_t>> cells_;
};

struct Received {
  uint64_t peer;
  uint32_t lane;
  std::string bytes;
};

class TestSink {
 public:
  TestSink() { sink_ = {sizeof(kw_transport_sink), 0, this, &TestSink::Frames, &TestSink::PeerState}; }
  const kw_transport_sink* get() const { return &sink_; }

  bool WaitFor(const std::function<bool()>& condition, int timeout_ms = 10000) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), condition);
  }
  bool WaitForState(uint64_t peer, uint32_t state, int timeout_ms = 10000) {
    return WaitFor([&] { return states_.count(peer) != 0 && states_[peer] == state; }, timeout_ms);
  }
  bool WaitForFrames(size_t count, int timeout_ms = 20000) {
    return WaitFor([&] { return frames_.size() >= count; }, timeout_ms);
  }
  bool WaitForReports(size_t count) {
    return WaitFor([&] { return history_.size() >= count; });
  }
  std::vector<Received> TakeFrames() {
    std::lock_guard lock(mutex_);
    return std::exchange(frames_, {});
  }
  // [any] How often the peer was reported in `state`.
  int StateCount(uint64_t peer, uint32_t state) {
    std::lock_guard lock(mutex_);
    int count = 0;
    for (const auto& [id, reported] : history_) count += id == peer && reported == state;
    return count;
  }
  std::string Principal(uint64_t peer) {
    std::lock_guard lock(mutex_);
    return principals_[peer];
  }
  // Blocks the delivering thread until Release().
  void Hold() {
    std::lock_guard lock(mutex_);
    held_ = true;
  }
  void Release() {
    std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }

 private:
  static void Frames(void* self, const kw_frame* frames, size_t count) {
    auto* sink = static_cast<TestSink*>(self);
    std::unique_lock lock(sink->mutex_);
    sink->changed_.wait(lock, [&] { return !sink->held_; });
    for (size_t i = 0; i < count; ++i) {
      sink->frames_.push_back(
          {frames[i].peer, frames[i].lane,
           std::string(reinterpret_cast<const char*>(frames[i].head.ptr), frames[i].head.len)});
    }
    sink->changed_.notify_all();
  }
  static void PeerState(void* self, uint64_t peer, uint32_t state, kw_slice principal) {
    auto* sink = static_cast<TestSink*>(self);
    std::lock_guard lock(sink->mutex_);
    sink->states_[peer] = state;
    sink->history_.push_back({peer, state});
    sink->principals_[peer] = std::string(reinterpret_cast<const char*>(principal.ptr), principal.len);
    sink->changed_.notify_all();
  }

  kw_transport_sink sink_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  std::vector<Received> frames_;
  std::map<uint64_t, uint32_t> states_;
  std::map<uint64_t, std::string> principals_;
  std::vector<std::pair<uint64_t, uint32_t>> history_;
};

// A port that was free a moment ago.
inline uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}
inline std::string LocalUrl(uint16_t port) { return "http://127.0.0.1:" + std::to_string(port); }

// One instance through the ABI, as the host would drive it.
class Member {
 public:
  Member(uint64_t id, std::string url, std::string token = "token",
         const kw_identity* maybe_identity = nullptr,
         std::vector<std::pair<std::string, std::string>> options = {})
      : host_(maybe_identity), id_(id), url_(std::move(url)) {
    const kw_descriptor* descriptor = TransportUnderTest()->plugins[0];
    std::vector<kw_config_item> items;
    for (const auto& [key, value] : options) {
      items.push_back({key.c_str(), {reinterpret_cast<const uint8_t*>(value.data()), value.size()}, 0, 0});
    }
    error_.size = sizeof(error_);
    EXPECT_EQ(descriptor->create(host_.get(), items.data(), items.size(), &plugin_, &error_), KW_OK);
    EXPECT_EQ(plugin_->start(plugin_, &error_), KW_OK) << error_.text;
    table_ = static_cast<const kw_transport*>(plugin_->get(plugin_, KW_TRANSPORT));
    const char* urls[] = {url_.c_str()};
    listen_code_ = table_->listen(plugin_, id_, token.c_str(), urls, 1, sink_.get(), &error_);
  }
  ~Member() {
    sink_.Release();
    plugin_->stop(plugin_);
    plugin_->destroy(plugin_);
  }

  int32_t SetPeers(const std::map<uint64_t, std::vector<std::string>>& peers) { return SetPeers(id_, peers); }
  int32_t SetPeers(uint64_t self_id, const std::map<uint64_t, std::vector<std::string>>& peers) {
    std::vector<std::vector<const char*>> urls;
    std::vector<kw_peer> raw;
    for (const auto& [id, list] : peers) {
      urls.emplace_back();
      for (const std::string& url : list) urls.back().push_back(url.c_str());
    }
    size_t i = 0;
    for (const auto& [id, list] : peers) {
      raw.push_back({id, urls[i].data(), urls[i].size()});
      ++i;
    }
    return table_->set_peers(plugin_, self_id, raw.data(), raw.size(), &error_);
  }
  bool Send(uint64_t peer, const std::string& bytes, uint32_t lane = KW_LANE_BULK) {
    const size_t half = bytes.size() / 2;
    const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
    const kw_frame frame = {peer, lane, 0, {at, half}, {at + half, bytes.size() - half}};
    return table_->send(plugin_, &frame, 1) == 1;
  }
  kw_transport_stats Stats(uint64_t peer) {
    kw_transport_stats stats = {};
    EXPECT_EQ(table_->stats(plugin_, peer, &stats), KW_OK);
    return stats;
  }

  uint64_t id() const { return id_; }
  const std::string& url() const { return url_; }
  int32_t listen_code() const { return listen_code_; }
  const char* error() const { return error_.text; }
  const kw_transport* table() const { return table_; }
  kw_plugin* plugin() { return plugin_; }
  TestHost& host() { return host_; }
  TestSink& sink() { return sink_; }

 private:
  TestHost host_;
  TestSink sink_;
  const uint64_t id_;
  const std::string url_;
  kw_plugin* plugin_ = nullptr;
  const kw_transport* table_ = nullptr;
  kw_error error_ = {};
  int32_t listen_code_ = KW_OK;
};

// Members 1..count, each a peer of all others, all connected.
inline std::vector<std::unique_ptr<Member>> Connected(
    uint64_t count, std::vector<std::pair<std::string, std::string>> options = {}) {
  std::vector<std::unique_ptr<Member>> members;
  for (uint64_t id = 1; id <= count; ++id) {
    members.push_back(std::make_unique<Member>(id, LocalUrl(FreePort()), "token", nullptr, options));
    EXPECT_EQ(members.back()->listen_code(), KW_OK) << members.back()->error();
  }
  std::map<uint64_t, std::vector<std::string>> peers;
  for (const auto& member : members) peers[member->id()] = {member->url()};
  for (const auto& member : members) EXPECT_EQ(member->SetPeers(peers), KW_OK);
  for (const auto& member : members) {
    for (const auto& other : members) {
      if (other == member) continue;
      EXPECT_TRUE(member->sink().WaitForState(other->id(), KW_PEER_UP));
    }
  }
  return members;
}

}  // namespace keyway::transport_test
