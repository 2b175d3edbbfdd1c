// SPDX-License-Identifier: Apache-2.0
//
// keywayctl: the entry. Parses the global flags, then runs the command that was named.
#include <absl/synchronization/mutex.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>

#include "commands.h"
#include "output.h"

namespace keyway::ctl {
namespace {

void AddGlobalFlags(CLI::App* app, Flags* flags, std::string* endpoints) {
  app->add_option("--endpoints", *endpoints, "addresses of members, host:port with commas between")
      ->envname("KEYWAYCTL_ENDPOINTS")
      ->capture_default_str();
  app->add_option("-w,--write-out", flags->write_out, "table, json or simple")
      ->check(CLI::IsMember({"table", "json", "simple"}));
  app->add_flag("--hex", flags->hex, "keys and values as hexadecimal bytes");
  app->add_option("--command-timeout", flags->command_timeout, "for one command")->capture_default_str();
  app->add_option("--dial-timeout", flags->dial_timeout, "for one connection")->capture_default_str();
  app->add_option("--cacert", flags->ca_file, "verify the servers with these roots (PEM)")
      ->envname("KEYWAYCTL_CACERT");
  app->add_option("--cert", flags->certificate_file, "the client's certificate chain (PEM)")
      ->envname("KEYWAYCTL_CERT");
  app->add_option("--key", flags->key_file, "the client's key (PEM)")->envname("KEYWAYCTL_KEY");
  app->add_flag("--insecure-skip-tls-verify", flags->skips_tls_verify,
                "take any certificate of a server; only for finding out what is wrong");
}

int Run(int argc, char** argv) {
  Context context;
  CLI::App app("keywayctl: the command line tool of Keyway");
  app.require_subcommand(1);
  app.fallthrough();  // Global flags may follow the command.
  std::string endpoints = "127.0.0.1:2379";
  AddGlobalFlags(&app, &context.flags, &endpoints);
  AddKvCommands(&app, &context);
  AddTxnCommand(&app, &context);
  AddWatchCommand(&app, &context);
  AddLeaseCommands(&app, &context);
  AddClusterCommands(&app, &context);
  AddPluginCommands(&app, &context);
  AddStoreCommands(&app, &context);
  AddCompletionCommand(&app, &context);
  app.add_subcommand("version", "Print the version")->callback([&context] {
    context.command = [] {
      PrintLine("keywayctl version: " KEYWAY_VERSION "\nAPI version: 3.7");
      return static_cast<int>(kOk);
    };
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    const std::vector<std::string> unknown = app.remaining();
    const bool is_unknown_command = app.get_subcommands().empty() && !unknown.empty();
    const std::string text = is_unknown_command ? "unknown command \"" + unknown[0] + "\"" : e.what();
    return Fail(kBadArguments, text + " (try --help)");
  }
  context.flags.endpoints = SplitCommas(endpoints);
  if (!ParseDuration(context.flags.command_timeout, &context.command_timeout)) {
    return Fail(kBadArguments,
                "--command-timeout \"" + context.flags.command_timeout + "\" is not a duration such as 5s");
  }
  if (!ParseDuration(context.flags.dial_timeout, &context.dial_timeout)) {
    return Fail(kBadArguments,
                "--dial-timeout \"" + context.flags.dial_timeout + "\" is not a duration such as 2s");
  }
  const int code = context.command();
  if (std::fflush(stdout) != 0 && code == kOk) return Fail(kError, "cannot write to stdout");
  return code;
}

}  // namespace
}  // namespace keyway::ctl

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  setenv("GRPC_VERBOSITY", "NONE", 0);  // Errors are reported once, by this tool.
  return keyway::ctl::Run(argc, argv);
}
