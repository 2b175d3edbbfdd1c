// SPDX-License-Identifier: Apache-2.0
//
// Sizes of the hot responses, and the watch response.
#include "encode.h"

namespace keyway::api_etcd {
namespace {

// Field numbers of ResponseOp equal KW_OP_.
static_assert(KW_OP_RANGE == 1 && KW_OP_PUT == 2 && KW_OP_DELETE == 3 && KW_OP_TXN == 4);

size_t HeaderBytes(const EncodedHeader* header) { return header == nullptr ? 0 : header->field_bytes(); }

bool HasChange(const kw_op_result* results, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const kw_op_result& result = results[i];
    if (result.kind == KW_OP_PUT) return true;
    if (result.kind == KW_OP_DELETE && result.count > 0) return true;
    if (result.kind == KW_OP_TXN && HasChange(result.nested, result.nested_count)) return true;
  }
  return false;
}

}  // namespace

size_t RecordsBytes(uint32_t field, const kw_slice* records, size_t count) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) bytes += BytesFieldBytes(field, records[i].len);
  return bytes;
}

size_t RangeResponseBytes(const EncodedHeader* header, const kw_op_result& result) {
  return HeaderBytes(header) + RecordsBytes(2, result.records, result.record_count) +
         NumberFieldBytes(3, (result.flags & KW_RESULT_MORE) != 0 ? 1 : 0) +
         NumberFieldBytes(4, static_cast<uint64_t>(result.count));
}
size_t PutResponseBytes(const EncodedHeader* header, const kw_op_result& result) {
  return HeaderBytes(header) + RecordsBytes(2, result.records, result.record_count == 0 ? 0 : 1);
}
size_t DeleteResponseBytes(const EncodedHeader* header, const kw_op_result& result) {
  return HeaderBytes(header) + NumberFieldBytes(2, static_cast<uint64_t>(result.count)) +
         RecordsBytes(3, result.records, result.record_count);
}

TxnCursor::TxnCursor(const kw_reply& reply) : before(reply.revision), after(reply.revision) {
  if (HasChange(reply.results, reply.result_count)) before = after - 1;
}

size_t OpResponseBytes(const kw_op_result& result, TxnCursor* cursor) {
  if (result.kind == KW_OP_TXN) {
    return BytesFieldBytes(1, 0) + NumberFieldBytes(2, (result.flags & KW_RESULT_SUCCEEDED) != 0 ? 1 : 0) +
           TxnResponsesBytes(result.nested, result.nested_count, cursor);
  }
  const EncodedHeader header = EncodedHeader::OfRevision(cursor->Step(result));
  if (result.kind == KW_OP_RANGE) return RangeResponseBytes(&header, result);
  if (result.kind == KW_OP_PUT) return PutResponseBytes(&header, result);
  if (result.kind == KW_OP_DELETE) return DeleteResponseBytes(&header, result);
  return 0;
}

size_t TxnResponsesBytes(const kw_op_result* results, size_t count, TxnCursor* cursor) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    bytes += BytesFieldBytes(3, BytesFieldBytes(results[i].kind, OpResponseBytes(results[i], cursor)));
  }
  return bytes;
}

size_t TxnResponseBytes(const EncodedHeader& header, const kw_reply& reply) {
  TxnCursor cursor(reply);
  return header.field_bytes() + NumberFieldBytes(2, reply.succeeded) +
         TxnResponsesBytes(reply.results, reply.result_count, &cursor);
}

size_t EventBytes(const kw_event& event, bool has_prev) {
  size_t bytes = NumberFieldBytes(1, event.kind) + BytesFieldBytes(2, event.record.len);
  if (has_prev && event.prev.ptr != nullptr) bytes += BytesFieldBytes(3, event.prev.len);
  return bytes;
}

size_t WatchResponseBytes(const WatchResponse& response) {
  size_t bytes = HeaderBytes(response.header) +
                 NumberFieldBytes(2, static_cast<uint64_t>(response.watch_id)) +
                 NumberFieldBytes(3, response.is_created) + NumberFieldBytes(4, response.is_canceled) +
                 NumberFieldBytes(5, static_cast<uint64_t>(response.compact_revision)) +
                 NumberFieldBytes(7, response.is_fragment);
  if (response.cancel_reason.len != 0) bytes += BytesFieldBytes(6, response.cancel_reason.len);
  for (size_t i = 0; i < response.event_count; ++i) {
    bytes += BytesFieldBytes(11, EventBytes(*response.events[i], response.has_prev));
  }
  return bytes;
}

uint8_t* EncodeWatchResponse(uint8_t* out, const WatchResponse& response) {
  FlatSink sink(out);
  EncodeHeader(sink, response.header);
  sink.Number(2, static_cast<uint64_t>(response.watch_id));
  sink.Number(3, response.is_created);
  sink.Number(4, response.is_canceled);
  sink.Number(5, static_cast<uint64_t>(response.compact_revision));
  if (response.cancel_reason.len != 0) sink.Records(6, &response.cancel_reason, 1);
  sink.Number(7, response.is_fragment);
  for (size_t i = 0; i < response.event_count; ++i) {
    const kw_event& event = *response.events[i];
    sink.Head(11, EventBytes(event, response.has_prev));
    sink.Number(1, event.kind);
    sink.Records(2, &event.record, 1);
    if (response.has_prev && event.prev.ptr != nullptr) sink.Records(3, &event.prev, 1);
  }
  return sink.at();
}

}  // namespace keyway::api_etcd
