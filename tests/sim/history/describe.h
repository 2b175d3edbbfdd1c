// SPDX-License-Identifier: Apache-2.0
//
// Operations, pairs and events in words, for findings.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/history/types.h"

namespace keyway::sim {

const char* NameOf(Kind kind);
// Printable: every other byte as \xNN.
std::string Quote(std::string_view bytes);
std::string Describe(const KeyValue& pair);
std::string Describe(const WatchEvent& event);
std::string Describe(const OpResult& result);
std::string Describe(const Operation& operation);
std::string Describe(const Watch& watch);
std::string Describe(const std::vector<WatchEvent>& events);
std::string Describe(const std::vector<OpResult>& results);

// Collects findings up to kFindingsMax.
class Report {
 public:
  explicit Report(std::string checker) : checker_(std::move(checker)) {}
  void Add(std::string text) {
    if (!full()) findings_.push_back({checker_, std::move(text)});
  }
  bool full() const { return findings_.size() >= kFindingsMax; }
  bool empty() const { return findings_.empty(); }
  Findings Take() { return std::move(findings_); }

 private:
  const std::string checker_;
  Findings findings_;
};

}  // namespace keyway::sim
