// SPDX-License-Identifier: Apache-2.0
//
// Runs a transaction on the store, and tells beforehand which records that needs. Internal to
// kernel/mvcc; the contracts are Mvcc's.
#pragma once

#include <vector>

#include "kernel/mvcc/mvcc.h"
#include "kernel/mvcc/store.h"

namespace keyway::mvcc {

void AppendMissing(Store* store, const kw_txn& txn, bool want_prev, std::vector<Revision>* missing);
Outcome RunTxn(Store* store, const kw_txn& txn, bool want_prev, Reply* maybe_reply);

}  // namespace keyway::mvcc
