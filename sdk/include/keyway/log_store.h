/* SPDX-License-Identifier: Apache-2.0
 *
 * keyway.log-store/1: the durable Raft log and hard state of one member.
 *
 * The log is the consecutive run of entries [first, last]; `base_term` is the term of entry first-1.
 * The log is empty when first == last + 1. */
#ifndef KEYWAY_LOG_STORE_H
#define KEYWAY_LOG_STORE_H

#include "keyway/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KW_LOG_STORE "keyway.log-store/1"

typedef struct kw_log_entry {
  uint64_t index, term;
  uint32_t kind;   /* opaque to the store */
  uint32_t crc32c; /* of `data`; computed by the kernel, verified by it after read() */
  kw_slice data;
} kw_log_entry;

/* Raft paper, figure 2, "persistent state"; `commit` is a hint that saves work at restart. */
typedef struct kw_hard_state {
  uint64_t term, vote, commit;
} kw_hard_state;

typedef struct kw_log_bounds {
  uint64_t first, last, base_term;
} kw_log_bounds;

/* What a damaged log proves. */
typedef struct kw_log_salvage {
  uint32_t size, reserved;
  kw_hard_state hard_state; /* the newest that was durable */
  uint64_t last, last_term; /* the last entry that was durable then; {0, 0} for none */
  kw_log_bounds bounds;     /* what rebuild() leaves; last is that above, or the base */
} kw_log_salvage;

typedef struct kw_log_batch kw_log_batch;
struct kw_log_batch {
  uint32_t size, reserved;
  const kw_log_entry *entries; /* [release] */
  size_t entry_count;
  void (*release)(kw_log_batch *batch); /* [any] */
};

typedef struct kw_log_store {
  uint32_t size, caps;
  /* [control] Once, before any other call. A new store answers {0,0,0} and {1,0,0}. A torn tail that
   * was never acknowledged is dropped; damage anywhere else is DATA_LOSS with file and offset. */
  int32_t (*recover)(kw_plugin *plugin, kw_hard_state *hard_state, kw_log_bounds *bounds, kw_error *error);
  /* [log] Drops stored entries with index >= entries[0].index, appends `entries` (consecutive, may be
   * none), stores *hard_state unless NULL, and completes when all of it is durable. Completions fire
   * in submission order. Slices and *hard_state are [done]. After an error the kernel stops. */
  int32_t (*append)(kw_plugin *plugin, const kw_log_entry *entries, size_t entry_count,
                    const kw_hard_state *hard_state, kw_completion *completion);
  /* [read] Entries of [begin, end): at least one, then no more than fit `bytes_max` of data.
   * Concurrent with append. OUT_OF_RANGE below first or above the last durable entry. */
  int32_t (*read)(kw_plugin *plugin, uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch **out,
                  kw_error *error);
  /* [log] Entries below `first_kept` may be dropped; the store may keep more. Completes when the new
   * bounds are durable. */
  int32_t (*truncate_prefix)(kw_plugin *plugin, uint64_t first_kept, kw_completion *completion);
  /* [log] Drops every entry; the log is then empty with first = base_index + 1. The hard state stays. */
  int32_t (*reset)(kw_plugin *plugin, uint64_t base_index, uint64_t base_term, kw_completion *completion);
  /* Optional. [core], while no [log] call is under way. As append, which it saves a change of threads;
   * where append would wait or fail it changes nothing and returns UNAVAILABLE: append is called then. */
  int32_t (*try_append)(kw_plugin *plugin, const kw_log_entry *entries, size_t entry_count,
                        const kw_hard_state *hard_state, kw_completion *completion);
  /* Optional, with rebuild. [control] Only after recover() answered DATA_LOSS: what of the log is intact
   * behind an entry up to which the kv-store holds everything. Changes nothing. DATA_LOSS if the newest
   * hard state or the last entry cannot be known; then only a copy or a new member helps. */
  int32_t (*salvage)(kw_plugin *plugin, uint64_t base_index, uint64_t base_term, kw_log_salvage *out,
                     kw_error *error);
  /* Optional. [control] After salvage(): puts a log of those bounds and that hard state in the place of the
   * damaged one, durably and in one step. Then as after recover(). */
  int32_t (*rebuild)(kw_plugin *plugin, kw_error *error);
} kw_log_store;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_LOG_STORE_H */
