// SPDX-License-Identifier: Apache-2.0
//
// Between the values of types.h and the structs of keyway/kernel.h.
#pragma once

#include <deque>
#include <vector>

#include "keyway/kernel.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

// A Request as a kw_request. Owns both, and stays where it is until done().
class RequestHolder {
 public:
  explicit RequestHolder(Request request);
  RequestHolder(const RequestHolder&) = delete;
  RequestHolder& operator=(const RequestHolder&) = delete;

  kw_request* get() { return &structs_.range.req; }
  const Request& request() const { return request_; }

 private:
  kw_txn Build(const Txn& txn);
  void BuildOps(const std::vector<Op>& ops, const kw_op** out, size_t* count);

  const Request request_;
  union {
    kw_range_request range;
    kw_txn_request txn;
    kw_compact_request compact;
    kw_lease_request lease;
  } structs_{};
  // Deques: their elements stay where they are.
  std::deque<std::vector<kw_cmp>> cmps_;
  std::deque<std::vector<kw_op>> ops_;
  std::deque<kw_range> ranges_;
  std::deque<kw_txn> txns_;
};

// The range that an op asks for; its slices point into `op`.
kw_range ToRange(const Op& op);
KeyValue ToKeyValue(kw_slice record);
Response ToResponse(const kw_reply& reply);
WatchBatch ToWatchBatch(const kw_watch_batch& batch, int64_t time_ns);
// What is known of a request that failed with this code and detail: kError or kUnknown.
Outcome OutcomeOf(int32_t code, uint32_t detail);

}  // namespace keyway::sim
