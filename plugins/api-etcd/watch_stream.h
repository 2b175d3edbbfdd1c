// SPDX-License-Identifier: Apache-2.0
//
// The Watch RPC: any number of watches on one stream. Batches of the kernel are turned into responses
// on the I/O thread; credit goes back when the bytes have left for the socket.
#pragma once

#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "encode.h"
#include "io_thread.h"
#include "stream.h"

namespace etcdserverpb {
class WatchCreateRequest;
}

namespace keyway::api_etcd {

class WatchStream final : public StreamHandler {
 public:
  explicit WatchStream(Stream* stream);
  ~WatchStream() override { Stop(); }

  // Hands the batches of one delivery to their streams. On the I/O thread of the sink.
  static void Dispatch(IoThread* io, const kw_delivery& delivery);

  void OnMessage(kw_slice message) override;
  void OnHalfClose() override {}
  void OnConsumed() override;
  void Stop() override;

 private:
  // Belongs to its stream until that drops it, then lives on until the kernel's CANCELED batch.
  struct Watch {
    WatchStream* maybe_stream = nullptr;
    uint64_t kernel_id = 0;
    int64_t id = 0;
    bool has_prev = false;
    bool is_fragmented = false;
    bool wants_progress = false;
    bool is_created = false;        // the created response was sent
    bool is_cancel_wanted = false;  // by the client, before that
    bool is_fresh = false;          // events were sent since the last progress tick
    uint64_t credit_bytes = 0;
    uint64_t returnable_bytes = 0;  // credit that was not given back yet
  };
  struct Sent {
    uint64_t end = 0;  // position in the stream's body after the message
    int64_t watch_id = 0;
    uint64_t kernel_id = 0;
    uint64_t credit_bytes = 0;
  };
  struct StreamTimer : TimerWheel::Timer {
    WatchStream* stream = nullptr;
  };

  void Create(const etcdserverpb::WatchCreateRequest& request);
  void Refuse(std::string_view reason);
  void Open(const etcdserverpb::WatchCreateRequest& request, int64_t id, std::string_view key);
  void Cancel(int64_t id);
  void RequestProgress();
  void OnBatch(Watch* watch, const kw_delivery& delivery, const kw_watch_batch& batch);
  void OnGroupProgress(const EncodedHeader& header);
  void OnCanceled(Watch* watch, const EncodedHeader& header, const kw_watch_batch& batch);
  void SendEvents(const Watch& watch, const EncodedHeader& header, const kw_watch_batch& batch);
  void SendResponse(const WatchResponse& response);
  void SendCreated(Watch* watch, const EncodedHeader& header);
  void Drop(Watch* watch);
  static void Destroy(IoThread* io, Watch* watch);
  EncodedHeader CurrentHeader() const;
  void OnProgressTick();
  void ReturnCredits();

  Stream* const stream_;
  IoThread* const io_;
  const uint64_t serial_;
  std::unordered_map<int64_t, Watch*> watches_;
  int64_t next_id_ = 0;
  int64_t last_revision_ = 0;
  std::deque<Sent> sent_;
  std::vector<int64_t> returnable_;  // watches with returnable_bytes
  StreamTimer progress_timer_;
  StreamTimer credit_timer_;
  bool is_stopped_ = false;
};

}  // namespace keyway::api_etcd
