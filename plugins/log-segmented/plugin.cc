// SPDX-License-Identifier: Apache-2.0
//
// The plugin "log-segmented": keyway.log-store/1 over LogStore.
#include "keyway/plugin.hpp"

#include <memory>
#include <string_view>

#include "keyway/log_store.h"
#include "log_store.h"

KW_PLUGIN_MANIFEST(
    "id=log-segmented;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.log-store/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::log_segmented {
namespace {

class LogPlugin {
 public:
  static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<LogPlugin>* out,
                        kw_error* error);
  int32_t Start(kw_error* error) {
    store_ = std::make_unique<LogStore>(*file_system_, options_);
    const int32_t code = store_->Open(host_).Fill(error);
    if (code != KW_OK) store_.reset();
    return code;
  }
  void Stop() {
    if (store_ != nullptr) store_->Stop();
  }
  static const void* Get(std::string_view interface_id);
  LogStore& store() { return *store_; }

 private:
  const kw_host* host_ = nullptr;
  Options options_;
  std::unique_ptr<FileSystem> file_system_;
  std::unique_ptr<LogStore> store_;
};

LogStore& Self(kw_plugin* plugin) { return SelfOf<LogPlugin>(plugin).store(); }

int32_t Recover(kw_plugin* plugin, kw_hard_state* hard_state, kw_log_bounds* bounds,
                kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Recover(hard_state, bounds).Fill(error); });
}
int32_t Append(kw_plugin* plugin, const kw_log_entry* entries, size_t entry_count,
               const kw_hard_state* hard_state, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).Append({entries, entry_count}, hard_state, completion); });
}
int32_t TryAppend(kw_plugin* plugin, const kw_log_entry* entries, size_t entry_count,
                  const kw_hard_state* hard_state, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] {
    return Self(plugin).TryAppend({entries, entry_count}, hard_state, completion);
  });
}
int32_t Read(kw_plugin* plugin, uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out,
             kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Read(begin, end, bytes_max, out).Fill(error); });
}
int32_t TruncatePrefix(kw_plugin* plugin, uint64_t first_kept, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).TruncatePrefix(first_kept, completion); });
}
int32_t Reset(kw_plugin* plugin, uint64_t base_index, uint64_t base_term,
              kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).Reset(base_index, base_term, completion); });
}

int32_t Salvage(kw_plugin* plugin, uint64_t base_index, uint64_t base_term, kw_log_salvage* out,
                kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).FindSalvage(base_index, base_term, out).Fill(error); });
}
int32_t Rebuild(kw_plugin* plugin, kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Rebuild().Fill(error); });
}

constexpr kw_log_store kLogStore = {sizeof(kw_log_store), 0,     Recover,   Append,  Read,
                                    TruncatePrefix,       Reset, TryAppend, Salvage, Rebuild};

const void* LogPlugin::Get(std::string_view interface_id) {
  return interface_id == KW_LOG_STORE ? &kLogStore : nullptr;
}

int32_t LogPlugin::Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<LogPlugin>* out,
                          kw_error* error) {
  auto plugin = std::make_unique<LogPlugin>();
  plugin->host_ = host;
  Options& options = plugin->options_;
  options.directory = config.String("dir");
  options.segment_bytes = static_cast<uint64_t>(config.Int("segment_bytes", 64 << 20)) / 4096 * 4096;
  if (options.directory.empty()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "dir: must not be empty");
  }
  if (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG,
                      "segment_bytes: ", options.segment_bytes, " is out of range");
  }
  plugin->file_system_ = MakePosixFileSystem();
  *out = std::move(plugin);
  return KW_OK;
}

constexpr kw_config_field kFields[] = {
    {"dir", "path", nullptr, "Directory of the log; made if missing. On a disk with low flush latency."},
    {"segment_bytes", "bytes(16384..2147483648)", "64MiB",
     "Size of one segment file; up to three more than needed are kept."},
};
constexpr const char* kProvides[] = {KW_LOG_STORE, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "log-segmented",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "beta",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       std::size(kFields),
                                       Lifecycle<LogPlugin>::Create};

}  // namespace
}  // namespace keyway::log_segmented

KW_PLUGIN_ENTRY(log_segmented) { return keyway::SoleEntry<&keyway::log_segmented::kDescriptor>(); }
