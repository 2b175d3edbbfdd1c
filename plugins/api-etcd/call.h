// SPDX-License-Identifier: Apache-2.0
//
// One request on its way through the kernel: the request struct, the message that its slices point
// into, and the outcome. Pooled by the I/O thread that made it.
#pragma once

#include <string>

#include "arena.h"
#include "buffer.h"
#include "errors.h"
#include "keyway/kernel.h"
#include "methods.h"

namespace keyway::api_etcd {

class IoThread;
struct Call;

// Work handed to an I/O thread by any thread.
struct Posted {
  Posted* next = nullptr;
  // On the I/O thread, once.
  void (*run)(Posted* self, IoThread* io) = nullptr;
};

// Whoever waits for a call. On the I/O thread.
class CallOwner {
 public:
  // The call is freed afterwards; the owner may take `call->reply` by setting it to NULL.
  virtual void OnCallDone(Call* call) = 0;

 protected:
  ~CallOwner() = default;
};

struct Call final : Posted {
  IoThread* io = nullptr;
  CallOwner* maybe_owner = nullptr;  // NULL: nobody waits any more
  Rpc rpc = Rpc::kRange;
  union {
    kw_request request;  // The common first member of all.
    kw_range_request range;
    kw_txn_request txn;
    kw_compact_request compact;
    kw_lease_request lease;
    kw_member_request member;
  };
  kw_op op = {};  // the operation of a plain put or delete
  Buffer input;   // what the request's slices point into
  Arena arena;
  // The outcome, written by the core thread before it hands the call over.
  int32_t code = KW_OK;
  uint32_t detail = 0;
  std::string text;
  kw_reply* reply = nullptr;

  Call() : txn{} {}
  // Zeroes the request union and fills its common part.
  template <typename Request>
  Request* Init(Request* member_of_this, uint16_t kind, uint64_t deadline_ns) {
    *member_of_this = {};
    request.size = sizeof(Request);
    request.kind = kind;
    request.deadline_ns = deadline_ns;
    request.done = &Call::Done;
    request.ctx = this;
    return member_of_this;
  }
  Status status() const { return ToStatus(code, detail, text); }

 private:
  static void Done(kw_request* self, int32_t code, const kw_error* error, kw_reply* reply);
};

}  // namespace keyway::api_etcd
