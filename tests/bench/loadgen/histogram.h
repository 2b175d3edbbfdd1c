// SPDX-License-Identifier: Apache-2.0
// Latencies in buckets of at most 1.6 % width: fixed memory, a few instructions for each sample.
#ifndef KEYWAY_TESTS_BENCH_LOADGEN_HISTOGRAM_H_
#define KEYWAY_TESTS_BENCH_LOADGEN_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace keyway::loadgen {

class Histogram {
 public:
  void Add(uint64_t value) {
    ++buckets_[Bucket(value)];
    ++count_;
    sum_ += value;
    max_ = std::max(max_, value);
  }

  void Reset() { *this = Histogram(); }

  // The upper edge of the bucket that holds the `quantile` (0..1) of the samples.
  uint64_t Quantile(double quantile) const {
    if (count_ == 0) return 0;
    uint64_t rank = static_cast<uint64_t>(quantile * static_cast<double>(count_ - 1)) + 1;
    for (uint32_t i = 0; i < kBuckets; ++i) {
      if (buckets_[i] >= rank) return std::min(UpperEdge(i), max_);
      rank -= buckets_[i];
    }
    return max_;
  }

  double mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }
  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }

 private:
  static constexpr uint32_t kSubBits = 6;
  static constexpr uint32_t kSub = 1u << kSubBits;
  static constexpr uint32_t kBuckets = (64 - kSubBits + 1) * kSub;

  static uint32_t Bucket(uint64_t value) {
    if (value < kSub) return static_cast<uint32_t>(value);
    const uint32_t shift = static_cast<uint32_t>(std::bit_width(value)) - kSubBits - 1;
    return (shift + 1) * kSub + static_cast<uint32_t>((value >> shift) - kSub);
  }
  static uint64_t UpperEdge(uint32_t bucket) {
    if (bucket < kSub) return bucket;
    const uint32_t shift = bucket / kSub - 1;
    return ((static_cast<uint64_t>(bucket % kSub) + kSub + 1) << shift) - 1;
  }

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t max_ = 0;
};

}  // namespace keyway::loadgen

#endif  // KEYWAY_TESTS_BENCH_LOADGEN_HISTOGRAM_H_
