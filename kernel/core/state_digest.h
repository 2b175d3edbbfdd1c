// SPDX-License-Identifier: Apache-2.0
//
// An incremental digest of the replicated state as it lies in the engine: the sum, modulo 2^64, of a hash
// of each item, so that items are added and removed in any order (an additive multiset hash: Bellare and
// Micciancio, "A New Paradigm for Collision-Free Hashing", 1997, AdHash). It finds faults of engines,
// disks and code; it is no defence against somebody who forges items on purpose.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "kernel/core/store_format.h"
#include "kernel/mvcc/record.h"
#include "keyway/crc32c.h"

namespace keyway::core {

class StateDigest {
 public:
  uint64_t value() const { return sum_; }
  void Clear() { sum_ = 0; }

  // An item of one of the replicated tables. The key has at most 16 bytes.
  void Add(uint32_t table, std::string_view key, std::string_view value) {
    sum_ += HashOf(table, key, Checksum(value));
  }
  void Remove(uint32_t table, std::string_view key, std::string_view value) {
    sum_ -= HashOf(table, key, Checksum(value));
  }
  // A record, by its revision with checksum.
  void Add(mvcc::Revision revision) { sum_ += HashOf(revision); }
  void Remove(mvcc::Revision revision) { sum_ -= HashOf(revision); }

 private:
  static uint32_t Checksum(std::string_view value) { return kw_crc32c(0, value.data(), value.size()); }
  static uint64_t HashOf(mvcc::Revision revision) {
    char key[mvcc::kRevisionKeyBytes];
    mvcc::EncodeRevisionKey(revision, key);
    return HashOf(kTableRevisions, {key, sizeof key}, revision.crc32c);
  }
  static uint64_t HashOf(uint32_t table, std::string_view key, uint32_t checksum) {
    uint64_t words[2] = {0, 0};
    std::memcpy(words, key.data(), key.size() < sizeof words ? key.size() : sizeof words);
    uint64_t hash = Mix(words[0] + table * 0x9e3779b97f4a7c15u);
    hash = Mix(hash ^ words[1]);
    return Mix(hash ^ (uint64_t{checksum} << 8 | key.size()));
  }
  // The finalizer of MurmurHash3: a bijection in which every bit of the input reaches every bit.
  static uint64_t Mix(uint64_t x) {
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
  }

  uint64_t sum_ = 0;
};

}  // namespace keyway::core
