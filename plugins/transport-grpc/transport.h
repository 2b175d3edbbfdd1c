// SPDX-License-Identifier: Apache-2.0
//
// Transport: one instance of the plugin, as keyway.transport/1 sees it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "grpc_runtime.h"
#include "io.h"
#include "keyway/plugin.hpp"
#include "keyway/transport.h"

namespace keyway::transport_grpc {

class Transport {
 public:
  Transport(const kw_host* host, const Options& options) : host_(host), options_(options) {}

  // These follow keyway/transport.h.
  int32_t Start(kw_error* error);
  void Stop();
  int32_t Listen(uint64_t self_id, const char* token, const char* const* urls, size_t url_count,
                 const kw_transport_sink* sink, kw_error* error);
  int32_t SetPeers(uint64_t self_id, const kw_peer* peers, size_t peer_count, kw_error* error);
  size_t Send(const kw_frame* frames, size_t frame_count);
  int32_t Stats(uint64_t peer, kw_transport_stats* out);

 private:
  std::shared_ptr<Peer> NewPeer(uint64_t id) const;

  const kw_host* const host_;
  const Options options_;
  GrpcRuntime runtime_;
  std::unique_ptr<Io> io_;
  bool is_listening_ = false;
  std::mutex mutex_;
  // Changed by [core] under mutex_; read by [core] without, by others under mutex_.
  std::map<uint64_t, std::shared_ptr<Peer>> peers_;
};

}  // namespace keyway::transport_grpc
