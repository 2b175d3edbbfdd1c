// SPDX-License-Identifier: Apache-2.0
//
// The event loop.
#include "io_thread.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <utility>

#include "connection.h"
#include "listener.h"
#include "tls.h"
#include "watch_stream.h"

namespace keyway::api_etcd {
namespace {

constexpr uint64_t kTlsRefreshNs = 1'000'000'000;
constexpr size_t kReauthenticationsPerTurn = 32;
constexpr int kHandshakeStepsPerTurn = 16;
// Beside requests that are being served.
constexpr int kHandshakeStepsPerTurnYielding = 1;
constexpr uint64_t kServedLatelyNs = 20'000'000;
constexpr uint64_t kYieldNsMin = 100'000;
constexpr uint64_t kYieldNsMax = 5'000'000;

// To a serving thread: the TLS material has changed.
struct MaterialChanged final : Posted {
  static void Run(Posted* posted, IoThread* io) {
    const std::unique_ptr<MaterialChanged> self(static_cast<MaterialChanged*>(posted));
    io->QueueReauthentications();
  }
};

}  // namespace

void Call::Done(kw_request* self, int32_t code, const kw_error* error, kw_reply* reply) {
  auto* const call = static_cast<Call*>(self->ctx);
  call->code = code;
  call->reply = reply;
  if (error != nullptr) {
    call->detail = error->detail;
    call->text.assign(error->text, strnlen(error->text, sizeof error->text));
  }
  call->io->Post(call);
}

IoThread::IoThread(Server* server, uint32_t index, bool is_for_handshakes)
    : server_(server), index_(index), is_for_handshakes_(is_for_handshakes) {
  watch_sink_.self = this;
  watch_sink_.deliver = &IoThread::DeliverThunk;
  read_buffer_.resize(64 << 10);
}

IoThread::~IoThread() {
  // A socket that was dealt to this thread after it had finished.
  stop_phase_ = 2;
  DrainPosted();
  // Whoever handed over the last one may not have looked yet whether the loop sleeps.
  while (handed_over_count_.load(std::memory_order_acquire) != taken_count_) {
    std::this_thread::yield();
  }
  for (Call* call : free_calls_) delete call;
  if (epoll_fd_ >= 0) close(epoll_fd_);
  if (event_fd_ >= 0) close(event_fd_);
}

int32_t IoThread::Start(kw_error* error) {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_fd_ < 0 || event_fd_ < 0) {
    return Fail(error, KW_INTERNAL, "event loop: ", std::strerror(errno));
  }
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // Of the eventfd; every other one is a Pollable.
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, event_fd_, &event) != 0) {
    return Fail(error, KW_INTERNAL, "event loop: ", std::strerror(errno));
  }
  now_ns_ = server_->clock.MonoNs();
  timers_.Start(now_ns_);
  for (Listener* listener : listeners_) Poll(listener->fd(), EPOLLIN, listener);
  // Signals are the daemon's; a broken connection must not raise SIGPIPE here either.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return KW_OK;
}

void IoThread::RequestStop() {
  stop_requested_.store(true, std::memory_order_seq_cst);
  Wake();
}
void IoThread::Join() {
  if (thread_.joinable()) thread_.join();
}

void IoThread::Wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the loop wakes anyway.
  [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
}
void IoThread::Post(Posted* posted) {
  if (posted_.Push(posted) && is_asleep_.load(std::memory_order_seq_cst)) Wake();
  handed_over_count_.fetch_add(1, std::memory_order_release);
}
void IoThread::Deliver(kw_delivery* delivery) {
  if (deliveries_.Push(delivery) && is_asleep_.load(std::memory_order_seq_cst)) Wake();
  handed_over_count_.fetch_add(1, std::memory_order_release);
}
void IoThread::DeliverThunk(void* self, kw_delivery* delivery) {
  static_cast<IoThread*>(self)->Deliver(delivery);
}

bool IoThread::Poll(int fd, uint32_t events, Pollable* pollable) {
  epoll_event event = {};
  event.events = events;
  event.data.ptr = pollable;
  return epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
}
void IoThread::Repoll(int fd, uint32_t events, Pollable* pollable) {
  epoll_event event = {};
  event.events = events;
  event.data.ptr = pollable;
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);
}

void IoThread::Unpoll(int fd) { epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr); }

void IoThread::AddListener(Listener* listener) { listeners_.push_back(listener); }

void IoThread::Adopt(std::unique_ptr<Connection> connection) {
  Connection* const raw = connection.get();
  if (is_stopping() || !raw->Start()) {
    if (raw->is_dirty) std::erase(dirty_, raw);
    return;
  }
  connections_.emplace(raw, std::move(connection));
  if (!raw->is_in_handshake()) {
    if (raw->has_certificate() && raw->generation() != server_->tls->generation()) QueueReauthentication(raw);
    return;
  }
  // The oldest one is the least likely to be of somebody who means it.
  if (handshakes_.size() >= server_->options.handshake_slots) handshakes_.front()->Evict();
  raw->handshake_slot = handshakes_.insert(handshakes_.end(), raw);
  raw->has_handshake_slot = true;
}
void IoThread::Retire(Connection* connection) {
  FreeHandshakeSlot(connection);
  retired_.push_back(connection);
}
void IoThread::FreeHandshakeSlot(Connection* connection) {
  if (!std::exchange(connection->has_handshake_slot, false)) return;
  handshakes_.erase(connection->handshake_slot);
}

IoThread* IoThread::NextServingThread() {
  return server_->io_threads[next_serving_++ % server_->io_threads.size()];
}

void IoThread::QueueReauthentication(Connection* connection) {
  if (std::exchange(connection->is_to_reauthenticate, true)) return;
  to_reauthenticate_.push_back(connection);
}
void IoThread::QueueReauthentications() {
  const uint64_t generation = server_->tls->generation();
  for (const auto& [connection, owner] : connections_) {
    if (connection->has_certificate() && connection->generation() != generation) {
      QueueReauthentication(connection);
    }
  }
}
void IoThread::StepReauthentications() {
  for (size_t i = 0; i < kReauthenticationsPerTurn && !to_reauthenticate_.empty(); ++i) {
    Connection* const connection = to_reauthenticate_.back();
    to_reauthenticate_.pop_back();
    connection->is_to_reauthenticate = false;
    connection->Reauthenticate();
  }
}
void IoThread::MarkDirty(Connection* connection) {
  if (connection->is_dirty) return;
  connection->is_dirty = true;
  dirty_.push_back(connection);
}

Call* IoThread::NewCall(CallOwner* owner, Rpc rpc) {
  Call* call = nullptr;
  if (free_calls_.empty()) {
    call = new Call();
    call->io = this;
    call->run = &IoThread::RunCall;
  } else {
    call = free_calls_.back();
    free_calls_.pop_back();
  }
  call->maybe_owner = owner;
  call->rpc = rpc;
  return call;
}
void IoThread::FreeCall(Call* call) {
  if (call->reply != nullptr) call->reply->release(call->reply);
  call->reply = nullptr;
  call->maybe_owner = nullptr;
  if (free_calls_.size() >= kFreeCallsMax) {
    delete call;
    return;
  }
  call->input.Reset(kBufferKeepBytes);
  call->arena.Reset();
  call->code = KW_OK;
  call->detail = 0;
  call->text.clear();
  call->op = {};
  free_calls_.push_back(call);
}
void IoThread::Submit(Call* call) {
  ++outstanding_;
  batch_.push_back(&call->request);
}
void IoThread::RunCall(Posted* posted, IoThread* io) {
  auto* const call = static_cast<Call*>(posted);
  --io->outstanding_;
  if (call->maybe_owner != nullptr) call->maybe_owner->OnCallDone(call);
  io->FreeCall(call);
}

uint64_t IoThread::AddWatchStream(WatchStream* stream) {
  const uint64_t serial = next_serial_++;
  watch_streams_.emplace(serial, stream);
  return serial;
}
void IoThread::RemoveWatchStream(uint64_t serial) { watch_streams_.erase(serial); }
WatchStream* IoThread::FindWatchStream(uint64_t serial) {
  const auto found = watch_streams_.find(serial);
  return found == watch_streams_.end() ? nullptr : found->second;
}

void IoThread::DrainPosted() {
  Posted* posted = posted_.TakeAll();
  while (posted != nullptr) {
    Posted* const next = posted->next;
    ++taken_count_;
    posted->run(posted, this);
    posted = next;
  }
}
void IoThread::DrainDeliveries() {
  kw_delivery* delivery = deliveries_.TakeAll();
  while (delivery != nullptr) {
    kw_delivery* const next = delivery->next;
    ++taken_count_;
    WatchStream::Dispatch(this, *delivery);
    delivery->release(delivery);
    delivery = next;
  }
}

void IoThread::SubmitBatch() {
  if (batch_.empty()) return;
  submitted_at_ns_.store(now_ns_, std::memory_order_relaxed);
  server_->kernel->submit(server_->host, batch_.data(), batch_.size());
  batch_.clear();
}

void IoThread::FlushDirty() {
  // A connection that did not get everything out marks itself again, for the next turn.
  flushing_.swap(dirty_);
  for (Connection* connection : flushing_) {
    connection->is_dirty = false;
    connection->Flush();
  }
  flushing_.clear();
}

void IoThread::DestroyRetired() {
  // Destroying one may submit nothing and retire nothing else, but keep the loop simple.
  while (!retired_.empty()) {
    Connection* const connection = retired_.back();
    retired_.pop_back();
    if (connection->is_dirty) std::erase(dirty_, connection);
    if (connection->is_to_reauthenticate) std::erase(to_reauthenticate_, connection);
    connections_.erase(connection);
  }
}

void IoThread::PollOnce() {
  constexpr int kEventsMax = 256;
  epoll_event events[kEventsMax];
  int timeout_ms = timers_.NextMs(now_ns_);
  if (!dirty_.empty() || !to_reauthenticate_.empty()) timeout_ms = 0;
  if (timeout_ms != 0) {
    is_asleep_.store(true, std::memory_order_seq_cst);
    if (!posted_.empty() || !deliveries_.empty() ||
        stop_requested_.load(std::memory_order_seq_cst) != (stop_phase_ != 0)) {
      timeout_ms = 0;
    }
  }
  const int count = epoll_wait(epoll_fd_, events, kEventsMax, timeout_ms);
  is_asleep_.store(false, std::memory_order_relaxed);
  now_ns_ = server_->clock.MonoNs();
  if (is_for_handshakes_) {
    handshake_steps_left_ = OthersAreServed() ? kHandshakeStepsPerTurnYielding : kHandshakeStepsPerTurn;
  }
  for (int i = 0; i < count; ++i) {
    auto* const pollable = static_cast<Pollable*>(events[i].data.ptr);
    if (pollable != nullptr) {
      pollable->OnEvents(events[i].events);
      continue;
    }
    uint64_t wakes = 0;
    [[maybe_unused]] const ssize_t got = read(event_fd_, &wakes, sizeof wakes);
  }
}

void IoThread::StepStop() {
  if (stop_phase_ == 0 && stop_requested_.load(std::memory_order_seq_cst)) {
    stop_phase_ = 1;
    stop_deadline_ns_ = now_ns_ + server_->options.shutdown_grace_ns;
    for (Listener* listener : listeners_) listener->Close();
    for (const auto& [connection, owner] : connections_) connection->Drain();
  }
  if (stop_phase_ == 1 && (connections_.empty() || now_ns_ >= stop_deadline_ns_)) {
    stop_phase_ = 2;
    for (const auto& [connection, owner] : connections_) connection->Close();
  }
}

bool IoThread::IsFinished() const {
  return stop_phase_ == 2 && connections_.empty() && outstanding_ == 0 && posted_.empty() &&
         deliveries_.empty();
}

// Asks for new TLS material, now and every second.
void IoThread::RefreshTls() {
  kw_error error = NoError();
  const uint64_t generation = server_->tls->generation();
  if (server_->tls->Refresh(&error) != KW_OK) {
    server_->log.Error("tls_refresh_failed", {{"reason", std::string_view(error.text)}});
  }
  if (server_->tls->generation() != generation) {
    for (IoThread* thread : server_->io_threads) {
      auto* const changed = new MaterialChanged();
      changed->run = &MaterialChanged::Run;
      thread->Post(changed);
    }
  }
  tls_timer_.io = this;
  tls_timer_.fire = [](TimerWheel::Timer* timer) { static_cast<TlsTimer*>(timer)->io->RefreshTls(); };
  timers_.Set(&tls_timer_, now_ns_ + kTlsRefreshNs);
}

bool IoThread::OthersAreServed() const {
  for (const IoThread* thread : server_->io_threads) {
    if (thread->submitted_at_ns() + kServedLatelyNs > now_ns_) return true;
  }
  return false;
}

// Handshakes get at most a third of a processor while requests are served: a turn is short, and after it the
// thread rests twice as long. Whoever waits for the processor meanwhile waits for one step at most.
void IoThread::YieldToServing() {
  if (!OthersAreServed()) return;
  const uint64_t worked_ns = server_->clock.MonoNs() - now_ns_;
  const timespec rest = {0, static_cast<long>(std::clamp(2 * worked_ns, kYieldNsMin, kYieldNsMax))};
  nanosleep(&rest, nullptr);
}

void IoThread::Run() {
  pthread_setname_np(pthread_self(),
                     is_for_handshakes_ ? "api-etcd/tls" : ("api-etcd/" + std::to_string(index_)).c_str());
  // Wakes the loop while it drains, so that the deadline is seen.
  TimerWheel::Timer stop_tick;
  stop_tick.fire = [](TimerWheel::Timer*) {};
  if (is_for_handshakes_) RefreshTls();
  while (!IsFinished()) {
    PollOnce();
    DrainPosted();
    DrainDeliveries();
    timers_.Advance(now_ns_);
    if (!to_reauthenticate_.empty()) StepReauthentications();
    StepStop();
    if (stop_phase_ != 0 && !stop_tick.is_set()) timers_.Set(&stop_tick, now_ns_ + 10'000'000);
    SubmitBatch();
    FlushDirty();
    DestroyRetired();
    if (is_for_handshakes_ && stop_phase_ == 0) YieldToServing();
  }
}

}  // namespace keyway::api_etcd
