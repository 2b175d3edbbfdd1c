// SPDX-License-Identifier: Apache-2.0
//
// store rewrite: one member's store into another engine, while the member is stopped.
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "commands.h"
#include "json.h"
#include "output.h"
#include "rewrite.h"

namespace keyway::ctl {
namespace {

struct RewriteFlags {
  std::string from_plugin, to_plugin, plugin_directory;
  std::vector<std::string> from, to;
};

std::string HexCrc(uint32_t crc) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", crc);
  return text;
}

// One line on a terminal, a few times a second.
class Progress {
 public:
  void Show(const TableSum& done) {
    const auto now = std::chrono::steady_clock::now();
    if (!on_terminal_ || now < next_) return;
    next_ = now + std::chrono::milliseconds(200);
    shown_ = true;
    std::fprintf(stderr, "\r%llu pairs, %s copied ", static_cast<unsigned long long>(done.pairs),
                 ByteSize(done.bytes).c_str());
  }
  void End() {
    if (shown_) std::fprintf(stderr, "\r\x1b[K");
  }

 private:
  const bool on_terminal_ = ::isatty(2) == 1;
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_{};
};

int RunRewrite(const Context& context, const RewriteFlags& flags) {
  const std::string directory =
      flags.plugin_directory.empty() ? DefaultPluginDirectory() : flags.plugin_directory;
  StoreEngine from, to;
  std::string error = from.Load(directory, flags.from_plugin, flags.from);
  if (error.empty()) error = to.Load(directory, flags.to_plugin, flags.to);
  if (!error.empty()) return Fail(kInvalidInput, error);
  const std::string source = from.data_directory(), destination = to.data_directory();
  StoreSum sum;
  Progress progress;
  error = RewriteStore(
      &from, &to, [&](const TableSum& done) { progress.Show(done); }, &sum);
  progress.End();
  if (!error.empty()) return Fail(kError, error);
  const TableSum total = sum.Total();
  if (context.flags.is_json()) {
    Json tables = Json::array();
    for (uint32_t i = 0; i < KW_KV_TABLE_COUNT; ++i) {
      const TableSum& table = sum.tables[i];
      tables.push_back({{"table", i}, {"pairs", table.pairs}, {"bytes", table.bytes}, {"crc32c", table.crc}});
    }
    PrintJson({{"from", {{"plugin", from.id()}, {"dir", source}}},
               {"to", {{"plugin", to.id()}, {"dir", destination}}},
               {"pairs", total.pairs},
               {"bytes", total.bytes},
               {"tables", tables}});
    return kOk;
  }
  Table table({"TABLE", "PAIRS", "BYTES", "CRC32C"});
  for (uint32_t i = 0; i < KW_KV_TABLE_COUNT; ++i) {
    const TableSum& one = sum.tables[i];
    if (one.pairs == 0) continue;
    table.Add({std::to_string(i), std::to_string(one.pairs), std::to_string(one.bytes), HexCrc(one.crc)});
  }
  Print(context.flags.wants_table(true) ? table.ToString() : table.ToLines());
  PrintLine(std::to_string(total.pairs) + " pairs copied and compared: " + destination + " (" + to.id() +
            ") is what " + source + " (" + from.id() + ") was. Name it in [storage] before the next start.");
  return kOk;
}

}  // namespace

void AddStoreCommands(CLI::App* app, Context* context) {
  CLI::App* store = app->add_subcommand("store", "The store of a member that is stopped");
  store->require_subcommand(1);
  CLI::App* rewrite = store->add_subcommand("rewrite", "Copy a store into another engine, and compare");
  auto flags = std::make_shared<RewriteFlags>();
  rewrite->add_option("--from-plugin", flags->from_plugin, "the engine it has, or the path of its library")
      ->required();
  rewrite->add_option("--from", flags->from, "an option of that engine: dir=PATH, as in [storage]")
      ->required();
  rewrite->add_option("--to-plugin", flags->to_plugin, "the engine it gets, or the path of its library")
      ->required();
  rewrite->add_option("--to", flags->to, "an option of the new engine: dir=PATH, empty or not there")
      ->required();
  rewrite->add_option("--plugin-dir", flags->plugin_directory,
                      "default: ../lib/keyway/plugins beside this tool");
  rewrite->callback([=] { context->command = [=] { return RunRewrite(*context, *flags); }; });
}

}  // namespace keyway::ctl
