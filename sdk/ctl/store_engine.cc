// SPDX-License-Identifier: Apache-2.0
#include "store_engine.h"

#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <deque>
#include <mutex>

#include "keyway/error.hpp"
#include "keyway/host.h"
#include "keyway/slice.hpp"
#include "manifest.h"

namespace keyway::ctl {
namespace {

// ---- the host, as small as a storage engine needs it -------------------------------------------------

void WriteLog(const kw_host*, uint32_t level, const char* event, const kw_field* fields, size_t field_count) {
  std::string line = (level >= KW_LOG_ERROR ? "error: " : "warning: ") + std::string(event);
  for (size_t i = 0; i < field_count; ++i) {
    line += " " + std::string(fields[i].key) + "=" + std::string(View(fields[i].value));
  }
  std::fprintf(stderr, "%s\n", line.c_str());
}

template <typename Clock>
uint64_t NowNs(const kw_host*) {
  const auto since = Clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}
int32_t NoTimer(const kw_host*, uint64_t, kw_completion*) { return KW_UNIMPLEMENTED; }
void NoCancel(const kw_host*, kw_completion*) {}

// Cells that nobody reads. They live as long as the process.
uint64_t* NewCells(size_t count) {
  static std::mutex mutex;
  static std::deque<std::vector<uint64_t>> cells;
  std::lock_guard lock(mutex);
  return cells.emplace_back(count).data();
}
uint64_t* Cell(const kw_host*, uint32_t, const char*, const char*, const kw_field*, size_t) {
  return NewCells(1);
}
uint64_t* HistogramCells(const kw_host*, const char*, const char*, const kw_field*, size_t, const double*,
                         size_t bound_count) {
  return NewCells(bound_count + 2);
}

const void* GetService(const kw_host*, const char* service_id) {
  static constexpr kw_log kLog = {sizeof(kw_log), KW_LOG_WARN, WriteLog};
  static constexpr kw_clock kClock = {
      sizeof(kw_clock), 0,       NowNs<std::chrono::steady_clock>, NowNs<std::chrono::system_clock>,
      NoTimer,          NoCancel};
  static constexpr kw_metrics kMetrics = {sizeof(kw_metrics), 0, Cell, HistogramCells};
  const std::string_view id = service_id;
  if (id == KW_LOG) return &kLog;
  if (id == KW_CLOCK) return &kClock;
  if (id == KW_METRICS) return &kMetrics;
  return nullptr;
}

const kw_host* Host() {
  static constexpr kw_host kHost = {sizeof(kw_host), KW_ABI_MAJOR, KW_ABI_MINOR,
                                    nullptr,         "keywayctl",  GetService};
  return &kHost;
}

std::string TextOf(const kw_error& error, int32_t code) {
  return error.text[0] != '\0' ? error.text : "code " + std::to_string(code);
}

constexpr char kDirectoryOption[] = "dir";

}  // namespace

std::string StoreEngine::Load(const std::string& directory, const std::string& name,
                              const std::vector<std::string>& options) {
  const bool is_path = name.find('/') != std::string::npos;
  const std::string path = is_path ? name : directory + "/" + name + ".so";
  Manifest manifest;
  std::string error = ReadManifest(path, &manifest);
  if (!error.empty()) return path + ": " + error;
  id_ = manifest.id;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return dlerror();
  const auto entry = reinterpret_cast<const kw_entry* (*)()>(dlsym(library, KW_PLUGIN_ENTRY_SYMBOL));
  const kw_entry* table = entry == nullptr ? nullptr : entry();
  if (table == nullptr || table->size < sizeof(kw_entry)) return path + ": the entry function gives no table";
  if (table->abi_major != KW_ABI_MAJOR) {
    return path + ": ABI major " + std::to_string(table->abi_major) + ", this tool has " +
           std::to_string(KW_ABI_MAJOR);
  }
  for (size_t i = 0; i < table->plugin_count && i < 64; ++i) {
    if (table->plugins[i]->id == id_) descriptor_ = table->plugins[i];
  }
  if (descriptor_ == nullptr) return path + ": holds no plugin " + id_;
  bool is_store = false;
  for (const char* const* id = descriptor_->provides; *id != nullptr; ++id) {
    is_store = is_store || std::string_view(*id) == KW_KV_STORE;
  }
  if (!is_store) return id_ + " provides no " KW_KV_STORE;
  error = ReadOptions(*descriptor_, options, &options_);
  if (!error.empty()) return id_ + ": option " + error;
  return data_directory().empty() ? id_ + " has no option \"dir\"" : "";
}

std::string StoreEngine::data_directory() const {
  for (const auto& [key, value] : options_) {
    if (key == kDirectoryOption) return value;
  }
  return "";
}

void StoreEngine::set_data_directory(const std::string& directory) {
  for (auto& [key, value] : options_) {
    if (key == kDirectoryOption) value = directory;
  }
}

std::string StoreEngine::Start() {
  std::vector<kw_config_item> items;
  for (const auto& [key, value] : options_) items.push_back({key.c_str(), Slice(value), 0, 0});
  kw_error error = NoError();
  int32_t code = descriptor_->create(Host(), items.data(), items.size(), &plugin_, &error);
  if (code != KW_OK) {
    plugin_ = nullptr;
    return id_ + ": " + TextOf(error, code);
  }
  code = plugin_->start(plugin_, &error);
  if (code == KW_OK) {
    table_ = static_cast<const kw_kv_store*>(plugin_->get(plugin_, KW_KV_STORE));
    if (table_ != nullptr) return "";
    plugin_->stop(plugin_);
  }
  plugin_->destroy(plugin_);
  plugin_ = nullptr;
  return id_ + ": " + (code == KW_OK ? "gives no table of " KW_KV_STORE : TextOf(error, code));
}

void StoreEngine::Stop() {
  if (plugin_ == nullptr) return;
  plugin_->stop(plugin_);
  plugin_->destroy(plugin_);
  plugin_ = nullptr;
}

std::string StoreEngine::Write(const std::vector<kw_kv_op>& ops) {
  kw_error error = NoError();
  const int32_t code = table_->write(plugin_, ops.data(), ops.size(), &error);
  return code == KW_OK ? "" : id_ + ": " + TextOf(error, code);
}

std::string StoreEngine::Sync() {
  kw_error error = NoError();
  const int32_t code = table_->sync(plugin_, &error);
  return code == KW_OK ? "" : id_ + ": " + TextOf(error, code);
}

std::string StoreEngine::OpenView(kw_kv_view** out) {
  kw_error error = NoError();
  const int32_t code = table_->view_open(plugin_, out, &error);
  return code == KW_OK ? "" : id_ + ": " + TextOf(error, code);
}

std::string StoreEngine::Scan(kw_kv_view* view, uint32_t table,
                              const std::function<std::string(kw_slice, kw_slice)>& visit) {
  kw_error error = NoError();
  kw_kv_cursor* cursor = nullptr;
  int32_t code = table_->cursor_open(plugin_, view, table, {}, {}, 0, &cursor, &error);
  if (code != KW_OK) return id_ + ": " + TextOf(error, code);
  kw_kv_pair pairs[64];
  size_t count = 0;
  std::string failed;
  do {
    code = table_->cursor_next(plugin_, cursor, pairs, std::size(pairs), &count, &error);
    if (code != KW_OK) failed = id_ + ": " + TextOf(error, code);
    for (size_t i = 0; failed.empty() && i < count; ++i) failed = visit(pairs[i].key, pairs[i].value);
  } while (failed.empty() && count != 0);
  table_->cursor_close(plugin_, cursor);
  return failed;
}

}  // namespace keyway::ctl
