// SPDX-License-Identifier: Apache-2.0
//
// Watches: creation, cancellation, progress, events.
#include "watch_stream.h"

#include <algorithm>

#include "etcd/rpc.pb.h"
#include "rpc_unary.h"

namespace keyway::api_etcd {
namespace {

constexpr uint64_t kCreditDelayNs = 50'000'000;
constexpr std::string_view kDuplicateId = "mvcc: duplicate watch ID provided on the WatchStream";
constexpr std::string_view kEmptyRange = "mvcc: watcher range is empty";
constexpr std::string_view kCompacted = "etcdserver: mvcc: required revision has been compacted";

}  // namespace

WatchStream::WatchStream(Stream* stream)
    : stream_(stream), io_(stream->io()), serial_(io_->AddWatchStream(this)) {
  progress_timer_.stream = this;
  progress_timer_.fire = [](TimerWheel::Timer* timer) {
    static_cast<StreamTimer*>(timer)->stream->OnProgressTick();
  };
  credit_timer_.stream = this;
  credit_timer_.fire = [](TimerWheel::Timer* timer) {
    static_cast<StreamTimer*>(timer)->stream->ReturnCredits();
  };
  io_->server().metrics.watch_streams.Add();
}

void WatchStream::Stop() {
  if (is_stopped_) return;
  is_stopped_ = true;
  io_->timers().Clear(&progress_timer_);
  io_->timers().Clear(&credit_timer_);
  while (!watches_.empty()) Drop(watches_.begin()->second);
  io_->RemoveWatchStream(serial_);
  io_->server().metrics.watch_streams.Subtract();
}

// ---- from the client ------------------------------------------------------------------------------

void WatchStream::OnMessage(kw_slice message) {
  etcdserverpb::WatchRequest request;
  if (!request.ParseFromArray(message.ptr, static_cast<int>(message.len))) {
    return stream_->Finish(MalformedRequest());
  }
  switch (request.request_union_case()) {
    case etcdserverpb::WatchRequest::kCreateRequest:
      return Create(request.create_request());
    case etcdserverpb::WatchRequest::kCancelRequest:
      return Cancel(request.cancel_request().watch_id());
    case etcdserverpb::WatchRequest::kProgressRequest:
      return RequestProgress();
    case etcdserverpb::WatchRequest::REQUEST_UNION_NOT_SET:
      return;  // Of a newer client.
  }
}

void WatchStream::Create(const etcdserverpb::WatchCreateRequest& request) {
  const std::string_view key =
      request.key().empty() ? std::string_view("\0", 1) : std::string_view(request.key());
  const std::string_view end = request.range_end();
  const bool is_open_ended = end.size() == 1 && end[0] == '\0';
  if (!end.empty() && !is_open_ended && end <= key) return Refuse(kEmptyRange);
  if (request.start_revision() < 0) return Refuse(kCompacted);
  int64_t id = request.watch_id();
  if (id == 0) {
    while (watches_.contains(next_id_)) ++next_id_;
    id = next_id_++;
  } else if (watches_.contains(id)) {
    return Refuse(kDuplicateId);
  }
  if (watches_.size() >= kWatchesPerStreamMax) {
    return stream_->Finish({KW_RESOURCE_EXHAUSTED, "too many watches on one stream"});
  }
  Open(request, id, key);
}

void WatchStream::Refuse(std::string_view reason) {
  const EncodedHeader header = CurrentHeader();
  WatchResponse response;
  response.header = &header;
  response.watch_id = -1;
  response.is_created = true;
  response.is_canceled = true;
  response.cancel_reason = Slice(reason);
  SendResponse(response);
}

void WatchStream::Open(const etcdserverpb::WatchCreateRequest& request, int64_t id, std::string_view key) {
  Server& server = io_->server();
  auto* const watch = new Watch();
  watch->maybe_stream = this;
  watch->id = id;
  watch->has_prev = request.prev_kv();
  watch->is_fragmented = request.fragment();
  watch->wants_progress = request.progress_notify();
  // Many watches share what one stream may have on its way.
  watch->credit_bytes = std::clamp<size_t>(kWatchBufferBytesPerStream / (watches_.size() + 1),
                                           std::min(kWatchBufferBytesMin, server.options.watch_buffer_bytes),
                                           server.options.watch_buffer_bytes);
  kw_watch open = {};
  open.size = sizeof open;
  if (request.prev_kv()) open.flags |= KW_WATCH_PREV_KV;
  for (const int filter : request.filters()) {
    if (filter == etcdserverpb::WatchCreateRequest::NOPUT) open.flags |= KW_WATCH_NO_PUT;
    if (filter == etcdserverpb::WatchCreateRequest::NODELETE) open.flags |= KW_WATCH_NO_DELETE;
  }
  open.principal = stream_->principal();
  open.key = Slice(key);
  open.end = Slice(std::string_view(request.range_end()));
  open.start_revision = request.start_revision();
  open.credit_bytes = watch->credit_bytes;
  open.sink = io_->watch_sink();
  open.ctx = watch;
  watches_.emplace(id, watch);
  io_->AddOutstanding();
  watch->kernel_id = server.kernel->watch_open(server.host, &open);
  if (watch->wants_progress && !progress_timer_.is_set()) {
    const uint64_t interval_ns = server.options.watch_progress_notify_interval_ns;
    // Up to a tenth later, so that streams do not all tick at once.
    const uint64_t jitter_ns = interval_ns / 10 * ((serial_ * 2654435761u >> 8) % 256) / 256;
    io_->timers().Set(&progress_timer_, io_->now_ns() + interval_ns + jitter_ns);
  }
}

void WatchStream::Cancel(int64_t id) {
  const auto found = watches_.find(id);
  if (found == watches_.end()) return;
  Watch* const watch = found->second;
  if (!watch->is_created) {
    watch->is_cancel_wanted = true;
    return;
  }
  const EncodedHeader header = CurrentHeader();
  WatchResponse response;
  response.header = &header;
  response.watch_id = id;
  response.is_canceled = true;
  SendResponse(response);
  Drop(watch);
}

void WatchStream::RequestProgress() {
  if (watches_.empty()) return;
  std::vector<uint64_t> ids;
  ids.reserve(watches_.size());
  for (const auto& [id, watch] : watches_) ids.push_back(watch->kernel_id);
  // By number, since the stream may be gone when the answer comes.
  io_->server().kernel->watch_progress(io_->server().host, io_->watch_sink(), ids.data(), ids.size(),
                                       reinterpret_cast<void*>(serial_));
}

// Takes the watch off the stream; it is destroyed with the kernel's last batch.
void WatchStream::Drop(Watch* watch) {
  watches_.erase(watch->id);
  watch->maybe_stream = nullptr;
  io_->server().kernel->watch_close(io_->server().host, watch->kernel_id);
}
void WatchStream::Destroy(IoThread* io, Watch* watch) {
  delete watch;
  io->RemoveOutstanding();
}

// ---- from the kernel ------------------------------------------------------------------------------

void WatchStream::Dispatch(IoThread* io, const kw_delivery& delivery) {
  for (size_t i = 0; i < delivery.batch_count; ++i) {
    const kw_watch_batch& batch = delivery.batches[i];
    if (batch.kind == KW_WATCH_GROUP_PROGRESS) {
      WatchStream* const stream = io->FindWatchStream(reinterpret_cast<uintptr_t>(batch.watch_ctx));
      if (stream == nullptr) continue;
      stream->OnGroupProgress(
          EncodedHeader(delivery.cluster_id, delivery.member_id, batch.revision, delivery.raft_term));
      continue;
    }
    auto* const watch = static_cast<Watch*>(batch.watch_ctx);
    if (watch->maybe_stream != nullptr) {
      watch->maybe_stream->OnBatch(watch, delivery, batch);
    } else if (batch.kind == KW_WATCH_CANCELED) {
      Destroy(io, watch);
    }
  }
}

void WatchStream::OnBatch(Watch* watch, const kw_delivery& delivery, const kw_watch_batch& batch) {
  const EncodedHeader header(delivery.cluster_id, delivery.member_id, batch.revision, delivery.raft_term);
  last_revision_ = std::max(last_revision_, batch.revision);
  switch (batch.kind) {
    case KW_WATCH_CREATED:
      SendCreated(watch, header);
      if (watch->is_cancel_wanted) Cancel(watch->id);
      return;
    case KW_WATCH_EVENTS:
      SendEvents(*watch, header, batch);
      watch->is_fresh = true;
      sent_.push_back({stream_->body().appended_bytes(), watch->id, watch->kernel_id, batch.credit_bytes});
      return;
    case KW_WATCH_PROGRESS: {
      WatchResponse response;
      response.header = &header;
      response.watch_id = watch->id;
      SendResponse(response);
      return;
    }
    case KW_WATCH_CANCELED:
      return OnCanceled(watch, header, batch);
    default:
      return;
  }
}

void WatchStream::OnGroupProgress(const EncodedHeader& header) {
  WatchResponse response;
  response.header = &header;
  response.watch_id = -1;
  SendResponse(response);
}

void WatchStream::SendCreated(Watch* watch, const EncodedHeader& header) {
  if (watch->is_created) return;
  watch->is_created = true;
  WatchResponse response;
  response.header = &header;
  response.watch_id = watch->id;
  response.is_created = true;
  SendResponse(response);
}

void WatchStream::OnCanceled(Watch* watch, const EncodedHeader& header, const kw_watch_batch& batch) {
  WatchResponse response;
  response.header = &header;
  response.is_canceled = true;
  std::string reason;
  const bool is_compacted = batch.compact_revision != 0 || batch.detail == KW_DETAIL_COMPACTED;
  if (is_compacted) {
    SendCreated(watch, header);
    response.compact_revision = batch.compact_revision;
  } else if (batch.code != KW_OK) {
    const Status status = ToStatus(batch.code, batch.detail, {});
    reason = status.text;
    if (!watch->is_created && batch.detail != KW_DETAIL_WATCH_EMPTY_RANGE) {
      reason = "rpc error: code = " + std::string(CodeName(status.code)) + " desc = " + status.text;
    }
  }
  response.is_created = !watch->is_created;
  response.watch_id = watch->is_created ? watch->id : -1;
  response.cancel_reason = Slice(reason);
  SendResponse(response);
  watches_.erase(watch->id);
  Destroy(io_, watch);
}

// One response for the batch; or, if the watch asks for fragments and the response is too large, as
// many as needed, each below the limit unless a single event is larger.
void WatchStream::SendEvents(const Watch& watch, const EncodedHeader& header, const kw_watch_batch& batch) {
  WatchResponse response;
  response.header = &header;
  response.watch_id = watch.id;
  response.has_prev = watch.has_prev;
  response.events = batch.events;
  response.event_count = batch.event_count;
  const size_t bytes_max = io_->server().options.max_request_bytes;
  if (!watch.is_fragmented || batch.event_count < 2 || WatchResponseBytes(response) < bytes_max) {
    return SendResponse(response);
  }
  size_t index = 0;
  while (index < batch.event_count) {
    response.events = batch.events + index;
    response.event_count = 0;
    response.is_fragment = true;
    size_t bytes = WatchResponseBytes(response);
    while (index < batch.event_count) {
      bytes += BytesFieldBytes(11, EventBytes(*batch.events[index], watch.has_prev));
      if (response.event_count != 0 && bytes >= bytes_max) break;
      ++response.event_count;
      ++index;
    }
    response.is_fragment = index < batch.event_count;
    SendResponse(response);
  }
}

void WatchStream::SendResponse(const WatchResponse& response) {
  const size_t bytes = WatchResponseBytes(response);
  EncodeWatchResponse(stream_->BeginMessage(bytes), response);
  stream_->EndMessage();
  stream_->Send();
}

// The newest revision known here, but never one below what this stream was told.
EncodedHeader WatchStream::CurrentHeader() const {
  const Server& server = io_->server();
  return EncodedHeader(server.cluster_id(), server.member_id(), std::max(server.revision(), last_revision_),
                       server.raft_term());
}

// ---- progress and credit --------------------------------------------------------------------------

void WatchStream::OnProgressTick() {
  Server& server = io_->server();
  bool wants_any = false;
  for (const auto& [id, watch] : watches_) {
    if (!watch->wants_progress) continue;
    wants_any = true;
    if (!watch->is_fresh && watch->is_created) {
      server.kernel->watch_progress(server.host, io_->watch_sink(), &watch->kernel_id, 1, nullptr);
    }
    watch->is_fresh = false;
  }
  if (!wants_any) return;
  io_->timers().Set(&progress_timer_, io_->now_ns() + server.options.watch_progress_notify_interval_ns);
}

void WatchStream::OnConsumed() {
  const uint64_t position = stream_->body().consumed_bytes();
  while (!sent_.empty() && sent_.front().end <= position) {
    const Sent sent = sent_.front();
    sent_.pop_front();
    const auto found = watches_.find(sent.watch_id);
    if (found == watches_.end() || found->second->kernel_id != sent.kernel_id) continue;
    Watch* const watch = found->second;
    if (watch->returnable_bytes == 0) returnable_.push_back(watch->id);
    watch->returnable_bytes += sent.credit_bytes;
    // Small amounts wait a moment: a call for each event would cost more than the event.
    if (watch->returnable_bytes < watch->credit_bytes / 8) continue;
    io_->server().kernel->watch_credit(io_->server().host, watch->kernel_id, watch->returnable_bytes);
    watch->returnable_bytes = 0;
    std::erase(returnable_, watch->id);
  }
  if (!returnable_.empty() && !credit_timer_.is_set()) {
    io_->timers().Set(&credit_timer_, io_->now_ns() + kCreditDelayNs);
  }
}

void WatchStream::ReturnCredits() {
  for (const int64_t id : returnable_) {
    const auto found = watches_.find(id);
    if (found == watches_.end() || found->second->returnable_bytes == 0) continue;
    io_->server().kernel->watch_credit(io_->server().host, found->second->kernel_id,
                                       found->second->returnable_bytes);
    found->second->returnable_bytes = 0;
  }
  returnable_.clear();
}

}  // namespace keyway::api_etcd
