// SPDX-License-Identifier: Apache-2.0
//
// The toy kernel.
#include "fake_kernel.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <list>

#include "encode.h"
#include "keyway/slice.hpp"

namespace keyway::api_etcd::testing {
namespace {

FakeKernel* Self(const kw_host* host) { return static_cast<FakeKernel*>(host->self); }

std::string Text(kw_slice slice) { return std::string(View(slice)); }

uint64_t NowNs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace

std::string FakeRecord::Encode() const {
  const kw_slice k = Slice(key);
  const kw_slice v = Slice(value);
  size_t bytes =
      NumberFieldBytes(2, static_cast<uint64_t>(create)) + NumberFieldBytes(3, static_cast<uint64_t>(mod)) +
      NumberFieldBytes(4, static_cast<uint64_t>(version)) + NumberFieldBytes(6, static_cast<uint64_t>(lease));
  if (k.len != 0) bytes += BytesFieldBytes(1, k.len);
  if (v.len != 0) bytes += BytesFieldBytes(5, v.len);
  std::string out(bytes, '\0');
  FlatSink sink(reinterpret_cast<uint8_t*>(out.data()));
  if (k.len != 0) sink.Records(1, &k, 1);
  sink.Number(2, static_cast<uint64_t>(create));
  sink.Number(3, static_cast<uint64_t>(mod));
  sink.Number(4, static_cast<uint64_t>(version));
  if (v.len != 0) sink.Records(5, &v, 1);
  sink.Number(6, static_cast<uint64_t>(lease));
  return out;
}

bool FakeKernel::Contains(const std::string& key, const std::string& end, const std::string& probe) {
  if (end.empty()) return probe == key;
  if (end.size() == 1 && end[0] == '\0') return probe >= key;
  return probe >= key && probe < end;
}

struct FakeKernel::Reply : kw_reply {
  std::vector<kw_op_result> op_results;
  std::list<std::vector<kw_op_result>> nested_results;
  std::list<std::vector<kw_slice>> slices;
  std::vector<std::shared_ptr<std::string>> held;
  std::list<std::string> texts;
  std::vector<kw_member> member_list;
  kw_lease_info lease_info = {};
  std::vector<int64_t> lease_ids;
  kw_status status_info = {};
  kw_hash hash_info = {};

  void AddRecord(std::vector<kw_slice>* to, const std::shared_ptr<std::string>& bytes) {
    held.push_back(bytes);
    to->push_back(Slice(*bytes));
  }
};

FakeKernel::FakeKernel() {
  host_ = {sizeof host_, 1, 0, this, "keyway test", nullptr};
  host_.get = [](const kw_host* host, const char* id) -> const void* {
    FakeKernel* const self = Self(host);
    const std::string_view name = id;
    if (name == KW_KERNEL) return &self->kernel_;
    if (name == KW_CLOCK) return &self->clock_;
    if (name == KW_LOG) return &self->log_;
    if (name == KW_METRICS) return &self->metrics_;
    if (name == KW_EXPOSITION) return &self->exposition_;
    if (name == KW_IDENTITY) return &self->identity_;
    return nullptr;
  };
  clock_.size = sizeof clock_;
  clock_.mono_ns = [](const kw_host*) { return NowNs(); };
  clock_.wall_ns = [](const kw_host*) {
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
  };
  log_ = {sizeof log_, KW_LOG_WARN,
          [](const kw_host* host, uint32_t, const char* event, const kw_field*, size_t) {
            FakeKernel* const self = Self(host);
            const std::lock_guard<std::mutex> lock(self->mutex_);
            ++self->lines_[event];
          }};
  metrics_.size = sizeof metrics_;
  metrics_.cell = [](const kw_host* host, uint32_t, const char* name, const char*, const kw_field* labels,
                     size_t count) {
    std::string id = name;
    for (size_t i = 0; i < count; ++i) {
      id += (i == 0 ? "{" : ",") + std::string(labels[i].key) + "=" + Text(labels[i].value);
    }
    if (count != 0) id += "}";
    FakeKernel* const self = Self(host);
    const std::lock_guard<std::mutex> lock(self->mutex_);
    auto& cell = self->cells_[id];
    if (cell == nullptr) cell = std::make_unique<uint64_t>(0);
    return cell.get();
  };
  exposition_.size = sizeof exposition_;
  exposition_.render = [](const kw_host*, kw_writer* writer, kw_error*) {
    return writer->write(writer->self, Slice("fake_metric 1\n"));
  };
  identity_.size = sizeof identity_;
  identity_.authenticate = [](const kw_host* host, const kw_evidence* evidence, kw_principal* out,
                              kw_completion* completion) -> int32_t {
    FakeKernel* const self = Self(host);
    if (evidence->primary.len == 0) return KW_UNAUTHENTICATED;
    self->Post([self, out, completion] {
      std::string refusal;
      {
        const std::lock_guard<std::mutex> lock(self->mutex_);
        refusal = self->tls_.refusal;
      }
      if (!refusal.empty()) {
        kw_error error = {};
        error.size = sizeof error;
        error.code = KW_UNAUTHENTICATED;
        std::memcpy(error.text, refusal.data(), std::min(refusal.size(), sizeof error.text - 1));
        completion->done(completion, KW_UNAUTHENTICATED, &error);
        return;
      }
      out->len = static_cast<uint32_t>(self->authenticate_principal.size());
      std::memcpy(out->name, self->authenticate_principal.data(), out->len);
      completion->done(completion, KW_OK, nullptr);
    });
    return KW_PENDING;
  };
  identity_.tls = [](const kw_host* host, const char*, kw_tls** out, kw_error*) -> int32_t {
    FakeKernel* const self = Self(host);
    const std::lock_guard<std::mutex> lock(self->mutex_);
    *out = nullptr;
    if (self->tls_.generation == 0) return KW_OK;
    struct Material : kw_tls {
      std::string chain_text, key_text, roots_text, lists_text;
    };
    auto* const material = new Material();
    material->chain_text = self->tls_.chain;
    material->key_text = self->tls_.key;
    material->roots_text = self->tls_.roots;
    material->lists_text = self->tls_.lists;
    static_cast<kw_tls&>(*material) = {sizeof(kw_tls),
                                       self->tls_.flags,
                                       self->tls_.generation,
                                       Slice(material->chain_text),
                                       Slice(material->key_text),
                                       Slice(material->roots_text),
                                       Slice(material->lists_text),
                                       Slice("1.2"),
                                       {},
                                       nullptr};
    material->release = [](kw_tls* tls) { delete static_cast<Material*>(tls); };
    *out = material;
    return KW_OK;
  };
  kernel_.size = sizeof kernel_;
  kernel_.submit = [](const kw_host* host, kw_request* const* requests, size_t count) {
    FakeKernel* const self = Self(host);
    const std::lock_guard<std::mutex> lock(self->mutex_);
    const bool was_empty = self->requests_.empty() && self->queue_.empty();
    self->requests_.insert(self->requests_.end(), requests, requests + count);
    if (was_empty) self->condition_.notify_one();
  };
  kernel_.watch_open = [](const kw_host* host, const kw_watch* watch) {
    FakeKernel* const self = Self(host);
    Watch open;
    {
      const std::lock_guard<std::mutex> lock(self->mutex_);
      open.id = self->next_watch_++;
      ++self->open_watches_;
    }
    open.key = Text(watch->key);
    open.end = Text(watch->end);
    open.flags = watch->flags;
    open.next_revision = watch->start_revision;
    open.credit = static_cast<int64_t>(watch->credit_bytes);
    open.sink = watch->sink;
    open.ctx = watch->ctx;
    self->Post([self, open] { self->OpenWatch(open); });
    return open.id;
  };
  kernel_.watch_credit = [](const kw_host* host, uint64_t id, uint64_t bytes) {
    FakeKernel* const self = Self(host);
    self->Post([self, id, bytes] {
      const auto found = self->watches_.find(id);
      if (found != self->watches_.end()) found->second.credit += static_cast<int64_t>(bytes);
    });
  };
  kernel_.watch_progress = [](const kw_host* host, const kw_watch_sink* sink, const uint64_t* ids,
                              size_t count, void* ctx) {
    FakeKernel* const self = Self(host);
    std::vector<uint64_t> list(ids, ids + count);
    self->Post([self, sink, list, ctx] {
      self->PumpWatches();
      void* watch_ctx = ctx;
      for (const uint64_t id : list) {
        const auto found = self->watches_.find(id);
        if (found == self->watches_.end()) return;
        if (found->second.next_revision > self->revision_ + 1) return;
        if (found->second.history_index != self->history_.size()) return;
        if (ctx == nullptr) watch_ctx = found->second.ctx;
      }
      kw_watch_batch batch = {};
      batch.kind = ctx == nullptr ? KW_WATCH_PROGRESS : KW_WATCH_GROUP_PROGRESS;
      batch.watch_ctx = watch_ctx;
      batch.revision = self->revision_;
      self->DeliveryTo(sink)->list.push_back(batch);
    });
  };
  kernel_.watch_close = [](const kw_host* host, uint64_t id) {
    FakeKernel* const self = Self(host);
    self->Post([self, id] { self->Cancel(id, KW_OK, 0, 0); });
  };
  kernel_.state = [](const kw_host* host) -> const kw_node_state* { return &Self(host)->state_; };
  state_ = {sizeof state_, 0, 7, 8, 8, 2, 1, 0, 0, 1};
  members_[8] = {"http://127.0.0.1:2380"};
  thread_ = std::thread([this] { Run(); });
}

FakeKernel::~FakeKernel() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_stopping_ = true;
    is_paused_ = false;
  }
  condition_.notify_one();
  thread_.join();
}

void FakeKernel::Post(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(work));
  condition_.notify_one();
}

void FakeKernel::Run() {
  std::vector<std::function<void()>> work;
  std::vector<kw_request*> requests;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      condition_.wait(lock,
                      [&] { return is_stopping_ || !queue_.empty() || (!is_paused_ && !requests_.empty()); });
      if (is_stopping_ && queue_.empty() && requests_.empty()) return;
      work.swap(queue_);
      if (!is_paused_) requests.swap(requests_);
    }
    for (const auto& one : work) one();
    for (kw_request* request : requests) Handle(request);
    work.clear();
    requests.clear();
    PumpWatches();
    __atomic_store_n(&state_.revision, revision_, __ATOMIC_RELAXED);
    for (auto& [sink, delivery] : deliveries_) {
      delivery->batches = delivery->list.data();
      delivery->batch_count = delivery->list.size();
      sink->deliver(sink->self, delivery.release());
    }
    deliveries_.clear();
  }
}

void FakeKernel::Pause() {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_paused_ = true;
}
void FakeKernel::Resume() {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_paused_ = false;
  condition_.notify_one();
}
void FakeKernel::SetLeader(uint64_t leader, uint64_t lost_ns) {
  __atomic_store_n(&state_.leader_id, leader, __ATOMIC_RELAXED);
  __atomic_store_n(&state_.leader_lost_ns, lost_ns, __ATOMIC_RELAXED);
}
void FakeKernel::SetLearner(bool is_learner) {
  __atomic_store_n(&state_.is_learner, is_learner ? 1 : 0, __ATOMIC_RELAXED);
}
void FakeKernel::SetTls(const std::string& chain, const std::string& key, const std::string& roots,
                        bool requires_certificate, const std::string& lists) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tls_.chain = chain;
  tls_.key = key;
  tls_.roots = roots;
  tls_.flags = requires_certificate ? KW_TLS_REQUIRE_PEER_CERTIFICATE : 0;
  tls_.lists = lists;
  ++tls_.generation;
}
void FakeKernel::RefuseCertificates(const std::string& reason) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tls_.refusal = reason;
  ++tls_.generation;
}
std::string FakeKernel::last_principal() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_principal_;
}
uint64_t FakeKernel::Cell(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = cells_.find(name);
  return found == cells_.end() ? ~uint64_t{0} : __atomic_load_n(found->second.get(), __ATOMIC_RELAXED);
}
size_t FakeKernel::Lines(const std::string& event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return lines_[event];
}

size_t FakeKernel::open_watches() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return open_watches_;
}
size_t FakeKernel::requests_waiting() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_.size();
}

// ---- requests --------------------------------------------------------------------------------------

void FakeKernel::Handle(kw_request* request) {
  if (request->principal.len != 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    last_principal_ = Text(request->principal);
  }
  auto* const reply = new Reply();
  static_cast<kw_reply&>(*reply) = {};
  reply->size = sizeof(kw_reply);
  reply->cluster_id = 7;
  reply->member_id = 8;
  reply->raft_term = 2;
  reply->release = [](kw_reply* self) { delete static_cast<Reply*>(self); };
  const uint32_t detail = Fill(request, reply);
  if (detail != 0) {
    delete reply;
    kw_error error = {};
    error.size = sizeof error;
    error.code = KW_UNKNOWN;
    error.detail = detail == 1000 ? 0 : detail;
    std::strcpy(error.text, "plain text: ä%");
    request->done(request, detail == 1000 ? KW_ABORTED : KW_UNKNOWN, &error, nullptr);
    return;
  }
  reply->revision = revision_;
  reply->results = reply->op_results.data();
  reply->result_count = reply->op_results.size();
  request->done(request, KW_OK, nullptr, reply);
}

uint32_t FakeKernel::Fill(kw_request* request, Reply* reply) {
  switch (request->kind) {
    case KW_REQ_RANGE: {
      const kw_range& range = reinterpret_cast<kw_range_request*>(request)->range;
      const std::string key = Text(range.key);
      if (key.starts_with("error/")) return static_cast<uint32_t>(std::stoi(key.substr(6)));
      reply->op_results.resize(1);
      return Range(range, reply, reply->op_results.data());
    }
    case KW_REQ_TXN: {
      const auto* const txn = reinterpret_cast<kw_txn_request*>(request);
      TxnState state;
      state.revision = revision_;
      Txn(txn->txn, reply, &state, &reply->op_results, &reply->succeeded);
      if (state.has_changed) revision_ = state.revision + 1;
      return state.detail;
    }
    case KW_REQ_COMPACT: {
      const int64_t to = reinterpret_cast<kw_compact_request*>(request)->revision;
      if (to > revision_) return KW_DETAIL_FUTURE_REVISION;
      if (to <= compacted_) return KW_DETAIL_COMPACTED;
      compacted_ = to;
      return 0;
    }
    case KW_REQ_STATUS:
      reply->status_info = {sizeof(kw_status), 0, 8, 11, 2, 10, 4096, 2048, 1 << 30, 0, nullptr, 0};
      reply->status = &reply->status_info;
      return 0;
    case KW_REQ_HASH_KV:
      reply->hash_info = {42, 0, compacted_, revision_};
      reply->hash = &reply->hash_info;
      return 0;
    case KW_REQ_MOVE_LEADER:
      return KW_DETAIL_BAD_LEADER_TRANSFEREE;
    case KW_REQ_MEMBER_LIST:
      return Member(nullptr, reply);
    default:
      if (request->kind >= KW_REQ_MEMBER_ADD) {
        return Member(reinterpret_cast<kw_member_request*>(request), reply);
      }
      return Lease(reinterpret_cast<kw_lease_request*>(request), reply);
  }
}

const FakeKernel::Version* FakeKernel::Latest(const std::string& key) const {
  const auto found = keys_.find(key);
  if (found == keys_.end() || found->second.back().is_deleted) return nullptr;
  return &found->second.back();
}

uint32_t FakeKernel::Range(const kw_range& range, Reply* reply, kw_op_result* out) {
  if (range.key.len == 0) return KW_DETAIL_EMPTY_KEY;
  if (range.revision > revision_) return KW_DETAIL_FUTURE_REVISION;
  if (range.revision != 0 && range.revision < compacted_) return KW_DETAIL_COMPACTED;
  const std::string key = Text(range.key);
  const std::string end = Text(range.end);
  std::vector<kw_slice>& records = reply->slices.emplace_back();
  *out = {};
  out->kind = KW_OP_RANGE;
  for (auto at = keys_.lower_bound(key); at != keys_.end() && Contains(key, end, at->first); ++at) {
    const Version* found = nullptr;
    for (const Version& version : at->second) {
      if (range.revision == 0 || version.revision <= range.revision) found = &version;
    }
    if (found == nullptr || found->is_deleted) continue;
    ++out->count;
    if ((range.flags & KW_RANGE_COUNT_ONLY) != 0) continue;
    if (range.limit != 0 && static_cast<int64_t>(records.size()) == range.limit) {
      out->flags = KW_RESULT_MORE;
      continue;
    }
    reply->AddRecord(&records, found->bytes);
  }
  if ((range.flags & KW_RANGE_NO_COUNT) != 0) out->count = 0;
  out->records = records.data();
  out->record_count = records.size();
  return 0;
}

bool FakeKernel::Holds(const kw_cmp& cmp) {
  const Version* const version = Latest(Text(cmp.key));
  const FakeRecord none;
  const FakeRecord& record = version == nullptr ? none : *version->record;
  int order = 0;
  if (cmp.target == KW_CMP_VALUE) {
    if (version == nullptr) return false;
    order = record.value.compare(Text(cmp.value));
  } else {
    const int64_t values[] = {record.version, record.create, record.mod, 0, record.lease};
    const int64_t value = values[cmp.target];
    order = value < cmp.number ? -1 : value > cmp.number ? 1 : 0;
  }
  switch (cmp.relation) {
    case KW_CMP_EQUAL:
      return order == 0;
    case KW_CMP_GREATER:
      return order > 0;
    case KW_CMP_LESS:
      return order < 0;
    default:
      return order != 0;
  }
}

void FakeKernel::Txn(const kw_txn& txn, Reply* reply, TxnState* state, std::vector<kw_op_result>* out,
                     uint32_t* succeeded) {
  const bool holds =
      std::all_of(txn.cmps, txn.cmps + txn.cmp_count, [&](const kw_cmp& cmp) { return Holds(cmp); });
  *succeeded = holds;
  const kw_op* const ops = holds ? txn.then_ops : txn.else_ops;
  const size_t count = holds ? txn.then_count : txn.else_count;
  for (size_t i = 0; i < count && state->detail == 0; ++i) {
    kw_op_result result = {};
    result.kind = ops[i].kind;
    switch (ops[i].kind) {
      case KW_OP_RANGE:
        state->detail = Range(*ops[i].range, reply, &result);
        break;
      case KW_OP_PUT:
        Put(ops[i], reply, state, &result);
        break;
      case KW_OP_DELETE:
        Delete(Text(ops[i].key), Text(ops[i].end), (ops[i].flags & KW_DELETE_PREV_KV) != 0, reply, state,
               &result);
        break;
      case KW_OP_TXN: {
        std::vector<kw_op_result> nested;
        uint32_t nested_succeeded = 0;
        Txn(*ops[i].txn, reply, state, &nested, &nested_succeeded);
        reply->nested_results.push_back(std::move(nested));
        result.nested = reply->nested_results.back().data();
        result.nested_count = reply->nested_results.back().size();
        result.flags = nested_succeeded != 0 ? KW_RESULT_SUCCEEDED : 0;
        break;
      }
      default:
        state->detail = KW_DETAIL_KEY_NOT_FOUND;
    }
    out->push_back(result);
  }
}

void FakeKernel::Put(const kw_op& op, Reply* reply, TxnState* state, kw_op_result* out) {
  const std::string key = Text(op.key);
  if (op.lease != 0 && !leases_.contains(op.lease)) {
    state->detail = KW_DETAIL_LEASE_NOT_FOUND;
    return;
  }
  const Version* const before = Latest(key);
  if (before == nullptr && (op.flags & (KW_PUT_IGNORE_VALUE | KW_PUT_IGNORE_LEASE)) != 0) {
    state->detail = KW_DETAIL_KEY_NOT_FOUND;
    return;
  }
  auto record = std::make_shared<FakeRecord>();
  record->key = key;
  record->value = (op.flags & KW_PUT_IGNORE_VALUE) != 0 ? before->record->value : Text(op.value);
  record->lease = (op.flags & KW_PUT_IGNORE_LEASE) != 0 ? before->record->lease : op.lease;
  record->mod = state->revision + 1;
  record->create = before == nullptr ? record->mod : before->record->create;
  record->version = before == nullptr ? 1 : before->record->version + 1;
  Version version{record->mod, false, record, std::make_shared<std::string>(record->Encode())};
  if (before != nullptr && (op.flags & KW_PUT_PREV_KV) != 0) {
    std::vector<kw_slice>& records = reply->slices.emplace_back();
    reply->AddRecord(&records, before->bytes);
    out->records = records.data();
    out->record_count = 1;
  }
  state->has_changed = true;
  AddEvent(KW_EVENT_PUT, key, version, before);
  auto& versions = keys_[key];
  if (versions.size() > 64) versions.erase(versions.begin(), versions.begin() + 32);
  versions.push_back(std::move(version));
}

void FakeKernel::Delete(const std::string& key, const std::string& end, bool wants_prev, Reply* reply,
                        TxnState* state, kw_op_result* out) {
  std::vector<kw_slice>& records = reply->slices.emplace_back();
  for (auto at = keys_.lower_bound(key); at != keys_.end() && Contains(key, end, at->first); ++at) {
    const Version* const before = Latest(at->first);
    if (before == nullptr) continue;
    ++out->count;
    if (wants_prev) reply->AddRecord(&records, before->bytes);
    FakeRecord tombstone;
    tombstone.key = at->first;
    tombstone.mod = state->revision + 1;
    Version version{tombstone.mod, true, nullptr, std::make_shared<std::string>(tombstone.Encode())};
    AddEvent(KW_EVENT_DELETE, at->first, version, before);
    at->second.push_back(std::move(version));
    state->has_changed = true;
  }
  out->records = records.data();
  out->record_count = records.size();
}

uint32_t FakeKernel::Lease(kw_lease_request* request, Reply* reply) {
  reply->lease = &reply->lease_info;
  reply->lease_info.id = request->id;
  const auto found = leases_.find(request->id);
  switch (request->req.kind) {
    case KW_REQ_LEASE_GRANT:
      if (found != leases_.end()) return KW_DETAIL_LEASE_EXISTS;
      if (request->id == 0) request->id = static_cast<int64_t>(leases_.size()) + 1000;
      leases_[request->id] = request->ttl_s;
      reply->lease_info.id = request->id;
      reply->lease_info.ttl_s = request->ttl_s;
      return 0;
    case KW_REQ_LEASE_REVOKE:
      if (found == leases_.end()) return KW_DETAIL_LEASE_NOT_FOUND;
      leases_.erase(found);
      return 0;
    case KW_REQ_LEASE_KEEP_ALIVE:
      reply->lease_info.ttl_s = found == leases_.end() ? 0 : found->second;
      return 0;
    case KW_REQ_LEASE_TIME_TO_LIVE: {
      reply->lease_info.ttl_s = found == leases_.end() ? -1 : found->second;
      reply->lease_info.granted_ttl_s = found == leases_.end() ? 0 : found->second;
      if (found == leases_.end() || (request->lease_flags & KW_LEASE_WITH_KEYS) == 0) return 0;
      std::vector<kw_slice>& keys = reply->slices.emplace_back();
      for (const auto& [key, versions] : keys_) {
        const Version* const version = Latest(key);
        if (version != nullptr && version->record->lease == request->id) keys.push_back(Slice(key));
      }
      for (kw_slice& key : keys) key = Slice(reply->texts.emplace_back(View(key)));
      reply->lease_info.keys = keys.data();
      reply->lease_info.key_count = keys.size();
      return 0;
    }
    default:
      for (const auto& [id, ttl] : leases_) reply->lease_ids.push_back(id);
      reply->lease_info.ids = reply->lease_ids.data();
      reply->lease_info.id_count = reply->lease_ids.size();
      return 0;
  }
}

uint32_t FakeKernel::Member(kw_member_request* request, Reply* reply) {
  if (request != nullptr) {
    std::vector<std::string> urls;
    for (size_t i = 0; i < request->peer_url_count; ++i) {
      urls.push_back(Text(request->peer_urls[i]));
    }
    if (request->req.kind == KW_REQ_MEMBER_ADD) {
      reply->new_member_id = members_.rbegin()->first + 1;
      members_[reply->new_member_id] = urls;
    } else if (!members_.contains(request->id)) {
      return KW_DETAIL_MEMBER_NOT_FOUND;
    } else if (request->req.kind == KW_REQ_MEMBER_REMOVE) {
      members_.erase(request->id);
    } else if (request->req.kind == KW_REQ_MEMBER_UPDATE) {
      members_[request->id] = urls;
    } else {
      return KW_DETAIL_MEMBER_NOT_LEARNER;
    }
  }
  for (const auto& [id, urls] : members_) {
    std::vector<kw_slice>& slices = reply->slices.emplace_back();
    for (const std::string& url : urls) slices.push_back(Slice(reply->texts.emplace_back(url)));
    kw_member member = {};
    member.id = id;
    member.name = Slice(id == 8 ? "m1" : "");
    member.peer_urls = slices.data();
    member.peer_url_count = slices.size();
    reply->member_list.push_back(member);
  }
  reply->members = reply->member_list.data();
  reply->member_count = reply->member_list.size();
  return 0;
}

}  // namespace keyway::api_etcd::testing
