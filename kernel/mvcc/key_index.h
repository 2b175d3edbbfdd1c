// SPDX-License-Identifier: Apache-2.0
//
// The index of keys: for each key the facts of its newest version and the revisions of its older ones.
// Two structures share the same items: an ordered set for ranges and a hash set for single keys.
//
// Memory of a key with one version, beyond its own bytes: an item of 64 bytes, about 12 bytes in the
// ordered set and about 14 in the hash set. The hash set is cut into shards, so that growing is never
// a stall of more than a 256th of the items.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_set.h"
#include "absl/types/compare.h"
#include "kernel/base/bytes.h"
#include "kernel/mvcc/record.h"

namespace keyway::mvcc {

// What the index knows of one live version of a key.
struct VersionInfo {
  Revision revision;
  int64_t create_revision = 0, version = 0;
};

// The versions of a key before its newest one, oldest first, in one block of memory. A live one needs 16
// bytes: its create revision and version follow from the generation that it belongs to. A generation is
// what lies between two tombstones; that of the newest live versions is described by the item itself.
class History {
 public:
  struct Entry {
    int64_t main;
    uint32_t crc32c;  // Of the record.
    uint32_t sub : 31;
    uint32_t tombstone : 1;
    Revision revision() const { return {main, static_cast<int32_t>(sub), crc32c}; }
  };
  // A generation that ended before the newest one: its create revision and last version.
  struct Ended {
    Revision tombstone;
    int64_t create_revision, version;
  };

  History() = default;
  ~History();
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  size_t size() const { return block_ == nullptr ? 0 : block_->end - block_->begin; }
  bool empty() const { return block_ == nullptr; }
  const Entry& at(size_t index) const { return block_->entries()[block_->begin + index]; }
  // Index one past the newest entry with main <= `main`; 0 if there is none.
  size_t CountUpTo(int64_t main) const;
  // The ended generation of a live entry, or nullptr if it belongs to the newest one.
  const Ended* FindEnded(Revision live) const;
  // Index of the entry with exactly this revision.
  size_t IndexOf(Revision revision) const;

  void PushLive(Revision revision) { Push(revision, false); }
  void PushTombstone(Revision revision, int64_t create_revision, int64_t version);
  void DropFirst(size_t count);
  size_t memory_bytes() const;
  void Prefetch() const { __builtin_prefetch(block_, 1); }

 private:
  struct Block {
    uint32_t begin = 0;  // Entries before it are dropped; they go when they are the half.
    uint32_t end = 0, capacity = 0;
    std::unique_ptr<std::vector<Ended>> ended;
    Entry* entries() { return reinterpret_cast<Entry*>(this + 1); }
  };

  const Entry* begin() const { return block_->entries() + block_->begin; }
  const Entry* end() const { return block_->entries() + block_->end; }
  void Push(Revision revision, bool is_tombstone);
  void Move(uint32_t capacity);

  Block* block_ = nullptr;  // None: empty.
};

// One key. Allocated with its bytes behind it; addresses are stable until Erase().
class Item {
 public:
  std::string_view key() const { return {reinterpret_cast<const char*>(this) + kHeaderBytes, key_size_}; }
  Revision revision() const { return {main_, sub_, crc32c_}; }
  bool tombstone() const { return tombstone_ != 0; }
  // Of the newest version; with a tombstone, of the last live one before it (0 if that is unknown).
  int64_t create_revision() const { return create_revision_; }
  int64_t version() const { return version_; }
  int64_t lease() const { return lease_; }
  const History& history() const { return history_; }
  // The newest record, if the cache holds it.
  const SharedBytes& record() const { return record_; }
  void MarkUsed() { used_ = 1; }
  // Before a change: what it touches beside the item.
  void Prefetch() const {
    if (record_.has_value()) __builtin_prefetch(record_.data() - 8, 1);
    history_.Prefetch();
  }

  // The version that a reader at `main` sees. False: the key does not exist there.
  bool At(int64_t main, VersionInfo* info) const {
    if (main_ > main) return AtOlder(main, info);
    if (tombstone_ != 0) return false;
    *info = {revision(), create_revision_, version_};
    return true;
  }
  // The checksum of the record of exactly this version; false if the index has no such version.
  bool FindChecksum(Revision revision, uint32_t* crc32c) const;

 private:
  friend class KeyIndex;
  friend class RecordCache;
  static constexpr uint32_t kNotCached = ~0u;
  static const size_t kHeaderBytes;

  explicit Item(size_t key_size) : key_size_(static_cast<uint32_t>(key_size)), tombstone_(0), used_(0) {}
  bool AtOlder(int64_t main, VersionInfo* info) const;

  int64_t main_ = 0;  // 0: new, has no version yet.
  int64_t create_revision_ = 0;
  int64_t version_ = 0;
  int64_t lease_ = 0;
  SharedBytes record_;
  History history_;
  int32_t sub_ = 0;
  uint32_t crc32c_ = 0;  // Of the newest record.
  uint32_t key_size_ : 30;
  uint32_t tombstone_ : 1;
  uint32_t used_ : 1;  // Of the cache: read since the clock's hand came by.
  uint32_t cache_slot_ = kNotCached;
  char key_begin_[4];  // The key's bytes begin here and go on behind the struct.
};

class KeyIndex {
  struct Order {
    using is_transparent = void;
    static std::string_view Key(const Item* item) { return item->key(); }
    static std::string_view Key(std::string_view key) { return key; }
    template <typename A, typename B>
    absl::weak_ordering operator()(const A& a, const B& b) const {
      int order = Key(a).compare(Key(b));
      return order < 0   ? absl::weak_ordering::less
             : order > 0 ? absl::weak_ordering::greater
                         : absl::weak_ordering::equivalent;
    }
  };
  using Ordered = absl::btree_set<Item*, Order>;

 public:
  using Iterator = Ordered::const_iterator;
  struct Span {
    Iterator begin, end;
  };

  KeyIndex();
  ~KeyIndex();
  KeyIndex(const KeyIndex&) = delete;
  KeyIndex& operator=(const KeyIndex&) = delete;

  Item* Find(std::string_view key) const;
  // A new item has no version until Put() or Restore().
  Item* FindOrAdd(std::string_view key);
  // Items of [key, end) as kw_range has it, but for the single key, which is Find()'s. Valid until the
  // next FindOrAdd() or Erase().
  Span SpanOf(std::string_view key, std::string_view end) const;
  // Calls visit(item) in key order until it returns false.
  template <typename Visit>
  void ForEach(std::string_view key, std::string_view end, Visit visit) const {
    if (end.empty()) {
      if (Item* item = Find(key)) visit(item);
      return;
    }
    Span span = SpanOf(key, end);
    for (Iterator at = span.begin; at != span.end; ++at) {
      if (!visit(*at)) return;
    }
  }

  // Each makes `revision`, which brings its record's checksum, the newest version; it must be above the
  // one before.
  void Put(Item* item, Revision revision, int64_t lease);
  void Delete(Item* item, Revision revision);  // The newest version must be live.
  void Restore(std::string_view record_key, Revision revision, const RecordFields& fields);

  // Appends to `deleted` up to `max` revisions of `item` that a compaction at `main` removes, oldest
  // first, and forgets them.
  enum class Compacted { kDone, kMore, kGone /* nothing is left: Erase() it */ };
  Compacted Compact(Item* item, int64_t main, size_t max, std::vector<Revision>* deleted);
  void Erase(Item* item);
  void Clear();

  size_t live_count() const { return live_count_; }
  size_t item_count() const { return ordered_.size(); }
  size_t memory_bytes() const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const;
    size_t operator()(const Item* item) const { return (*this)(item->key()); }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const Item* a, const Item* b) const { return a == b; }
    bool operator()(const Item* a, std::string_view b) const { return a->key() == b; }
    bool operator()(std::string_view a, const Item* b) const { return a == b->key(); }
  };
  using Shard = absl::flat_hash_set<Item*, Hash, Equal>;
  static constexpr int kShardBits = 8;

  Shard& ShardOf(size_t hash) const { return shards_[hash >> (64 - kShardBits)]; }
  void PushNewest(Item* item);
  void Destroy(Item* item);

  std::unique_ptr<Shard[]> shards_;
  Ordered ordered_;
  size_t live_count_ = 0;
  size_t item_bytes_ = 0;
  size_t history_bytes_ = 0;
};

}  // namespace keyway::mvcc
