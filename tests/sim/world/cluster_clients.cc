// SPDX-License-Identifier: Apache-2.0
//
// The clients' way to a node: what they ask goes in at once, what comes back takes a little time, and is
// lost with the process.
#include <algorithm>
#include <cstring>

#include "kernel/base/bytes.h"
#include "tests/sim/world/cluster_internal.h"

namespace keyway::sim {
namespace {

constexpr uint64_t kDelayMaxNs = 200 * kMicrosecond;

}  // namespace

// A request on its way.
struct Cluster::ClientCall {
  Cluster* cluster = nullptr;
  size_t slot = 0;
  void (*done)(kw_request*, int32_t, const kw_error*, kw_reply*) = nullptr;
  void* ctx = nullptr;
};

void Cluster::CallAt(int64_t time_ns, std::function<void()> call) {
  const int64_t delay = std::max<int64_t>(time_ns - now_ns(), 0);
  scheduler_.After(static_cast<uint64_t>(delay), std::move(call));
}

bool Cluster::IsUp(size_t node) const { return nodes_[node]->is_running() && !nodes_[node]->dying(); }

void Cluster::DropDeliveries(size_t slot) {
  for (auto& [id, deliver] : std::exchange(deliveries_[slot], {})) deliver(false);
}

void Cluster::StopDelivering() {
  clients_ = nullptr;
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    DropDeliveries(slot);
    nodes_[slot]->Kill(false);
  }
}

void Cluster::Submit(size_t node, kw_request* request) {
  if (!IsUp(node)) return;
  trace_.Add(scheduler_.now_ns(), "request", node + 1, request->kind);
  // The process may be gone before it answers; then the call is freed with the cluster's other calls.
  auto call = std::make_shared<ClientCall>(ClientCall{this, node, request->done, request->ctx});
  const uint64_t id = next_delivery_++;
  request->ctx = call.get();
  // Kept alive by this entry until the answer takes its place.
  deliveries_[node].emplace(id, [call](bool) {});
  struct Key {
    static uint64_t& Of(kw_request* r) { return *reinterpret_cast<uint64_t*>(&r->kernel[3]); }
  };
  static_assert(sizeof(core::InboxNode) <= 3 * sizeof(uintptr_t));
  Key::Of(request) = id;
  request->done = [](kw_request* self, int32_t code, const kw_error* error, kw_reply* reply) {
    ClientCall& call = *static_cast<ClientCall*>(self->ctx);
    Cluster& cluster = *call.cluster;
    const uint64_t id = Key::Of(self);
    self->done = call.done;
    self->ctx = call.ctx;
    const size_t slot = call.slot;
    if (cluster.nodes_[slot]->dying()) {
      if (reply != nullptr) reply->release(reply);
      cluster.deliveries_[slot].erase(id);
      return;
    }
    cluster.trace_.Add(cluster.scheduler_.now_ns(), "reply", slot + 1, static_cast<uint64_t>(code),
                       reply == nullptr ? 0 : static_cast<uint64_t>(reply->revision));
    kw_error copy{};
    copy.size = sizeof copy;
    if (error != nullptr) copy = *error;
    cluster.deliveries_[slot][id] = [self, code, copy, reply](bool deliver) {
      if (deliver) return self->done(self, code, code == KW_OK ? nullptr : &copy, reply);
      if (reply != nullptr) reply->release(reply);
    };
    cluster.scheduler_.After(cluster.random_.Between(1, kDelayMaxNs), [&cluster, slot, id] {
      auto& deliveries = cluster.deliveries_[slot];
      const auto at = deliveries.find(id);
      if (at == deliveries.end()) return;
      const std::function<void(bool)> deliver = std::move(at->second);
      deliveries.erase(at);
      deliver(true);
    });
  };
  nodes_[node]->Submit(request);
}

uint64_t Cluster::WatchOpen(size_t node, const kw_watch& watch) {
  const uint64_t id = next_watch_++;
  if (!IsUp(node)) return id;
  trace_.Add(scheduler_.now_ns(), "watch", node + 1, static_cast<uint64_t>(watch.start_revision), id);
  Sink* sink = nullptr;
  for (const auto& known : sinks_) {
    if (known->slot == node && known->target == watch.sink) sink = known.get();
  }
  if (sink == nullptr) {
    sink = sinks_.emplace_back(std::make_unique<Sink>()).get();
    sink->cluster = this;
    sink->slot = node;
    sink->target = watch.sink;
    sink->sink.self = sink;
    sink->sink.deliver = [](void* self, kw_delivery* delivery) {
      Sink& sink = *static_cast<Sink*>(self);
      Cluster& cluster = *sink.cluster;
      if (cluster.nodes_[sink.slot]->dying()) return delivery->release(delivery);
      const uint64_t now = cluster.scheduler_.now_ns();
      cluster.trace_.Add(now, "deliver", sink.slot + 1, delivery->batch_count);
      const uint64_t arrival =
          std::max(now + cluster.random_.Between(1, kDelayMaxNs), sink.last_arrival_ns + 1);
      sink.last_arrival_ns = arrival;
      const uint64_t id = cluster.next_delivery_++;
      cluster.deliveries_[sink.slot].emplace(id, [delivery, target = sink.target](bool deliver) {
        if (deliver) return target->deliver(target->self, delivery);
        delivery->release(delivery);
      });
      cluster.scheduler_.After(arrival - now, [&cluster, slot = sink.slot, id] {
        auto& deliveries = cluster.deliveries_[slot];
        const auto at = deliveries.find(id);
        if (at == deliveries.end()) return;
        const std::function<void(bool)> deliver = std::move(at->second);
        deliveries.erase(at);
        deliver(true);
      });
    };
  }
  kw_watch copy = watch;
  copy.sink = &sink->sink;
  nodes_[node]->Post([id, copy, key = std::string(ToView(watch.key)),
                      end = std::string(ToView(watch.end))](core::Core& core) mutable {
    copy.key = ToSlice(key);
    copy.end = ToSlice(end);
    copy.principal = {};
    core.OpenWatch(id, copy);
  });
  return id;
}

void Cluster::WatchCredit(size_t node, uint64_t watch_id, uint64_t bytes) {
  nodes_[node]->Post([watch_id, bytes](core::Core& core) { core.CreditWatch(watch_id, bytes); });
}

void Cluster::WatchProgress(size_t node, const kw_watch_sink* sink, const uint64_t* ids, size_t count,
                            void* ctx) {
  const kw_watch_sink* own = nullptr;
  for (const auto& known : sinks_) {
    if (known->slot == node && known->target == sink) own = &known->sink;
  }
  if (own == nullptr) return;
  nodes_[node]->Post([own, ctx, list = std::vector<uint64_t>(ids, ids + count)](core::Core& core) {
    core.ProgressWatch(own, list, ctx);
  });
}

void Cluster::WatchClose(size_t node, uint64_t watch_id) {
  nodes_[node]->Post([watch_id](core::Core& core) { core.CloseWatch(watch_id); });
}

}  // namespace keyway::sim
