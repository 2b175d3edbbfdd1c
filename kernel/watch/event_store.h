// SPDX-License-Identifier: Apache-2.0
//
// What leaves the hub: the events of one turn (created once, shared by all deliveries of the turn) and
// the outbox that collects the batches of each sink. Filled on [core]; released by any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernel/base/bytes.h"
#include "kernel/base/reply.h"
#include "keyway/kernel.h"

namespace keyway::watch {

inline constexpr uint64_t kEventOverheadBytes = 64;  // Of credit, beside record and previous record.

class EventStore {
 public:
  static EventStore* New() { return new EventStore; }
  void Ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  // Without a value of `prev` the event has none.
  const kw_event* Add(uint32_t kind, int64_t mod_revision, const SharedBytes& record,
                      const SharedBytes& prev);
  const kw_event** NewList(size_t count) { return arena_.NewArray<const kw_event*>(count); }

 private:
  EventStore() = default;
  ~EventStore() = default;

  std::atomic<uint32_t> references_{1};
  Arena arena_;
  std::vector<SharedBytes> held_;
};

// The batches for one kw_watch_sink, and how many watches it has.
struct Sink {
  const kw_watch_sink* target = nullptr;
  size_t watches = 0;
  bool has_events = false;  // Some batch points into the turn's EventStore.
  std::vector<kw_watch_batch> batches;
};

class Outbox {
 public:
  Outbox() = default;
  ~Outbox();
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Stays valid while it has watches, or else until Flush(). The caller adds a watch or a batch.
  Sink* SinkOf(const kw_watch_sink* target);
  // A new batch, zero but for kind, context and revision, at the end of what goes to `sink`.
  kw_watch_batch* Add(Sink* sink, uint32_t kind, void* watch_ctx, int64_t revision);
  // The turn's events; a pointer to one of them must only be put into a batch of kind EVENTS.
  EventStore* events();
  // One deliver() for each sink that has batches, in the order of their first batch.
  void Flush(uint64_t cluster_id, uint64_t member_id, uint64_t raft_term);

 private:
  absl::flat_hash_map<const kw_watch_sink*, std::unique_ptr<Sink>> sinks_;
  std::vector<Sink*> dirty_;  // Those that have batches.
  EventStore* maybe_events_ = nullptr;
};

}  // namespace keyway::watch
