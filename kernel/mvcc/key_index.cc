// SPDX-License-Identifier: Apache-2.0
#include "kernel/mvcc/key_index.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "kernel/base/check.h"
#include "kernel/base/mutant.h"

namespace keyway::mvcc {

// ---- History ----

History::~History() {
  if (block_ == nullptr) return;
  block_->~Block();
  std::free(block_);
}

size_t History::CountUpTo(int64_t main) const {
  if (empty()) return 0;
  const Entry* at = std::upper_bound(begin(), end(), main,
                                     [](int64_t main, const Entry& entry) { return main < entry.main; });
  return static_cast<size_t>(at - begin());
}

const History::Ended* History::FindEnded(Revision live) const {
  if (empty() || block_->ended == nullptr) return nullptr;
  const std::vector<Ended>& ended = *block_->ended;
  auto at = std::upper_bound(ended.begin(), ended.end(), live,
                             [](Revision r, const Ended& ended) { return r < ended.tombstone; });
  return at == ended.end() ? nullptr : &*at;
}

size_t History::IndexOf(Revision revision) const {
  KW_CHECK(!empty());
  const Entry* at = std::lower_bound(begin(), end(), revision,
                                     [](const Entry& entry, Revision r) { return entry.revision() < r; });
  KW_CHECK(at != end() && at->revision() == revision);
  return static_cast<size_t>(at - begin());
}

void History::Push(Revision revision, bool is_tombstone) {
  if (block_ == nullptr || block_->end == block_->capacity) {
    KW_CHECK(size() < (1u << 30));
    Move(std::max<uint32_t>(2, static_cast<uint32_t>(size()) * 2));
  }
  Entry& entry = block_->entries()[block_->end++];
  entry.main = revision.main;
  entry.crc32c = revision.crc32c;
  entry.sub = static_cast<uint32_t>(revision.sub);
  entry.tombstone = is_tombstone ? 1 : 0;
}

void History::PushTombstone(Revision revision, int64_t create_revision, int64_t version) {
  Push(revision, true);
  if (block_->ended == nullptr) block_->ended = std::make_unique<std::vector<Ended>>();
  block_->ended->push_back({revision, create_revision, version});
}

// Into a block for `capacity` entries, without those that are dropped.
void History::Move(uint32_t capacity) {
  uint32_t count = static_cast<uint32_t>(size());
  KW_CHECK(count <= capacity);
  void* memory = std::malloc(sizeof(Block) + capacity * sizeof(Entry));
  KW_CHECK(memory != nullptr);
  Block* block = new (memory) Block;
  block->end = count;
  block->capacity = capacity;
  if (block_ != nullptr) {
    std::copy(begin(), end(), block->entries());
    block->ended = std::move(block_->ended);
    block_->~Block();
    std::free(block_);
  }
  block_ = block;
}

void History::DropFirst(size_t count) {
  KW_CHECK(count <= size());
  if (count == 0) return;
  if (count == size()) {
    block_->~Block();
    std::free(block_);
    block_ = nullptr;
    return;
  }
  block_->begin += static_cast<uint32_t>(count);
  if (block_->ended != nullptr) {
    Revision first = at(0).revision();
    std::vector<Ended>& ended = *block_->ended;
    size_t gone = 0;
    while (gone < ended.size() && ended[gone].tombstone < first) ++gone;
    ended.erase(ended.begin(), ended.begin() + static_cast<ptrdiff_t>(gone));
    if (ended.empty()) block_->ended.reset();
  }
  if (block_->begin * 2 >= block_->end) Move(static_cast<uint32_t>(size()));
}

size_t History::memory_bytes() const {
  if (block_ == nullptr) return 0;
  size_t ended_bytes = block_->ended == nullptr ? 0 : block_->ended->capacity() * sizeof(Ended) + 24;
  return sizeof(Block) + block_->capacity * sizeof(Entry) + ended_bytes;
}

// ---- Item ----

constexpr size_t Item::kHeaderBytes = sizeof(Item) - sizeof(Item::key_begin_);

bool Item::AtOlder(int64_t main, VersionInfo* info) const {
  size_t count = history_.CountUpTo(main);
  if (count == 0) return false;
  size_t index = count - 1;
  const History::Entry& entry = history_.at(index);
  if (entry.tombstone != 0) return false;

  info->revision = entry.revision();
  if (const History::Ended* ended = history_.FindEnded(entry.revision())) {
    size_t newer = history_.IndexOf(ended->tombstone) - 1 - index;
    info->create_revision = ended->create_revision;
    info->version = ended->version - static_cast<int64_t>(newer);
  } else {
    // With a tombstone as the newest version the last entry is the live one that version_ describes.
    size_t newer = history_.size() - index - (tombstone_ != 0 ? 1 : 0);
    info->create_revision = create_revision_;
    info->version = version_ - static_cast<int64_t>(newer);
  }
  return true;
}

bool Item::FindChecksum(Revision revision, uint32_t* crc32c) const {
  if (revision == this->revision()) {
    *crc32c = crc32c_;
    return true;
  }
  const size_t count = history_.CountUpTo(revision.main);
  for (size_t i = count; i-- > 0 && history_.at(i).main == revision.main;) {
    if (history_.at(i).revision() != revision) continue;
    *crc32c = history_.at(i).crc32c;
    return true;
  }
  return false;
}

// ---- KeyIndex ----

size_t KeyIndex::Hash::operator()(std::string_view key) const {
  return absl::Hash<absl::string_view>()(absl::string_view(key.data(), key.size()));
}

KeyIndex::KeyIndex() : shards_(new Shard[size_t{1} << kShardBits]) {}

KeyIndex::~KeyIndex() {
  for (Item* item : ordered_) Destroy(item);
}

Item* KeyIndex::Find(std::string_view key) const {
  size_t hash = Hash()(key);
  const Shard& shard = ShardOf(hash);
  auto at = shard.find(key, hash);
  return at == shard.end() ? nullptr : *at;
}

Item* KeyIndex::FindOrAdd(std::string_view key) {
  size_t hash = Hash()(key);
  Shard& shard = ShardOf(hash);
  auto found = shard.find(key, hash);
  if (found != shard.end()) return *found;

  KW_CHECK(key.size() < (1u << 30));
  size_t bytes = std::max(sizeof(Item), Item::kHeaderBytes + key.size());
  void* memory = std::malloc(bytes);
  KW_CHECK(memory != nullptr);
  Item* item = new (memory) Item(key.size());
  std::memcpy(static_cast<char*>(memory) + Item::kHeaderBytes, key.data(), key.size());
  shard.insert(item);
  ordered_.insert(item);
  item_bytes_ += bytes;
  return item;
}

KeyIndex::Span KeyIndex::SpanOf(std::string_view key, std::string_view end) const {
  if (end.size() == 1 && end[0] == '\0') return {ordered_.lower_bound(key), ordered_.end()};
  if (end <= key) return {ordered_.end(), ordered_.end()};
  return {ordered_.lower_bound(key), ordered_.lower_bound(end)};
}

// The newest version becomes one of the older ones.
void KeyIndex::PushNewest(Item* item) {
  history_bytes_ -= item->history_.memory_bytes();
  if (item->tombstone()) {
    item->history_.PushTombstone(item->revision(), item->create_revision_, item->version_);
  } else {
    item->history_.PushLive(item->revision());
  }
  history_bytes_ += item->history_.memory_bytes();
}

void KeyIndex::Put(Item* item, Revision revision, int64_t lease) {
  KW_CHECK(item->revision() < revision);
  bool is_new = item->main_ == 0;
  if (!is_new) PushNewest(item);
  if (!is_new && !item->tombstone()) {
    ++item->version_;
  } else {
    item->create_revision_ = revision.main;
    item->version_ = 1;
    item->tombstone_ = 0;
    ++live_count_;
  }
  item->main_ = revision.main;
  item->sub_ = revision.sub;
  item->crc32c_ = revision.crc32c;
  item->lease_ = lease;
}

void KeyIndex::Delete(Item* item, Revision revision) {
  KW_CHECK(item->main_ != 0 && !item->tombstone());
  KW_CHECK(item->revision() < revision);
  PushNewest(item);
  item->main_ = revision.main;
  item->sub_ = revision.sub;
  item->crc32c_ = revision.crc32c;
  item->tombstone_ = 1;
  item->lease_ = 0;
  --live_count_;
}

void KeyIndex::Restore(std::string_view record_key, Revision revision, const RecordFields& fields) {
  Item* item = FindOrAdd(record_key);
  if (fields.create_revision != 0) {
    Put(item, revision, fields.lease);
    item->create_revision_ = fields.create_revision;
    item->version_ = fields.version;
  } else if (item->main_ != 0 && !item->tombstone()) {
    Delete(item, revision);
  } else {
    // The versions before it were compacted away: nothing is known but the delete.
    KW_CHECK(item->revision() < revision);
    if (item->main_ != 0) PushNewest(item);
    item->main_ = revision.main;
    item->sub_ = revision.sub;
    item->crc32c_ = revision.crc32c;
    item->create_revision_ = item->version_ = 0;
    item->tombstone_ = 1;
  }
}

KeyIndex::Compacted KeyIndex::Compact(Item* item, int64_t main, size_t max, std::vector<Revision>* deleted) {
  const bool newest = item->main_ <= main;  // Then all older versions go.
  const bool keeps_deletes = !mutant::Is(mutant::kTombstoneCompacted);
  const bool gone = newest && item->tombstone() && (item->main_ < main || !keeps_deletes);
  History& history = item->history_;
  // What was made at `main` itself stays, all of it: a watch may begin there. Else the version that is
  // current there, if it lives.
  size_t drop = history.CountUpTo(main - 1);
  const bool has_main = item->main_ == main || history.CountUpTo(main) > drop;
  const bool is_current = !newest && !has_main && drop > 0 && history.at(drop - 1).tombstone == 0;
  if (is_current && !mutant::Is(mutant::kCompactionTooFar)) --drop;
  if (gone) drop = history.size();
  bool more = drop > max;
  if (more) drop = max;
  if (drop > 0) {
    for (size_t i = 0; i < drop; ++i) deleted->push_back(history.at(i).revision());
    history_bytes_ -= history.memory_bytes();
    history.DropFirst(drop);
    history_bytes_ += history.memory_bytes();
  }
  if (more) return Compacted::kMore;
  if (!gone) return Compacted::kDone;
  deleted->push_back(item->revision());
  return Compacted::kGone;
}

void KeyIndex::Erase(Item* item) {
  KW_CHECK(item->tombstone() && item->cache_slot_ == Item::kNotCached);
  KW_CHECK(item->history_.empty());
  ShardOf(Hash()(item->key())).erase(item);
  ordered_.erase(item);
  item_bytes_ -= std::max(sizeof(Item), Item::kHeaderBytes + item->key_size_);
  Destroy(item);
}

void KeyIndex::Clear() {
  for (Item* item : ordered_) Destroy(item);
  ordered_.clear();
  shards_.reset(new Shard[size_t{1} << kShardBits]);
  live_count_ = item_bytes_ = history_bytes_ = 0;
}

void KeyIndex::Destroy(Item* item) {
  item->~Item();
  std::free(item);
}

size_t KeyIndex::memory_bytes() const {
  // Per item: what malloc adds, a slot of a tree node filled to 3/4, and a slot of the hash set.
  constexpr size_t kPerItem = 12 + 11 + 14;
  return item_bytes_ + history_bytes_ + ordered_.size() * kPerItem +
         sizeof(Shard) * (size_t{1} << kShardBits);
}

}  // namespace keyway::mvcc
