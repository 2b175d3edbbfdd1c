// SPDX-License-Identifier: Apache-2.0
//
// keywayd: flags and exit codes. 0: ended as asked; 1: the node failed; 2: flags or configuration;
// 3: a plugin broke the contract.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <string>

#include "absl/synchronization/mutex.h"
#include "kernel/daemon/daemon.h"
#include "kernel/daemon/signals.h"
#include "kernel/plugin/host_services.h"

namespace {

int Main(int argc, char** argv) {
  keyway::DaemonOptions options;
  CLI::App app("One node of a Keyway cluster. Everything but logging is configured in the file.", "keywayd");
  bool print_version = false;
  app.add_flag("--version", print_version, "Print the version and the ABI that plugins find");
  app.add_option("--config", options.config_file, "The configuration (TOML)");
  app.add_flag("--check-config", options.check_only,
               "Check the configuration against all plugins and print it with every default");
  const std::map<std::string, uint32_t> levels = {
      {"debug", KW_LOG_DEBUG}, {"info", KW_LOG_INFO}, {"warn", KW_LOG_WARN}, {"error", KW_LOG_ERROR}};
  std::string level = "info", format = "console";
  app.add_option("--log-level", level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.add_option("--log-format", format, "console or json")
      ->check(CLI::IsMember({"console", "json"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? keyway::kExitOk : keyway::kExitUsage;
  }
  if (print_version) {
    std::printf("%s\nABI %d.%d\n", keyway::kProduct, KW_ABI_MAJOR, KW_ABI_MINOR);
    return keyway::kExitOk;
  }
  if (options.config_file.empty()) {
    std::fputs("keywayd: --config FILE is needed; see --help\n", stderr);
    return keyway::kExitUsage;
  }
  options.log_level_min = levels.at(level);
  if (format == "json") options.log_format = keyway::LogFormat::kJson;
  return keyway::RunDaemon(options);
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  keyway::BlockSignals();
  const int code = Main(argc, argv);
  std::fflush(nullptr);
  // Libraries are never unloaded, and their static destructors have nothing to save.
  _exit(code);
}
