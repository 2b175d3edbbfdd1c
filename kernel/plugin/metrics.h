// SPDX-License-Identifier: Apache-2.0
//
// MetricsRegistry: every metric of the node. Cells are 64-bit words that their owner changes with
// relaxed atomics (see Add and Set below); collection reads them the same way.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "keyway/host.h"
#include "keyway/observer.h"

namespace keyway {
inline namespace host {

inline void Add(uint64_t* cell, uint64_t delta) {
  std::atomic_ref<uint64_t>(*cell).fetch_add(delta, std::memory_order_relaxed);
}
// A gauge holds a signed number.
inline void Set(uint64_t* cell, int64_t value) {
  std::atomic_ref<uint64_t>(*cell).store(static_cast<uint64_t>(value), std::memory_order_relaxed);
}

// Upper bounds in seconds from 100 us to 13 s, doubling (etcd's buckets for disk and network).
inline constexpr double kLatencyBounds[] = {0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032,
                                            0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048,
                                            0.4096, 0.8192, 1.6384, 3.2768, 6.5536, 13.1072};

// A histogram's cells: buckets (not cumulative, the last is +Inf), then the sum in nanoseconds.
struct HistogramCells {
  uint64_t* cells = nullptr;
  std::span<const double> bounds;  // Of the registry.

  void ObserveNs(uint64_t ns) const {
    size_t bucket = 0;
    const double seconds = static_cast<double>(ns) * 1e-9;
    while (bucket < bounds.size() && seconds > bounds[bucket]) ++bucket;
    Add(&cells[bucket], 1);
    Add(&cells[bounds.size() + 1], ns);
  }
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Takes the values that are computed only when somebody asks.
class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual void Counter(std::string_view name, std::string_view help, double value,
                       const MetricLabels& labels = {}) = 0;
  virtual void Gauge(std::string_view name, std::string_view help, double value,
                     const MetricLabels& labels = {}) = 0;
};

class MetricsRegistry {
 public:
  // Bound of the number of series. Beyond it, and for a name that already has another kind or other
  // bounds, registration gives a spare cell that is never collected.
  static constexpr size_t kSeriesMax = 8192;
  static constexpr size_t kBoundsMax = 64;

  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The cell of a series; lives as long as the registry. The same name and labels give the same cell.
  // [any]
  uint64_t* Counter(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  uint64_t* Gauge(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  HistogramCells Histogram(std::string_view name, std::string_view help, const MetricLabels& labels = {},
                           std::span<const double> bounds = kLatencyBounds);

  // `collect` runs at each Collect(), on the collecting thread, and must be safe there. Remove it
  // before what it reads is gone; RemoveCollector returns after a running one has ended. [any]
  uint64_t AddCollector(std::function<void(MetricSink&)> collect);
  void RemoveCollector(uint64_t id);

  // Calls `visit` once with all samples, ordered by name; they live during the call. [any]
  void Collect(const std::function<void(std::span<const kw_sample>)>& visit);

 private:
  struct Series;
  Series* Find(uint32_t kind, std::string_view name, std::string_view help, const MetricLabels& labels,
               std::span<const double> bounds);  // With mutex_.

  std::mutex mutex_;
  std::vector<std::unique_ptr<Series>> series_;  // Ordered by name, labels. Guarded by mutex_.
  std::unique_ptr<Series> spare_;
  // Held while collectors run. Taken before mutex_.
  std::mutex collectors_mutex_;
  std::vector<std::pair<uint64_t, std::function<void(MetricSink&)>>> collectors_;
  uint64_t next_collector_id_ = 1;
};

}  // namespace host
}  // namespace keyway
