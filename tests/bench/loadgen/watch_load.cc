// SPDX-License-Identifier: Apache-2.0
#include "watch_load.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "unary_load.h"
#include "wire.h"

namespace keyway::loadgen {
namespace {

constexpr uint64_t kCreateLimitNs = 30'000'000'000;
constexpr uint64_t kDrainLimitNs = 60'000'000'000;
constexpr int kTimeDigits = 20;

}  // namespace

WatchLoad::WatchLoad(const Options& options)
    : options_(options),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      delivered_by_stream_(options.watch_streams),
      delivered_by_watcher_(options.watch_streams) {
  for (uint32_t i = 0; i < options_.watch_streams; ++i) {
    watch_connections_.push_back(
        std::make_unique<Connection>(epoll_, options_.endpoints[i % options_.endpoints.size()], i, this));
    watch_calls_.push_back(std::make_unique<Call>());
    watch_calls_.back()->slot = i;
    watch_calls_.back()->half_close = false;
    watch_calls_.back()->keep_body = true;
  }
  writer_ = std::make_unique<Connection>(epoll_, options_.endpoints[0], options_.watch_streams, this);
  for (uint32_t i = 0; i < options_.streams; ++i) {
    put_calls_.push_back(std::make_unique<Call>());
    put_calls_.back()->slot = options_.watch_streams + i;
    free_puts_.push_back(put_calls_.back().get());
  }
}

WatchLoad::~WatchLoad() {
  watch_connections_.clear();
  writer_.reset();
  close(epoll_);
}

void WatchLoad::OnConnected(Connection* connection) {
  if (connection == writer_.get()) return;
  Call* const call = watch_calls_[connection->number()].get();
  for (uint32_t i = connection->number(); i < options_.watchers; i += options_.watch_streams) {
    std::string create, request;
    PutBytes(&create, 1, options_.prefix + "watched");
    PutInteger(&create, 6, options_.watch_prev_kv);
    PutBytes(&request, 1, create);
    AppendGrpcFrame(&call->request, request);
  }
  connection->Start(call, "/etcdserverpb.Watch/Watch");
}

void WatchLoad::OnBody(Call* call) {
  size_t start = 0;
  while (call->body.size() - start >= 5) {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(call->body.data() + start);
    const size_t size = static_cast<size_t>(bytes[1]) << 24 | bytes[2] << 16 | bytes[3] << 8 | bytes[4];
    if (call->body.size() - start - 5 < size) break;
    OnWatchResponse(call->slot, std::string_view(call->body).substr(start + 5, size));
    start += 5 + size;
  }
  call->body.erase(0, start);
}

void WatchLoad::OnWatchResponse(uint32_t stream, std::string_view message) {
  ++messages_;
  Fields response(message);
  uint64_t watch_id = 0, events = 0;
  std::string_view last_event;
  while (response.Next()) {
    switch (response.field()) {
      case 2:
        watch_id = response.integer();
        break;
      case 3:
        if (response.integer() != 0) ++created_;
        break;
      case 4:
        if (response.integer() != 0) Fail("a watcher was cancelled");
        break;
      case 11:
        ++events;
        last_event = response.bytes();
        break;
      default:
        break;
    }
  }
  if (!response.ok()) Fail("a watch response does not parse");
  if (events == 0) return;
  delivered_ += events;
  delivered_by_stream_[stream] += events;
  delivered_by_watcher_[stream][watch_id] += events;
  Fields event(last_event);
  while (event.Next()) {
    if (event.field() != 2) continue;
    Fields pair(event.bytes());
    while (pair.Next()) {
      if (pair.field() == 5 && pair.bytes().size() >= kTimeDigits) {
        const std::string digits(pair.bytes().substr(0, kTimeDigits));
        lag_ns_.Add(NowNs() - strtoull(digits.c_str(), nullptr, 10));
      }
    }
  }
}

void WatchLoad::IssuePut(Call* call) {
  char time[kTimeDigits + 1];
  snprintf(time, sizeof time, "%020" PRIu64, NowNs());
  std::string value(std::max<size_t>(options_.value_bytes, kTimeDigits), 'v');
  value.replace(0, kTimeDigits, time);
  std::string put;
  PutBytes(&put, 1, options_.prefix + "watched");
  PutBytes(&put, 2, value);
  call->request.clear();
  AppendGrpcFrame(&call->request, put);
  ++issued_;
  writer_->Start(call, "/etcdserverpb.KV/Put");
}

void WatchLoad::OnClose(Call* call, bool lost) {
  if (call->slot < options_.watch_streams) return Fail("a watch stream ended: " + call->message);
  if (lost || call->grpc_status != 0) return Fail("a put failed: " + call->message);
  ++acknowledged_;
  put_ns_.Add(NowNs() - call->start_ns);
  if (options_.rate <= 0 && issued_ < options_.count) {
    IssuePut(call);
  } else {
    free_puts_.push_back(call);
  }
}

void WatchLoad::OnLost(Connection* connection, const std::string& why) {
  Fail(connection->endpoint() + ": " + why);
}

void WatchLoad::Fail(const std::string& why) {
  if (!failed_) failure_ = why;
  failed_ = true;
}

bool WatchLoad::Done() const {
  return acknowledged_ == options_.count && delivered_ >= options_.count * options_.watchers;
}

int WatchLoad::Run() {
  for (auto& connection : watch_connections_) connection->Connect();
  writer_->Connect();
  const uint64_t begin = NowNs();
  uint64_t last_progress_ns = begin;
  uint64_t last_delivered = 0;
  while (!failed_ && !Done()) {
    epoll_event events[64];
    const int ready = epoll_wait(epoll_, events, 64, writing_ && options_.rate > 0 ? 1 : 20);
    for (int i = 0; i < ready; ++i) {
      static_cast<Connection*>(events[i].data.ptr)->OnReady(events[i].events);
    }
    const uint64_t now = NowNs();
    if (!writing_ && created_ == options_.watchers && writer_->connected()) {
      writing_ = true;
      start_ns_ = next_due_ns_ = last_progress_ns = now;
      server_cpu_start_ = CpuMicros(options_.server_pids);
      if (options_.rate <= 0) {
        while (!free_puts_.empty() && issued_ < options_.count) {
          Call* const call = free_puts_.back();
          free_puts_.pop_back();
          IssuePut(call);
        }
      }
    }
    if (!writing_) {
      if (now - begin > kCreateLimitNs) Fail("the watchers were not created in 30 s");
      continue;
    }
    while (options_.rate > 0 && next_due_ns_ <= now && issued_ < options_.count && !free_puts_.empty()) {
      Call* const call = free_puts_.back();
      free_puts_.pop_back();
      IssuePut(call);
      next_due_ns_ += static_cast<uint64_t>(1e9 / options_.rate);
    }
    writer_->Flush();
    if (delivered_ != last_delivered) {
      last_delivered = delivered_;
      last_progress_ns = now;
    } else if (now - last_progress_ns > kDrainLimitNs) {
      Fail("no event came for 60 s");
    }
  }
  return Report(NowNs());
}

int WatchLoad::Report(uint64_t end_ns) {
  const double server_cpu = static_cast<double>(CpuMicros(options_.server_pids) - server_cpu_start_);
  for (const auto& watchers : delivered_by_watcher_) {
    for (const auto& [watch_id, events] : watchers) {
      if (!failed_ && events != options_.count) {
        Fail("watcher " + std::to_string(watch_id) + " got " + std::to_string(events) + " of " +
             std::to_string(options_.count) + " events");
      }
    }
  }
  const double seconds = static_cast<double>(end_ns - start_ns_) / 1e9;
  printf("{\"mode\": \"watch\", \"watchers\": %u, \"watch_streams\": %u, \"seconds\": %.3f,\n",
         options_.watchers, options_.watch_streams, seconds);
  printf(" \"puts\": %" PRIu64 ", \"events\": %" PRIu64 ", \"messages\": %" PRIu64
         ", \"events_per_second\": %.1f,\n",
         acknowledged_, delivered_, messages_, static_cast<double>(delivered_) / seconds);
  printf(" \"server_cpu_us\": %.0f, \"events_per_server_cpu_second\": %.1f,\n", server_cpu,
         server_cpu > 0 ? static_cast<double>(delivered_) / (server_cpu / 1e6) : 0.0);
  printf(" \"lag_us\": {\"mean\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f},\n",
         lag_ns_.mean() / 1e3, static_cast<double>(lag_ns_.Quantile(0.5)) / 1e3,
         static_cast<double>(lag_ns_.Quantile(0.99)) / 1e3, static_cast<double>(lag_ns_.max()) / 1e3);
  printf(" \"put_us\": {\"mean\": %.1f, \"p99\": %.1f}, \"failure\": \"%s\"}\n", put_ns_.mean() / 1e3,
         static_cast<double>(put_ns_.Quantile(0.99)) / 1e3, failure_.c_str());
  return failed_ ? 1 : 0;
}

}  // namespace keyway::loadgen
