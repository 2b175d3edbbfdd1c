// SPDX-License-Identifier: Apache-2.0
//
// The entry of metrics-prometheus: descriptor, option, and thunks.
#include <cstdio>
#include <exception>
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

struct Instance {
  kw_plugin plugin = {};
  const kw_host* host = nullptr;
  std::vector<std::string> listen;
  std::unique_ptr<HttpListener> listener;
};

Instance& Self(kw_plugin* plugin) { return *static_cast<Instance*>(plugin->self); }

int32_t Fail(kw_error* error, int32_t code, std::string_view text) noexcept {
  if (error != nullptr && error->size >= sizeof(kw_error)) {
    error->code = code;
    error->detail = 0;
    std::snprintf(error->text, sizeof(error->text), "metrics-prometheus: %.*s", static_cast<int>(text.size()),
                  text.data());
  }
  return code;
}

template <typename Body>
int32_t Guard(kw_error* error, Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& e) {
    return Fail(error, KW_INTERNAL, e.what());
  }
}

std::string CollectText(const kw_host* host, const kw_samples* samples) {
  std::string text;
  samples->collect(host, &text, [](void* self, const kw_sample* all, size_t count) {
    Render(all, count, static_cast<std::string*>(self));
  });
  return text;
}

int32_t StartListener(Instance& self, kw_error* error) {
  if (self.listen.empty()) return KW_OK;
  const kw_host* host = self.host;
  const auto* clock = static_cast<const kw_clock*>(host->get(host, KW_CLOCK));
  const auto* samples = static_cast<const kw_samples*>(host->get(host, KW_SAMPLES));
  if (clock == nullptr || samples == nullptr) {
    return Fail(error, KW_FAILED_PRECONDITION, "`listen` needs keyway.clock/1 and keyway.samples/1");
  }
  auto listener = std::make_unique<HttpListener>([host, clock] { return clock->mono_ns(host); },
                                                 [host, samples] { return CollectText(host, samples); });
  bool is_invalid = false;
  std::string text;
  if (!listener->Start(self.listen, &is_invalid, &text)) {
    return Fail(error, is_invalid ? KW_INVALID_ARGUMENT : KW_UNAVAILABLE, text);
  }
  self.listener = std::move(listener);
  return KW_OK;
}

int32_t Start(kw_plugin* plugin, kw_error* error) noexcept {
  return Guard(error, [&] { return StartListener(Self(plugin), error); });
}

void Stop(kw_plugin* plugin) noexcept { Self(plugin).listener.reset(); }

void Destroy(kw_plugin* plugin) noexcept { delete &Self(plugin); }

int32_t RenderThunk(kw_plugin*, const kw_sample* samples, size_t sample_count, kw_writer* writer,
                    kw_error* error) noexcept {
  return Guard(error, [&] {
    std::string text;
    Render(samples, sample_count, &text);
    const int32_t code = writer->write(writer->self, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    return code == KW_OK ? code : Fail(error, code, "the writer ended the writing");
  });
}

const kw_observer kObserverTable = {.size = sizeof(kw_observer), .caps = 0, .render = RenderThunk};

const void* Get(kw_plugin*, const char* interface_id) noexcept {
  return std::string_view(interface_id) == KW_OBSERVER ? &kObserverTable : nullptr;
}

int32_t Create(const kw_host* host, const kw_config_item* items, size_t item_count, kw_plugin** out,
               kw_error* error) noexcept {
  return Guard(error, [&] {
    auto instance = std::make_unique<Instance>();
    instance->host = host;
    for (size_t i = 0; i < item_count; ++i) {
      if (std::string_view(items[i].key) != "listen" || items[i].value.len == 0) continue;
      instance->listen.emplace_back(reinterpret_cast<const char*>(items[i].value.ptr), items[i].value.len);
    }
    instance->plugin = {sizeof(kw_plugin), 0, instance.get(), Start, Stop, Destroy, Get};
    *out = &instance.release()->plugin;
    return KW_OK;
  });
}

const char* const kProvides[] = {KW_OBSERVER, nullptr};
const char* const kNeeds[] = {KW_LOG, KW_CLOCK, KW_SAMPLES, nullptr};
const kw_config_field kFields[] = {
    {"listen", "strings", "[]",
     "addresses such as \"http://127.0.0.1:2381\" that serve GET /metrics; none: only the API plugins do"},
};
const kw_descriptor kDescriptor = {
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
    .field_count = sizeof(kFields) / sizeof(kFields[0]),
    .create = Create,
};
const kw_descriptor* const kPlugins[] = {&kDescriptor};
const kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};

}  // namespace
}  // namespace keyway::metrics_prometheus

extern "C" KW_PLUGIN_ENTRY(metrics_prometheus) { return &keyway::metrics_prometheus::kEntry; }
