// SPDX-License-Identifier: Apache-2.0
//
// PluginSet: all plugins of one node, from the configuration to their end. Every function runs on the
// [control] thread, in this order:
//
//   Load()          libraries, and their options against their schemas; collects configuration errors
//   Create()        an instance for each section, its tables completed
//   Start()         auth, storage, log, transport, metrics
//   StartApis()     after the kernel is set in NodeServices
//   StopApis()      clients first
//   Stop()          the rest, in reverse; then every instance is destroyed
//
// A failure undoes what the call had begun: no plugin is left started.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernel/config/config.h"
#include "kernel/plugin/check/checker.h"
#include "kernel/plugin/host_services.h"
#include "kernel/plugin/loader.h"
#include "kernel/plugin/tables.h"

namespace keyway {

// A plugin's instance with the completed table of its interface.
template <typename Table>
struct Role {
  kw_plugin* plugin = nullptr;
  Table table{};
};

class PluginSet {
 public:
  // All outlive this.
  PluginSet(const Config* config, PluginLoader* loader, NodeServices* services);
  ~PluginSet();
  PluginSet(const PluginSet&) = delete;
  PluginSet& operator=(const PluginSet&) = delete;

  void Load(std::vector<ConfigError>* errors);
  absl::Status Create();
  absl::Status Start();
  absl::Status StartApis();
  void StopApis();
  void Stop();

  // [i] belongs to config.plugins[i]; complete after a Load() without errors.
  std::vector<Options> PluginOptions() const;
  // The plugins and their options as JSON: see inventory.h.
  std::string Inventory() const;
  // What all [[api]] sections name in their option `listen`: the client URLs of this node.
  std::vector<std::string> ListenClientUrls() const;

  // Complete after Start(), until Stop(). At [check] level off these are the plugins' own instances and
  // completed tables, at the other levels wrappers around them (kernel/plugin/check).
  const Role<kw_kv_store>& store() const { return store_; }
  const Role<kw_log_store>& log() const { return log_; }
  const Role<kw_transport>& transport() const { return transport_; }

 private:
  struct Instance {
    const PluginSection* section = nullptr;
    const kw_descriptor* descriptor = nullptr;
    Options options;
    std::unique_ptr<check::InstanceCheck> check;  // NULL at level off.
    std::unique_ptr<PluginHost> host;
    kw_plugin* plugin = nullptr;
    bool is_started = false;
  };
  bool IsApi(const Instance& instance) const { return instance.section->kind == "api"; }
  // "plugin storage-lmdb ([storage], keyway.toml:12)"
  std::string NameOf(const Instance& instance) const;
  absl::Status Failed(const Instance& instance, const std::string& what, int32_t code,
                      const kw_error& error) const;
  absl::Status CreateOne(Instance* instance);
  absl::Status StartOne(Instance* instance);
  absl::Status TakeTables(Instance* instance);
  void Publish(const Instance& instance);
  void End(const Instance& instance, const check::Function& function, void (*end)(kw_plugin* plugin));
  void StopOne(Instance* instance);
  void DestroyAll();

  const Config& config_;
  PluginLoader& loader_;
  NodeServices& services_;
  std::unique_ptr<check::Checker> checker_;  // NULL at level off.
  std::vector<Instance> instances_;          // In starting order; fixed after Load().
  Role<kw_kv_store> store_;
  Role<kw_log_store> log_;
  Role<kw_transport> transport_;
  Role<kw_authenticator> authenticator_;
  Role<kw_observer> observer_;
  const Instance* observer_instance_ = nullptr;
};

}  // namespace keyway
