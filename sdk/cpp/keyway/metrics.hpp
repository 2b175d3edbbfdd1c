// SPDX-License-Identifier: Apache-2.0
//
// Cells of keyway.metrics/1. Made on the [control] thread, changed on any; without the service in
// `needs` every change is a no-op.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "keyway/host.h"
#include "keyway/log.hpp"
#include "keyway/slice.hpp"

namespace keyway {

class Counter {
 public:
  Counter() = default;
  Counter(const kw_host* host, const char* name, const char* help,
          std::initializer_list<LogField> labels = {})
      : cell_(Make(host, KW_METRIC_COUNTER, name, help, labels)) {}
  void Add(uint64_t amount = 1) const {
    if (cell_ != nullptr) __atomic_fetch_add(cell_, amount, __ATOMIC_RELAXED);
  }

 protected:
  static uint64_t* Make(const kw_host* host, uint32_t kind, const char* name, const char* help,
                        std::initializer_list<LogField> labels) {
    const auto* metrics = HostService<kw_metrics>(host, KW_METRICS);
    if (metrics == nullptr) return nullptr;
    std::vector<kw_field> fields;
    for (const LogField& label : labels) fields.push_back(label.Field());
    return metrics->cell(host, kind, name, help, fields.data(), fields.size());
  }
  uint64_t* cell_ = nullptr;
};

class Gauge : public Counter {
 public:
  Gauge() = default;
  Gauge(const kw_host* host, const char* name, const char* help,
        std::initializer_list<LogField> labels = {}) {
    cell_ = Make(host, KW_METRIC_GAUGE, name, help, labels);
  }
  void Subtract(uint64_t amount = 1) const {
    if (cell_ != nullptr) __atomic_fetch_sub(cell_, amount, __ATOMIC_RELAXED);
  }
  void Set(uint64_t value) const {
    if (cell_ != nullptr) __atomic_store_n(cell_, value, __ATOMIC_RELAXED);
  }
};

class Histogram {
 public:
  Histogram() = default;
  // `bounds` ascending, in seconds.
  Histogram(const kw_host* host, const char* name, const char* help, std::vector<double> bounds) {
    const auto* metrics = HostService<kw_metrics>(host, KW_METRICS);
    if (metrics == nullptr) return;
    cells_ = metrics->histogram(host, name, help, nullptr, 0, bounds.data(), bounds.size());
    for (const double bound : bounds) bounds_ns_.push_back(static_cast<uint64_t>(bound * 1e9));
  }
  void ObserveNs(uint64_t elapsed_ns) const {
    if (cells_ == nullptr) return;
    size_t bucket = 0;
    while (bucket < bounds_ns_.size() && elapsed_ns > bounds_ns_[bucket]) ++bucket;
    __atomic_fetch_add(&cells_[bucket], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&cells_[bounds_ns_.size() + 1], elapsed_ns, __ATOMIC_RELAXED);
  }
  // first, first * factor, ...: `count` bounds.
  static std::vector<double> Exponential(double first, double factor, size_t count) {
    std::vector<double> bounds;
    for (size_t i = 0; i < count; ++i, first *= factor) bounds.push_back(first);
    return bounds;
  }

 private:
  uint64_t* cells_ = nullptr;
  std::vector<uint64_t> bounds_ns_;
};

}  // namespace keyway
