/* SPDX-License-Identifier: Apache-2.0
 *
 * Services that the host offers to every plugin kind: log, clock, metrics, exposition, identity. */
#ifndef KEYWAY_HOST_H
#define KEYWAY_HOST_H

#include "keyway/abi.h"
#include "keyway/authenticator.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- keyway.log/1: structured log lines ------------------------------------------------------- */
#define KW_LOG "keyway.log/1"
enum { KW_LOG_DEBUG = 0, KW_LOG_INFO = 1, KW_LOG_WARN = 2, KW_LOG_ERROR = 3 };
typedef struct kw_field {
  const char *key; /* [call] */
  kw_slice value;  /* [call] UTF-8 */
} kw_field;
typedef struct kw_log {
  uint32_t size;
  uint32_t level_min; /* lines below it need not be built */
  /* [any] One line: `event` (lower_snake_case, [call]) and fields. Never log values of keys. */
  void (*write)(const kw_host *host, uint32_t level, const char *event, const kw_field *fields,
                size_t field_count);
} kw_log;

/* ---- keyway.clock/1: the only clock that a plugin may read (a simulator owns it) --------------- */
#define KW_CLOCK "keyway.clock/1"
typedef struct kw_clock {
  uint32_t size, reserved;
  uint64_t (*mono_ns)(const kw_host *host); /* [any] never goes back */
  uint64_t (*wall_ns)(const kw_host *host); /* [any] since 1970, UTC */
  /* [any] Fires done(KW_OK) on the clock's thread after the delay; done only hands over. */
  int32_t (*after)(const kw_host *host, uint64_t delay_ns, kw_completion *completion);
  /* [any] Fires done(KW_CANCELLED) soon unless it has fired already. */
  void (*cancel)(const kw_host *host, kw_completion *completion);
} kw_clock;

/* ---- keyway.metrics/1: cells that a plugin bumps ------------------------------------------------ */
#define KW_METRICS "keyway.metrics/1"
enum { KW_METRIC_COUNTER = 0, KW_METRIC_GAUGE = 1 };
typedef struct kw_metrics {
  uint32_t size, reserved;
  /* [any] A 64-bit cell [inst], changed with relaxed atomics, no call. Prometheus naming. The same
   * name and labels give the same cell. May take a lock: ask once, not for each change. */
  uint64_t *(*cell)(const kw_host *host, uint32_t kind, const char *name, const char *help,
                    const kw_field *labels, size_t label_count);
  /* [control] A histogram: `bounds` ascending in seconds; returns bound_count + 1 bucket counters
   * (the last is +Inf) followed by one cell with the sum in nanoseconds [inst]. NULL for more than 64
   * bounds. */
  uint64_t *(*histogram)(const kw_host *host, const char *name, const char *help, const kw_field *labels,
                         size_t label_count, const double *bounds, size_t bound_count);
} kw_metrics;

/* ---- keyway.exposition/1: the metrics text for an API plugin's /metrics ------------------------ */
#define KW_EXPOSITION "keyway.exposition/1"
typedef struct kw_exposition {
  uint32_t size, reserved;
  /* [any] Renders all metrics through the first configured [[metrics]] plugin. May take a
   * millisecond. NOT_FOUND if none is configured. */
  int32_t (*render)(const kw_host *host, kw_writer *writer, kw_error *error);
} kw_exposition;

/* ---- keyway.identity/1: the configured authenticator, for transports and API plugins ----------- */
#define KW_IDENTITY "keyway.identity/1"
typedef struct kw_identity {
  uint32_t size, reserved;
  /* [any] See kw_authenticator. Without an authenticator: KW_OK and an empty principal. */
  int32_t (*authenticate)(const kw_host *host, const kw_evidence *evidence, kw_principal *out,
                          kw_completion *completion);
  /* [any] See kw_authenticator. Without an authenticator: KW_OK and *out == NULL: plain text. */
  int32_t (*tls)(const kw_host *host, const char *role, kw_tls **out, kw_error *error);
} kw_identity;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_HOST_H */
