// SPDX-License-Identifier: Apache-2.0
//
// One event loop: its connections, its timers, and the two-way traffic with the kernel. Requests are
// collected over a turn and submitted together; completions and watch deliveries come through
// lock-free stacks, and an eventfd is written only when the loop may be asleep.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "call.h"
#include "pool.h"
#include "server.h"
#include "timer_wheel.h"

namespace keyway::api_etcd {

class Connection;
class Listener;
class WatchStream;

// What epoll calls. On the I/O thread.
class Pollable {
 public:
  virtual void OnEvents(uint32_t events) = 0;

 protected:
  ~Pollable() = default;
};

// A stack that any thread pushes to and one thread empties, in order of pushing.
template <typename Node>
class HandOver {
 public:
  // True if it was empty.
  bool Push(Node* node) {
    Node* head = head_.load(std::memory_order_relaxed);
    do {
      node->next = head;
    } while (!head_.compare_exchange_weak(head, node, std::memory_order_seq_cst, std::memory_order_relaxed));
    return head == nullptr;
  }
  Node* TakeAll() {
    Node* node = head_.exchange(nullptr, std::memory_order_acquire);
    Node* ordered = nullptr;
    while (node != nullptr) {
      Node* const next = node->next;
      node->next = ordered;
      ordered = node;
      node = next;
    }
    return ordered;
  }
  bool empty() const { return head_.load(std::memory_order_seq_cst) == nullptr; }

 private:
  std::atomic<Node*> head_ = nullptr;
};

class IoThread {
 public:
  // `is_for_handshakes`: takes TLS connections from accept() to the end of their authentication.
  IoThread(Server* server, uint32_t index, bool is_for_handshakes = false);
  ~IoThread();

  // [control]
  int32_t Start(kw_error* error);
  void RequestStop();  // connections are drained, then closed
  void Join();

  // [any]
  void Post(Posted* posted);
  void Deliver(kw_delivery* delivery);

  // ---- on the I/O thread only ----------------------------------------------------------------

  Server& server() { return *server_; }
  const kw_watch_sink* watch_sink() const { return &watch_sink_; }
  uint64_t now_ns() const { return now_ns_; }
  TimerWheel& timers() { return timers_; }
  Pool& pool() { return pool_; }
  bool is_stopping() const { return stop_phase_ != 0; }

  // Ownership goes to the loop; false if the socket could not be taken.
  void Adopt(std::unique_ptr<Connection> connection);
  // The connection is destroyed at the end of the turn.
  void Retire(Connection* connection);
  // Its output is written at the end of the turn.
  void MarkDirty(Connection* connection);
  void AddListener(Listener* listener);
  bool Poll(int fd, uint32_t events, Pollable* pollable);
  void Repoll(int fd, uint32_t events, Pollable* pollable);
  void Unpoll(int fd);
  // False: enough handshakes for this turn; epoll tells of the connection again.
  bool TakeHandshakeStep() { return handshake_steps_left_-- > 0; }
  // Of the thread of the handshakes: requests came in lately, on the threads that serve.
  bool OthersAreServed() const;
  // [any] When requests were last submitted, 0 for never.
  uint64_t submitted_at_ns() const { return submitted_at_ns_.load(std::memory_order_relaxed); }
  // Where a connection whose handshake is over goes.
  IoThread* NextServingThread();
  // The connection's certificate is checked again, a few connections a turn.
  void QueueReauthentication(Connection* connection);
  // All that were authenticated under older TLS material.
  void QueueReauthentications();

  Call* NewCall(CallOwner* owner, Rpc rpc);
  void FreeCall(Call* call);
  // Submits at the end of this turn. The call is outstanding until its owner was told.
  void Submit(Call* call);
  // Anything else of ours that a foreign thread still refers to.
  void AddOutstanding() { ++outstanding_; }
  void RemoveOutstanding() { --outstanding_; }

  uint64_t AddWatchStream(WatchStream* stream);
  void RemoveWatchStream(uint64_t serial);
  WatchStream* FindWatchStream(uint64_t serial);

  // Room shared by all connections of the thread, valid within one turn's step.
  std::vector<uint8_t>& read_buffer() { return read_buffer_; }

 private:
  static constexpr size_t kFreeCallsMax = 4096;

  static void DeliverThunk(void* self, kw_delivery* delivery);
  static void RunCall(Posted* posted, IoThread* io);
  void Wake();
  void Run();
  void PollOnce();
  void DrainPosted();
  void DrainDeliveries();
  void SubmitBatch();
  void FlushDirty();
  void DestroyRetired();
  void StepStop();
  void RefreshTls();
  void StepReauthentications();
  void FreeHandshakeSlot(Connection* connection);
  void YieldToServing();
  bool IsFinished() const;

  Server* const server_;
  const uint32_t index_;
  const bool is_for_handshakes_;
  int epoll_fd_ = -1;
  int event_fd_ = -1;
  std::thread thread_;
  std::atomic<bool> stop_requested_ = false;

  // Written by other threads.
  alignas(64) HandOver<Posted> posted_;
  alignas(64) HandOver<kw_delivery> deliveries_;
  // Posts and deliveries whose caller is through with this object; see ~IoThread.
  alignas(64) std::atomic<uint64_t> handed_over_count_ = 0;
  alignas(64) std::atomic<bool> is_asleep_ = false;

  // Read by the thread of the handshakes.
  alignas(64) std::atomic<uint64_t> submitted_at_ns_ = 0;

  // Of the loop.
  alignas(64) uint64_t now_ns_ = 0;
  Pool pool_;  // Outlives the connections below.
  TimerWheel timers_;
  struct TlsTimer : TimerWheel::Timer {
    IoThread* io = nullptr;
  } tls_timer_;
  kw_watch_sink watch_sink_ = {};
  uint32_t stop_phase_ = 0;  // 1: draining, 2: connections closed
  uint64_t stop_deadline_ns_ = 0;
  size_t outstanding_ = 0;
  uint64_t taken_count_ = 0;  // posts and deliveries
  std::vector<kw_request*> batch_;
  std::vector<Connection*> dirty_;
  std::vector<Connection*> flushing_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> retired_;
  std::vector<Connection*> to_reauthenticate_;  // The last one is next.
  std::list<Connection*> handshakes_;           // Unfinished ones, the oldest first.
  int handshake_steps_left_ = 0;
  size_t next_serving_ = 0;
  std::vector<Listener*> listeners_;
  std::vector<Call*> free_calls_;
  std::unordered_map<uint64_t, WatchStream*> watch_streams_;
  uint64_t next_serial_ = 1;
  std::vector<uint8_t> read_buffer_;
};

}  // namespace keyway::api_etcd
