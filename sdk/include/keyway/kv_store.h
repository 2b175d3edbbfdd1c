/* SPDX-License-Identifier: Apache-2.0
 *
 * keyway.kv-store/1: an ordered key-value store with a few tables, atomic batches and snapshots.
 *
 * The kernel writes large batches in the background and keeps the Raft log until sync() has returned,
 * so a store need not be durable at each write; but after a crash it must come back as of *some*
 * whole batch at or after the last sync, never with part of a batch. */
#ifndef KEYWAY_KV_STORE_H
#define KEYWAY_KV_STORE_H

#include "keyway/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KW_KV_STORE "keyway.kv-store/1"
#define KW_KV_TABLE_COUNT 8u /* tables are numbered 0..7; all exist from the start, empty */

enum { KW_KV_PUT = 0, KW_KV_DELETE = 1, KW_KV_DELETE_RANGE = 2 /* [key, value) */ };
enum {
  KW_KV_CAP_PINNED_CURSOR = 1, /* pairs stay valid until cursor_close */
  KW_KV_CAP_CHECKPOINT = 2,
  KW_KV_CAP_RECLAIM = 4
};

typedef struct kw_kv_op {
  uint32_t kind;  /* KW_KV_PUT ... */
  uint32_t table; /* 0..KW_KV_TABLE_COUNT-1 */
  kw_slice key;   /* 1..key_bytes_max bytes */
  kw_slice value; /* PUT: the value, may be empty. DELETE_RANGE: the end, exclusive; empty: to the end */
} kw_kv_op;

typedef struct kw_kv_pair {
  kw_slice key, value;
} kw_kv_pair;

typedef struct kw_kv_stats {
  uint32_t size, reserved;
  uint64_t disk_bytes; /* on disk */
  uint64_t live_bytes; /* of them in use */
  uint64_t views_open;
} kw_kv_stats;

typedef struct kw_kv_view kw_kv_view;     /* a consistent snapshot; private to the plugin */
typedef struct kw_kv_cursor kw_kv_cursor; /* private to the plugin */

typedef struct kw_kv_store {
  uint32_t size, caps;
  uint32_t key_bytes_max; /* at least 511 */
  uint32_t reserved;
  uint64_t value_bytes_max;
  /* [store] Applies all ops or none, in order; seen by views opened afterwards. Slices are [call].
   * RESOURCE_EXHAUSTED when the disk is full (nothing applied); DATA_LOSS on damage. */
  int32_t (*write)(kw_plugin *plugin, const kw_kv_op *ops, size_t op_count, kw_error *error);
  /* [store] On KW_OK every earlier write survives power loss. After an error the kernel stops. */
  int32_t (*sync)(kw_plugin *plugin, kw_error *error);
  /* [read] A view and its cursors are used by one thread at a time, not always the same one. */
  int32_t (*view_open)(kw_plugin *plugin, kw_kv_view **out, kw_error *error);
  void (*view_close)(kw_plugin *plugin, kw_kv_view *view); /* [any] cursors are closed before */
  /* [read] values[i].ptr is NULL where the key is absent. Values live until the next get of the view, or
   * view_close. */
  int32_t (*get)(kw_plugin *plugin, kw_kv_view *view, uint32_t table, const kw_slice *keys, size_t key_count,
                 kw_slice *values, kw_error *error);
  /* [read] Keys of [begin, end); an empty `end` means to the end. Bounds are [call]. */
  int32_t (*cursor_open)(kw_plugin *plugin, kw_kv_view *view, uint32_t table, kw_slice begin, kw_slice end,
                         uint32_t descending, kw_kv_cursor **out, kw_error *error);
  /* [read] Gives at least one pair and at most `capacity`, fewer for instance to bound what a store must
   * copy; *count == 0 means that the end was reached. Pairs are [next], or live until cursor_close with
   * KW_KV_CAP_PINNED_CURSOR. */
  int32_t (*cursor_next)(kw_plugin *plugin, kw_kv_cursor *cursor, kw_kv_pair *pairs, size_t capacity,
                         size_t *count, kw_error *error);
  void (*cursor_close)(kw_plugin *plugin, kw_kv_cursor *cursor);          /* [any] */
  int32_t (*stats)(kw_plugin *plugin, kw_kv_stats *out, kw_error *error); /* [any] */
  /* Optional (KW_KV_CAP_CHECKPOINT). [any] A copy that can be opened, in the empty directory `dir`. */
  int32_t (*checkpoint)(kw_plugin *plugin, const char *dir, kw_completion *completion);
  /* Optional (KW_KV_CAP_RECLAIM). [any] Gives unused disk space back, reads and writes go on. */
  int32_t (*reclaim)(kw_plugin *plugin, kw_completion *completion);
} kw_kv_store;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_KV_STORE_H */
