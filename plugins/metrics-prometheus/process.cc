// SPDX-License-Identifier: Apache-2.0
//
// Source of the fields: proc(5), /proc/[pid]/stat and /proc/stat.
#include "process.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace keyway::metrics_prometheus {
namespace {

void Add(ProcessSamples* out, const char* name, const char* help, uint32_t kind, double value) {
  kw_sample sample = {};
  sample.name = name;
  sample.help = help;
  sample.kind = kind;
  sample.value = value;
  out->samples[out->count++] = sample;
}

// Seconds since 1970 of the boot; 0 if unknown. It does not change, so it is read once.
double BootTime() {
  static const double boot_s = [] {
    FILE* file = std::fopen("/proc/stat", "re");
    if (file == nullptr) return 0.0;
    char line[8192];
    long long seconds = 0;
    while (std::fgets(line, sizeof(line), file) != nullptr) {
      if (std::sscanf(line, "btime %lld", &seconds) == 1) break;
    }
    std::fclose(file);
    return static_cast<double>(seconds);
  }();
  return boot_s;
}

void AddStat(ProcessSamples* out) {
  FILE* file = std::fopen("/proc/self/stat", "re");
  if (file == nullptr) return;
  char text[1024];
  const size_t size = std::fread(text, 1, sizeof(text) - 1, file);
  std::fclose(file);
  text[size] = '\0';
  // The name in parentheses may hold anything; the fields that follow are numbers.
  const char* rest = std::strrchr(text, ')');
  unsigned long user = 0, system = 0, virtual_bytes = 0;
  unsigned long long start = 0;
  long pages = 0;
  if (rest == nullptr ||
      std::sscanf(rest + 2,
                  "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu %lu %ld",
                  &user, &system, &start, &virtual_bytes, &pages) != 5) {
    return;
  }
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  Add(out, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", KW_METRIC_COUNTER,
      static_cast<double>(user + system) / ticks);
  Add(out, "process_resident_memory_bytes", "Resident memory size in bytes.", KW_METRIC_GAUGE,
      static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  Add(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.", KW_METRIC_GAUGE,
      static_cast<double>(virtual_bytes));
  if (BootTime() > 0) {
    Add(out, "process_start_time_seconds", "Start time of the process since unix epoch in seconds.",
        KW_METRIC_GAUGE, BootTime() + static_cast<double>(start) / ticks);
  }
}

void AddDescriptors(ProcessSamples* out) {
  DIR* directory = opendir("/proc/self/fd");
  if (directory != nullptr) {
    double count = -1;  // The directory itself is open.
    while (const dirent* entry = readdir(directory)) count += entry->d_name[0] != '.';
    closedir(directory);
    Add(out, "process_open_fds", "Number of open file descriptors.", KW_METRIC_GAUGE, count);
    Add(out, "os_fd_used", "The number of used file descriptors.", KW_METRIC_GAUGE, count);
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    const double bound = static_cast<double>(limit.rlim_cur);
    Add(out, "process_max_fds", "Maximum number of open file descriptors.", KW_METRIC_GAUGE, bound);
    Add(out, "os_fd_limit", "The file descriptor limit.", KW_METRIC_GAUGE, bound);
  }
}

}  // namespace

ProcessSamples ReadProcess() {
  ProcessSamples out;
  AddStat(&out);
  AddDescriptors(&out);
  return out;
}

}  // namespace keyway::metrics_prometheus
