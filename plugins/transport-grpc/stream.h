// SPDX-License-Identifier: Apache-2.0
//
// Stream: one gRPC call with its outstanding operations, on either side. All of it is [io].
//
// A stream lives until its owner has let go of it and gRPC has answered every operation: Release()
// cancels the call, nothing reaches the owner any more, and the object frees itself.
#pragma once

#include <grpc/grpc.h>
#include <grpcpp/completion_queue.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "wire.h"

namespace keyway::transport_grpc {

// What a completion queue's tag points to: an object of gRPC's C++ library, as its alarms put theirs in,
// too. A subclass has no other base, so that the address is the same.
class Tag : public grpc::internal::CompletionQueueTag {
 public:
  ~Tag() override = default;
  virtual void Complete(bool ok) = 0;

 private:
  bool FinalizeResult(void** tag, bool*) final {
    *tag = this;
    return true;
  }
};

class Stream {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The other side's (client) or this side's (server) greeting is through.
    virtual void OnOpened(Stream* stream) = 0;
    // One message; the slices are valid during the call.
    virtual void OnMessage(Stream* stream, std::string_view bytes) = 0;
    // The message given to Send() was written.
    virtual void OnSent(Stream* stream) = 0;
    // The call is over. `text` is the reason, where there is one.
    virtual void OnClosed(Stream* stream, grpc_status_code code, const std::string& text) = 0;
  };
  using Metadata = std::initializer_list<std::pair<const char*, std::string_view>>;

  // `call` becomes the stream's. `count` counts the streams that live.
  Stream(grpc_call* call, uint32_t lane, Owner* maybe_owner, size_t* count);
  void set_owner(Owner* owner) { maybe_owner_ = owner; }

  uint32_t lane() const { return lane_; }
  // "ipv4:127.0.0.1:2380", as gRPC writes it.
  std::string Peer() const;
  // A PEM text of the other end's certificates: `name` is a property of grpc_security_constants.h.
  std::string AuthProperty(const char* name) const;

  // Client: opens the call. OnOpened follows, then answer() holds what the acceptor said.
  void Dial(Metadata greeting);
  const std::string* FindAnswer(std::string_view key) const;

  // Server: waits for the end of the call, which is OnClosed.
  void Accept();
  // Server: says yes; OnOpened follows. Or no: ends the call.
  void Welcome(Metadata answer);
  void Refuse(grpc_status_code code, const std::string& reason);

  // Reads messages from now on.
  void Read();
  bool is_sending() const { return is_sending_; }
  // One at a time. Takes over `message`.
  void Send(grpc_byte_buffer* message);

  // The owner lets go. The call ends, unless it has.
  void Release();

 private:
  enum class Kind { kOpen, kRead, kSend, kClose, kRefuse };
  struct Op : Tag {
    Stream* stream = nullptr;
    Kind kind = Kind::kOpen;
    void Complete(bool ok) override { stream->OnComplete(kind, ok); }
  };
  ~Stream();
  void Start(const grpc_op* ops, size_t count, Op* op);
  void OnComplete(Kind kind, bool ok);
  void OnRead(bool ok);
  void OnClose();
  std::vector<grpc_metadata> Build(Metadata metadata);

  grpc_call* const call_;
  const uint32_t lane_;
  Owner* maybe_owner_;
  size_t* const count_;
  bool is_client_ = false;
  bool is_sending_ = false;
  bool is_closed_ = false;
  bool is_refused_ = false;
  int pending_ = 0;
  Op open_, read_, send_, close_, refuse_;

  std::vector<grpc_slice> owned_;  // Behind metadata that is being sent.
  grpc_metadata_array answer_raw_, trailing_;
  std::vector<std::pair<std::string, std::string>> answer_;
  grpc_byte_buffer* message_ = nullptr;  // Read.
  grpc_status_code status_ = GRPC_STATUS_OK;
  grpc_slice status_text_;
  int cancelled_ = 0;
};

}  // namespace keyway::transport_grpc
