// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/node.h"

#include <pthread.h>

#include "kernel/base/limits.h"
#include "kernel/base/thread_role.h"

namespace keyway::core {
namespace {

constexpr int kReaderThreads = 2;
constexpr uint64_t kInboxFrameBytesMax = 64u << 20;  // Beyond it frames are dropped: Raft sends again.

}  // namespace

Node::Node(CoreConfig config, CoreDeps deps, Clock* clock, std::vector<std::string> listen_peer_urls)
    : listen_urls_(std::move(listen_peer_urls)),
      tick_ns_(config.tick_ms * 1'000'000ull),
      token_(config.cluster_token),
      deps_(deps),
      clock_(clock),
      log_writer_(deps.log_plugin, deps.log, [this](LogJob* job) { inbox_.Push(job); }) {
  threads_ = std::make_unique<Threads>(&inbox_, &log_writer_, kReaderThreads);
  deps_.executor = threads_.get();
  core_ = std::make_unique<Core>(std::move(config), deps_, &inbox_);
  sink_.size = sizeof sink_;
  sink_.self = this;
  sink_.frames = &Node::OnFrames;
  sink_.peer_state = &Node::OnPeerState;
  tick_.done = &Node::OnTick;
  tick_.ctx = this;
}

Node::~Node() { Stop(); }

bool Node::Start(std::string* error) {
  if (!core_->Recover(error)) return false;
  std::vector<const char*> urls;
  for (const std::string& url : listen_urls_) urls.push_back(url.c_str());
  kw_error failure{};
  failure.size = sizeof failure;
  if (deps_.transport->listen(deps_.transport_plugin, core_->member_id(), token_.c_str(), urls.data(),
                              urls.size(), &sink_, &failure) != KW_OK) {
    *error = failure.text;
    return false;
  }
  running_.store(true);
  thread_ = std::thread([this] { Run(); });
  ArmTick();
  return true;
}

void Node::Run() {
  pthread_setname_np(pthread_self(), "kw-core");
  thread_role = ThreadRole::kCore;
  core_->Begin(clock_->MonoNs());
  bool more = true;
  while (running_.load(std::memory_order_acquire)) {
    if (!more) inbox_.Wait();
    more = core_->Turn(clock_->MonoNs());
    if (core_->failed()) failed_.store(true, std::memory_order_release);
    handed_over_.store(core_->handed_over(), std::memory_order_release);
  }
  core_->Finish();
}

// ---- ticks ---------------------------------------------------------------------------------------

void Node::ArmTick() {
  tick_idle_.store(false);
  clock_->After(tick_ns_, &tick_);
}

void Node::OnTick(kw_completion* self, int32_t code, const kw_error*) {
  Node* node = static_cast<Node*>(self->ctx);
  if (code != KW_OK || !node->running_.load(std::memory_order_acquire)) {
    node->tick_idle_.store(true);
    node->tick_idle_.notify_all();
    return;
  }
  node->Post([node] {
    node->core_->Tick();
    node->ArmTick();
  });
}

// ---- stop ----------------------------------------------------------------------------------------

void Node::HandOver(uint64_t timeout_ms) {
  if (!running_.load() || failed()) return;
  Post([this] { core_->BeginShutdown(); });
  const uint64_t deadline_ns = clock_->MonoNs() + timeout_ms * 1'000'000;
  // The core says when it is done; look every few milliseconds, since this happens once.
  while (clock_->MonoNs() < deadline_ns && !failed()) {
    std::atomic<int> fired{0};
    kw_completion wake{};
    wake.ctx = &fired;
    wake.done = [](kw_completion* done, int32_t, const kw_error*) {
      auto* flag = static_cast<std::atomic<int>*>(done->ctx);
      flag->store(1);
      flag->notify_all();
    };
    clock_->After(2'000'000, &wake);
    fired.wait(0);
    if (handed_over_.load(std::memory_order_acquire)) return;
  }
}

void Node::Stop() {
  if (!running_.exchange(false)) return;
  Post([] {});  // Wakes the core.
  thread_.join();
  clock_->Cancel(&tick_);
  tick_idle_.wait(false);
  threads_->Stop();  // Executes what is left, the last engine write among it.
  // Completions that came too late for the core, and requests: answered, freed.
  while (InboxNode* node = inbox_.Take()) {
    while (node != nullptr) {
      InboxNode* next = node->next;
      switch (static_cast<InboxKind>(node->kind)) {
        case InboxKind::kRequest: {
          auto* request =
              reinterpret_cast<kw_request*>(reinterpret_cast<char*>(node) - offsetof(kw_request, kernel));
          kw_error error{};
          error.size = sizeof error;
          error.code = KW_UNAVAILABLE;
          error.detail = KW_DETAIL_STOPPED;
          request->done(request, KW_UNAVAILABLE, &error, nullptr);
          break;
        }
        case InboxKind::kJob: {
          std::unique_ptr<Job> job(static_cast<Job*>(node));
          job->Complete();
          break;
        }
        case InboxKind::kCommand:
          delete static_cast<Command*>(node);
          break;
      }
      node = next;
    }
  }
}

// ---- what arrives --------------------------------------------------------------------------------

void Node::Submit(kw_request* const* requests, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    static_assert(sizeof(InboxNode) <= sizeof(requests[i]->kernel));
    auto* node = new (static_cast<void*>(requests[i]->kernel)) InboxNode;
    node->kind = static_cast<uint64_t>(InboxKind::kRequest);
    inbox_.Push(node);
  }
}

uint64_t Node::WatchOpen(const kw_watch& watch) {
  const uint64_t id = next_watch_id_.fetch_add(1, std::memory_order_relaxed);
  std::string key(ToView(watch.key)), end(ToView(watch.end));
  Post([this, id, copy = kw_watch(watch), key = std::move(key), end = std::move(end)]() mutable {
    copy.key = ToSlice(key);
    copy.end = ToSlice(end);
    copy.principal = {};
    core_->OpenWatch(id, copy);
  });
  return id;
}

void Node::WatchCredit(uint64_t id, uint64_t bytes) {
  Post([this, id, bytes] { core_->CreditWatch(id, bytes); });
}

void Node::WatchProgress(const kw_watch_sink* sink, const uint64_t* ids, size_t count, void* ctx) {
  Post([this, sink, ctx, list = std::vector<uint64_t>(ids, ids + count)] {
    core_->ProgressWatch(sink, list, ctx);
  });
}

void Node::WatchClose(uint64_t id) {
  Post([this, id] { core_->CloseWatch(id); });
}

void Node::OnFrames(void* self, const kw_frame* frames, size_t count) {
  Node* node = static_cast<Node*>(self);
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) bytes += frames[i].head.len + frames[i].body.len;
  if (node->inbox_frame_bytes_.fetch_add(bytes) + bytes > kInboxFrameBytesMax) {
    node->inbox_frame_bytes_.fetch_sub(bytes);
    return;
  }
  std::vector<std::pair<uint64_t, std::string>> copies;
  copies.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    std::string& copy = copies.emplace_back(frames[i].peer, std::string()).second;
    copy.reserve(frames[i].head.len + frames[i].body.len);
    copy.append(ToView(frames[i].head));
    copy.append(ToView(frames[i].body));
  }
  node->Post([node, bytes, copies = std::move(copies)] {
    node->inbox_frame_bytes_.fetch_sub(bytes);
    for (const auto& [peer, frame] : copies) node->core_->OnFrame(peer, frame);
  });
}

void Node::OnPeerState(void* self, uint64_t peer, uint32_t state, kw_slice) {
  Node* node = static_cast<Node*>(self);
  node->Post([node, peer, state] { node->core_->OnPeerState(peer, state == KW_PEER_UP); });
}

}  // namespace keyway::core
