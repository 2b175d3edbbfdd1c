// SPDX-License-Identifier: Apache-2.0
//
// The hot requests, from wire bytes to the kernel's structs. All slices point into the message, which
// must live as long as the request.
#pragma once

#include "arena.h"
#include "keyway/kernel.h"

namespace keyway::api_etcd {

enum class Decoded { kOk, kMalformed, kTooManyOps };

struct RangeInfo {
  bool is_serializable = false;
};
struct TxnInfo {
  bool is_read_only = true;     // nothing but ranges, and no nested transaction
  bool is_serializable = true;  // all ranges are
};

Decoded DecodeRange(kw_slice message, kw_range* out, RangeInfo* info);
Decoded DecodePut(kw_slice message, kw_op* out);
Decoded DecodeDeleteRange(kw_slice message, kw_op* out);
// Bounded in depth and in elements; etcd's own limit on operations is the kernel's to check.
Decoded DecodeTxn(kw_slice message, Arena* arena, kw_txn* out, TxnInfo* info);

// The key of a record, empty if it is malformed.
kw_slice RecordKey(kw_slice record);

}  // namespace keyway::api_etcd
