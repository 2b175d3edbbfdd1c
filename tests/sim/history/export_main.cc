// SPDX-License-Identifier: Apache-2.0
//
// keyway-sim-histories DIRECTORY SEED COUNT: writes good histories, and for each one every mutation that
// porcupine must find, as JSON lines. The first line names our own verdict; exit status 1 if that is not
// what it must be.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "tests/sim/history/checkers.h"
#include "tests/sim/history/json_lines.h"
#include "tests/sim/history/mutations.h"
#include "tests/sim/history/test_world.h"

namespace keyway::sim {
namespace {

bool Write(const std::string& path, const History& history, const Order& order, const std::string& mutation,
           bool is_good) {
  Order own;
  const Findings findings = CheckStrict(history, &own);
  std::ofstream file(path, std::ios::binary);
  file << ToJsonLines(history, &order,
                      {{"verdict", findings.empty() ? "good" : "bad"}, {"mutation", mutation}});
  if (!file.flush() || findings.empty() != is_good) {
    std::fprintf(stderr, "%s: cannot be written, or our checker is wrong about it: %s\n", path.c_str(),
                 findings.empty() ? "no finding" : findings[0].text.c_str());
    return false;
  }
  return true;
}

bool Export(const std::string& directory, uint64_t seed) {
  TestWorldOptions world_options;
  world_options.seed = seed;
  TestWorld world(world_options);
  // Not drawn: a history that the search can do in seconds, and dense enough for every mutation.
  WorkloadOptions options;
  options.seed = seed;
  options.operations_max = 600;
  const History good = world.Run(options, 20'000'000'000);
  Order order;
  if (!CheckStrict(good, &order).empty()) return false;
  const std::string prefix = directory + "/" + std::to_string(seed) + "-";
  bool ok = Write(prefix + "good.jsonl", good, order, "", true);
  HistoryRandom random(seed);
  for (const Mutation& mutation : AllMutations()) {
    History bad = good;
    if (!mutation.in_replies || !mutation.apply(&bad, order, &random)) continue;
    ok &= Write(prefix + mutation.name + ".jsonl", bad, order, mutation.name, false);
  }
  return ok;
}

}  // namespace
}  // namespace keyway::sim

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: keyway-sim-histories DIRECTORY SEED COUNT\n");
    return 2;
  }
  const uint64_t seed = std::strtoull(argv[2], nullptr, 10);
  const uint64_t count = std::strtoull(argv[3], nullptr, 10);
  bool ok = true;
  for (uint64_t i = 0; i < count; ++i) ok &= keyway::sim::Export(argv[1], seed + i);
  return ok ? 0 : 1;
}
