// SPDX-License-Identifier: Apache-2.0
//
// The hot responses, spliced from the kernel's records. Sizes are exact; the encoders write to a sink:
// FlatSink copies everything into a buffer of that size, BodySink leaves the records in the reply.
#pragma once

#include <cstring>

#include "body.h"
#include "keyway/kernel.h"
#include "wire.h"

namespace keyway::api_etcd {

// An encoded ResponseHeader.
class EncodedHeader {
 public:
  EncodedHeader(uint64_t cluster_id, uint64_t member_id, int64_t revision, uint64_t raft_term) {
    uint8_t* at = PutNumberField(bytes_, 1, cluster_id);
    at = PutNumberField(at, 2, member_id);
    at = PutNumberField(at, 3, static_cast<uint64_t>(revision));
    at = PutNumberField(at, 4, raft_term);
    size_ = static_cast<size_t>(at - bytes_);
  }
  explicit EncodedHeader(const kw_reply& reply)
      : EncodedHeader(reply.cluster_id, reply.member_id, reply.revision, reply.raft_term) {}
  static EncodedHeader OfRevision(int64_t revision) { return EncodedHeader(0, 0, revision, 0); }

  kw_slice slice() const { return {bytes_, size_}; }
  size_t field_bytes() const { return BytesFieldBytes(1, size_); }

 private:
  uint8_t bytes_[48];
  size_t size_ = 0;
};

size_t RecordsBytes(uint32_t field, const kw_slice* records, size_t count);

class FlatSink {
 public:
  explicit FlatSink(uint8_t* at) : at_(at) {}
  void Number(uint32_t field, uint64_t value) { at_ = PutNumberField(at_, field, value); }
  void Head(uint32_t field, size_t bytes) { at_ = PutBytesHead(at_, field, bytes); }
  void Raw(kw_slice bytes) { at_ = PutRaw(at_, bytes); }
  void Records(uint32_t field, const kw_slice* records, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      Head(field, records[i].len);
      Raw(records[i]);
    }
  }
  uint8_t* at() const { return at_; }

 private:
  uint8_t* at_;
};

class BodySink {
 public:
  explicit BodySink(Body* body) : body_(body) {}
  void Number(uint32_t field, uint64_t value) {
    uint8_t bytes[20];
    const auto count = static_cast<size_t>(PutNumberField(bytes, field, value) - bytes);
    if (count != 0) std::memcpy(body_->Extend(count), bytes, count);
  }
  void Head(uint32_t field, size_t bytes) {
    uint8_t head[20];
    const auto count = static_cast<size_t>(PutBytesHead(head, field, bytes) - head);
    std::memcpy(body_->Extend(count), head, count);
  }
  void Raw(kw_slice bytes) {
    if (bytes.len != 0) std::memcpy(body_->Extend(bytes.len), bytes.ptr, bytes.len);
  }
  void Records(uint32_t field, const kw_slice* records, size_t count) {
    body_->AppendRecords(field, records, count, RecordsBytes(field, records, count));
  }

 private:
  Body* body_;
};

// ---- one result: RangeResponse, PutResponse, DeleteRangeResponse; `header` may be absent ----------

size_t RangeResponseBytes(const EncodedHeader* header, const kw_op_result& result);
size_t PutResponseBytes(const EncodedHeader* header, const kw_op_result& result);
size_t DeleteResponseBytes(const EncodedHeader* header, const kw_op_result& result);

template <typename Sink>
void EncodeHeader(Sink& sink, const EncodedHeader* header) {
  if (header == nullptr) return;
  sink.Head(1, header->slice().len);
  sink.Raw(header->slice());
}
template <typename Sink>
void EncodeRangeResponse(Sink& sink, const EncodedHeader* header, const kw_op_result& result) {
  EncodeHeader(sink, header);
  sink.Records(2, result.records, result.record_count);
  sink.Number(3, (result.flags & KW_RESULT_MORE) != 0 ? 1 : 0);
  sink.Number(4, static_cast<uint64_t>(result.count));
}
template <typename Sink>
void EncodePutResponse(Sink& sink, const EncodedHeader* header, const kw_op_result& result) {
  EncodeHeader(sink, header);
  sink.Records(2, result.records, result.record_count == 0 ? 0 : 1);
}
template <typename Sink>
void EncodeDeleteResponse(Sink& sink, const EncodedHeader* header, const kw_op_result& result) {
  EncodeHeader(sink, header);
  sink.Number(2, static_cast<uint64_t>(result.count));
  sink.Records(3, result.records, result.record_count);
}

// ---- TxnResponse ----------------------------------------------------------------------------------

// The header of each operation carries the revision that it saw or made: the one before the
// transaction until the first change, the transaction's own from there on.
struct TxnCursor {
  int64_t before = 0;
  int64_t after = 0;
  bool is_changed = false;

  explicit TxnCursor(const kw_reply& reply);
  int64_t Step(const kw_op_result& result) {
    if (result.kind == KW_OP_PUT || (result.kind == KW_OP_DELETE && result.count > 0)) {
      is_changed = true;
    }
    return is_changed ? after : before;
  }
};

size_t TxnResponsesBytes(const kw_op_result* results, size_t count, TxnCursor* cursor);
size_t TxnResponseBytes(const EncodedHeader& header, const kw_reply& reply);
// Of the message inside of a ResponseOp; the cursor moves over it.
size_t OpResponseBytes(const kw_op_result& result, TxnCursor* cursor);

template <typename Sink>
void EncodeTxnResponses(Sink& sink, const kw_op_result* results, size_t count, TxnCursor* cursor) {
  for (size_t i = 0; i < count; ++i) {
    const kw_op_result& result = results[i];
    TxnCursor size_cursor = *cursor;
    const size_t bytes = OpResponseBytes(result, &size_cursor);
    sink.Head(3, BytesFieldBytes(result.kind, bytes));
    sink.Head(result.kind, bytes);
    if (result.kind == KW_OP_TXN) {
      sink.Head(1, 0);
      sink.Number(2, (result.flags & KW_RESULT_SUCCEEDED) != 0 ? 1 : 0);
      EncodeTxnResponses(sink, result.nested, result.nested_count, cursor);
      continue;
    }
    const EncodedHeader header = EncodedHeader::OfRevision(cursor->Step(result));
    if (result.kind == KW_OP_RANGE) EncodeRangeResponse(sink, &header, result);
    if (result.kind == KW_OP_PUT) EncodePutResponse(sink, &header, result);
    if (result.kind == KW_OP_DELETE) EncodeDeleteResponse(sink, &header, result);
  }
}
template <typename Sink>
void EncodeTxnResponse(Sink& sink, const EncodedHeader& header, const kw_reply& reply) {
  EncodeHeader(sink, &header);
  sink.Number(2, reply.succeeded);
  TxnCursor cursor(reply);
  EncodeTxnResponses(sink, reply.results, reply.result_count, &cursor);
}

// ---- WatchResponse --------------------------------------------------------------------------------

struct WatchResponse {
  const EncodedHeader* header = nullptr;
  int64_t watch_id = 0;
  bool is_created = false;
  bool is_canceled = false;
  int64_t compact_revision = 0;
  kw_slice cancel_reason = {};
  bool is_fragment = false;
  const kw_event* const* events = nullptr;
  size_t event_count = 0;
  bool has_prev = false;  // whether the watch asked for previous pairs
};

size_t EventBytes(const kw_event& event, bool has_prev);
size_t WatchResponseBytes(const WatchResponse& response);
uint8_t* EncodeWatchResponse(uint8_t* out, const WatchResponse& response);

}  // namespace keyway::api_etcd
