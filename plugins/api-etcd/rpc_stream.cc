// SPDX-License-Identifier: Apache-2.0
//
// RangeStream, LeaseKeepAlive, Health.Watch.
#include "rpc_stream.h"

#include <algorithm>

#include "encode.h"
#include "etcd/health.pb.h"
#include "io_thread.h"
#include "rpc_unary.h"
#include "watch_stream.h"

namespace keyway::api_etcd {

std::unique_ptr<StreamHandler> MakeStreamHandler(Stream* stream) {
  switch (stream->method()->rpc) {
    case Rpc::kRangeStream:
      return std::make_unique<RangeStreamHandler>(stream);
    case Rpc::kLeaseKeepAlive:
      return std::make_unique<KeepAliveHandler>(stream);
    case Rpc::kHealthWatch:
      return std::make_unique<HealthWatchHandler>(stream);
    default:
      return std::make_unique<WatchStream>(stream);
  }
}

// ---- RangeStream ----------------------------------------------------------------------------------

Status RangeStreamHandler::Check(const RangeInfo&) const {
  if (key_.empty()) return FromDetail(KW_DETAIL_EMPTY_KEY);
  if (range_.sort_order > KW_ORDER_DESCEND || range_.sort_target > KW_SORT_VALUE) {
    return FromDetail(KW_DETAIL_INVALID_SORT_OPTION);
  }
  const bool is_default_order = range_.sort_order == KW_ORDER_NONE ||
                                (range_.sort_order == KW_ORDER_ASCEND && range_.sort_target == KW_SORT_KEY);
  if (!is_default_order) {
    return {KW_UNIMPLEMENTED, "RangeStream does not support custom sort orders"};
  }
  if (range_.mod_min != 0 || range_.mod_max != 0 || range_.create_min != 0 || range_.create_max != 0) {
    return {KW_UNIMPLEMENTED, "RangeStream does not support revision filters"};
  }
  return {};
}

void RangeStreamHandler::OnMessage(kw_slice message) {
  if (has_request_) return;
  has_request_ = true;
  RangeInfo info;
  if (DecodeRange(message, &range_, &info) != Decoded::kOk) {
    return stream_->Finish(MalformedRequest());
  }
  key_ = View(range_.key);
  end_ = View(range_.end);
  is_serializable_ = info.is_serializable;
  const Status status = Check(info);
  if (status.code != KW_OK) return stream_->Finish(status);
  range_.sort_order = KW_ORDER_NONE;
  range_.sort_target = KW_SORT_KEY;
  Ask();
}

void RangeStreamHandler::OnHalfClose() {
  if (!has_request_) stream_->Finish({KW_UNKNOWN, "EOF"});
}

void RangeStreamHandler::Stop() {
  if (maybe_call_ != nullptr) maybe_call_->maybe_owner = nullptr;
  maybe_call_ = nullptr;
  wants_next_ = false;
}

void RangeStreamHandler::Ask() {
  IoThread* const io = stream_->io();
  Call* const call = io->NewCall(this, Rpc::kRangeStream);
  kw_range_request* const request = call->Init(&call->range, KW_REQ_RANGE, stream_->deadline_ns());
  const auto copy = [&](std::string_view text) -> kw_slice {
    auto* const bytes = call->arena.Array<uint8_t>(text.size());
    std::copy(text.begin(), text.end(), bytes);
    return {bytes, text.size()};
  };
  request->range = range_;
  request->range.key = copy(key_);
  request->range.end = copy(end_);
  request->req.principal = copy(View(stream_->principal()));
  if (is_serializable_) request->req.flags |= KW_REQ_SERIALIZABLE;
  const bool is_count_only = (range_.flags & KW_RANGE_COUNT_ONLY) != 0;
  if (!is_count_only && !end_.empty()) {
    request->range.limit = chunk_keys_;
    if (range_.limit != 0) {
      request->range.limit = std::min(chunk_keys_, range_.limit - sent_keys_);
    }
  }
  if (!is_first_) request->range.flags |= KW_RANGE_NO_COUNT;
  maybe_call_ = call;
  io->Submit(call);
}

void RangeStreamHandler::OnCallDone(Call* call) {
  maybe_call_ = nullptr;
  if (call->code != KW_OK) return stream_->Finish(call->status());
  const kw_reply* const reply = call->reply;
  if (reply == nullptr || reply->result_count == 0) {
    return stream_->Finish({KW_INTERNAL, "reply without a result"});
  }
  const kw_op_result& result = reply->results[0];
  if (is_first_) {
    is_first_ = false;
    total_keys_ = result.count;
    cluster_id_ = reply->cluster_id;
    member_id_ = reply->member_id;
    raft_term_ = reply->raft_term;
    revision_ = reply->revision;
    if (range_.revision == 0) range_.revision = reply->revision;
    // What follows reads a revision that this member has.
    is_serializable_ = true;
  }
  sent_keys_ += static_cast<int64_t>(result.record_count);
  const bool has_more = (result.flags & KW_RESULT_MORE) != 0 && result.record_count != 0;
  const bool is_last = !has_more || (range_.limit != 0 && sent_keys_ >= range_.limit);
  if (!is_last) {
    key_ = View(RecordKey(result.records[result.record_count - 1]));
    key_.push_back('\0');
  }
  SendChunk(call, is_last);
  if (is_last) return stream_->FinishOk();
  stream_->Send();
  wants_next_ = true;
  OnConsumed();
}

void RangeStreamHandler::SendChunk(Call* call, bool is_last) {
  kw_op_result result = call->reply->results[0];
  result.count = is_last ? total_keys_ : 0;
  if (!is_last) result.flags &= ~uint32_t{KW_RESULT_MORE};
  const EncodedHeader header(cluster_id_, member_id_, revision_, raft_term_);
  const EncodedHeader* const maybe_header = is_last ? &header : nullptr;
  const size_t inner_bytes = RangeResponseBytes(maybe_header, result);
  const size_t bytes = BytesFieldBytes(1, inner_bytes);
  const auto encode = [&](auto& sink) {
    sink.Head(1, inner_bytes);
    EncodeRangeResponse(sink, maybe_header, result);
  };
  if (bytes <= kFlatResponseBytesMax || stream_->is_compressing()) {
    FlatSink sink(stream_->BeginMessage(bytes));
    encode(sink);
    stream_->EndMessage();
  } else {
    stream_->BeginPieces(bytes);
    BodySink sink(&stream_->body());
    encode(sink);
    stream_->body().Hold(call->reply);
    call->reply = nullptr;
  }
  const size_t wanted_bytes = stream_->io()->server().options.max_request_bytes;
  if (bytes < wanted_bytes / 2) {
    chunk_keys_ = std::min<int64_t>(chunk_keys_ * 2, 1 << 20);
  } else if (bytes > wanted_bytes * 2) {
    chunk_keys_ = std::max<int64_t>(chunk_keys_ / 2, 1);
  }
}

void RangeStreamHandler::OnConsumed() {
  if (!wants_next_ || stream_->body().pending_bytes() > kUnsentBytesMax) return;
  wants_next_ = false;
  Ask();
}

// ---- LeaseKeepAlive -------------------------------------------------------------------------------

void KeepAliveHandler::OnMessage(kw_slice message) {
  WireReader reader(message);
  int64_t id = 0;
  while (reader.Next()) {
    if (reader.field() == 1) reader.Signed(&id);
  }
  if (!reader.ok()) return stream_->Finish(MalformedRequest());
  IoThread* const io = stream_->io();
  Call* const call = io->NewCall(this, Rpc::kLeaseKeepAlive);
  kw_lease_request* const request = call->Init(&call->lease, KW_REQ_LEASE_KEEP_ALIVE, stream_->deadline_ns());
  request->id = id;
  const std::string_view principal = View(stream_->principal());
  auto* const copy = call->arena.Array<uint8_t>(principal.size());
  std::copy(principal.begin(), principal.end(), copy);
  request->req.principal = {copy, principal.size()};
  Renewal& renewal = renewals_.emplace_back();
  renewal.id = id;
  renewal.maybe_call = call;
  io->Submit(call);
}

bool KeepAliveHandler::WantsMessages() const {
  return renewals_.size() < kKeepAlivesInFlightMax && stream_->body().pending_bytes() < kBufferKeepBytes * 4;
}

void KeepAliveHandler::OnCallDone(Call* call) {
  const auto renewal = std::find_if(renewals_.begin(), renewals_.end(),
                                    [&](const Renewal& one) { return one.maybe_call == call; });
  if (renewal == renewals_.end()) return;
  renewal->maybe_call = nullptr;
  if (call->code != KW_OK && call->detail != KW_DETAIL_LEASE_NOT_FOUND) {
    renewal->status = call->status();
  }
  if (call->reply != nullptr) {
    const kw_reply& reply = *call->reply;
    renewal->ttl_s = reply.lease == nullptr ? 0 : reply.lease->ttl_s;
    renewal->cluster_id = reply.cluster_id;
    renewal->member_id = reply.member_id;
    renewal->raft_term = reply.raft_term;
    renewal->revision = reply.revision;
  } else {
    const Server& server = stream_->io()->server();
    renewal->cluster_id = server.cluster_id();
    renewal->member_id = server.member_id();
    renewal->raft_term = server.raft_term();
    renewal->revision = server.revision();
  }
  while (!renewals_.empty() && renewals_.front().maybe_call == nullptr) {
    const Renewal front = renewals_.front();
    renewals_.pop_front();
    if (!Answer(front)) return;
  }
  stream_->Send();
  if (is_half_closed_ && renewals_.empty()) return stream_->FinishOk();
  if (WantsMessages()) stream_->Resume();
}

bool KeepAliveHandler::Answer(const Renewal& renewal) {
  if (renewal.status.code != KW_OK) {
    stream_->Finish(renewal.status);
    return false;
  }
  const EncodedHeader header(renewal.cluster_id, renewal.member_id, renewal.revision, renewal.raft_term);
  const size_t bytes = header.field_bytes() + NumberFieldBytes(2, static_cast<uint64_t>(renewal.id)) +
                       NumberFieldBytes(3, static_cast<uint64_t>(renewal.ttl_s));
  FlatSink sink(stream_->BeginMessage(bytes));
  EncodeHeader(sink, &header);
  sink.Number(2, static_cast<uint64_t>(renewal.id));
  sink.Number(3, static_cast<uint64_t>(renewal.ttl_s));
  stream_->EndMessage();
  return true;
}

void KeepAliveHandler::OnConsumed() {
  if (WantsMessages()) stream_->Resume();
}

void KeepAliveHandler::OnHalfClose() {
  is_half_closed_ = true;
  if (renewals_.empty()) stream_->FinishOk();
}

void KeepAliveHandler::Stop() {
  for (Renewal& renewal : renewals_) {
    if (renewal.maybe_call != nullptr) renewal.maybe_call->maybe_owner = nullptr;
  }
  renewals_.clear();
}

// ---- Health.Watch ---------------------------------------------------------------------------------

void HealthWatchHandler::OnMessage(kw_slice message) {
  if (has_request_) return;
  has_request_ = true;
  grpc::health::v1::HealthCheckRequest request;
  if (!request.ParseFromArray(message.ptr, static_cast<int>(message.len))) {
    return stream_->Finish(MalformedRequest());
  }
  grpc::health::v1::HealthCheckResponse response;
  response.set_status(request.service().empty() ? grpc::health::v1::HealthCheckResponse::SERVING
                                                : grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN);
  const size_t bytes = response.ByteSizeLong();
  response.SerializeToArray(stream_->BeginMessage(bytes), static_cast<int>(bytes));
  stream_->EndMessage();
  stream_->Send();
}

void HealthWatchHandler::OnHalfClose() {
  if (!has_request_) stream_->Finish({KW_UNKNOWN, "EOF"});
}

}  // namespace keyway::api_etcd
