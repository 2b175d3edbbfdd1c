// SPDX-License-Identifier: Apache-2.0
//
// How long CheckStrict() and CheckWatches() take: sim_history_bench [OPERATIONS]. The history is of a store
// with 16 clients, 1000 keys and half reads, all right; one operation in a hundred got no answer, and an
// observer saw every change. It is checked at a quarter of the size, too, to show how the time grows.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "keyway/kernel.h"
#include "tests/sim/history/checkers.h"
#include "tests/sim/history/model.h"
#include "tests/sim/history/random.h"

namespace keyway::sim {
namespace {

double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

History Make(size_t count) {
  HistoryRandom random(count);
  History history;
  VersionedMap map;
  int64_t revision = 1;
  std::vector<int64_t> free_ns(16, 1);
  Watch watch;
  watch.key = watch.end = std::string(1, '\0');
  watch.start_revision = 1;
  watch.flags = KW_WATCH_PREV_KV;
  watch.batches.push_back({.kind = KW_WATCH_CREATED});
  for (size_t i = 0; i < count; ++i) {
    // It takes effect at i * 1000, some time after its call and before its answer.
    const int64_t effect_ns = static_cast<int64_t>(i + 20) * 1000;
    const size_t client = i % free_ns.size();
    Operation operation;
    operation.client = client;
    operation.id = i + 1;
    operation.call_ns = std::max(free_ns[client], effect_ns - random.Between(1, 7000));
    operation.return_ns = effect_ns + random.Between(1, 7000);
    free_ns[client] = operation.return_ns + 1;
    operation.outcome = Outcome::kOk;
    Op op;
    op.key = "key" + std::to_string(random.Below(1000));
    const uint64_t draw = random.Below(100);
    if (draw < 45) {
      operation.request.kind = Kind::kPut;
      op.kind = KW_OP_PUT;
      op.value = std::to_string(client) + "." + std::to_string(i);
    } else if (draw < 50) {
      operation.request.kind = Kind::kDelete;
      op.kind = KW_OP_DELETE;
    } else {
      operation.request.kind = Kind::kRange;
      op.kind = KW_OP_RANGE;
      if (draw == 99) op.end = op.key + "5";
    }
    operation.request.txn.then_ops.push_back(std::move(op));
    Answer answer = RunModel(map, operation.request.txn, revision);
    if (!answer.changes.empty()) {
      ++revision;
      WatchBatch batch;
      batch.kind = KW_WATCH_EVENTS;
      batch.time_ns = effect_ns + 8000;
      batch.revision = revision;
      batch.events = answer.changes;
      watch.batches.push_back(std::move(batch));
    }
    for (WatchEvent& change : answer.changes) map.Add(std::move(change.pair), change.is_delete);
    if (random.Below(100) == 0) {
      operation.outcome = Outcome::kUnknown;
      operation.return_ns = -1;
      history.operations.push_back(std::move(operation));
      continue;
    }
    operation.response.revision = revision;
    operation.response.succeeded = answer.succeeded;
    operation.response.results = std::move(answer.results);
    history.operations.push_back(std::move(operation));
  }
  history.watches.push_back(std::move(watch));
  history.settled = true;
  std::sort(history.operations.begin(), history.operations.end(),
            [](const Operation& a, const Operation& b) { return a.call_ns < b.call_ns; });
  return history;
}

int Measure(size_t count) {
  const History history = Make(count);
  const double begin = CpuSeconds();
  Order order;
  Findings findings = CheckStrict(history, &order);
  const double strict = CpuSeconds() - begin;
  const Findings of_watches = CheckWatches(history, order);
  findings.insert(findings.end(), of_watches.begin(), of_watches.end());
  std::printf("%zu operations, %lld revisions: strict %.2f CPU seconds, %.2f us each; watch %.2f\n", count,
              static_cast<long long>(order.last()), strict, strict / static_cast<double>(count) * 1e6,
              CpuSeconds() - begin - strict);
  if (findings.empty()) return 0;
  std::printf("a false alarm: %s\n", findings[0].text.c_str());
  return 1;
}

}  // namespace
}  // namespace keyway::sim

int main(int argc, char** argv) {
  const size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
  return keyway::sim::Measure(count / 4) | keyway::sim::Measure(count);
}
