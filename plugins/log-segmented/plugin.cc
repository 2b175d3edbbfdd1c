// SPDX-License-Identifier: Apache-2.0
//
// The plugin "log-segmented": keyway.log-store/1 over LogStore.
#include <cstring>
#include <memory>

#include "keyway/log_store.h"
#include "keyway/plugin.hpp"
#include "log_store.h"

KW_PLUGIN_MANIFEST(
    "id=log-segmented;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.log-store/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::log_segmented {
namespace {

struct Instance {
  kw_plugin base = {};
  const kw_host* host = nullptr;
  Options options;
  std::unique_ptr<FileSystem> file_system;
  std::unique_ptr<LogStore> store;
};

Instance& Self(kw_plugin* plugin) { return *static_cast<Instance*>(plugin->self); }

int32_t Recover(kw_plugin* plugin, kw_hard_state* hard_state, kw_log_bounds* bounds,
                kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).store->Recover(hard_state, bounds).Fill(error); });
}
int32_t Append(kw_plugin* plugin, const kw_log_entry* entries, size_t entry_count,
               const kw_hard_state* hard_state, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] {
    return Self(plugin).store->Append({entries, entry_count}, hard_state, completion);
  });
}
int32_t TryAppend(kw_plugin* plugin, const kw_log_entry* entries, size_t entry_count,
                  const kw_hard_state* hard_state, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] {
    return Self(plugin).store->TryAppend({entries, entry_count}, hard_state, completion);
  });
}
int32_t Read(kw_plugin* plugin, uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out,
             kw_error* error) noexcept {
  return Guard(error,
               [&] { return Self(plugin).store->Read(begin, end, bytes_max, out).Fill(error); });
}
int32_t TruncatePrefix(kw_plugin* plugin, uint64_t first_kept, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).store->TruncatePrefix(first_kept, completion); });
}
int32_t Reset(kw_plugin* plugin, uint64_t base_index, uint64_t base_term,
              kw_completion* completion) noexcept {
  return Guard(nullptr,
               [&] { return Self(plugin).store->Reset(base_index, base_term, completion); });
}

constexpr kw_log_store kLogStore = {
    sizeof(kw_log_store), 0, Recover, Append, Read, TruncatePrefix, Reset, TryAppend};

int32_t Start(kw_plugin* plugin, kw_error* error) noexcept {
  return Guard(error, [&] {
    Instance& self = Self(plugin);
    self.store = std::make_unique<LogStore>(*self.file_system, self.options);
    const int32_t code = self.store->Open(self.host).Fill(error);
    if (code != KW_OK) self.store.reset();
    return code;
  });
}
void Stop(kw_plugin* plugin) noexcept {
  if (Self(plugin).store != nullptr) Self(plugin).store->Stop();
}
void Destroy(kw_plugin* plugin) noexcept { delete &Self(plugin); }
const void* Get(kw_plugin*, const char* interface_id) noexcept {
  return std::strcmp(interface_id, KW_LOG_STORE) == 0 ? &kLogStore : nullptr;
}

int32_t Create(const kw_host* host, const kw_config_item* items, size_t item_count, kw_plugin** out,
               kw_error* error) noexcept {
  return Guard(error, [&] {
    const ConfigReader config(items, item_count);
    auto instance = std::make_unique<Instance>();
    instance->host = host;
    instance->options.directory = config.String("dir");
    instance->options.segment_bytes =
        static_cast<uint64_t>(config.Int("segment_bytes", 64 << 20)) / 4096 * 4096;
    if (instance->options.directory.empty()) {
      return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "dir: must not be empty");
    }
    if (instance->options.segment_bytes < kSegmentBytesMin ||
        instance->options.segment_bytes > kSegmentBytesMax) {
      return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "segment_bytes: ",
                        instance->options.segment_bytes, " is out of range");
    }
    instance->file_system = MakePosixFileSystem();
    instance->base = {sizeof(kw_plugin), 0, instance.get(), Start, Stop, Destroy, Get};
    *out = &instance.release()->base;
    return int32_t{KW_OK};
  });
}

constexpr kw_config_field kFields[] = {
    {"dir", "path", nullptr, "Directory of the log; made if missing. On a disk with low flush latency."},
    {"segment_bytes", "bytes(16384..2147483648)", "64MiB",
     "Size of one segment file; up to three more than needed are kept."},
};
constexpr const char* kProvides[] = {KW_LOG_STORE, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
constexpr kw_descriptor kDescriptor = {
    sizeof(kw_descriptor), KW_ABI_MAJOR, 0,       "log-segmented", "0.1.0", "Apache-2.0", "beta",
    kProvides,             kNeeds,       kFields, std::size(kFields), Create};
constexpr const kw_descriptor* kPlugins[] = {&kDescriptor};
constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};

}  // namespace
}  // namespace keyway::log_segmented

extern "C" KW_PLUGIN_ENTRY(log_segmented) { return &keyway::log_segmented::kEntry; }
