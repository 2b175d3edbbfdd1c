// SPDX-License-Identifier: Apache-2.0
//
// PluginLoader: from a name in keyway.toml to a checked descriptor. The manifest decides whether the
// library is loaded at all; nothing is searched but the one plugin folder. A library is never unloaded:
// its threads and thread-local destructors may outlive stop().
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "keyway/abi.h"

namespace keyway {

// Makes the plugins of a statically linked entry known by their ids, in front of the plugin folder.
// They pass the same checks, but for the manifest, which is a property of files. Not concurrent with
// loading.
void RegisterStaticPlugin(const kw_entry* entry);

class PluginLoader {
 public:
  // `plugin_dir` holds NAME.so for a plugin that is configured by name.
  explicit PluginLoader(std::string plugin_dir) : plugin_dir_(std::move(plugin_dir)) {}

  // The descriptor of a plugin (name, or absolute path), loading its library at the first call. The
  // same plugin gives the same descriptor. Errors name the file and what to do. [control]
  absl::StatusOr<const kw_descriptor*> Load(const std::string& plugin);

 private:
  struct Library {
    std::string path;
    const kw_entry* entry;
  };
  absl::StatusOr<const kw_entry*> LoadLibrary(const std::string& path);

  const std::string plugin_dir_;
  std::vector<Library> libraries_;
};

}  // namespace keyway
