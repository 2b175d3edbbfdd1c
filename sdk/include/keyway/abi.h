/* SPDX-License-Identifier: Apache-2.0
 *
 * The Keyway plugin ABI, major 1 (draft): values, errors, completions, and the life of a plugin.
 * Pure C11. Each interface has a header of its own beside this one.
 *
 * Lifetime tag after a pointer               Thread tag of a function
 *   [call]    until the function returns       [control] the lifecycle thread, serial
 *   [done]    until the completion fires       [core]    the one core thread; must not block (50 us)
 *   [next]    until the next cursor call       [log]     the log-writer thread, serial, may block
 *   [release] until its release() is called    [store]   the storage-writer thread, serial, may block
 *   [inst]    until destroy() returns          [read]    a reader thread, concurrent, may block
 *   [static]  for the whole process            [any]     any thread, concurrent, must not block
 *
 * Growth. Tables and headed structs start with `size` and only ever grow at the end; a side reads a
 * field only if `size` covers it. Structs used as array elements never change: a change needs a new
 * interface id. Reserved fields are zero. Whoever allocates, frees. No C++ exception and no longjmp
 * crosses a function of this ABI. */
#ifndef KEYWAY_ABI_H
#define KEYWAY_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KW_ABI_MAJOR 1
#define KW_ABI_MINOR 0

/* ---- values ---------------------------------------------------------------------------------- */

/* Borrowed bytes. A NULL `ptr` means "absent", which differs from an empty slice where a function
 * says so. */
typedef struct kw_slice {
  const uint8_t *ptr;
  size_t len;
} kw_slice;

/* Result codes: the numbers of gRPC, so that they map 1:1 to absl::Status and to the wire. */
enum {
  KW_PENDING = -1, /* only from functions that take a kw_completion */
  KW_OK = 0,
  KW_CANCELLED = 1,
  KW_UNKNOWN = 2,
  KW_INVALID_ARGUMENT = 3,
  KW_DEADLINE_EXCEEDED = 4,
  KW_NOT_FOUND = 5,
  KW_ALREADY_EXISTS = 6,
  KW_PERMISSION_DENIED = 7,
  KW_RESOURCE_EXHAUSTED = 8,
  KW_FAILED_PRECONDITION = 9,
  KW_ABORTED = 10,
  KW_OUT_OF_RANGE = 11,
  KW_UNIMPLEMENTED = 12,
  KW_INTERNAL = 13,
  KW_UNAVAILABLE = 14,
  KW_DATA_LOSS = 15,
  KW_UNAUTHENTICATED = 16
};

/* Allocated by the caller (who sets `size`), filled by the callee when it returns an error code. */
typedef struct kw_error {
  uint32_t size;
  int32_t code;
  uint32_t detail; /* a KW_DETAIL_ number of detail.h, 0 if none */
  uint32_t reserved;
  char text[240]; /* UTF-8, NUL-terminated, cut if longer */
} kw_error;

/* A sink of bytes, called in order. Returns KW_OK, or a code that ends the writing. [call] */
typedef struct kw_writer {
  void *self;
  int32_t (*write)(void *self, kw_slice bytes);
} kw_writer;

/* An asynchronous result. Allocated by the caller and pinned until done() returns. A function that
 * takes one returns KW_PENDING (then done fires exactly once, maybe before that return, maybe on
 * another thread) or a final code (then done never fires). */
typedef struct kw_completion kw_completion;
struct kw_completion {
  void (*done)(kw_completion *self, int32_t code, const kw_error *error /* [call], NULL if OK */);
  void *ctx;
  uintptr_t callee[2]; /* scratch space of the completing side meanwhile */
};

/* ---- configuration --------------------------------------------------------------------------- */

/* One option of a plugin's schema. The host checks the configuration against the schema before
 * create(), so a plugin sees only well-formed values. `type` is one of:
 *   "bool"  "string"  "path"  "strings" (an array of strings)
 *   "int(MIN..MAX)"        a decimal integer within both bounds
 *   "bytes(MIN..MAX)"      an integer, or a string such as "64MiB"; given to the plugin in bytes
 *   "duration(MIN..MAX)"   a string such as "100ms"; bounds and value in milliseconds
 *   "enum(a|b|c)" */
typedef struct kw_config_field { /* [static] */
  const char *key;
  const char *type;
  const char *fallback; /* the default as it would stand in the file; NULL: required */
  const char *doc;
} kw_config_field;

/* One option as configured, or its default. Arrays come as one item an element, in order. */
typedef struct kw_config_item {
  const char *key; /* [call] */
  kw_slice value;  /* [call] bool: "true"/"false"; numbers: decimal, in the base unit */
  uint32_t line;   /* of the configuration file, 0 for a default */
  uint32_t reserved;
} kw_config_item;

/* ---- host and plugin ------------------------------------------------------------------------- */

/* What a plugin gets of the host. A service is answered only if the descriptor `needs` it. */
typedef struct kw_host kw_host;
struct kw_host {
  uint32_t size;
  uint16_t abi_major, abi_minor;
  void *self;
  const char *product; /* "keyway 0.1.0" */
  /* [any] The table of a host service [inst], NULL if unknown or not granted. */
  const void *(*get)(const kw_host *host, const char *service_id);
};

/* One instance, allocated and freed by the plugin. */
typedef struct kw_plugin kw_plugin;
struct kw_plugin {
  uint32_t size;
  uint32_t reserved;
  void *self;
  /* [control] Opens files and sockets, starts threads. On an error nothing is left behind. */
  int32_t (*start)(kw_plugin *plugin, kw_error *error);
  /* [control] Returns after the last done() fired and every thread of this instance was joined. */
  void (*stop)(kw_plugin *plugin);
  /* [control] After stop(), or instead of start(). */
  void (*destroy)(kw_plugin *plugin);
  /* [any] The table of a provided interface [inst], NULL if unknown. */
  const void *(*get)(kw_plugin *plugin, const char *interface_id);
};

/* A plugin kind that a library holds. [static] */
typedef struct kw_descriptor {
  uint32_t size;
  uint16_t abi_major, abi_minor; /* the lowest minor that this plugin can run with */
  const char *id;                /* "storage-lmdb"; third parties: "org.example.kv" */
  const char *version;           /* semver */
  const char *license;           /* SPDX */
  const char *stability;         /* "alpha", "beta" or "stable" */
  const char *const *provides;   /* NULL-terminated interface ids */
  const char *const *needs;      /* NULL-terminated host service ids */
  const kw_config_field *fields;
  size_t field_count;
  /* [control] Touches no disk, network, thread or host service yet. `items` are [call]; `host` is
   * [inst]. */
  int32_t (*create)(const kw_host *host, const kw_config_item *items, size_t item_count, kw_plugin **out,
                    kw_error *error);
} kw_descriptor;

/* What the one exported function of a library returns. [static] */
typedef struct kw_entry {
  uint32_t size;
  uint16_t abi_major, abi_minor;
  const kw_descriptor *const *plugins;
  size_t plugin_count;
} kw_entry;

/* Defines the entry function, in C and in C++. `name` is a C identifier, unique among the plugins
 * of one static link. */
#ifdef __cplusplus
#define KW_EXTERN_C extern "C"
#else
#define KW_EXTERN_C
#endif
#if defined(KW_STATIC_PLUGINS)
#define KW_PLUGIN_ENTRY(name) KW_EXTERN_C const kw_entry *kw_plugin_entry_##name(void)
#else
#define KW_PLUGIN_ENTRY(name) \
  KW_EXTERN_C __attribute__((visibility("default"))) const kw_entry *kw_plugin_entry(void)
#endif
#define KW_PLUGIN_ENTRY_SYMBOL "kw_plugin_entry"

/* The manifest: an ELF note, readable without loading the library. `text` is one string literal,
 * "id=...;version=...;abi=1.0;license=...;stability=...;provides=a,b;needs=c,d", equal to the
 * descriptor (the host compares them). */
#define KW_MANIFEST_SECTION ".note.keyway"
#define KW_MANIFEST_OWNER "Keyway"
#define KW_MANIFEST_TYPE 1u
#define KW_PLUGIN_MANIFEST(text)                                                   \
  __attribute__((section(".note.keyway"), used, aligned(4))) static const struct { \
    uint32_t name_bytes, desc_bytes, type;                                         \
    char name[8];                                                                  \
    char desc[sizeof(text)];                                                       \
  } kw_plugin_manifest_note = {7u, (uint32_t)sizeof(text), 1u, "Keyway", text}

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_ABI_H */
