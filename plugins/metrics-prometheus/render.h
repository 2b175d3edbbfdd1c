// SPDX-License-Identifier: Apache-2.0
//
// Samples to the Prometheus text format, version 0.0.4.
// Source: https://prometheus.io/docs/instrumenting/exposition_formats/
#pragma once

#include <cstddef>
#include <string>

#include "keyway/observer.h"

namespace keyway::metrics_prometheus {

inline constexpr uint32_t kKindHistogram = 2;
inline constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

// Appends the samples, then the metrics of this process unless a sample has their name. Names come in
// the order of their first sample, each with HELP and TYPE once. Characters that a name must not have
// become '_'; a sample whose kind differs from the first of its name is left out.
void Render(const kw_sample* samples, size_t sample_count, std::string* out);

}  // namespace keyway::metrics_prometheus
