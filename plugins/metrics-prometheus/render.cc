// SPDX-License-Identifier: Apache-2.0
#include "render.h"

#include <charconv>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "process.h"

namespace keyway::metrics_prometheus {
namespace {

void AppendNumber(double value, std::string* out) {
  if (std::isnan(value)) {
    out->append("NaN");
  } else if (std::isinf(value)) {
    out->append(value > 0 ? "+Inf" : "-Inf");
  } else {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof(text), value);
    out->append(text, end.ptr);
  }
}

void AppendCount(uint64_t value, std::string* out) {
  char text[24];
  const auto end = std::to_chars(text, text + sizeof(text), value);
  out->append(text, end.ptr);
}

bool IsNameChar(char c, bool is_first, bool colon_allowed) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_') return true;
  if (c == ':') return colon_allowed;
  return !is_first && c >= '0' && c <= '9';
}

void AppendName(std::string_view name, bool colon_allowed, std::string* out) {
  if (name.empty()) out->push_back('_');
  for (size_t i = 0; i < name.size(); ++i) {
    out->push_back(IsNameChar(name[i], i == 0, colon_allowed) ? name[i] : '_');
  }
}

// `quote` is escaped too, which label values need and help texts must not have.
void AppendEscaped(std::string_view text, bool quote, std::string* out) {
  for (const char c : text) {
    if (c == '\\') {
      out->append("\\\\");
    } else if (c == '\n') {
      out->append("\\n");
    } else if (c == '"' && quote) {
      out->append("\\\"");
    } else {
      out->push_back(c);
    }
  }
}

// The part of a line before its value. `maybe_bound` is the `le` of a bucket.
void AppendSeries(const kw_sample& sample, std::string_view suffix, const double* maybe_bound,
                  std::string* out) {
  AppendName(sample.name, true, out);
  out->append(suffix);
  if (sample.label_count > 0 || maybe_bound != nullptr) {
    char separator = '{';
    for (size_t i = 0; i < sample.label_count; ++i) {
      const kw_field& label = sample.labels[i];
      out->push_back(separator);
      separator = ',';
      AppendName(label.key, false, out);
      out->append("=\"");
      AppendEscaped({reinterpret_cast<const char*>(label.value.ptr), label.value.len}, true, out);
      out->push_back('"');
    }
    if (maybe_bound != nullptr) {
      out->push_back(separator);
      out->append("le=\"");
      AppendNumber(*maybe_bound, out);
      out->push_back('"');
    }
    out->push_back('}');
  }
  out->push_back(' ');
}

void AppendHistogram(const kw_sample& sample, std::string* out) {
  uint64_t count = 0;
  for (size_t i = 0; i <= sample.bound_count; ++i) {
    const double bound = i < sample.bound_count ? sample.bounds[i] : HUGE_VAL;
    count += sample.buckets[i];
    AppendSeries(sample, "_bucket", &bound, out);
    AppendCount(count, out);
    out->push_back('\n');
  }
  AppendSeries(sample, "_sum", nullptr, out);
  AppendNumber(sample.sum, out);
  out->push_back('\n');
  AppendSeries(sample, "_count", nullptr, out);
  AppendCount(count, out);
  out->push_back('\n');
}

void AppendHead(const kw_sample& sample, std::string* out) {
  if (sample.help != nullptr && *sample.help != '\0') {
    out->append("# HELP ");
    AppendName(sample.name, true, out);
    out->push_back(' ');
    AppendEscaped(sample.help, false, out);
    out->push_back('\n');
  }
  out->append("# TYPE ");
  AppendName(sample.name, true, out);
  out->append(sample.kind == KW_METRIC_COUNTER ? " counter\n"
              : sample.kind == KW_METRIC_GAUGE ? " gauge\n"
                                               : " histogram\n");
}

void AppendSample(const kw_sample& sample, std::string* out) {
  if (sample.kind == kKindHistogram) return AppendHistogram(sample, out);
  AppendSeries(sample, "", nullptr, out);
  AppendNumber(sample.value, out);
  out->push_back('\n');
}

}  // namespace

void Render(const kw_sample* samples, size_t sample_count, std::string* out) {
  // Groups of one name. They come together as a rule, so that the table is only asked on a change.
  std::unordered_map<std::string_view, size_t> group_of;
  std::vector<std::vector<const kw_sample*>> groups;
  std::vector<const kw_sample*>* group = nullptr;
  const ProcessSamples process = ReadProcess();
  const auto add = [&](const kw_sample& sample, bool must_be_new) {
    if (group == nullptr || std::string_view(group->front()->name) != sample.name) {
      const auto [at, is_new] = group_of.try_emplace(sample.name, groups.size());
      if (!is_new && must_be_new) return;
      if (is_new) groups.emplace_back();
      group = &groups[at->second];
    }
    if (group->empty() || group->front()->kind == sample.kind) group->push_back(&sample);
  };
  for (size_t i = 0; i < sample_count; ++i) {
    if (samples[i].kind <= kKindHistogram && samples[i].name != nullptr) add(samples[i], false);
  }
  group = nullptr;
  for (size_t i = 0; i < process.count; ++i) add(process.samples[i], true);
  for (const auto& members : groups) {
    AppendHead(*members.front(), out);
    for (const kw_sample* sample : members) AppendSample(*sample, out);
  }
}

}  // namespace keyway::metrics_prometheus
