// SPDX-License-Identifier: Apache-2.0
//
// keyway-sim: runs seeds of the deterministic simulator.
//
//   keyway-sim --seed 7 --trace       one seed, with everything that happens on stderr
//   keyway-sim --seeds 1..1000        many
//   keyway-sim --seconds 600          from --seeds' first one on, until the time is over
//   keyway-sim --twice                each seed two times: the trace hashes must be equal
//   keyway-sim --bench                simulated seconds for each second of the CPU
//
// As keyway-sim-mutants (tests/mutants/kernel):
//
//   --mutants                         one mutant a line: name, what it is
//   --mutant NAME                     with this defect; ends with the first finding, or after
//   --cpu-seconds S                   so many seconds of the CPU
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "kernel/base/mutant.h"
#include "plugins/log-segmented/mutant.h"
#include "tests/sim/world/run_seed.h"

namespace keyway::sim {
namespace {

struct Arguments {
  uint64_t first = 1, last = 1;
  uint64_t seconds = 0, cpu_seconds = 0;
  bool trace = false, twice = false, bench = false, verbose = false, three = false;
  std::string mutant, history;
};

volatile uint64_t current_seed = 0;
double simulated = 0;  // Seconds, of the seeds before.

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void PrintReplay(uint64_t seed, const Arguments& arguments) {
  std::printf("replay: keyway-sim --seed %" PRIu64 "%s%s%s --trace\n", seed,
              arguments.three ? " --three" : "", arguments.mutant.empty() ? "" : " --mutant ",
              arguments.mutant.c_str());
}

[[noreturn]] void OnAbort(int) {
  // The kernel has found its own state impossible: as much a finding as any.
  char text[200];
  const int length = std::snprintf(
      text, sizeof text,
      "seed %" PRIu64
      " FAILED: aborted after %.1f s simulated in %.2f CPU s\nreplay: keyway-sim --seed %" PRIu64 "\n",
      current_seed, simulated + static_cast<double>(RunningVirtualNs()) * 1e-9, CpuSeconds(), current_seed);
  std::fwrite(text, 1, static_cast<size_t>(length), stderr);
  std::_Exit(3);
}

#ifdef KEYWAY_MUTANTS
bool ChooseMutant(const std::string& name) {
  for (const mutant::Entry& entry : mutant::kAll) {
    if (entry.name == name) mutant::active = entry.id;
  }
  for (const log_segmented::mutant::Entry& entry : log_segmented::mutant::kAll) {
    if (entry.name == name) log_segmented::mutant::active = entry.id;
  }
  return mutant::active != mutant::kNone || log_segmented::mutant::active != log_segmented::mutant::kNone;
}

int ListMutants() {
  const auto list = [](const auto& all) {
    for (const auto& entry : all) std::printf("%s\t%s\n", entry.name.data(), entry.what.data());
  };
  list(mutant::kAll);
  list(log_segmented::mutant::kAll);
  return 0;
}
#else
bool ChooseMutant(const std::string&) { return false; }
int ListMutants() { return 2; }
#endif

RunResult RunOne(uint64_t seed, const Arguments& arguments) {
  current_seed = seed;
  Swarm swarm = Swarm::Draw(seed);
  if (arguments.three) swarm.voters = 3;
  RunOptions options;
  options.seed = seed;
  options.trace = arguments.trace;
  options.history_file = arguments.history;
  if (arguments.trace) std::fprintf(stderr, "%s\n", swarm.Text().c_str());
  return RunSeed(options, swarm);
}

int RunAll(const Arguments& arguments) {
  const double begin = CpuSeconds();
  const std::time_t begin_wall = std::time(nullptr);
  uint64_t seeds = 0, failed = 0, faults = 0, operations = 0, entries = 0;
  for (uint64_t seed = arguments.first;; ++seed) {
    if (arguments.seconds == 0
            ? seed > arguments.last
            : static_cast<uint64_t>(std::time(nullptr) - begin_wall) >= arguments.seconds) {
      break;
    }
    if (arguments.cpu_seconds != 0 && CpuSeconds() >= static_cast<double>(arguments.cpu_seconds)) break;
    const double before = CpuSeconds();
    RunResult result = RunOne(seed, arguments);
    if (arguments.twice && result.failure.empty()) {
      const RunResult again = RunOne(seed, arguments);
      if (again.trace_hash != result.trace_hash)
        result.failure = "not deterministic: the trace hashes differ";
    }
    ++seeds;
    faults += result.faults;
    operations += result.operations_ok;
    entries += result.entries;
    simulated += static_cast<double>(result.virtual_ns) * 1e-9;
    if (arguments.verbose || arguments.first == arguments.last || !result.failure.empty()) {
      std::printf("seed %" PRIu64 " %s hash %016" PRIx64 ": %.1f s simulated in %.2f s, %" PRIu64
                  " of %" PRIu64 " operations, %" PRIu64 " faults, %" PRIu64 " entries, %" PRIu64
                  " terms, %" PRIu64 " events\n",
                  seed, result.failure.empty() ? "ok" : "FAILED", result.trace_hash,
                  static_cast<double>(result.virtual_ns) * 1e-9, CpuSeconds() - before, result.operations_ok,
                  result.operations, result.faults, result.entries, result.terms, result.events);
    }
    if (!result.failure.empty()) {
      ++failed;
      std::printf("%s\n", result.failure.c_str());
      PrintReplay(seed, arguments);
      if (!arguments.mutant.empty()) break;
    }
    std::fflush(stdout);
  }
  const double cpu = CpuSeconds() - begin;
  std::printf("%" PRIu64 " seeds, %" PRIu64
              " failed; %.0f s simulated in %.1f CPU s: %.0f times; %.0f faults, %.0f "
              "operations and %.0f entries a CPU s\n",
              seeds, failed, simulated, cpu, simulated / cpu, static_cast<double>(faults) / cpu,
              static_cast<double>(operations) / cpu, static_cast<double>(entries) / cpu);
  return failed == 0 ? 0 : 1;
}

// The figure of the bench: the default mix of three nodes over a fixed set of seeds.
int Bench() {
  uint64_t faults = 0, operations = 0;
  const double begin = CpuSeconds();
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    Swarm swarm = Swarm::Draw(seed);
    swarm.voters = 3;
    RunOptions options;
    options.seed = seed;
    const RunResult result = RunSeed(options, swarm);
    if (!result.failure.empty()) {
      std::fprintf(stderr, "seed %" PRIu64 " of three nodes: %s\n", seed, result.failure.c_str());
      return 1;
    }
    simulated += static_cast<double>(result.virtual_ns) * 1e-9;
    faults += result.faults;
    operations += result.operations_ok;
  }
  const double cpu = CpuSeconds() - begin;
  std::printf(
      "simulated seconds per CPU second: %.0f\nfaults per CPU second: %.0f\noperations per CPU second: "
      "%.0f\n",
      simulated / cpu, static_cast<double>(faults) / cpu, static_cast<double>(operations) / cpu);
  return 0;
}

int Usage(const char* what) {
  std::fprintf(
      stderr,
      "keyway-sim: %s\nusage: keyway-sim [--seed N | --seeds A..B] [--seconds S] [--three] [--twice] "
      "[--trace] [--verbose] [--history FILE] [--bench] [--mutants] [--mutant NAME] [--cpu-seconds S]\n",
      what);
  return 2;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&]() -> const char* { return i + 1 < argc ? argv[++i] : ""; };
    if (name == "--seed") {
      arguments.first = arguments.last = std::strtoull(value(), nullptr, 10);
    } else if (name == "--seeds") {
      const std::string range = value();
      const size_t dots = range.find("..");
      if (dots == std::string::npos) return Usage("--seeds takes a range such as 1..100");
      arguments.first = std::strtoull(range.c_str(), nullptr, 10);
      arguments.last = std::strtoull(range.c_str() + dots + 2, nullptr, 10);
    } else if (name == "--seconds") {
      arguments.seconds = std::strtoull(value(), nullptr, 10);
    } else if (name == "--trace") {
      arguments.trace = true;
    } else if (name == "--twice") {
      arguments.twice = true;
    } else if (name == "--three") {
      arguments.three = true;
    } else if (name == "--verbose") {
      arguments.verbose = true;
    } else if (name == "--bench") {
      arguments.bench = true;
    } else if (name == "--history") {
      arguments.history = value();
    } else if (name == "--cpu-seconds") {
      arguments.cpu_seconds = std::strtoull(value(), nullptr, 10);
    } else if (name == "--mutants") {
      return ListMutants();
    } else if (name == "--mutant") {
      arguments.mutant = value();
    } else {
      return Usage(("unknown argument " + name).c_str());
    }
  }
  if (!arguments.mutant.empty() && !ChooseMutant(arguments.mutant)) {
    return Usage(("there is no mutant " + arguments.mutant + " here; keyway-sim-mutants has them").c_str());
  }
  std::signal(SIGABRT, OnAbort);
  if (arguments.bench) return Bench();
  return RunAll(arguments);
}

}  // namespace
}  // namespace keyway::sim

int main(int argc, char** argv) { return keyway::sim::Main(argc, argv); }
