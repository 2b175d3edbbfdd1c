// SPDX-License-Identifier: Apache-2.0
//
// The entry of transport-tcp: descriptor, options, and thunks from the ABI to Transport.
#include <charconv>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include "keyway/abi.h"
#include "keyway/host.h"
#include "keyway/transport.h"
#include "transport.h"

KW_PLUGIN_MANIFEST(
    "id=transport-tcp;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.transport/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1,keyway.identity/1");

namespace keyway::transport_tcp {
namespace {

struct Instance {
  kw_plugin plugin = {};
  std::unique_ptr<Transport> transport;
};

Transport& Self(kw_plugin* plugin) { return *static_cast<Instance*>(plugin->self)->transport; }

int32_t Fail(kw_error* error, int32_t code, std::string_view text) noexcept {
  if (error != nullptr && error->size >= sizeof(kw_error)) {
    error->code = code;
    error->detail = 0;
    std::snprintf(error->text, sizeof(error->text), "%.*s", static_cast<int>(text.size()), text.data());
  }
  return code;
}

// Runs `body(&text)`, and turns its code, or an exception, into the answer of a thunk.
template <typename Body>
int32_t Guard(kw_error* error, Body body) noexcept {
  try {
    std::string text;
    const int32_t code = body(&text);
    return code == KW_OK ? KW_OK : Fail(error, code, text);
  } catch (const std::bad_alloc&) {
    return Fail(error, KW_RESOURCE_EXHAUSTED, "transport-tcp: out of memory");
  } catch (const std::exception& e) {
    return Fail(error, KW_INTERNAL, e.what());
  }
}

int32_t Start(kw_plugin* plugin, kw_error* error) noexcept {
  return Guard(error, [&](std::string* text) { return Self(plugin).Start(text); });
}

void Stop(kw_plugin* plugin) noexcept { Self(plugin).Stop(); }

void Destroy(kw_plugin* plugin) noexcept { delete static_cast<Instance*>(plugin->self); }

int32_t ListenThunk(kw_plugin* plugin, uint64_t self_id, const char* token, const char* const* urls,
                    size_t url_count, const kw_transport_sink* sink, kw_error* error) noexcept {
  return Guard(error, [&](std::string* text) {
    return Self(plugin).Listen(self_id, token, urls, url_count, sink, text);
  });
}

int32_t SetPeersThunk(kw_plugin* plugin, uint64_t self_id, const kw_peer* peers, size_t peer_count,
                      kw_error* error) noexcept {
  return Guard(error,
               [&](std::string* text) { return Self(plugin).SetPeers(self_id, peers, peer_count, text); });
}

size_t SendThunk(kw_plugin* plugin, const kw_frame* frames, size_t frame_count) noexcept {
  return Self(plugin).Send(frames, frame_count);
}

int32_t StatsThunk(kw_plugin* plugin, uint64_t peer, kw_transport_stats* out) noexcept {
  return Self(plugin).Stats(peer, out);
}

const kw_transport kTransportTable = {
    .size = sizeof(kw_transport),
    .caps = 0,
    .frame_bytes_max = kFrameBytesMax,
    .listen = ListenThunk,
    .set_peers = SetPeersThunk,
    .send = SendThunk,
    .stats = StatsThunk,
};

const void* Get(kw_plugin*, const char* interface_id) noexcept {
  return std::string_view(interface_id) == KW_TRANSPORT ? &kTransportTable : nullptr;
}

uint64_t Number(kw_slice value) {
  uint64_t number = 0;
  const char* begin = reinterpret_cast<const char*>(value.ptr);
  std::from_chars(begin, begin + value.len, number);  // The host has checked it.
  return number;
}

int32_t Create(const kw_host* host, const kw_config_item* items, size_t item_count, kw_plugin** out,
               kw_error* error) noexcept {
  return Guard(error, [&](std::string*) -> int32_t {
    Options options;
    for (size_t i = 0; i < item_count; ++i) {
      const std::string_view key = items[i].key;
      if (key == "connect_timeout") options.connect_timeout_ns = Number(items[i].value) * 1'000'000;
      if (key == "keepalive_interval") options.keepalive_interval_ns = Number(items[i].value) * 1'000'000;
      if (key == "send_buffer_bytes") options.send_buffer_bytes = Number(items[i].value);
    }
    auto instance = std::make_unique<Instance>();
    instance->transport = std::make_unique<Transport>(host, options);
    instance->plugin = {sizeof(kw_plugin), 0, instance.get(), Start, Stop, Destroy, Get};
    *out = &instance.release()->plugin;
    return KW_OK;
  });
}

const char* const kProvides[] = {KW_TRANSPORT, nullptr};
const char* const kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, KW_IDENTITY, nullptr};
const kw_config_field kFields[] = {
    {"connect_timeout", "duration(10..60000)", "1s", "how long one address of a peer may take to connect"},
    {"keepalive_interval", "duration(100..60000)", "1s",
     "between two pings; a host that vanished is noticed after five of them"},
    {"send_buffer_bytes", "bytes(1048576..1073741824)", "32MiB",
     "bulk frames that may wait for one peer; more are left to the core"},
};
const kw_descriptor kDescriptor = {
    .size = sizeof(kw_descriptor),
    .abi_major = KW_ABI_MAJOR,
    .abi_minor = 0,
    .id = "transport-tcp",
    .version = "0.1.0",
    .license = "Apache-2.0",
    .stability = "beta",
    .provides = kProvides,
    .needs = kNeeds,
    .fields = kFields,
    .field_count = sizeof(kFields) / sizeof(kFields[0]),
    .create = Create,
};
const kw_descriptor* const kPlugins[] = {&kDescriptor};
const kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};

}  // namespace
}  // namespace keyway::transport_tcp

extern "C" KW_PLUGIN_ENTRY(transport_tcp) { return &keyway::transport_tcp::kEntry; }
