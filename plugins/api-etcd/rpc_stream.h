// SPDX-License-Identifier: Apache-2.0
//
// The streaming RPCs beside Watch: RangeStream, LeaseKeepAlive, Health.Watch.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "decode.h"
#include "stream.h"

namespace keyway::api_etcd {

// The handler of `stream`, by its method.
std::unique_ptr<StreamHandler> MakeStreamHandler(Stream* stream);

// A range in chunks at one pinned revision. The next chunk is asked for when the last one has mostly
// left; its size in keys follows the size of the messages.
class RangeStreamHandler final : public StreamHandler, public CallOwner {
 public:
  explicit RangeStreamHandler(Stream* stream) : stream_(stream) {}
  ~RangeStreamHandler() override { Stop(); }

  void OnMessage(kw_slice message) override;
  void OnHalfClose() override;
  void OnConsumed() override;
  void Stop() override;
  void OnCallDone(Call* call) override;

 private:
  static constexpr int64_t kFirstChunkKeys = 10;
  static constexpr size_t kUnsentBytesMax = 512 << 10;

  Status Check(const RangeInfo& info) const;
  void Ask();
  void SendChunk(Call* call, bool is_last);

  Stream* const stream_;
  bool has_request_ = false;
  bool is_serializable_ = false;
  bool wants_next_ = false;
  std::string key_;
  std::string end_;
  kw_range range_ = {};  // without its slices
  int64_t chunk_keys_ = kFirstChunkKeys;
  int64_t sent_keys_ = 0;
  int64_t total_keys_ = 0;
  bool is_first_ = true;
  // The header of the first chunk's reply, for the last message.
  uint64_t cluster_id_ = 0;
  uint64_t member_id_ = 0;
  uint64_t raft_term_ = 0;
  int64_t revision_ = 0;
  Call* maybe_call_ = nullptr;
};

// One renewal a message; the answers keep the order of the messages.
class KeepAliveHandler final : public StreamHandler, public CallOwner {
 public:
  explicit KeepAliveHandler(Stream* stream) : stream_(stream) {}
  ~KeepAliveHandler() override { Stop(); }

  void OnMessage(kw_slice message) override;
  void OnHalfClose() override;
  void OnConsumed() override;
  bool WantsMessages() const override;
  void Stop() override;
  void OnCallDone(Call* call) override;

 private:
  struct Renewal {
    int64_t id = 0;
    Call* maybe_call = nullptr;  // NULL: done
    Status status;
    int64_t ttl_s = 0;
    uint64_t cluster_id = 0;
    uint64_t member_id = 0;
    uint64_t raft_term = 0;
    int64_t revision = 0;
  };

  bool Answer(const Renewal& renewal);

  Stream* const stream_;
  std::deque<Renewal> renewals_;
  bool is_half_closed_ = false;
};

class HealthWatchHandler final : public StreamHandler {
 public:
  explicit HealthWatchHandler(Stream* stream) : stream_(stream) {}
  void OnMessage(kw_slice message) override;
  void OnHalfClose() override;
  void Stop() override {}

 private:
  Stream* const stream_;
  bool has_request_ = false;
};

}  // namespace keyway::api_etcd
