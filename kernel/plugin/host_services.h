// SPDX-License-Identifier: Apache-2.0
//
// What a plugin may call of its host. NodeServices is what one node has; PluginHost is the kw_host of
// one instance and gives only the services that its descriptor needs and its section grants.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "kernel/plugin/check/checked_host.h"
#include "kernel/plugin/clock.h"
#include "kernel/plugin/log.h"
#include "kernel/plugin/metrics.h"
#include "keyway/abi.h"
#include "keyway/authenticator.h"
#include "keyway/host.h"
#include "keyway/kernel.h"
#include "keyway/observer.h"

namespace keyway {

inline constexpr char kProduct[] = "keyway 0.1.0";

bool IsKnownService(std::string_view service_id);

struct NodeServices {
  // All outlive every plugin.
  Clock* clock = nullptr;
  Logger* logger = nullptr;
  uint32_t log_level_min = KW_LOG_INFO;
  MetricsRegistry* metrics = nullptr;

  // The kernel's table and what its functions find with KernelSelf(); set before an API plugin starts.
  std::atomic<const kw_kernel*> kernel = nullptr;
  std::atomic<void*> kernel_self = nullptr;

  // What kw_kernel.plugins() writes; set before an API plugin starts.
  std::string inventory;

  // The configured authenticator and the first [[metrics]] plugin, NULL while there is none. Set between
  // their start and the start of plugins that use them.
  std::atomic<kw_plugin*> authenticator_plugin = nullptr;
  std::atomic<const kw_authenticator*> authenticator = nullptr;
  std::atomic<const check::Subject*> authenticator_subject = nullptr;  // Under check.
  std::atomic<kw_plugin*> observer_plugin = nullptr;
  std::atomic<const kw_observer*> observer = nullptr;
};

class PluginHost {
 public:
  // All outlive this. `grants_kernel`: the section is one of [[api]]. `maybe_check`: every service checks
  // what the plugin calls.
  PluginHost(NodeServices* services, const kw_descriptor* descriptor, bool grants_kernel,
             check::HostCheck* maybe_check = nullptr);
  PluginHost(const PluginHost&) = delete;
  PluginHost& operator=(const PluginHost&) = delete;

  const kw_host* host() const { return &host_; }

  // The host of a pointer that a plugin hands back.
  static const PluginHost& From(const kw_host* host) { return *static_cast<const PluginHost*>(host->self); }
  NodeServices& services() const { return *services_; }
  const char* plugin_id() const { return descriptor_->id; }
  check::HostCheck* maybe_check() const { return maybe_check_; }

 private:
  static const void* Get(const kw_host* host, const char* service_id);

  NodeServices* const services_;
  const kw_descriptor* const descriptor_;
  const bool grants_kernel_;
  check::HostCheck* const maybe_check_;
  const kw_log log_;
  const kw_host host_;
};

// For the functions of the kernel's table: the node that a host belongs to.
inline void* KernelSelf(const kw_host* host) {
  return PluginHost::From(host).services().kernel_self.load(std::memory_order_relaxed);
}

}  // namespace keyway
