/* SPDX-License-Identifier: Apache-2.0
 *
 * keyway.kernel/1: what a client-API plugin asks of the kernel. One submit() takes every kind of
 * request; watches have calls of their own. An API plugin provides keyway.api/1, whose table is empty:
 * start() and stop() are all that the host needs of it.
 *
 * A *record* is one version of a key in the wire form of mvccpb.KeyValue: fields key=1,
 * create_revision=2, mod_revision=3, version=4, value=5, lease=6 in this order, zeros left out. The
 * kernel encodes it once; plugins splice it. */
#ifndef KEYWAY_KERNEL_H
#define KEYWAY_KERNEL_H

#include "keyway/abi.h"
#include "keyway/detail.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KW_KERNEL "keyway.kernel/1"
#define KW_API "keyway.api/1"

/* ---- requests --------------------------------------------------------------------------------- */

/* clang-format off */
enum {                       /* request struct        reply                                        */
  KW_REQ_RANGE = 1,          /* kw_range_request      results[0]                                   */
  KW_REQ_TXN = 2,            /* kw_txn_request        succeeded, one result per op                 */
  KW_REQ_COMPACT = 3,        /* kw_compact_request    -                                            */
  KW_REQ_LEASE_GRANT = 4,    /* kw_lease_request      lease: id, ttl_s                             */
  KW_REQ_LEASE_REVOKE = 5,   /* kw_lease_request      -                                            */
  KW_REQ_LEASE_KEEP_ALIVE = 6,   /* kw_lease_request  lease: id, ttl_s (0: unknown or expired)     */
  KW_REQ_LEASE_TIME_TO_LIVE = 7, /* kw_lease_request  lease: ttl_s (-1: unknown), granted, keys    */
  KW_REQ_LEASE_LIST = 8,     /* kw_request            lease: ids                                   */
  KW_REQ_MEMBER_LIST = 9,    /* kw_request            members                                      */
  KW_REQ_MEMBER_ADD = 10,    /* kw_member_request     members, member_id of the new one            */
  KW_REQ_MEMBER_REMOVE = 11, /* kw_member_request     members                                      */
  KW_REQ_MEMBER_UPDATE = 12, /* kw_member_request     members                                      */
  KW_REQ_MEMBER_PROMOTE = 13, /* kw_member_request    members                                      */
  KW_REQ_STATUS = 14,        /* kw_request            status                                       */
  KW_REQ_HASH_KV = 15,       /* kw_compact_request    hash                                         */
  KW_REQ_MOVE_LEADER = 16    /* kw_member_request     -                                            */
};
/* clang-format on */

enum {
  KW_REQ_SERIALIZABLE = 1, /* RANGE, TXN of ranges, MEMBER_LIST: from this member, maybe stale */
  KW_REQ_PHYSICAL = 2      /* COMPACT: done after the old versions are gone from the store */
};

typedef struct kw_reply kw_reply;
typedef struct kw_request kw_request;

/* First member of every request. The plugin owns it; it and all it points to is pinned until done(). */
struct kw_request {
  uint32_t size; /* of the whole request struct */
  uint16_t kind; /* KW_REQ_ */
  uint16_t flags;
  uint64_t deadline_ns; /* on the host clock; 0: the kernel's own limit */
  kw_slice principal;   /* from keyway.identity/1, may be empty */
  /* [core] Exactly once, never inside submit(). `reply` is owned by the callee, who calls its release()
   * (any thread); NULL unless code == KW_OK. `error` is [call]. Must only hand over to a thread of the
   * plugin. */
  void (*done)(kw_request *self, int32_t code, const kw_error *error, kw_reply *reply);
  void *ctx;
  uintptr_t kernel[4]; /* scratch space of the kernel until done() */
};

/* Key ranges, everywhere: an empty `end` means the single key; the one byte 0 means every key >= key;
 * end <= key is an empty range. */
enum { KW_SORT_KEY = 0, KW_SORT_VERSION = 1, KW_SORT_CREATE = 2, KW_SORT_MOD = 3, KW_SORT_VALUE = 4 };
enum { KW_ORDER_NONE = 0, KW_ORDER_ASCEND = 1, KW_ORDER_DESCEND = 2 };
enum {
  KW_RANGE_KEYS_ONLY = 1,
  KW_RANGE_COUNT_ONLY = 2,
  KW_RANGE_NO_COUNT = 4 /* `count` may be left 0; `more` stays exact. For streamed ranges. */
};
typedef struct kw_range {
  kw_slice key, end;
  int64_t revision;                                 /* 0: the latest */
  int64_t limit;                                    /* 0: none */
  int64_t mod_min, mod_max, create_min, create_max; /* 0: off */
  uint8_t sort_target, sort_order; /* KW_SORT_, KW_ORDER_; an unknown one is INVALID_SORT_OPTION */
  uint8_t flags;                   /* KW_RANGE_ */
  uint8_t reserved[5];
} kw_range;
typedef struct kw_range_request {
  kw_request req;
  kw_range range;
} kw_range_request;

enum { KW_CMP_VERSION = 0, KW_CMP_CREATE = 1, KW_CMP_MOD = 2, KW_CMP_VALUE = 3, KW_CMP_LEASE = 4 };
enum { KW_CMP_EQUAL = 0, KW_CMP_GREATER = 1, KW_CMP_LESS = 2, KW_CMP_NOT_EQUAL = 3 };
typedef struct kw_cmp {
  kw_slice key, end; /* all keys of the range must satisfy; see etcd's Compare */
  kw_slice value;    /* KW_CMP_VALUE */
  int64_t number;    /* the others */
  uint32_t target, relation;
} kw_cmp;

enum { KW_OP_RANGE = 1, KW_OP_PUT = 2, KW_OP_DELETE = 3, KW_OP_TXN = 4 /* any other kind: KEY_NOT_FOUND */ };
enum { KW_PUT_PREV_KV = 1, KW_PUT_IGNORE_VALUE = 2, KW_PUT_IGNORE_LEASE = 4, KW_DELETE_PREV_KV = 1 };
typedef struct kw_txn kw_txn;
typedef struct kw_op {
  uint32_t kind;         /* KW_OP_ */
  uint32_t flags;        /* KW_PUT_ or KW_DELETE_ */
  kw_slice key, end;     /* PUT: key. DELETE: the range */
  kw_slice value;        /* PUT */
  int64_t lease;         /* PUT; 0: none */
  const kw_range *range; /* RANGE */
  const kw_txn *txn;     /* TXN */
} kw_op;
struct kw_txn {
  const kw_cmp *cmps;
  const kw_op *then_ops, *else_ops;
  size_t cmp_count, then_count, else_count;
};
/* A plain put or delete is a transaction of one op, without compares, flagged KW_TXN_PLAIN. */
enum { KW_TXN_PLAIN = 1 };
typedef struct kw_txn_request {
  kw_request req;
  uint64_t txn_flags;
  kw_txn txn;
} kw_txn_request;

typedef struct kw_compact_request { /* COMPACT and HASH_KV */
  kw_request req;
  int64_t revision; /* HASH_KV: 0 is the latest */
} kw_compact_request;

enum { KW_LEASE_WITH_KEYS = 1 };
typedef struct kw_lease_request {
  kw_request req;
  int64_t id;           /* GRANT: 0 lets the kernel choose */
  int64_t ttl_s;        /* GRANT */
  uint64_t lease_flags; /* TIME_TO_LIVE: KW_LEASE_WITH_KEYS */
} kw_lease_request;

typedef struct kw_member_request {
  kw_request req;
  uint64_t id;               /* all but ADD; MOVE_LEADER: the target */
  const kw_slice *peer_urls; /* ADD, UPDATE */
  size_t peer_url_count;
  uint64_t is_learner; /* ADD */
} kw_member_request;

/* ---- replies ------------------------------------------------------------------------------------ */

enum { KW_RESULT_MORE = 1, KW_RESULT_SUCCEEDED = 2 };
typedef struct kw_op_result kw_op_result;
struct kw_op_result {
  uint32_t kind;           /* KW_OP_ */
  uint32_t flags;          /* KW_RESULT_ */
  int64_t count;           /* RANGE: keys in the range; DELETE: keys deleted */
  const kw_slice *records; /* RANGE: the pairs; PUT, DELETE: the previous ones, if asked for */
  size_t record_count;
  const kw_op_result *nested; /* TXN */
  size_t nested_count;
};

typedef struct kw_member { /* one member of the cluster */
  uint64_t id;
  kw_slice name; /* empty until the member has started */
  const kw_slice *peer_urls, *client_urls;
  size_t peer_url_count, client_url_count;
  uint64_t is_learner;
} kw_member;

typedef struct kw_lease_info {
  int64_t id, ttl_s, granted_ttl_s;
  const kw_slice *keys; /* TIME_TO_LIVE with keys, in key order */
  size_t key_count;
  const int64_t *ids; /* LIST */
  size_t id_count;
} kw_lease_info;

typedef struct kw_status {
  uint32_t size, reserved;
  uint64_t leader, raft_index, raft_term, raft_applied_index;
  uint64_t db_bytes, db_bytes_in_use, db_bytes_quota;
  uint64_t is_learner;
  const kw_slice *errors; /* texts, such as "etcdserver: no leader" */
  size_t error_count;
} kw_status;

typedef struct kw_hash {
  uint32_t hash, reserved;
  int64_t compact_revision, hash_revision;
} kw_hash;

struct kw_reply {
  uint32_t size;
  uint32_t succeeded; /* TXN: which branch ran */
  uint64_t cluster_id, member_id, raft_term;
  int64_t revision; /* for the response header */
  const kw_op_result *results;
  size_t result_count;
  const kw_member *members;
  size_t member_count;
  uint64_t new_member_id;
  const kw_lease_info *lease;
  const kw_status *status;
  const kw_hash *hash;
  void (*release)(kw_reply *reply); /* [any] frees the reply and all it points to */
};

/* ---- watches ------------------------------------------------------------------------------------ */

enum { KW_EVENT_PUT = 0, KW_EVENT_DELETE = 1 };
/* One change, shared by every watch that matches it. Lives as long as the delivery that holds it. */
typedef struct kw_event {
  uint32_t kind, reserved;
  int64_t mod_revision;
  kw_slice record; /* DELETE: a record of key and mod_revision only */
  kw_slice prev;   /* the previous record; absent if there is none or it was compacted */
} kw_event;

enum {
  KW_WATCH_CREATED = 1,       /* first of a watch; `revision` is the header's */
  KW_WATCH_EVENTS = 2,        /* whole revisions, in order */
  KW_WATCH_PROGRESS = 3,      /* every event up to `revision` was delivered before */
  KW_WATCH_CANCELED = 4,      /* last of a watch: by watch_close, or for `code` and `detail` */
  KW_WATCH_GROUP_PROGRESS = 5 /* the answer to watch_progress of a group; watch_ctx is its ctx */
};
typedef struct kw_watch_batch {
  uint32_t kind; /* KW_WATCH_ */
  int32_t code;  /* CANCELED: KW_OK if asked for; else why */
  uint32_t detail, reserved;
  void *watch_ctx;
  int64_t revision;         /* of the header */
  int64_t compact_revision; /* CANCELED for compaction */
  const kw_event *const *events;
  size_t event_count;
  uint64_t credit_bytes; /* what these events cost of the watch's credit */
} kw_watch_batch;

typedef struct kw_delivery kw_delivery;
struct kw_delivery {
  uint32_t size, reserved;
  uint64_t cluster_id, member_id, raft_term;
  const kw_watch_batch *batches; /* [release] in order */
  size_t batch_count;
  kw_delivery *next;                      /* for the receiver's queue */
  void (*release)(kw_delivery *delivery); /* [any] */
};

/* Where deliveries go: typically one an I/O thread. [inst] */
typedef struct kw_watch_sink {
  void *self;
  /* [core] Only hands over; the receiver calls release() later. At most one call a core turn. */
  void (*deliver)(void *self, kw_delivery *delivery);
} kw_watch_sink;

enum { KW_WATCH_PREV_KV = 1, KW_WATCH_NO_PUT = 2, KW_WATCH_NO_DELETE = 4 };
typedef struct kw_watch {
  uint32_t size, flags;         /* KW_WATCH_PREV_KV ... */
  kw_slice principal, key, end; /* [call] */
  int64_t start_revision;       /* 0: from the next change on */
  uint64_t credit_bytes;        /* bytes of events that may be on their way; see watch_credit */
  const kw_watch_sink *sink;
  void *ctx; /* comes back in each batch; untouched after CANCELED */
} kw_watch;

/* State of this node, kept current by the kernel; read with relaxed atomic loads, [any]. */
typedef struct kw_node_state {
  uint32_t size, reserved;
  uint64_t cluster_id, member_id, leader_id /* 0: none */, raft_term;
  int64_t revision;
  uint64_t is_learner;
  uint64_t leader_lost_ns; /* host clock when the leader was lost; 0 while there is one */
  uint64_t serving;        /* 1 once this node has joined and applied what it had at start */
} kw_node_state;

typedef struct kw_kernel {
  uint32_t size, reserved;
  /* [any] Takes requests; done() never runs inside. After stop began: done with UNAVAILABLE. */
  void (*submit)(const kw_host *host, kw_request *const *requests, size_t request_count);
  /* [any] Opens a watch and returns its id at once; all outcomes come through the sink. */
  uint64_t (*watch_open)(const kw_host *host, const kw_watch *watch);
  /* [any] Gives back credit after events have left for the client. */
  void (*watch_credit)(const kw_host *host, uint64_t watch_id, uint64_t bytes);
  /* [any] One GROUP_PROGRESS batch with `ctx` if every watch of the group is at the current revision,
   * else nothing. With one id and ctx == NULL: a PROGRESS batch of that watch. */
  void (*watch_progress)(const kw_host *host, const kw_watch_sink *sink, const uint64_t *watch_ids,
                         size_t watch_count, void *ctx);
  /* [any] Ends a watch; a CANCELED batch is its last. */
  void (*watch_close)(const kw_host *host, uint64_t watch_id);
  const kw_node_state *(*state)(const kw_host *host); /* [any] [inst] */
  /* [any] Writes one JSON object: the plugins of this node and their effective options, those with a
   * secret masked. For people and tools; its fields only grow. */
  int32_t (*plugins)(const kw_host *host, kw_writer *writer);
} kw_kernel;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_KERNEL_H */
