// SPDX-License-Identifier: Apache-2.0
//
// Range, Put, DeleteRange and Txn, without generated code.
#include "rpc_unary.h"

#include "decode.h"
#include "encode.h"
#include "io_thread.h"
#include "rpc_cold.h"
#include "stream.h"

namespace keyway::api_etcd {
namespace {

Status ToStatus(Decoded decoded) {
  switch (decoded) {
    case Decoded::kOk:
      return {};
    case Decoded::kMalformed:
      return MalformedRequest();
    case Decoded::kTooManyOps:
      return FromDetail(KW_DETAIL_TOO_MANY_OPS);
  }
  return MalformedRequest();
}

Status StartRange(Stream* stream, Call* call, kw_slice message) {
  kw_range_request* const request = call->Init(&call->range, KW_REQ_RANGE, stream->deadline_ns());
  RangeInfo info;
  const Status status = ToStatus(DecodeRange(message, &request->range, &info));
  if (status.code != KW_OK) return status;
  if (request->range.key.len == 0) return FromDetail(KW_DETAIL_EMPTY_KEY);
  if (info.is_serializable) {
    request->req.flags |= KW_REQ_SERIALIZABLE;
  } else if (stream->io()->server().is_learner()) {
    return FromDetail(KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER);
  }
  return {};
}

Status StartPlainOp(Stream* stream, Call* call, kw_slice message) {
  kw_txn_request* const request = call->Init(&call->txn, KW_REQ_TXN, stream->deadline_ns());
  const Decoded decoded =
      call->rpc == Rpc::kPut ? DecodePut(message, &call->op) : DecodeDeleteRange(message, &call->op);
  if (decoded != Decoded::kOk) return ToStatus(decoded);
  if (call->op.key.len == 0) return FromDetail(KW_DETAIL_EMPTY_KEY);
  request->txn_flags = KW_TXN_PLAIN;
  request->txn.then_ops = &call->op;
  request->txn.then_count = 1;
  return {};
}

Status StartTxn(Stream* stream, Call* call, kw_slice message) {
  kw_txn_request* const request = call->Init(&call->txn, KW_REQ_TXN, stream->deadline_ns());
  TxnInfo info;
  const Status status = ToStatus(DecodeTxn(message, &call->arena, &request->txn, &info));
  if (status.code != KW_OK) return status;
  const bool has_ops = request->txn.then_count + request->txn.else_count != 0;
  if (info.is_read_only && info.is_serializable && has_ops) {
    request->req.flags |= KW_REQ_SERIALIZABLE;
  }
  return {};
}

// Encodes flat when small or compressed, and in place over the reply's records otherwise. `encode`
// takes a sink.
template <typename Encode>
void Reply(Stream* stream, Call* call, size_t bytes, const Encode& encode) {
  if (bytes <= kFlatResponseBytesMax || stream->is_compressing()) {
    FlatSink sink(stream->BeginMessage(bytes));
    encode(sink);
    stream->EndMessage();
  } else {
    stream->BeginPieces(bytes);
    BodySink sink(&stream->body());
    encode(sink);
    stream->body().Hold(call->reply);
    call->reply = nullptr;
  }
  stream->FinishOk();
}

}  // namespace

Status MalformedRequest() {
  return {KW_INTERNAL,
          "grpc: error unmarshalling request: proto: cannot parse invalid wire-format "
          "data"};
}

Status StartUnaryCall(Stream* stream, Call* call, kw_slice message) {
  Status status;
  switch (call->rpc) {
    case Rpc::kRange:
      status = StartRange(stream, call, message);
      break;
    case Rpc::kPut:
    case Rpc::kDeleteRange:
      status = StartPlainOp(stream, call, message);
      break;
    case Rpc::kTxn:
      status = StartTxn(stream, call, message);
      break;
    default:
      status = StartColdCall(stream, call, message);
      break;
  }
  const kw_slice principal = stream->principal();
  if (status.code == KW_OK && !stream->is_finished() && principal.len != 0) {
    // The connection may be gone before the kernel is done.
    auto* const copy = call->arena.Array<uint8_t>(principal.len);
    std::memcpy(copy, principal.ptr, principal.len);
    call->request.principal = {copy, principal.len};
  }
  return status;
}

void FinishUnaryCall(Stream* stream, Call* call) {
  const kw_reply& reply = *call->reply;
  const EncodedHeader header(reply);
  const auto has_result = [&] {
    if (reply.result_count != 0) return true;
    stream->Finish({KW_INTERNAL, "reply without a result"});
    return false;
  };
  switch (call->rpc) {
    case Rpc::kRange:
      if (!has_result()) return;
      return Reply(stream, call, RangeResponseBytes(&header, reply.results[0]),
                   [&](auto& sink) { EncodeRangeResponse(sink, &header, reply.results[0]); });
    case Rpc::kPut:
      if (!has_result()) return;
      return Reply(stream, call, PutResponseBytes(&header, reply.results[0]),
                   [&](auto& sink) { EncodePutResponse(sink, &header, reply.results[0]); });
    case Rpc::kDeleteRange:
      if (!has_result()) return;
      return Reply(stream, call, DeleteResponseBytes(&header, reply.results[0]),
                   [&](auto& sink) { EncodeDeleteResponse(sink, &header, reply.results[0]); });
    case Rpc::kTxn:
      return Reply(stream, call, TxnResponseBytes(header, reply),
                   [&](auto& sink) { EncodeTxnResponse(sink, header, reply); });
    default:
      return FinishColdCall(stream, call);
  }
}

}  // namespace keyway::api_etcd
