/* SPDX-License-Identifier: Apache-2.0
 *
 * keyway.observer/1: turns the node's metrics into somebody's format. */
#ifndef KEYWAY_OBSERVER_H
#define KEYWAY_OBSERVER_H

#include "keyway/host.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KW_OBSERVER "keyway.observer/1"

/* One metric with one set of labels. Samples of one name come together. */
typedef struct kw_sample {
  const char *name; /* [call] */
  const char *help; /* [call] */
  const kw_field *labels;
  size_t label_count;
  uint32_t kind; /* KW_METRIC_, or 2: histogram */
  uint32_t reserved;
  double value;            /* counter and gauge */
  const double *bounds;    /* histogram: upper bounds, ascending */
  const uint64_t *buckets; /* histogram: bound_count + 1 counts, not cumulative */
  size_t bound_count;
  double sum;
} kw_sample;

typedef struct kw_observer {
  uint32_t size, caps;
  /* [any] Writes the text form of the samples. */
  int32_t (*render)(kw_plugin *plugin, const kw_sample *samples, size_t sample_count, kw_writer *writer,
                    kw_error *error);
} kw_observer;

#define KW_SAMPLES "keyway.samples/1" /* a host service: all metrics of the node */
typedef struct kw_samples {
  uint32_t size, reserved;
  /* [any] Calls visit(self, ...) once, before it returns; samples are [call]. */
  void (*collect)(const kw_host *host, void *self,
                  void (*visit)(void *self, const kw_sample *samples, size_t sample_count));
} kw_samples;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_OBSERVER_H */
