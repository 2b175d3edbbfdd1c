// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <thread>

#include "kernel/base/bytes.h"
#include "kernel/plugin/log.h"
#include "kernel/plugin/metrics.h"

namespace keyway {
namespace {

std::string Render(MetricsRegistry* registry) {
  std::string text;
  registry->Collect([&](std::span<const kw_sample> samples) {
    for (const kw_sample& sample : samples) {
      text += sample.name;
      for (size_t i = 0; i < sample.label_count; ++i) {
        text += std::string(i == 0 ? "{" : ",") + sample.labels[i].key + "=" +
                std::string(ToView(sample.labels[i].value));
      }
      if (sample.label_count != 0) text += "}";
      if (sample.kind == 2) {
        for (size_t i = 0; i <= sample.bound_count; ++i) text += " " + std::to_string(sample.buckets[i]);
        text += " sum";
      }
      text += " " + std::to_string(static_cast<long>(sample.kind == 2 ? sample.sum : sample.value)) + "\n";
    }
  });
  return text;
}

TEST(Metrics, SameNameAndLabelsGiveTheSameCell) {
  MetricsRegistry registry;

  uint64_t* cell = registry.Counter("b_total", "help", {{"to", "x"}});

  EXPECT_EQ(registry.Counter("b_total", "help", {{"to", "x"}}), cell);
  EXPECT_NE(registry.Counter("b_total", "help", {{"to", "y"}}), cell);
}

TEST(Metrics, CollectsOrderedByName) {
  MetricsRegistry registry;
  Add(registry.Counter("c_total", "", {{"to", "x"}}), 3);
  Set(registry.Gauge("a", ""), -2);
  Add(registry.Counter("c_total", "", {{"to", "w"}}), 4);
  constexpr double kBounds[] = {0.5, 1};
  HistogramCells histogram = registry.Histogram("b_seconds", "", {}, kBounds);
  histogram.ObserveNs(500'000'000);
  histogram.ObserveNs(2'500'000'000);
  const uint64_t id = registry.AddCollector([](MetricSink& sink) { sink.Gauge("bb", "", 7); });

  EXPECT_EQ(Render(&registry), "a -2\nb_seconds 1 0 1 sum 3\nbb 7\nc_total{to=w} 4\nc_total{to=x} 3\n");

  registry.RemoveCollector(id);
  EXPECT_EQ(Render(&registry).find("bb"), std::string::npos);
}

TEST(Metrics, ConflictingKindGetsASpareCell) {
  MetricsRegistry registry;
  registry.Counter("x", "", {{"l", "1"}});

  Add(registry.Gauge("x", "", {{"l", "1"}}), 5);
  Add(registry.Gauge("x", "", {{"l", "0"}}), 5);
  Add(registry.Gauge("x", "", {{"l", "2"}}), 5);

  EXPECT_EQ(Render(&registry), "x{l=1} 0\n");
}

TEST(Metrics, SeriesAreBounded) {
  MetricsRegistry registry;
  for (size_t i = 0; i < MetricsRegistry::kSeriesMax; ++i) {
    registry.Counter("x", "", {{"i", std::to_string(i)}});
  }

  uint64_t* beyond = registry.Counter("x", "", {{"i", "beyond"}});

  EXPECT_EQ(registry.Counter("x", "", {{"i", "further"}}), beyond);
}

TEST(Metrics, RegistersFromManyThreads) {
  MetricsRegistry registry;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        Add(registry.Counter("n_total", "", {{"i", std::to_string(i % 10)}}), 1);
        if (i % 50 == 0) Render(&registry);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(*registry.Counter("n_total", "", {{"i", "3"}}), 80u);
}

class LineLogger : public Logger {
 public:
  bool Enabled(uint32_t level) const override { return level >= KW_LOG_INFO; }
  void Write(uint32_t level, std::string_view caller, std::string_view event,
             std::span<const kw_field> fields) override {
    line = std::to_string(level) + " " + std::string(caller.substr(0, caller.find(':'))) + " " +
           std::string(event);
    for (const kw_field& field : fields) {
      line += std::string(" ") + field.key + "=" + std::string(ToView(field.value));
    }
  }
  std::string line;
};

TEST(Log, ConvertsFields) {
  LineLogger logger;

  Log(&logger, KW_LOG_WARN, "slow", {{"term", 7u}, {"ok", true}, {"who", "x"}, {"id", HexId(255)}});
  EXPECT_EQ(logger.line, "2 plugin/host_base_test.cc slow term=7 ok=true who=x id=ff");

  Log(&logger, KW_LOG_DEBUG, "dropped");
  EXPECT_EQ(logger.line, "2 plugin/host_base_test.cc slow term=7 ok=true who=x id=ff");
}

}  // namespace
}  // namespace keyway
