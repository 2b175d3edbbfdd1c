// SPDX-License-Identifier: Apache-2.0
//
// One node from its configuration to its end. Start order: plugins that need no kernel, the node, API
// plugins. End: leadership is handed over, then API plugins, the node, the other plugins.
#pragma once

#include <string>

#include "kernel/daemon/stderr_logger.h"

namespace keyway {

// Exit codes of the program.
inline constexpr int kExitOk = 0;
inline constexpr int kExitRuntime = 1;  // The node could not start, or failed.
inline constexpr int kExitUsage = 2;    // Flags or configuration.
// 3: a plugin broke the contract (kernel/plugin/check/verdict.h).

struct DaemonOptions {
  std::string config_file;
  bool check_only = false;  // Print the effective configuration and end.
  uint32_t log_level_min = KW_LOG_INFO;
  LogFormat log_format = LogFormat::kConsole;
};

// Runs until SIGTERM or SIGINT, or until the node fails. Returns the exit code.
int RunDaemon(const DaemonOptions& options);

}  // namespace keyway
