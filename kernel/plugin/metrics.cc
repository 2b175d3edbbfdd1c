// SPDX-License-Identifier: Apache-2.0
//
// Registration keeps the series sorted by name and labels, so that collection can hand over samples of
// one name together; values of collectors are merged in by a stable sort.
#include "kernel/plugin/metrics.h"

#include <algorithm>
#include <deque>

#include "kernel/base/bytes.h"
#include "kernel/base/check.h"

namespace keyway {
inline namespace host {
namespace {

constexpr uint32_t kHistogramKind = 2;  // kw_sample.kind

uint64_t Load(uint64_t* cell) { return std::atomic_ref<uint64_t>(*cell).load(std::memory_order_relaxed); }

}  // namespace

struct MetricsRegistry::Series {
  uint32_t kind = KW_METRIC_COUNTER;
  std::string name, help;
  MetricLabels labels;
  std::vector<double> bounds;
  std::unique_ptr<uint64_t[]> cells;  // One, or bounds.size() + 2.
};

namespace {

// A sample and the memory that it points to.
struct Held {
  std::string name, help;
  MetricLabels labels;
  std::vector<kw_field> fields;
  std::vector<double> bounds;
  std::vector<uint64_t> buckets;
  kw_sample sample{};

  void Finish() {
    for (const auto& [key, value] : labels) fields.push_back({key.c_str(), ToSlice(value)});
    sample.name = name.c_str();
    sample.help = help.c_str();
    sample.labels = fields.data();
    sample.label_count = fields.size();
    sample.bounds = bounds.data();
    sample.bound_count = bounds.size();
    sample.buckets = buckets.data();
  }
};

class HeldSink : public MetricSink {
 public:
  explicit HeldSink(std::deque<Held>* out) : out_(out) {}
  void Counter(std::string_view name, std::string_view help, double value,
               const MetricLabels& labels) override {
    Put(KW_METRIC_COUNTER, name, help, value, labels);
  }
  void Gauge(std::string_view name, std::string_view help, double value,
             const MetricLabels& labels) override {
    Put(KW_METRIC_GAUGE, name, help, value, labels);
  }

 private:
  void Put(uint32_t kind, std::string_view name, std::string_view help, double value,
           const MetricLabels& labels) {
    if (out_->size() >= 2 * MetricsRegistry::kSeriesMax) return;
    Held& held = out_->emplace_back();
    held.name = name;
    held.help = help;
    held.labels = labels;
    held.sample.kind = kind;
    held.sample.value = value;
  }

  std::deque<Held>* const out_;
};

}  // namespace

MetricsRegistry::MetricsRegistry() : spare_(std::make_unique<Series>()) {
  spare_->cells = std::make_unique<uint64_t[]>(kBoundsMax + 2);
}
MetricsRegistry::~MetricsRegistry() = default;

MetricsRegistry::Series* MetricsRegistry::Find(uint32_t kind, std::string_view name, std::string_view help,
                                               const MetricLabels& labels, std::span<const double> bounds) {
  auto before = [&](const std::unique_ptr<Series>& series, int) {
    const int order = std::string_view(series->name).compare(name);
    return order != 0 ? order < 0 : series->labels < labels;
  };
  auto at = std::lower_bound(series_.begin(), series_.end(), 0, before);
  auto same_family = [&](const Series& series) {
    return series.kind == kind &&
           std::equal(series.bounds.begin(), series.bounds.end(), bounds.begin(), bounds.end());
  };
  if (at != series_.end() && (*at)->name == name && (*at)->labels == labels) {
    return same_family(**at) ? at->get() : spare_.get();
  }
  // A neighbour of the same name must be of the same family.
  if (at != series_.end() && (*at)->name == name && !same_family(**at)) return spare_.get();
  if (at != series_.begin() && (*std::prev(at))->name == name && !same_family(**std::prev(at))) {
    return spare_.get();
  }
  if (series_.size() >= kSeriesMax || bounds.size() > kBoundsMax) return spare_.get();
  auto series = std::make_unique<Series>();
  series->kind = kind;
  series->name = name;
  series->help = help;
  series->labels = labels;
  series->bounds.assign(bounds.begin(), bounds.end());
  series->cells = std::make_unique<uint64_t[]>(kind == kHistogramKind ? bounds.size() + 2 : 1);
  return series_.insert(at, std::move(series))->get();
}

uint64_t* MetricsRegistry::Counter(std::string_view name, std::string_view help, const MetricLabels& labels) {
  std::lock_guard lock(mutex_);
  return Find(KW_METRIC_COUNTER, name, help, labels, {})->cells.get();
}

uint64_t* MetricsRegistry::Gauge(std::string_view name, std::string_view help, const MetricLabels& labels) {
  std::lock_guard lock(mutex_);
  return Find(KW_METRIC_GAUGE, name, help, labels, {})->cells.get();
}

HistogramCells MetricsRegistry::Histogram(std::string_view name, std::string_view help,
                                          const MetricLabels& labels, std::span<const double> bounds) {
  // The spare has room for this many buckets.
  if (bounds.size() > kBoundsMax) bounds = bounds.first(kBoundsMax);
  std::lock_guard lock(mutex_);
  Series* series = Find(kHistogramKind, name, help, labels, bounds);
  // The spare has no bounds of its own: all its observations fall into the first bucket.
  return {series->cells.get(), series->bounds};
}

uint64_t MetricsRegistry::AddCollector(std::function<void(MetricSink&)> collect) {
  std::lock_guard lock(collectors_mutex_);
  collectors_.emplace_back(next_collector_id_, std::move(collect));
  return next_collector_id_++;
}

void MetricsRegistry::RemoveCollector(uint64_t id) {
  std::lock_guard lock(collectors_mutex_);
  std::erase_if(collectors_, [id](const auto& collector) { return collector.first == id; });
}

void MetricsRegistry::Collect(const std::function<void(std::span<const kw_sample>)>& visit) {
  std::deque<Held> held;
  {
    std::lock_guard lock(collectors_mutex_);
    HeldSink sink(&held);
    for (auto& [id, collect] : collectors_) collect(sink);
  }
  {
    std::lock_guard lock(mutex_);
    for (const auto& series : series_) {
      Held& copy = held.emplace_back();
      copy.name = series->name;
      copy.help = series->help;
      copy.labels = series->labels;
      copy.sample.kind = series->kind;
      if (series->kind == kHistogramKind) {
        copy.bounds = series->bounds;
        for (size_t i = 0; i <= series->bounds.size(); ++i) {
          copy.buckets.push_back(Load(&series->cells[i]));
        }
        copy.sample.sum = static_cast<double>(Load(&series->cells[series->bounds.size() + 1])) * 1e-9;
      } else {
        const uint64_t value = Load(&series->cells[0]);
        copy.sample.value = series->kind == KW_METRIC_GAUGE ? static_cast<double>(static_cast<int64_t>(value))
                                                            : static_cast<double>(value);
      }
    }
  }
  std::vector<kw_sample> samples;
  samples.reserve(held.size());
  for (Held& each : held) {
    each.Finish();
    samples.push_back(each.sample);
  }
  std::stable_sort(samples.begin(), samples.end(), [](const kw_sample& a, const kw_sample& b) {
    return std::string_view(a.name) < std::string_view(b.name);
  });
  visit(samples);
}

}  // namespace host
}  // namespace keyway
