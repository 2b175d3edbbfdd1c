// SPDX-License-Identifier: Apache-2.0
//
// The entry of metrics-prometheus: descriptor, option, and thunks.
#include "keyway/plugin.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http_listener.h"
#include "keyway/observer.h"
#include "render.h"

KW_PLUGIN_MANIFEST(
    "id=metrics-prometheus;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.observer/1;needs=keyway.log/1,keyway.clock/1,keyway.samples/1");

namespace keyway::metrics_prometheus {
namespace {

class PrometheusPlugin {
 public:
  static int32_t Create(const kw_host* host, const ConfigReader& config,
                        std::unique_ptr<PrometheusPlugin>* out, kw_error* error);
  int32_t Start(kw_error* error);
  void Stop() { listener_.reset(); }
  static const void* Get(std::string_view interface_id);

 private:
  const kw_host* host_ = nullptr;
  std::vector<std::string> listen_;
  std::unique_ptr<HttpListener> listener_;
};

std::string CollectText(const kw_host* host, const kw_samples* samples) {
  std::string text;
  samples->collect(host, &text, [](void* self, const kw_sample* all, size_t count) {
    Render(all, count, static_cast<std::string*>(self));
  });
  return text;
}

int32_t PrometheusPlugin::Start(kw_error* error) {
  if (listen_.empty()) return KW_OK;
  const kw_host* const host = host_;
  const auto* clock = HostService<kw_clock>(host, KW_CLOCK);
  const auto* samples = HostService<kw_samples>(host, KW_SAMPLES);
  if (clock == nullptr || samples == nullptr) {
    return Fail(error, KW_FAILED_PRECONDITION, "`listen` needs keyway.clock/1 and keyway.samples/1");
  }
  auto listener = std::make_unique<HttpListener>([host, clock] { return clock->mono_ns(host); },
                                                 [host, samples] { return CollectText(host, samples); });
  bool is_invalid = false;
  std::string text;
  if (!listener->Start(listen_, &is_invalid, &text)) {
    return Fail(error, is_invalid ? KW_INVALID_ARGUMENT : KW_UNAVAILABLE, std::string_view(text));
  }
  listener_ = std::move(listener);
  return KW_OK;
}

int32_t RenderAll(kw_plugin*, const kw_sample* samples, size_t sample_count, kw_writer* writer,
                  kw_error* error) noexcept {
  return Guard(error, [&] {
    std::string text;
    Render(samples, sample_count, &text);
    const int32_t code = writer->write(writer->self, Slice(text));
    return code == KW_OK ? code : Fail(error, code, "the writer ended the writing");
  });
}

const kw_observer kObserverTable = {.size = sizeof(kw_observer), .caps = 0, .render = RenderAll};

const void* PrometheusPlugin::Get(std::string_view interface_id) {
  return interface_id == KW_OBSERVER ? &kObserverTable : nullptr;
}

int32_t PrometheusPlugin::Create(const kw_host* host, const ConfigReader& config,
                                 std::unique_ptr<PrometheusPlugin>* out, kw_error*) {
  auto plugin = std::make_unique<PrometheusPlugin>();
  plugin->host_ = host;
  for (std::string& url : config.Strings("listen")) {
    if (!url.empty()) plugin->listen_.push_back(std::move(url));
  }
  *out = std::move(plugin);
  return KW_OK;
}

constexpr const char* kProvides[] = {KW_OBSERVER, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_SAMPLES, nullptr};
constexpr kw_config_field kFields[] = {
    {"listen", "strings", "[]",
     "addresses such as \"http://127.0.0.1:2381\" that serve GET /metrics; none: only the API "
     "plugins do"},
};
constexpr kw_descriptor kDescriptor = {
    .size = sizeof(kw_descriptor),
    .abi_major = KW_ABI_MAJOR,
    .abi_minor = 0,
    .id = "metrics-prometheus",
    .version = "0.1.0",
    .license = "Apache-2.0",
    .stability = "beta",
    .provides = kProvides,
    .needs = kNeeds,
    .fields = kFields,
    .field_count = std::size(kFields),
    .create = Lifecycle<PrometheusPlugin>::Create,
};

}  // namespace
}  // namespace keyway::metrics_prometheus

KW_PLUGIN_ENTRY(metrics_prometheus) { return keyway::SoleEntry<&keyway::metrics_prometheus::kDescriptor>(); }
