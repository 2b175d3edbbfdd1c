// SPDX-License-Identifier: Apache-2.0
#include "kernel/daemon/daemon.h"

#include <sys/random.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <vector>

#include "kernel/base/check.h"
#include "kernel/config/config.h"
#include "kernel/core/node.h"
#include "kernel/daemon/kernel_table.h"
#include "kernel/daemon/real_clock.h"
#include "kernel/daemon/signals.h"
#include "kernel/plugin/check/crash.h"
#include "kernel/plugin/plugin_set.h"

namespace keyway {
namespace {

constexpr size_t kConfigBytesMax = 1u << 20;
constexpr int kShutdownLimitS = 10;
// The budget of a stop is 1.5 s; what is not handed over by then, an election decides.
constexpr uint64_t kHandOverMs = 800;
constexpr std::chrono::milliseconds kReadinessPoll{5};

// The whole file, or false with errno's text.
bool ReadFile(const std::string& path, std::string* out, std::string* error) {
  std::FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) {
    *error = std::strerror(errno);
    return false;
  }
  out->resize(kConfigBytesMax + 1);
  const size_t bytes = std::fread(out->data(), 1, out->size(), file);
  const bool failed = std::ferror(file) != 0;
  if (failed) *error = std::strerror(errno);
  std::fclose(file);
  out->resize(bytes);
  if (!failed && bytes > kConfigBytesMax) *error = "larger than 1 MiB";
  return !failed && bytes <= kConfigBytesMax;
}

// The one folder of plugins: ../lib/keyway/plugins beside the folder of this program.
std::string PluginDir() {
  std::string path(4096, '\0');
  const ssize_t bytes = readlink("/proc/self/exe", path.data(), path.size());
  path.resize(bytes > 0 ? static_cast<size_t>(bytes) : 0);
  for (int up = 0; up < 2; ++up) path.resize(std::min(path.size(), path.rfind('/')));
  return path + "/lib/keyway/plugins";
}

uint64_t RandomSeed() {
  uint64_t seed = 0;
  KW_CHECK(getrandom(&seed, sizeof seed, 0) == sizeof seed);
  return seed;
}

core::CoreConfig CoreConfigOf(const Config& config, const std::vector<std::string>& listen_client_urls) {
  core::CoreConfig core;
  core.name = config.name;
  core.cluster_token = config.cluster_token;
  core.join_existing = config.join_existing;
  for (const MemberConfig& member : config.members) {
    core.initial_members.push_back({member.name, member.urls});
  }
  core.advertise_client_urls = config.advertise_client_urls;
  if (core.advertise_client_urls.empty()) core.advertise_client_urls = listen_client_urls;
  core.tick_ms = static_cast<uint32_t>(config.heartbeat_ms);
  core.election_ticks =
      static_cast<uint32_t>((config.election_ms + config.heartbeat_ms - 1) / config.heartbeat_ms);
  core.request_bytes_max = config.request_bytes_max;
  core.txn_ops_max = config.txn_ops_max;
  core.cache_bytes = config.cache_bytes;
  core.quota_bytes = config.quota_bytes;
  core.log_entries_kept = config.log_entries_kept;
  core.digest_interval_ms = config.digest_interval_ms;
  for (const PluginSection& section : config.plugins) {
    if (section.kind == "storage") core.store_name = section.plugin;
  }
  core.random_seed = RandomSeed();
  return core;
}

class Daemon {
 public:
  explicit Daemon(const DaemonOptions& options)
      : options_(options), logger_(&clock_, options.log_level_min, options.log_format), loader_(PluginDir()) {
    services_.clock = &clock_;
    services_.logger = &logger_;
    services_.log_level_min = options.log_level_min;
    services_.metrics = &metrics_;
  }

  int Run() {
    std::string text, error;
    if (!ReadFile(options_.config_file, &text, &error)) {
      std::fprintf(stderr, "%s: %s\n", options_.config_file.c_str(), error.c_str());
      return kExitUsage;
    }
    std::vector<ConfigError> errors;
    config_ = ParseConfig(text, options_.config_file, &errors);
    PluginSet plugins(&config_, &loader_, &services_);
    // After a syntax error there is nothing to load.
    if (!config_.plugins.empty()) plugins.Load(&errors);
    if (!errors.empty()) {
      std::fputs(FormatErrors(options_.config_file, errors).c_str(), stderr);
      return kExitUsage;
    }
    if (options_.check_only) {
      std::fputs(PrintConfig(config_, plugins.PluginOptions()).c_str(), stdout);
      return std::fflush(stdout) == 0 ? kExitOk : kExitRuntime;
    }
    WatchSignals(&logger_, kShutdownLimitS, [this] {
      is_terminating_.store(true);
      Wake();
    });
    return Serve(&plugins);
  }

 private:
  int Fail(const std::string& reason) {
    Log(&logger_, KW_LOG_ERROR, "node_failed", {{"reason", reason}});
    return kExitRuntime;
  }

  int Serve(PluginSet* plugins) {
    Log(&logger_, KW_LOG_INFO, "node_starting",
        {{"product", kProduct}, {"name", config_.name}, {"config", options_.config_file}});
    WarnOfWildcards(plugins->ListenClientUrls());
    absl::Status status = plugins->Create();
    if (status.ok()) status = plugins->Start();
    if (!status.ok()) return Fail(std::string(status.message()));
    core::CoreDeps deps;
    // The tables of Role are this node's own completed copies.
    deps.store_plugin = plugins->store().plugin;
    deps.store = &plugins->store().table;
    deps.log_plugin = plugins->log().plugin;
    deps.log = &plugins->log().table;
    deps.transport_plugin = plugins->transport().plugin;
    deps.transport = &plugins->transport().table;
    deps.logger = &logger_;
    deps.metrics = &metrics_;
    int code = kExitOk;
    {
      core::Node node(CoreConfigOf(config_, plugins->ListenClientUrls()), deps, &clock_,
                      config_.listen_peer_urls);
      std::string error;
      if (!node.Start(&error)) {
        plugins->Stop();
        return Fail(error);
      }
      services_.kernel_self.store(&node);
      services_.kernel.store(KernelTable());
      status = plugins->StartApis();
      if (status.ok()) {
        code = WaitForEnd(&node);
        if (code == kExitOk) node.HandOver(kHandOverMs);
        plugins->StopApis();
      } else {
        code = Fail(std::string(status.message()));
      }
      node.Stop();
      if (code == kExitOk && node.failed()) code = Fail(node.failure());
      plugins->Stop();
    }
    Log(&logger_, KW_LOG_INFO, "node_stopped", {{"code", code}});
    return code;
  }

  // Clients of other machines cannot reach such an address.
  void WarnOfWildcards(const std::vector<std::string>& listen_client_urls) {
    if (!config_.advertise_client_urls.empty()) return;
    for (const std::string& url : listen_client_urls) {
      const bool is_wildcard =
          url.find("//0.0.0.0:") != std::string::npos || url.find("//[::]:") != std::string::npos;
      if (!is_wildcard) continue;
      Log(&logger_, KW_LOG_WARN, "wildcard_url_advertised",
          {{"url", url}, {"hint", "set [node] advertise_client_urls"}});
    }
  }

  int WaitForEnd(core::Node* node) {
    bool is_ready = false;
    std::unique_lock lock(mutex_);
    while (!is_terminating_.load()) {
      if (node->failed()) return Fail(node->failure());
      const kw_node_state& state = *node->state();
      if (!is_ready && __atomic_load_n(&state.serving, __ATOMIC_RELAXED) != 0) {
        is_ready = true;
        Log(&logger_, KW_LOG_INFO, "ready to serve client requests",
            {{"name", config_.name},
             {"member_id", HexId(__atomic_load_n(&state.member_id, __ATOMIC_RELAXED))},
             {"cluster_id", HexId(__atomic_load_n(&state.cluster_id, __ATOMIC_RELAXED))}});
      }
      // Readiness is looked for closely, a failure of the core a few times a second.
      changed_.wait_for(lock, is_ready ? std::chrono::milliseconds(200) : kReadinessPoll);
    }
    return kExitOk;
  }

  void Wake() {
    std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

  const DaemonOptions options_;
  RealClock clock_;
  StderrLogger logger_;
  MetricsRegistry metrics_;
  PluginLoader loader_;
  NodeServices services_;
  Config config_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> is_terminating_{false};
};

}  // namespace

int RunDaemon(const DaemonOptions& options) {
  check::InstallTerminateHandler();
  // Never destroyed: the signal thread uses it until the process ends.
  auto* daemon = new Daemon(options);
  return daemon->Run();
}

}  // namespace keyway
