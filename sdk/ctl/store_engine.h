// SPDX-License-Identifier: Apache-2.0
//
// A storage engine in this process: its library loaded, an instance started, driven as the kernel does.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "keyway/kv_store.h"
#include "plugin_options.h"

namespace keyway::ctl {

// Methods return an error text, empty if all went well.
class StoreEngine {
 public:
  StoreEngine() = default;
  StoreEngine(const StoreEngine&) = delete;
  StoreEngine& operator=(const StoreEngine&) = delete;
  ~StoreEngine() { Stop(); }

  // Loads `name` (a path if it has a slash, else NAME.so in `directory`) and checks the options. The
  // library stays loaded until the process ends.
  std::string Load(const std::string& directory, const std::string& name,
                   const std::vector<std::string>& options);
  const std::string& id() const { return id_; }
  // The option `dir`: where the engine keeps its files.
  std::string data_directory() const;
  void set_data_directory(const std::string& directory);

  std::string Start();
  void Stop();
  const kw_kv_store& table() const { return *table_; }
  kw_plugin* plugin() const { return plugin_; }

  std::string Write(const std::vector<kw_kv_op>& ops);
  std::string Sync();
  // Calls `visit` with every pair of a table, in order, as of one view; it may return an error text.
  std::string Scan(kw_kv_view* view, uint32_t table,
                   const std::function<std::string(kw_slice key, kw_slice value)>& visit);
  std::string OpenView(kw_kv_view** out);
  void CloseView(kw_kv_view* view) { table_->view_close(plugin_, view); }

 private:
  std::string id_;
  const kw_descriptor* descriptor_ = nullptr;
  PluginOptions options_;
  kw_plugin* plugin_ = nullptr;
  const kw_kv_store* table_ = nullptr;
};

}  // namespace keyway::ctl
