// SPDX-License-Identifier: Apache-2.0
//
// Runs api-etcd over the toy kernel, for load generators and etcdctl. Prints the CPU time of each
// thread when its input ends.
//
//   api_etcd_bench_server http://127.0.0.1:PORT [io_threads]
#include <dirent.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>

#include "fake_kernel.h"
#include "keyway/slice.hpp"

extern "C" const kw_entry* kw_plugin_entry_api_etcd(void);

namespace {

void PrintThreads() {
  DIR* const tasks = opendir("/proc/self/task");
  while (const dirent* const entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    const std::string base = std::string("/proc/self/task/") + entry->d_name;
    std::ifstream file(base + "/schedstat");
    std::ifstream name_file(base + "/comm");
    unsigned long long run_ns = 0;
    std::string name;
    file >> run_ns;
    std::getline(name_file, name);
    std::printf("%s %.3f s\n", name.c_str(), static_cast<double>(run_ns) / 1e9);
  }
  closedir(tasks);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  keyway::api_etcd::testing::FakeKernel kernel;
  const std::string threads = argc > 2 ? argv[2] : "1";
  const kw_config_item items[] = {{"listen", keyway::Slice(argv[1]), 1, 0},
                                  {"io_threads", keyway::Slice(threads), 2, 0}};
  const kw_descriptor* const descriptor = kw_plugin_entry_api_etcd()->plugins[0];
  kw_plugin* plugin = nullptr;
  kw_error error = {};
  error.size = sizeof error;
  if (descriptor->create(kernel.host(), items, 2, &plugin, &error) != KW_OK ||
      plugin->start(plugin, &error) != KW_OK) {
    std::fprintf(stderr, "%s\n", error.text);
    return 1;
  }
  std::printf("ready\n");
  std::fflush(stdout);
  std::string line;
  while (std::getline(std::cin, line)) PrintThreads();
  PrintThreads();
  plugin->stop(plugin);
  plugin->destroy(plugin);
  return 0;
}
