// SPDX-License-Identifier: Apache-2.0
//
// The clients: each has at most one operation under way, then thinks. One whose operation got no answer,
// or an error that says that this node cannot serve, may go on at another node.
#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "kernel/base/check.h"
#include "tests/sim/history/client.h"
#include "tests/sim/history/convert.h"
#include "tests/sim/history/generator.h"
#include "tests/sim/history/watchers.h"

namespace keyway::sim {
namespace {

constexpr int64_t kNodeDownRetryNs = 100'000'000;

}  // namespace

class Workload::Impl {
 public:
  Impl(const WorkloadOptions& options, World* world)
      : options_(options),
        world_(world),
        generator_(options),
        watchers_(options, world, &generator_, &history_) {
    KW_CHECK(options.clients > 0 && options.keys > 0 && options.keys <= 100);
    clients_.resize(options.clients);
    for (size_t i = 0; i < clients_.size(); ++i) {
      clients_[i].id = i + 1;
      clients_[i].node = generator_.random().Below(world->node_count());
    }
  }

  void Start() {
    watchers_.Start();
    for (Client& client : clients_) Think(&client);
  }

  void OnNodeDown(size_t node) {
    for (Client& client : clients_) {
      if (client.pending == nullptr || client.pending->node != node) continue;
      client.pending.reset();  // The operation in the history stays unknown.
      client.node = generator_.random().Below(world_->node_count());
      Think(&client);
    }
    watchers_.OnNodeDown(node);
  }

  void BeginSettle() {
    settling_ = true;
    watchers_.BeginSettle();
    for (Client& client : clients_) {
      if (client.idle) Think(&client);
    }
  }

  std::string Unsettled() const {
    for (const Client& client : clients_) {
      if (client.pending != nullptr) {
        const Operation& operation = history_.operations[client.pending->index];
        return "operation " + std::to_string(operation.id) + " of client " + std::to_string(client.id) +
               " on node " + std::to_string(operation.node) + " has no answer since " +
               std::to_string(operation.call_ns) + " ns";
      }
      if (!client.finished) return "client " + std::to_string(client.id) + " has not read the end state";
    }
    std::string what;
    if (!watchers_.IsCompleteUpTo(generator_.last_revision(), &what)) return what;
    return "";
  }

  History TakeHistory(bool settled) {
    history_.end_ns = world_->now_ns();
    history_.settled = settled;
    return std::move(history_);
  }

  uint64_t started() const { return history_.operations.size(); }
  uint64_t ok() const { return ok_; }
  int64_t last_revision() const { return generator_.last_revision(); }

 private:
  struct Client;
  struct Pending {
    explicit Pending(Request request) : holder(std::move(request)) {}
    RequestHolder holder;
    Impl* owner = nullptr;
    Client* client = nullptr;
    size_t node = 0;
    size_t index = 0;  // In the history.
  };
  struct Client {
    uint64_t id = 0;
    size_t node = 0;
    bool idle = false;      // Fell silent: operations_max.
    bool finished = false;  // Settling: has read the end state.
    uint64_t thoughts = 0;  // Only the last Think() counts.
    std::unique_ptr<Pending> pending;
  };

  void Think(Client* client, int64_t least_ns = 0) {
    client->idle = false;
    const int64_t think_ns = least_ns + generator_.random().Between(1, options_.think_ns_max);
    int64_t begin_ns = world_->now_ns() + think_ns;
    if (options_.beat_ns != 0) begin_ns += options_.beat_ns - begin_ns % options_.beat_ns;
    world_->CallAt(begin_ns, [this, client, thought = ++client->thoughts] {
      if (thought == client->thoughts && client->pending == nullptr) Begin(client);
    });
  }

  void Begin(Client* client) {
    if (client->finished) return;
    if (!settling_ && history_.operations.size() >= options_.operations_max) {
      client->idle = true;
      return;
    }
    // A node that is down refuses the connection; one that is replaced by a smaller cluster is gone.
    for (size_t tries = 0; client->node >= world_->node_count() || !world_->IsUp(client->node); ++tries) {
      if (tries == 2 * world_->node_count()) return Think(client, kNodeDownRetryNs);
      client->node = generator_.random().Below(world_->node_count());
    }
    const uint64_t id = history_.operations.size() + 1;
    auto pending =
        std::make_unique<Pending>(settling_ ? Generator::ReadAll() : generator_.Next(client->id, id));
    pending->owner = this;
    pending->client = client;
    pending->node = client->node;
    pending->index = history_.operations.size();
    Operation& operation = history_.operations.emplace_back();
    operation.client = client->id;
    operation.id = id;
    operation.node = client->node;
    operation.call_ns = world_->now_ns();
    operation.request = pending->holder.request();
    kw_request* request = pending->holder.get();
    request->done = &Impl::Done;
    request->ctx = pending.get();
    if (!settling_ && generator_.random().Percent(options_.deadline_percent)) {
      request->deadline_ns =
          static_cast<uint64_t>(operation.call_ns + generator_.random().Between(1, 2'000'000'000));
    }
    client->pending = std::move(pending);
    world_->Submit(client->node, request);
  }

  static void Done(kw_request* self, int32_t code, const kw_error* error, kw_reply* reply) {
    auto* pending = static_cast<Pending*>(self->ctx);
    pending->owner->Finish(pending, code, error, reply);
  }

  void Finish(Pending* pending, int32_t code, const kw_error* error, kw_reply* reply) {
    KW_CHECK((code == KW_OK) == (reply != nullptr));
    Client* client = pending->client;
    KW_CHECK(client->pending.get() == pending);
    Operation& operation = history_.operations[pending->index];
    operation.return_ns = world_->now_ns();
    operation.code = code;
    operation.detail = error == nullptr ? 0 : error->detail;
    operation.outcome = OutcomeOf(code, operation.detail);
    if (reply != nullptr) {
      operation.response = ToResponse(*reply);
      reply->release(reply);
      ++ok_;
    }
    generator_.OnOperation(operation);
    const bool served = operation.outcome == Outcome::kOk ||
                        (operation.outcome == Outcome::kError && operation.detail != KW_DETAIL_NO_LEADER &&
                         operation.detail != KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER);
    if (!served && (settling_ || generator_.random().Percent(options_.retry_elsewhere_percent))) {
      client->node = generator_.random().Below(world_->node_count());
    }
    if (settling_ && operation.outcome == Outcome::kOk && IsReadAll(operation.request)) {
      client->finished = true;
    }
    client->pending.reset();
    if (!client->finished) Think(client);
  }

  static bool IsReadAll(const Request& request) {
    return request.kind == Kind::kRange && !request.serializable && request.txn.then_ops[0].key.size() == 1 &&
           request.txn.then_ops[0].key[0] == '\0';
  }

  const WorkloadOptions options_;
  World* const world_;
  History history_;
  Generator generator_;
  Watchers watchers_;
  std::deque<Client> clients_;  // A deque: they stay where they are.
  uint64_t ok_ = 0;
  bool settling_ = false;
};

Workload::Workload(const WorkloadOptions& options, World* world)
    : impl_(std::make_unique<Impl>(options, world)) {}
Workload::~Workload() = default;
void Workload::Start() { impl_->Start(); }
void Workload::OnNodeDown(size_t node) { impl_->OnNodeDown(node); }
void Workload::BeginSettle() { impl_->BeginSettle(); }
bool Workload::IsSettled() const { return impl_->Unsettled().empty(); }
std::string Workload::Unsettled() const { return impl_->Unsettled(); }
History Workload::TakeHistory(bool settled) { return impl_->TakeHistory(settled); }
uint64_t Workload::operations_started() const { return impl_->started(); }
uint64_t Workload::operations_ok() const { return impl_->ok(); }
int64_t Workload::last_revision() const { return impl_->last_revision(); }

}  // namespace keyway::sim
