// SPDX-License-Identifier: Apache-2.0
//
// Node: a Core with its thread, its timers and the table keyway.kernel/1 for API plugins. The daemon has
// one; it is the outer face of kernel/core.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernel/core/core.h"
#include "kernel/core/threads.h"
#include "kernel/plugin/clock.h"

namespace keyway::core {

class Node {
 public:
  // `clock` and all of `deps` outlive this; deps.executor is set by the node itself.
  Node(CoreConfig config, CoreDeps deps, Clock* clock, std::vector<std::string> listen_peer_urls);
  // Stops if it was started.
  ~Node();

  // [control] Recovers, listens for peers, starts the threads. False with a reason; then nothing runs.
  [[nodiscard]] bool Start(std::string* error);
  // [control] Hands leadership over, if this node leads and somebody can take it; at most `timeout_ms`.
  void HandOver(uint64_t timeout_ms);
  // [control] Answers all requests with STOPPED, writes the engine, ends the threads. The transport must
  // be stopped after it, API plugins before.
  void Stop();

  // ---- for API plugins (behind keyway.kernel/1), [any] ----
  void Submit(kw_request* const* requests, size_t count);
  uint64_t WatchOpen(const kw_watch& watch);
  void WatchCredit(uint64_t id, uint64_t bytes);
  void WatchProgress(const kw_watch_sink* sink, const uint64_t* ids, size_t count, void* ctx);
  void WatchClose(uint64_t id);
  const kw_node_state* state() const { return core_->state(); }

  // [any] Whether the core has stopped for a reason of its own; failure() then says why.
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  std::string failure() const { return failed() ? core_->failure() : ""; }

 private:
  void Run();
  void ArmTick();
  static void OnTick(kw_completion* self, int32_t code, const kw_error* error);
  static void OnFrames(void* self, const kw_frame* frames, size_t count);
  static void OnPeerState(void* self, uint64_t peer, uint32_t state, kw_slice principal);
  void Post(std::function<void()> run) { inbox_.Push(new Command(std::move(run))); }

  const std::vector<std::string> listen_urls_;
  const uint64_t tick_ns_;
  const std::string token_;
  CoreDeps deps_;
  Clock* const clock_;
  Inbox inbox_;
  LogWriter log_writer_;
  std::unique_ptr<Threads> threads_;
  std::unique_ptr<Core> core_;
  std::thread thread_;
  kw_transport_sink sink_{};
  kw_completion tick_{};
  std::atomic<bool> tick_idle_{true};
  std::atomic<bool> running_{false};
  std::atomic<bool> failed_{false};
  std::atomic<bool> handed_over_{false};
  std::atomic<uint64_t> next_watch_id_{1};
  std::atomic<uint64_t> inbox_frame_bytes_{0};
};

}  // namespace keyway::core
