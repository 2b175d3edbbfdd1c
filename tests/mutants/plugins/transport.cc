// SPDX-License-Identifier: Apache-2.0
//
// mutant-transport: keyway.transport/1 with one defect. See mutants.md for the list.
#include "keyway/transport.h"

#include <atomic>
#include <thread>

#include "mutant.h"

KW_PLUGIN_MANIFEST(
    "id=mutant-transport;version=0.1.0;abi=1.0;license=Apache-2.0;stability=alpha;"
    "provides=keyway.transport/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1,keyway.identity/1");

namespace keyway::mutants {
namespace {

constexpr uint64_t kSomePeer = 77;

const kw_transport& Inner() { return Real<kw_transport>(KW_TRANSPORT); }

const kw_transport_sink* sink = nullptr;
std::thread threads[2];
std::atomic<bool> is_stopping{false};
const kw_frame* kept_frames = nullptr;

int32_t Listen(kw_plugin*, uint64_t self_id, const char* token, const char* const* urls, size_t url_count,
               const kw_transport_sink* given, kw_error* error) {
  sink = given;
  const int32_t code = Inner().listen(me.inner, self_id, token, urls, url_count, given, error);
  if (code != KW_OK) return code;
  if (me.is("calls-the-sink-twice-at-once")) {
    for (std::thread& thread : threads) {
      thread = std::thread([] {
        while (!is_stopping) sink->peer_state(sink->self, kSomePeer, KW_PEER_DOWN, {});
      });
    }
  }
  if (me.is("gives-a-garbage-state")) {
    threads[0] = std::thread([] { sink->peer_state(sink->self, kSomePeer, 7, {}); });
  }
  return code;
}
int32_t SetPeers(kw_plugin*, uint64_t self_id, const kw_peer* peers, size_t count, kw_error* error) {
  return Inner().set_peers(me.inner, self_id, peers, count, error);
}
size_t Send(kw_plugin*, const kw_frame* frames, size_t count) {
  if (me.is("keeps-a-call-slice")) {
    static std::atomic<uint64_t> sum;
    if (kept_frames != nullptr) sum += kept_frames[0].peer;
    kept_frames = frames;
  }
  const size_t taken = Inner().send(me.inner, frames, count);
  return me.is("takes-more-than-given") ? count + 3 : taken;
}
int32_t Stats(kw_plugin*, uint64_t peer, kw_transport_stats* out) {
  return Inner().stats(me.inner, peer, out);
}

kw_transport table = {
    .size = sizeof(kw_transport), .listen = Listen, .set_peers = SetPeers, .send = Send, .stats = Stats};

void Stop(kw_plugin*) {
  is_stopping = true;
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
  me.inner->stop(me.inner);
}
void Destroy(kw_plugin*) {
  if (me.is("calls-the-sink-after-stop")) sink->peer_state(sink->self, kSomePeer, KW_PEER_DOWN, {});
  me.inner->destroy(me.inner);
}
const void* Get(kw_plugin*, const char* interface_id) {
  if (std::strcmp(interface_id, KW_TRANSPORT) != 0) return nullptr;
  table.frame_bytes_max = Inner().frame_bytes_max;
  return &table;
}

int32_t CreateTransport(const kw_host* host, const kw_config_item* items, size_t count, kw_plugin** out,
                        kw_error* error) {
  me.plugin = {sizeof(kw_plugin),
               0,
               nullptr,
               [](kw_plugin*, kw_error* failure) { return me.inner->start(me.inner, failure); },
               Stop,
               Destroy,
               Get};
  return Create(host, items, count, out, error);
}

constexpr kw_config_field kFields[] = {{"real", "path", nullptr, "the real plugin"},
                                       {"mutant", "string", "none", "the defect"}};
constexpr const char* kProvides[] = {KW_TRANSPORT, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, KW_IDENTITY, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "mutant-transport",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "alpha",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       2,
                                       CreateTransport};

}  // namespace
}  // namespace keyway::mutants

KW_PLUGIN_ENTRY(mutant_transport) {
  static constexpr const kw_descriptor* kPlugins[] = {&keyway::mutants::kDescriptor};
  static constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};
  return &kEntry;
}
