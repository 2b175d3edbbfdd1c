// SPDX-License-Identifier: Apache-2.0
//
// The entry of transport-grpc: descriptor, options, and thunks from the ABI to Transport.
#include "keyway/plugin.hpp"

#include <memory>
#include <string_view>

#include "keyway/lifecycle.hpp"
#include "keyway/transport.h"
#include "transport.h"

KW_PLUGIN_MANIFEST(
    "id=transport-grpc;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.transport/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/"
    "1,keyway.identity/1");

namespace keyway::transport_grpc {
namespace {

class GrpcPlugin {
 public:
  static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<GrpcPlugin>* out,
                        kw_error* error);
  int32_t Start(kw_error* error) { return transport_->Start(error); }
  void Stop() { transport_->Stop(); }
  static const void* Get(std::string_view interface_id);
  Transport& transport() { return *transport_; }

 private:
  std::unique_ptr<Transport> transport_;
};

Transport& Self(kw_plugin* plugin) { return SelfOf<GrpcPlugin>(plugin).transport(); }

int32_t Listen(kw_plugin* plugin, uint64_t self_id, const char* token, const char* const* urls,
               size_t url_count, const kw_transport_sink* sink, kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Listen(self_id, token, urls, url_count, sink, error); });
}

int32_t SetPeers(kw_plugin* plugin, uint64_t self_id, const kw_peer* peers, size_t peer_count,
                 kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).SetPeers(self_id, peers, peer_count, error); });
}

size_t Send(kw_plugin* plugin, const kw_frame* frames, size_t frame_count) noexcept {
  return Self(plugin).Send(frames, frame_count);
}

int32_t Stats(kw_plugin* plugin, uint64_t peer, kw_transport_stats* out) noexcept {
  return Self(plugin).Stats(peer, out);
}

const kw_transport kTransportTable = {
    .size = sizeof(kw_transport),
    .caps = 0,
    .frame_bytes_max = kFrameBytesMax,
    .listen = Listen,
    .set_peers = SetPeers,
    .send = Send,
    .stats = Stats,
};

const void* GrpcPlugin::Get(std::string_view interface_id) {
  return interface_id == KW_TRANSPORT ? &kTransportTable : nullptr;
}

int32_t GrpcPlugin::Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<GrpcPlugin>* out,
                           kw_error*) {
  PrepareGrpc();
  constexpr uint64_t kNsPerMs = 1'000'000;
  Options options;
  options.connect_timeout_ns = static_cast<uint64_t>(config.Int("connect_timeout", 1000)) * kNsPerMs;
  options.keepalive_interval_ns = static_cast<uint64_t>(config.Int("keepalive_interval", 1000)) * kNsPerMs;
  options.send_buffer_bytes = static_cast<size_t>(config.Int("send_buffer_bytes", int64_t{32} << 20));
  auto plugin = std::make_unique<GrpcPlugin>();
  plugin->transport_ = std::make_unique<Transport>(host, options);
  *out = std::move(plugin);
  return KW_OK;
}

constexpr const char* kProvides[] = {KW_TRANSPORT, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, KW_IDENTITY, nullptr};
constexpr kw_config_field kFields[] = {
    {"connect_timeout", "duration(10..60000)", "1s", "how long one address of a peer may take to connect"},
    {"keepalive_interval", "duration(100..60000)", "1s",
     "between two pings; a host that vanished is noticed after five of them"},
    {"send_buffer_bytes", "bytes(1048576..1073741824)", "32MiB",
     "bulk frames that may wait for one peer; more are left to the core"},
};
constexpr kw_descriptor kDescriptor = {
    .size = sizeof(kw_descriptor),
    .abi_major = KW_ABI_MAJOR,
    .abi_minor = 0,
    .id = "transport-grpc",
    .version = "0.1.0",
    .license = "Apache-2.0",
    .stability = "beta",
    .provides = kProvides,
    .needs = kNeeds,
    .fields = kFields,
    .field_count = std::size(kFields),
    .create = Lifecycle<GrpcPlugin>::Create,
};

}  // namespace
}  // namespace keyway::transport_grpc

KW_PLUGIN_ENTRY(transport_grpc) { return keyway::SoleEntry<&keyway::transport_grpc::kDescriptor>(); }
