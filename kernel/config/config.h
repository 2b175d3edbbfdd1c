// SPDX-License-Identifier: Apache-2.0
//
// Config: keyway.toml as the kernel uses it. The kernel's own sections are checked here; a plugin's
// options are checked by CheckPluginOptions() once its library, and with it its schema, is known.
//
//   [node]             name, data_dir, advertise_client_urls
//   [cluster]          token, state; [cluster.members] NAME = "URL" or ["URL", ...]
//   [raft]             heartbeat_interval, election_timeout, log_entries_kept
//   [limits]           request_bytes_max, txn_ops_max, quota_bytes
//   [cache]            bytes
//   [check]            level, deadline_core_warn, deadline_warn, deadline_stop, deadline_control_stop,
//                      digest_interval
//   [storage] [log] [transport] [auth] [[metrics]] [[api]]
//                      plugin = "NAME" or "/absolute/path.so"; all other keys are the plugin's,
//                      but for listen_urls of [transport]
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/config/document.h"
#include "kernel/config/schema.h"

namespace keyway {

struct MemberConfig {
  std::string name;
  std::vector<std::string> urls;
};

// A section that names a plugin.
struct PluginSection {
  std::string kind;    // "storage", "log", "transport", "auth", "metrics" or "api"
  std::string label;   // For messages: the kind, or "api[1]" of several.
  std::string plugin;  // As configured: a name, or an absolute path.
  SourcePlace place;   // Of the key `plugin`, or of the section.
  RawSection raw;
};

struct Config {
  std::string file;  // For messages.

  std::string name;
  std::string data_dir;
  std::vector<std::string> advertise_client_urls;  // Empty: what the API sections listen on.
  std::string cluster_token;
  bool join_existing = false;
  std::vector<MemberConfig> members;  // Ordered by name; holds this node.
  std::vector<std::string> listen_peer_urls;
  uint64_t heartbeat_ms = 0;
  uint64_t election_ms = 0;
  uint64_t log_entries_kept = 0;
  uint64_t request_bytes_max = 0;
  uint64_t txn_ops_max = 0;
  uint64_t quota_bytes = 0;  // 0: no quota.
  uint64_t cache_bytes = 0;
  uint64_t digest_interval_ms = 0;    // 0: no digests.
  std::string check_level = "cheap";  // "off", "cheap" or "full": see kernel/plugin/check.
  uint64_t check_core_warn_ms = 0;
  uint64_t check_warn_ms = 0;
  uint64_t check_stop_ms = 0;
  uint64_t check_control_stop_ms = 0;

  // In starting order: auth, storage, log, transport, metrics..., api...
  std::vector<PluginSection> plugins;

  // The kernel's sections as checked, for printing.
  struct KernelSection {
    std::string label;
    Options options;
  };
  std::vector<KernelSection> kernel_sections;
};

// Reads and checks `text`. `file` is what messages call it. The result is complete only if `errors`
// stays empty; errors are in the order of the file.
Config ParseConfig(std::string_view text, std::string_view file, std::vector<ConfigError>* errors);

// The options of a plugin, checked against its schema. What the kernel knows better than a default it
// gives where the file is silent: a field `dir` becomes DATA_DIR/KIND, the place of a plugin with state,
// and a field `max_request_bytes` of an API plugin becomes [limits] request_bytes_max.
Options CheckPluginOptions(const Config& config, const PluginSection& section,
                           std::span<const kw_config_field> fields, std::vector<ConfigError>* errors);

// The effective configuration as valid TOML, each value with the line that it came from, or "default".
// plugin_options[i] belongs to config.plugins[i].
std::string PrintConfig(const Config& config, std::span<const Options> plugin_options);

// All errors, one a line, in the order of the file.
std::string FormatErrors(std::string_view file, std::vector<ConfigError> errors);

}  // namespace keyway
