// SPDX-License-Identifier: Apache-2.0
//
// The trace: everything that happens goes into one hash, and as text to stderr if asked for. The same seed
// and the same commit give the same hash.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace keyway::sim {

class Trace {
 public:
  explicit Trace(bool is_text) : is_text_(is_text) {}

  // Something that happened at `now_ns` on node `node` (0: none).
  void Add(uint64_t now_ns, const char* what, uint64_t node, uint64_t a = 0, uint64_t b = 0) {
    uint64_t word = 0;
    std::memcpy(&word, what, strnlen(what, 8));
    Mix(now_ns);
    Mix(word ^ (node << 56));
    Mix(a);
    Mix(b);
    if (is_text_) {
      std::fprintf(stderr, "%4" PRIu64 ".%09" PRIu64 " n%" PRIu64 " %s %" PRIu64 " %" PRIu64 "\n",
                   now_ns / 1'000'000'000, now_ns % 1'000'000'000, node, what, a, b);
    }
  }
  // A note that only the text has.
  void Note(uint64_t now_ns, uint64_t node, std::string_view text) {
    if (!is_text_) return;
    std::fprintf(stderr, "%4" PRIu64 ".%09" PRIu64 " n%" PRIu64 "   %.*s\n", now_ns / 1'000'000'000,
                 now_ns % 1'000'000'000, node, static_cast<int>(text.size()), text.data());
  }
  bool is_text() const { return is_text_; }
  uint64_t hash() const { return hash_; }

  // A hash of bytes, for what goes into the trace.
  static uint64_t HashOf(std::string_view bytes) {
    uint64_t hash = bytes.size() * 0x9e3779b97f4a7c15ull;
    while (bytes.size() >= 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data(), 8);
      hash = Step(hash, word);
      bytes.remove_prefix(8);
    }
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), bytes.size());
    return Step(hash, word);
  }

 private:
  static uint64_t Step(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0xff51afd7ed558ccdull;
    return hash ^ (hash >> 32);
  }
  void Mix(uint64_t word) { hash_ = Step(hash_, word); }

  const bool is_text_;
  uint64_t hash_ = 0x6b657977617973ull;
};

}  // namespace keyway::sim
