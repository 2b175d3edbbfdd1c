// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/test_world.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "kernel/base/check.h"
#include "tests/sim/history/order.h"

namespace keyway::sim {

TestWorld::TestWorld(const TestWorldOptions& options) : options_(options), random_(options.seed * 31 + 7) {
  mvcc_ =
      std::make_unique<mvcc::Mvcc>(mvcc::Options{.cache_bytes = 1 << 30, .recent_bytes = 1 << 30}, &leases_);
  source_ = std::make_unique<watch::MvccChangeSource>(mvcc_.get());
  leases_.Promote(now_ms(), 0);
  nodes_.resize(options.nodes);
  for (Node& node : nodes_) {
    node.hub = std::make_unique<watch::WatchHub>(source_.get(), mvcc_->revision());
  }
}

TestWorld::~TestWorld() = default;

History TestWorld::Run(WorkloadOptions options, int64_t duration_ns) {
  Workload workload(options, this);
  workload.Start();
  ExpireLeases();
  ScheduleCrash(&workload);
  RunUntil(now_ns_ + duration_ns, [] { return false; });
  crashing_ = false;
  workload.BeginSettle();
  RunUntil(now_ns_ + 60'000'000'000, [&] { return workload.IsSettled(); });
  const bool settled = workload.IsSettled();
  if (!settled) std::fprintf(stderr, "not settled: %s\n", workload.Unsettled().c_str());
  KW_CHECK(settled);
  History history = workload.TakeHistory(settled);
  queue_.clear();
  for (Node& node : nodes_) node.hub.reset();
  return history;
}

void TestWorld::RunUntil(int64_t time_ns, const std::function<bool()>& is_done) {
  while (!queue_.empty() && queue_.begin()->first.first <= time_ns && !is_done()) {
    now_ns_ = std::max(now_ns_, queue_.begin()->first.first);
    std::function<void()> call = std::move(queue_.begin()->second);
    queue_.erase(queue_.begin());
    call();
  }
}

void TestWorld::CallAt(int64_t time_ns, std::function<void()> call) {
  queue_.emplace(std::pair(time_ns, ++events_), std::move(call));
}

void TestWorld::Later(size_t node, std::function<void()> call) {
  LaterAt(now_ns_ + random_.Between(1, options_.delay_ns_max), node, std::move(call));
}

void TestWorld::InOrder(size_t node, std::function<void()> call) {
  int64_t& last_ns = nodes_[node].last_in_order_ns;
  last_ns = std::max(last_ns + 1, now_ns_ + random_.Between(1, options_.delay_ns_max));
  LaterAt(last_ns, node, std::move(call));
}

void TestWorld::LaterAt(int64_t time_ns, size_t node, std::function<void()> call) {
  CallAt(time_ns, [this, node, boots = nodes_[node].boots, call = std::move(call)] {
    if (nodes_[node].up && nodes_[node].boots == boots) call();
  });
}

void TestWorld::ScheduleCrash(Workload* workload) {
  if (options_.crash_ns_max == 0) return;
  CallAt(now_ns_ + random_.Between(1, options_.crash_ns_max), [this, workload] {
    if (!crashing_) return;
    const size_t node = random_.Below(nodes_.size());
    if (nodes_[node].up) {
      nodes_[node].up = false;
      nodes_[node].hub.reset();
      workload->OnNodeDown(node);
      CallAt(now_ns_ + random_.Between(1, 1'000'000'000), [this, node] {
        nodes_[node].up = true;
        ++nodes_[node].boots;
        nodes_[node].hub = std::make_unique<watch::WatchHub>(source_.get(), mvcc_->revision());
      });
    }
    ScheduleCrash(workload);
  });
}

// ---- requests ----

void TestWorld::Submit(size_t node, kw_request* request) {
  if (random_.Below(1000) < options_.loss_permille) {
    // Lost, and the kernel says so after its own limit.
    CallAt(now_ns_ + 7'000'000'000, [this, node, boots = nodes_[node].boots, request] {
      if (!nodes_[node].up || nodes_[node].boots != boots) return;
      Answer(node, request, Failure(KW_DETAIL_TIMEOUT), nullptr);
    });
    // In half of the cases only the answer is lost; and it may take effect late.
    if (random_.Percent(50)) return;
    Later(node, [this, request] {
      ReplyPtr unused(Reply::New());
      (void)ApplyKind(request, unused.get());
      Publish();
    });
    return;
  }
  Later(node, [this, node, request] { Apply(node, request); });
}

void TestWorld::Apply(size_t node, kw_request* request) {
  ReplyPtr reply(Reply::New());
  const keyway::Outcome outcome = ApplyKind(request, reply.get());
  Publish();
  if (!outcome.ok()) reply.reset();
  auto shared = std::make_shared<ReplyPtr>(std::move(reply));
  Later(node, [this, node, request, outcome, shared] { Answer(node, request, outcome, std::move(*shared)); });
}

void TestWorld::Answer(size_t node, kw_request* request, keyway::Outcome outcome, ReplyPtr reply) {
  if (outcome.ok()) {
    reply->member_id = node + 1;
    return request->done(request, KW_OK, nullptr, reply.release());
  }
  kw_error error{};
  error.size = sizeof error;
  error.code = outcome.code;
  error.detail = outcome.detail;
  request->done(request, outcome.code, &error, nullptr);
}

keyway::Outcome TestWorld::ApplyKind(kw_request* request, Reply* reply) {
  keyway::Outcome outcome;
  const bool want_prev = true;
  auto lease_reply = [&](int64_t ttl_s, int64_t granted_s) {
    kw_lease_info* info = reply->arena.New<kw_lease_info>();
    info->ttl_s = ttl_s;
    info->granted_ttl_s = granted_s;
    reply->lease = info;
    return info;
  };
  switch (request->kind) {
    case KW_REQ_RANGE: {
      const auto* range = reinterpret_cast<kw_range_request*>(request);
      outcome = mvcc::Mvcc::CheckRange(range->range);
      if (outcome.ok()) Range(range->range, reply, &outcome);
      return outcome;
    }
    case KW_REQ_TXN: {
      const auto* txn = reinterpret_cast<kw_txn_request*>(request);
      outcome = mvcc::Mvcc::CheckTxn(txn->txn, (txn->txn_flags & KW_TXN_PLAIN) != 0, 128);
      if (!outcome.ok()) return outcome;
      std::vector<mvcc::Revision> missing;
      mvcc_->MissingForTxn(txn->txn, want_prev, &missing);
      for (mvcc::Revision revision : missing) mvcc_->Provide(revision, engine_.Read(revision));
      return mvcc_->ApplyTxn(txn->txn, want_prev, reply);
    }
    case KW_REQ_COMPACT:
      outcome = mvcc_->ApplyCompact(reinterpret_cast<kw_compact_request*>(request)->revision);
      if (outcome.ok()) {
        std::vector<mvcc::Revision> deleted;
        while (mvcc_->compacting()) mvcc_->CompactStep(1000, &deleted);
        for (Node& node : nodes_) {
          if (node.hub != nullptr) node.hub->OnCompacted(mvcc_->compact_revision());
        }
      }
      break;
    case KW_REQ_LEASE_GRANT: {
      const auto* grant = reinterpret_cast<kw_lease_request*>(request);
      outcome = leases_.Grant(grant->id, grant->ttl_s, now_ms());
      lease_reply(grant->ttl_s, 0);
      break;
    }
    case KW_REQ_LEASE_REVOKE: {
      const int64_t id = reinterpret_cast<kw_lease_request*>(request)->id;
      if (!leases_.Exists(id)) return Failure(KW_DETAIL_LEASE_NOT_FOUND);
      Revoke(id);
      break;
    }
    case KW_REQ_LEASE_KEEP_ALIVE: {
      const int64_t id = reinterpret_cast<kw_lease_request*>(request)->id;
      lease_reply(leases_.Renew(id, now_ms()), leases_.GrantedTtl(id));
      break;
    }
    case KW_REQ_LEASE_TIME_TO_LIVE: {
      const int64_t id = reinterpret_cast<kw_lease_request*>(request)->id;
      kw_lease_info* info = lease_reply(leases_.Remaining(id, now_ms()), leases_.GrantedTtl(id));
      const std::vector<std::string_view> keys = leases_.Keys(id);
      kw_slice* slices = reply->arena.NewArray<kw_slice>(keys.size());
      for (size_t i = 0; i < keys.size(); ++i) slices[i] = reply->arena.CopyOf(keys[i]);
      info->keys = slices;
      info->key_count = keys.size();
      break;
    }
    default:
      KW_UNREACHABLE();
  }
  reply->revision = mvcc_->revision();
  return outcome;
}

void TestWorld::Range(const kw_range& range, Reply* reply, keyway::Outcome* outcome) {
  mvcc::RangeReader reader(mvcc_.get(), range, reply);
  for (;;) {
    switch (reader.Step(1000)) {
      case mvcc::RangeReader::Progress::kDone:
        *outcome = reader.outcome();
        return;
      case mvcc::RangeReader::Progress::kMore:
        break;
      case mvcc::RangeReader::Progress::kBlocked: {
        std::vector<SharedBytes> records;
        for (mvcc::Revision revision : reader.missing()) records.push_back(engine_.Read(revision));
        reader.Resume(std::move(records));
      }
    }
  }
}

void TestWorld::Revoke(int64_t lease) {
  const std::vector<SharedBytes> held = leases_.Revoke(lease);
  std::vector<std::string_view> keys;
  for (const SharedBytes& key : held) keys.push_back(key.view());
  std::vector<mvcc::Revision> missing;
  mvcc_->MissingForDelete(keys, true, &missing);
  for (mvcc::Revision revision : missing) mvcc_->Provide(revision, engine_.Read(revision));
  mvcc_->ApplyDelete(keys, true);
}

void TestWorld::ExpireLeases() {
  for (int64_t lease : leases_.Expired(now_ms(), 100)) {
    Revoke(lease);
    Publish();
  }
  CallAt(now_ns_ + 100'000'000, [this] { ExpireLeases(); });
}

// ---- watches ----

// Called in events of their own only, so that deliver() never runs inside a call of the workload.
void TestWorld::Publish() {
  const std::vector<mvcc::Change> changes = mvcc_->TakeChanges();
  for (const mvcc::Change& change : changes) {
    engine_.records[change.revision] = std::string(change.record.view());
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    watch::WatchHub* hub = nodes_[i].hub.get();
    if (hub == nullptr) continue;
    hub->Publish(changes);
    for (int rounds = 0; rounds < 100'000; ++rounds) {
      const bool more = hub->Step(50);
      // All changes are in memory: it can only be revision 1, which changed nothing.
      if (const std::optional<watch::HistoryRead> read = hub->NextHistoryRead()) {
        KW_CHECK(read->to == Order::kFirstRevision);
        hub->OnHistory({}, read->to - 1);
        continue;
      }
      const std::vector<mvcc::Revision> reads = hub->NextPrevReads();
      if (!reads.empty()) {
        std::vector<SharedBytes> records;
        for (mvcc::Revision revision : reads) records.push_back(engine_.Read(revision));
        hub->OnPrevRecords(std::move(records));
      } else if (!more) {
        break;
      }
    }
    hub->Flush(1, i + 1, 1);
  }
}

uint64_t TestWorld::WatchOpen(size_t node, const kw_watch& watch) {
  const uint64_t id = next_watch_++;
  const std::string key(ToView(watch.key)), end(ToView(watch.end));
  InOrder(node, [this, node, id, watch, key, end] {
    kw_watch copy = watch;
    copy.key = ToSlice(key);
    copy.end = ToSlice(end);
    nodes_[node].hub->Open(id, copy);
    Publish();
  });
  return id;
}

void TestWorld::WatchCredit(size_t node, uint64_t watch_id, uint64_t bytes) {
  InOrder(node, [this, node, watch_id, bytes] {
    nodes_[node].hub->Credit(watch_id, bytes);
    Publish();
  });
}

void TestWorld::WatchProgress(size_t node, const kw_watch_sink* sink, const uint64_t* ids, size_t count,
                              void* ctx) {
  InOrder(node, [this, node, sink, list = std::vector<uint64_t>(ids, ids + count), ctx] {
    nodes_[node].hub->Progress(sink, list.data(), list.size(), ctx);
    Publish();
  });
}

void TestWorld::WatchClose(size_t node, uint64_t watch_id) {
  InOrder(node, [this, node, watch_id] {
    nodes_[node].hub->Close(watch_id);
    Publish();
  });
}

}  // namespace keyway::sim
