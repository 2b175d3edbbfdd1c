// SPDX-License-Identifier: Apache-2.0
//
// The operations of a call.
#include "stream.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#include <cstdlib>

namespace keyway::transport_grpc {
namespace {

std::string_view ViewOf(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

}  // namespace

Stream::Stream(grpc_call* call, uint32_t lane, Owner* maybe_owner, size_t* count)
    : call_(call), lane_(lane), maybe_owner_(maybe_owner), count_(count), status_text_(grpc_empty_slice()) {
  const Kind kinds[] = {Kind::kOpen, Kind::kRead, Kind::kSend, Kind::kClose, Kind::kRefuse};
  Op* const ops[] = {&open_, &read_, &send_, &close_, &refuse_};
  for (size_t i = 0; i < 5; ++i) {
    ops[i]->stream = this;
    ops[i]->kind = kinds[i];
  }
  grpc_metadata_array_init(&answer_raw_);
  grpc_metadata_array_init(&trailing_);
  ++*count_;
}

Stream::~Stream() {
  for (const grpc_slice& slice : owned_) grpc_slice_unref(slice);
  grpc_metadata_array_destroy(&answer_raw_);
  grpc_metadata_array_destroy(&trailing_);
  grpc_slice_unref(status_text_);
  if (message_ != nullptr) grpc_byte_buffer_destroy(message_);
  grpc_call_unref(call_);
  --*count_;
}

std::string Stream::Peer() const {
  char* text = grpc_call_get_peer(call_);
  const std::string peer = text == nullptr ? "" : text;
  gpr_free(text);
  return peer;
}

std::string Stream::AuthProperty(const char* name) const {
  grpc_auth_context* context = grpc_call_auth_context(call_);
  if (context == nullptr) return "";
  grpc_auth_property_iterator found = grpc_auth_context_find_properties_by_name(context, name);
  const grpc_auth_property* property = grpc_auth_property_iterator_next(&found);
  std::string value;
  if (property != nullptr) value.assign(property->value, property->value_length);
  grpc_auth_context_release(context);
  return value;
}

void Stream::Start(const grpc_op* ops, size_t count, Op* op) {
  // An error here is a misuse of the interface (two reads at once), never an event of the network.
  if (grpc_call_start_batch(call_, ops, count, op, nullptr) != GRPC_CALL_OK) std::abort();
  ++pending_;
}

std::vector<grpc_metadata> Stream::Build(Metadata metadata) {
  std::vector<grpc_metadata> built;
  for (const auto& [key, value] : metadata) {
    grpc_metadata item = {};
    item.key = grpc_slice_from_static_string(key);
    item.value = grpc_slice_from_copied_buffer(value.data(), value.size());
    owned_.push_back(item.value);
    built.push_back(item);
  }
  return built;
}

void Stream::Dial(Metadata greeting) {
  is_client_ = true;
  std::vector<grpc_metadata> built = Build(greeting);
  grpc_op close = {};
  close.op = GRPC_OP_RECV_STATUS_ON_CLIENT;
  close.data.recv_status_on_client.trailing_metadata = &trailing_;
  close.data.recv_status_on_client.status = &status_;
  close.data.recv_status_on_client.status_details = &status_text_;
  Start(&close, 1, &close_);
  grpc_op open[2] = {};
  open[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  open[0].data.send_initial_metadata.count = built.size();
  open[0].data.send_initial_metadata.metadata = built.data();
  open[1].op = GRPC_OP_RECV_INITIAL_METADATA;
  open[1].data.recv_initial_metadata.recv_initial_metadata = &answer_raw_;
  Start(open, 2, &open_);
}

const std::string* Stream::FindAnswer(std::string_view key) const {
  for (const auto& [name, value] : answer_) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Stream::Accept() {
  grpc_op close = {};
  close.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
  close.data.recv_close_on_server.cancelled = &cancelled_;
  Start(&close, 1, &close_);
}

void Stream::Welcome(Metadata answer) {
  std::vector<grpc_metadata> built = Build(answer);
  grpc_op open = {};
  open.op = GRPC_OP_SEND_INITIAL_METADATA;
  open.data.send_initial_metadata.count = built.size();
  open.data.send_initial_metadata.metadata = built.data();
  Start(&open, 1, &open_);
}

void Stream::Refuse(grpc_status_code code, const std::string& reason) {
  is_refused_ = true;
  grpc_slice text = grpc_slice_from_copied_buffer(reason.data(), reason.size());
  owned_.push_back(text);
  grpc_op ops[2] = {};
  ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  ops[1].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  ops[1].data.send_status_from_server.status = code;
  ops[1].data.send_status_from_server.status_details = &text;
  Start(ops, 2, &refuse_);
}

void Stream::Read() {
  grpc_op read = {};
  read.op = GRPC_OP_RECV_MESSAGE;
  read.data.recv_message.recv_message = &message_;
  Start(&read, 1, &read_);
}

void Stream::Send(grpc_byte_buffer* message) {
  is_sending_ = true;
  grpc_op send = {};
  send.op = GRPC_OP_SEND_MESSAGE;
  send.data.send_message.send_message = message;
  Start(&send, 1, &send_);
  grpc_byte_buffer_destroy(message);  // gRPC has taken the slices.
}

void Stream::Release() {
  maybe_owner_ = nullptr;
  // After a refusal the call ends by itself: cancelling would lose the reason on its way.
  if (!is_closed_ && !is_refused_) grpc_call_cancel(call_, nullptr);
  if (pending_ == 0) delete this;
}

void Stream::OnComplete(Kind kind, bool ok) {
  // The operation still counts while the owner is called, who may let go.
  switch (kind) {
    case Kind::kOpen:
      for (size_t i = 0; i < answer_raw_.count; ++i) {
        answer_.emplace_back(ViewOf(answer_raw_.metadata[i].key), ViewOf(answer_raw_.metadata[i].value));
      }
      // Without success the end of the call follows, which has the reason.
      if (ok && maybe_owner_ != nullptr) maybe_owner_->OnOpened(this);
      break;
    case Kind::kRead:
      OnRead(ok);
      break;
    case Kind::kSend:
      is_sending_ = false;
      if (ok && maybe_owner_ != nullptr) maybe_owner_->OnSent(this);
      break;
    case Kind::kClose:
      OnClose();
      break;
    case Kind::kRefuse:
      break;
  }
  --pending_;
  if (pending_ == 0 && maybe_owner_ == nullptr) delete this;
}

void Stream::OnRead(bool ok) {
  if (!ok || message_ == nullptr) return;  // The end of the call follows.
  grpc_byte_buffer* const message = std::exchange(message_, nullptr);
  grpc_byte_buffer_reader reader;
  if (maybe_owner_ != nullptr && grpc_byte_buffer_reader_init(&reader, message) != 0) {
    // Mostly one slice, which is read in place.
    grpc_slice* first = nullptr;
    const bool is_whole = grpc_byte_buffer_reader_peek(&reader, &first) == 1 &&
                          GRPC_SLICE_LENGTH(*first) == grpc_byte_buffer_length(message);
    if (is_whole) {
      maybe_owner_->OnMessage(this, ViewOf(*first));
    } else {
      grpc_byte_buffer_reader_destroy(&reader);
      grpc_byte_buffer_reader_init(&reader, message);
      const grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
      maybe_owner_->OnMessage(this, ViewOf(all));
      grpc_slice_unref(all);
    }
    grpc_byte_buffer_reader_destroy(&reader);
  }
  grpc_byte_buffer_destroy(message);
  if (maybe_owner_ != nullptr && !is_closed_) Read();
}

void Stream::OnClose() {
  is_closed_ = true;
  if (maybe_owner_ == nullptr) return;
  if (is_client_) {
    maybe_owner_->OnClosed(this, status_, std::string(ViewOf(status_text_)));
  } else {
    maybe_owner_->OnClosed(this, cancelled_ != 0 ? GRPC_STATUS_CANCELLED : GRPC_STATUS_OK, "");
  }
}

}  // namespace keyway::transport_grpc
