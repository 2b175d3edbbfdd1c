// SPDX-License-Identifier: Apache-2.0
//
// The clients of a simulation: Workload draws operations from a seed, submits them to nodes as an API
// plugin would (kw_request, kw_watch), and records what comes back as a History. The world implements
// World; one thread calls everything.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "keyway/kernel.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

// What the clients need of the simulated world. Nodes are numbered from 0. All calls come from within
// Workload's functions, callbacks of `CallAt`, kw_request.done and kw_watch_sink.deliver.
class World {
 public:
  virtual ~World() = default;
  virtual int64_t now_ns() const = 0;
  // Runs `call` once at `time_ns` (>= now_ns()), outside of any other call.
  virtual void CallAt(int64_t time_ns, std::function<void()> call) = 0;
  virtual size_t node_count() const = 0;
  // Whether clients can reach a running process on this node. What is submitted while it is false is lost.
  virtual bool IsUp(size_t node) const = 0;
  // As kw_kernel's functions of these names, on `node`. done() and deliver() may be called late (a slow
  // network to the client), never inside; after Workload::OnNodeDown(node) they must not be called any
  // more for what was submitted before. Calls about watches reach a node in their order.
  virtual void Submit(size_t node, kw_request* request) = 0;
  virtual uint64_t WatchOpen(size_t node, const kw_watch& watch) = 0;
  virtual void WatchCredit(size_t node, uint64_t watch_id, uint64_t bytes) = 0;
  virtual void WatchProgress(size_t node, const kw_watch_sink* sink, const uint64_t* ids, size_t count,
                             void* ctx) = 0;
  virtual void WatchClose(size_t node, uint64_t watch_id) = 0;
};

// The mix of operations; each weight is relative to the others.
struct WorkloadOptions {
  uint64_t seed = 1;
  uint32_t clients = 6;
  uint32_t keys = 24;
  uint32_t value_bytes_max = 64;
  uint64_t operations_max = UINT64_MAX;  // Then clients fall silent.
  int64_t beat_ns = 0;                   // Operations begin at multiples of it: many at the same time.
  int64_t think_ns_max = 20'000'000;     // Between two operations of a client, uniform from 0.
  uint32_t put = 30, remove = 8, range = 25, txn = 12, compact = 1;
  uint32_t lease_grant = 2, lease_revoke = 1, lease_keep_alive = 4, lease_time_to_live = 2;
  uint32_t lease_put_percent = 20;        // Of puts, with a lease.
  uint32_t reader_percent = 0;            // Of clients: they do nothing but read.
  uint32_t serializable_percent = 10;     // Of ranges.
  uint32_t deadline_percent = 5;          // Of operations, with a deadline of their own.
  uint32_t retry_elsewhere_percent = 30;  // After an unknown outcome: the client goes to another node.
  int64_t lease_ttl_s_max = 30;
  uint32_t watches = 6;              // Kept open, beside one observer of all keys for each node.
  uint32_t slow_watch_percent = 25;  // Get their credit late, and a small one.
  int64_t watch_life_ns_max = 5'000'000'000;
  int64_t progress_ns_max = 500'000'000;  // Between two progress requests.

  // The swarm: a mix of its own for each seed, some kinds switched off.
  static WorkloadOptions Draw(uint64_t seed);
};

class Workload {
 public:
  // `world` outlives this; no done(), deliver() or callback of CallAt() may come after this is gone.
  Workload(const WorkloadOptions& options, World* world);
  ~Workload();
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  // Opens the observers and watches and starts the clients.
  void Start();
  // The process of the node died: its operations are unknown, its watches ended; the clients go on at
  // other nodes, and watches resume behind the last event they have. Also for a node that is replaced.
  void OnNodeDown(size_t node);
  // No new operations and watches; slow watches get all their credit. What is under way goes on.
  void BeginSettle();
  // Whether every operation has an answer, and every observer on an up node has seen the last revision
  // that any client knows of. The world runs on until that (or its own limit: then liveness failed).
  bool IsSettled() const;
  // What is missing for IsSettled(), for the message of a liveness failure.
  std::string Unsettled() const;
  // Marks what has no answer as unknown and gives the history away. `settled`: IsSettled() was true.
  History TakeHistory(bool settled);

  uint64_t operations_started() const;
  uint64_t operations_ok() const;
  int64_t last_revision() const;  // The highest revision that a client was told.

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyway::sim
