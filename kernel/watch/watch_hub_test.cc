// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/watch_hub.h"

#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernel/watch/watch_test_util.h"

namespace keyway::watch {
namespace {

constexpr uint64_t kPlenty = 1 << 20;

class WatchHubTest : public testing::Test {
 protected:
  void Put(const std::string& key, const std::string& value = "v") { Write({{key, value}}); }
  void Delete(const std::string& key) { Write({{key, std::nullopt}}); }
  void Write(const std::vector<watch::Write>& writes) {
    hub_.Publish(store_.Apply(writes, hub_.NeedsPrev()));
  }
  void Open(uint64_t id, const WatchSpec& spec) { OpenWatch(&hub_, id, spec, receiver_); }
  // Ends the turn, and gives what was delivered.
  std::vector<ReceivedBatch> Flush() {
    hub_.Flush(1, 2, 3);
    return std::exchange(receiver_.batches, {});
  }
  // Runs every read and step to the end.
  std::vector<ReceivedBatch> Settle() {
    for (int round = 0; round < 1000; ++round) {
      bool more = hub_.Step(100);
      if (auto read = hub_.NextHistoryRead()) {
        int64_t reached = 0;
        std::vector<mvcc::Change> changes = store_.ReadHistory(*read, &reached);
        hub_.OnHistory(std::move(changes), reached);
        more = true;
      }
      std::vector<mvcc::Revision> prev_reads = hub_.NextPrevReads();
      if (!prev_reads.empty()) {
        std::vector<SharedBytes> records;
        for (mvcc::Revision revision : prev_reads) records.push_back(store_.RecordAt(revision));
        hub_.OnPrevRecords(std::move(records));
        more = true;
      }
      if (!more) return Flush();
    }
    ADD_FAILURE() << "does not settle";
    return {};
  }
  void Progress(std::vector<uint64_t> ids, uintptr_t ctx = 99) {
    hub_.Progress(receiver_.sink(), ids.data(), ids.size(), reinterpret_cast<void*>(ctx));
  }
  static std::vector<std::string> Keys(const std::vector<ReceivedBatch>& batches, uint64_t id) {
    std::vector<std::string> keys;
    for (const ReceivedBatch& batch : batches) {
      if (batch.watch != id) continue;
      for (const ReceivedEvent& event : batch.events) keys.push_back(event.key);
    }
    return keys;
  }

  FakeStore store_;
  WatchHub hub_{&store_, 1};
  Receiver receiver_;
};

using Strings = std::vector<std::string>;

TEST_F(WatchHubTest, CreatedComesFirstThenEvents) {
  Put("before");
  Open(7, {.key = "a", .end = "z"});
  Put("b", "1");
  Put("zz");
  Delete("b");
  std::vector<ReceivedBatch> batches = Flush();

  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[0].kind, uint32_t{KW_WATCH_CREATED});
  EXPECT_EQ(batches[0].revision, 2);
  EXPECT_EQ(batches[1].kind, uint32_t{KW_WATCH_EVENTS});
  ASSERT_EQ(batches[1].events.size(), 1u);
  EXPECT_EQ(batches[1].events[0].kind, uint32_t{KW_EVENT_PUT});
  EXPECT_EQ(batches[1].events[0].revision, 3);
  EXPECT_FALSE(batches[1].events[0].prev.has_value());
  EXPECT_EQ(batches[1].credit_bytes, batches[1].events[0].record.size() + kEventOverheadBytes);
  EXPECT_EQ(batches[2].events[0].kind, uint32_t{KW_EVENT_DELETE});
  EXPECT_EQ(batches[2].events[0].revision, 5);
  EXPECT_EQ(receiver_.deliveries, 1u);
  EXPECT_EQ(receiver_.cluster_id, 1u);
  EXPECT_EQ(receiver_.member_id, 2u);
  EXPECT_EQ(receiver_.raft_term, 3u);
  EXPECT_TRUE(Flush().empty());
  EXPECT_EQ(receiver_.deliveries, 1u);
}

TEST_F(WatchHubTest, RangesAreEtcds) {
  Open(1, {.key = "", .end = std::string("\0", 1)});
  Open(2, {.key = "b"});
  Open(3, {.key = "b", .end = std::string("\0", 1)});
  Open(4, {.key = "a", .end = "b"});
  Open(5, {.key = "", .end = ""});  // The single key "\0".
  Flush();

  Write({{std::string("\0", 1), "v"}, {"a", "v"}, {"b", "v"}, {"c", "v"}});

  std::vector<ReceivedBatch> batches = Flush();
  EXPECT_EQ(Keys(batches, 1).size(), 4u);
  EXPECT_EQ(Keys(batches, 2), (Strings{"b"}));
  EXPECT_EQ(Keys(batches, 3), (Strings{"b", "c"}));
  EXPECT_EQ(Keys(batches, 4), (Strings{"a"}));
  EXPECT_EQ(Keys(batches, 5), (Strings{std::string("\0", 1)}));
}

// Source: etcd-api 1.6, WatchCreateRequest.
TEST_F(WatchHubTest, RefusesWithEtcdsReasons) {
  for (int i = 0; i < 5; ++i) Put("k");
  store_.Compact(4);
  Open(1, {.key = "b", .end = "b"});
  Open(2, {.key = "b", .end = "a"});
  Open(3, {.key = "b", .start = -1});
  Open(4, {.key = "b", .start = 3});
  Open(5, {.key = "k", .start = 4});
  std::vector<ReceivedBatch> batches = Settle();

  ASSERT_EQ(batches.size(), 7u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(batches[i].kind, uint32_t{KW_WATCH_CANCELED});
    EXPECT_EQ(batches[i].detail, uint32_t{KW_DETAIL_WATCH_EMPTY_RANGE});
    EXPECT_NE(batches[i].code, KW_OK);
  }
  EXPECT_EQ(batches[2].kind, uint32_t{KW_WATCH_CANCELED});
  EXPECT_EQ(batches[2].detail, uint32_t{KW_DETAIL_COMPACTED});
  EXPECT_EQ(batches[2].compact_revision, 0);
  EXPECT_EQ(batches[3].kind, uint32_t{KW_WATCH_CREATED});
  EXPECT_EQ(batches[4].kind, uint32_t{KW_WATCH_CANCELED});
  EXPECT_EQ(batches[4].watch, 4u);
  EXPECT_EQ(batches[4].detail, uint32_t{KW_DETAIL_COMPACTED});
  EXPECT_EQ(batches[4].compact_revision, 4);
  EXPECT_EQ(batches[5].kind, uint32_t{KW_WATCH_CREATED});
  EXPECT_EQ(batches[6].events.size(), 3u);  // The compacted revision itself is readable.
  EXPECT_EQ(hub_.stats().watches, 1u);
}

TEST_F(WatchHubTest, FutureStartSeesNothingBeforeIt) {
  Open(1, {.key = "k", .start = 4});
  Flush();
  Put("k");  // 2
  Progress({1});
  EXPECT_TRUE(Flush().empty());

  Put("k");  // 3: now the next revision is the start.
  Progress({1});
  std::vector<ReceivedBatch> progress = Flush();
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_EQ(progress[0].revision, 3);

  Put("k");  // 4
  std::vector<ReceivedBatch> batches = Flush();
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].events[0].revision, 4);
}

TEST_F(WatchHubTest, FiltersAndPrevious) {
  Put("k", "0");
  Open(1, {.key = "k", .flags = KW_WATCH_PREV_KV});
  Open(2, {.key = "k", .flags = KW_WATCH_NO_PUT | KW_WATCH_PREV_KV});
  Open(3, {.key = "k", .flags = KW_WATCH_NO_DELETE});
  Open(4, {.key = "k", .flags = KW_WATCH_NO_DELETE | KW_WATCH_NO_PUT});
  EXPECT_TRUE(hub_.NeedsPrev());
  Flush();

  Put("k", "1");
  Delete("k");
  std::vector<ReceivedBatch> batches = Flush();

  ASSERT_EQ(batches.size(), 4u);
  EXPECT_EQ(batches[0].watch, 1u);
  EXPECT_EQ(batches[0].events[0].prev, std::string(store_.history[0].change.record.view()));
  EXPECT_EQ(batches[1].watch, 3u);
  EXPECT_FALSE(batches[1].events[0].prev.has_value());
  EXPECT_EQ(batches[2].watch, 1u);
  EXPECT_EQ(batches[3].watch, 2u);
  EXPECT_EQ(batches[3].events[0].kind, uint32_t{KW_EVENT_DELETE});
  EXPECT_EQ(batches[3].events[0].prev, std::string(store_.history[1].change.record.view()));
}

TEST_F(WatchHubTest, WatchesShareOneEventForEachChange) {
  Receiver other;
  for (uint64_t id = 1; id <= 3; ++id) Open(id, {.key = "a", .end = "b"});
  OpenWatch(&hub_, 4, {.key = "a1"}, other);
  Open(5, {.key = "a1", .flags = KW_WATCH_PREV_KV});
  Flush();

  Put("a1");  // No previous record: even prev_kv can share.
  std::vector<ReceivedBatch> batches = Flush();
  ASSERT_EQ(batches.size(), 4u);
  ASSERT_EQ(other.batches.size(), 2u);
  for (const ReceivedBatch& batch : batches) {
    EXPECT_EQ(batch.events[0].identity, other.batches[1].events[0].identity);
  }
  EXPECT_EQ(hub_.stats().events, 5u);
}

TEST_F(WatchHubTest, WithoutCreditItLagsAndCatchesUp) {
  Open(1, {.key = "k", .credit = 1});
  Flush();

  Write({{"k", "1"}, {"x", "1"}});
  Put("k", "2");
  Put("k", "3");
  std::vector<ReceivedBatch> batches = Settle();
  ASSERT_EQ(batches.size(), 1u);  // One revision may overshoot.
  EXPECT_EQ(batches[0].events.size(), 1u);
  EXPECT_EQ(hub_.stats().lagging, 1u);
  Progress({1});
  EXPECT_TRUE(Settle().empty());

  hub_.Credit(1, batches[0].credit_bytes);
  batches = Settle();
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].events.size(), 1u);
  EXPECT_EQ(batches[0].events[0].revision, 3);
  hub_.Credit(1, kPlenty);
  batches = Settle();
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].events[0].revision, 4);
  EXPECT_EQ(hub_.stats().lagging, 0u);
  Progress({1});
  EXPECT_EQ(Flush().size(), 1u);
}

TEST_F(WatchHubTest, NeverSplitsARevision) {
  Open(1, {.key = "a", .end = "z", .credit = 1});
  Flush();

  std::vector<mvcc::Change> changes = store_.Apply({{"b", "1"}, {"c", "1"}, {"d", "1"}}, false);
  for (mvcc::Change& change : store_.Apply({{"b", "2"}, {"c", "2"}}, false)) changes.push_back(change);
  hub_.Publish(changes);
  std::vector<ReceivedBatch> batches = Flush();

  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].events.size(), 3u);
  hub_.Credit(1, batches[0].credit_bytes);
  hub_.Step(1);  // A budget smaller than the revision.
  batches = Flush();
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].events.size(), 2u);
}

TEST_F(WatchHubTest, ReadsHistoryFromTheEngine) {
  for (int i = 0; i < 10; ++i) Put("k" + std::to_string(i % 3), std::to_string(i));
  store_.Forget(8);
  Open(1, {.key = "k0", .start = 3, .flags = KW_WATCH_PREV_KV});
  Open(2, {.key = "k", .end = "l", .start = 5});
  Open(3, {.key = "k1", .start = 9});
  EXPECT_EQ(hub_.stats().lagging, 3u);

  std::optional<HistoryRead> read = hub_.NextHistoryRead();
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->from, 3);
  EXPECT_EQ(read->to, 8);
  EXPECT_FALSE(hub_.NextHistoryRead().has_value());
  int64_t reached = 0;
  std::vector<mvcc::Change> changes = store_.ReadHistory(*read, &reached);
  hub_.OnHistory(std::move(changes), reached);
  std::vector<mvcc::Revision> prev_reads = hub_.NextPrevReads();
  EXPECT_EQ(prev_reads, (std::vector<mvcc::Revision>{{2, 0}}));
  hub_.OnPrevRecords({store_.RecordAt({2, 0})});
  std::vector<ReceivedBatch> batches = Settle();

  EXPECT_EQ(Keys(batches, 1), (Strings{"k0", "k0", "k0"}));
  EXPECT_EQ(Keys(batches, 2), (Strings{"k0", "k1", "k2", "k0", "k1", "k2", "k0"}));
  EXPECT_EQ(Keys(batches, 3), (Strings{"k1"}));
  for (const ReceivedBatch& batch : batches) {
    for (const ReceivedEvent& event : batch.events) EXPECT_EQ(event.prev.has_value(), batch.watch == 1);
  }
  EXPECT_EQ(hub_.stats().lagging, 0u);
  EXPECT_FALSE(hub_.NextHistoryRead().has_value());
}

TEST_F(WatchHubTest, CloseDuringARead) {
  for (int i = 0; i < 10; ++i) Put("k");
  store_.Forget(20);
  Open(1, {.key = "k", .start = 2, .flags = KW_WATCH_PREV_KV});
  std::optional<HistoryRead> read = hub_.NextHistoryRead();
  ASSERT_TRUE(read.has_value());
  hub_.Close(1);
  hub_.Close(1);
  std::vector<ReceivedBatch> batches = Flush();
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[1].kind, uint32_t{KW_WATCH_CANCELED});
  EXPECT_EQ(batches[1].code, KW_OK);

  int64_t reached = 0;
  std::vector<mvcc::Change> changes = store_.ReadHistory(*read, &reached);
  hub_.OnHistory(std::move(changes), reached);

  EXPECT_TRUE(Settle().empty());
  EXPECT_FALSE(hub_.NeedsPrev());
}

TEST_F(WatchHubTest, FailedReadIsAskedForAgain) {
  for (int i = 0; i < 3; ++i) Put("k");
  store_.Forget(20);
  Open(1, {.key = "k", .start = 3, .flags = KW_WATCH_PREV_KV});
  ASSERT_TRUE(hub_.NextHistoryRead().has_value());
  hub_.OnReadFailed();
  std::optional<HistoryRead> read = hub_.NextHistoryRead();
  ASSERT_TRUE(read.has_value());
  int64_t reached = 0;
  std::vector<mvcc::Change> changes = store_.ReadHistory(*read, &reached);
  hub_.OnHistory(std::move(changes), reached);
  ASSERT_FALSE(hub_.NextPrevReads().empty());
  hub_.OnReadFailed();

  EXPECT_EQ(Keys(Settle(), 1).size(), 2u);
}

TEST_F(WatchHubTest, CompactionCancelsWhoStillHasToReadIt) {
  for (int i = 0; i < 10; ++i) Put("k");
  Open(1, {.key = "k", .start = 3, .credit = 0});
  Open(2, {.key = "k", .start = 9, .credit = 0});
  Flush();
  store_.Forget(8);
  store_.Compact(10);
  hub_.OnCompacted(10);
  std::vector<ReceivedBatch> batches = Flush();

  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].watch, 1u);
  EXPECT_EQ(batches[0].kind, uint32_t{KW_WATCH_CANCELED});
  EXPECT_EQ(batches[0].detail, uint32_t{KW_DETAIL_COMPACTED});
  EXPECT_EQ(batches[0].compact_revision, 10);
  hub_.Credit(2, kPlenty);  // Its revisions are in memory.
  EXPECT_EQ(Keys(Settle(), 2).size(), 3u);
}

TEST_F(WatchHubTest, CanceledWhenCompactedRevisionsLeaveMemory) {
  for (int i = 0; i < 10; ++i) Put("k");
  Open(1, {.key = "k", .start = 5, .credit = 0});
  Flush();
  store_.Compact(10);
  hub_.OnCompacted(10);
  EXPECT_TRUE(Flush().empty());

  store_.Forget(20);
  hub_.Credit(1, kPlenty);
  std::vector<ReceivedBatch> batches = Settle();

  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].kind, uint32_t{KW_WATCH_CANCELED});
  EXPECT_EQ(batches[0].compact_revision, 10);
}

// etcd #15220: a progress notice must not overtake an event.
TEST_F(WatchHubTest, ProgressIsBehindEveryEvent) {
  Open(1, {.key = "k"});
  Open(2, {.key = "j", .credit = 0});
  Flush();
  Put("k");
  Progress({1});
  Progress({1, 2, 77}, 99);
  hub_.Progress(receiver_.sink(), std::vector<uint64_t>{1}.data(), 1, nullptr);
  Put("j");
  Progress({1, 2}, 98);  // 2 has an event that it cannot get.
  Progress({77}, 97);    // No such watch.
  std::vector<ReceivedBatch> batches = Flush();

  ASSERT_EQ(batches.size(), 4u);
  EXPECT_EQ(batches[0].kind, uint32_t{KW_WATCH_EVENTS});
  EXPECT_EQ(batches[1].kind, uint32_t{KW_WATCH_GROUP_PROGRESS});
  EXPECT_EQ(batches[1].revision, 2);
  EXPECT_EQ(batches[2].kind, uint32_t{KW_WATCH_GROUP_PROGRESS});
  EXPECT_EQ(batches[2].watch, 99u);
  EXPECT_EQ(batches[3].kind, uint32_t{KW_WATCH_PROGRESS});
  EXPECT_EQ(batches[3].watch, 1u);
}

TEST_F(WatchHubTest, RecentChangeWithoutPreviousIsRead) {
  Put("k", "1");
  Put("k", "2");  // No prev_kv watch yet: the change does not have its previous record.
  Open(1, {.key = "k", .start = 3, .flags = KW_WATCH_PREV_KV});
  Open(2, {.key = "k", .start = 3});
  Flush();

  EXPECT_TRUE(hub_.Step(100));
  EXPECT_FALSE(hub_.Step(100));  // 2 does not wait for the read.
  EXPECT_EQ(Keys(Flush(), 2), (Strings{"k"}));
  Put("k", "3");
  EXPECT_EQ(Keys(Flush(), 2), (Strings{"k"}));
  std::vector<mvcc::Revision> reads = hub_.NextPrevReads();
  EXPECT_EQ(reads, (std::vector<mvcc::Revision>{{2, 0}}));
  hub_.OnPrevRecords({store_.RecordAt({2, 0})});
  std::vector<ReceivedBatch> batches = Settle();
  ASSERT_EQ(Keys(batches, 1).size(), 2u);
  EXPECT_EQ(batches[0].events[0].prev, std::string(store_.history[0].change.record.view()));
}

TEST_F(WatchHubTest, SnapshotLeavesAGapToCatchUp) {
  Open(1, {.key = "k"});
  Open(2, {.key = "k", .start = 100});
  Flush();
  store_.Apply({{"k", "1"}}, false);
  store_.Apply({{"k", "2"}}, false);
  store_.Forget(100);
  hub_.OnRestored(store_.revision);

  EXPECT_EQ(Keys(Settle(), 1).size(), 2u);
  Put("k");
  std::vector<ReceivedBatch> batches = Settle();
  EXPECT_EQ(Keys(batches, 1).size(), 1u);
  EXPECT_EQ(Keys(batches, 2).size(), 0u);
}

TEST_F(WatchHubTest, CancelAllEndsEveryWatch) {
  Open(1, {.key = "k"});
  Open(2, {.key = "a", .end = "b"});
  Flush();

  hub_.CancelAll(Failure(KW_DETAIL_STOPPED));

  std::vector<ReceivedBatch> batches = Flush();
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[0].code, KW_UNAVAILABLE);
  EXPECT_EQ(hub_.stats().watches, 0u);
  EXPECT_EQ(hub_.stats().ranges, 0u);
}

// Deliveries of one turn share their events and are released by other threads in any order.
TEST(WatchDelivery, IsReleasedByOtherThreads) {
  struct Queue {
    kw_watch_sink sink{this, [](void* self, kw_delivery* delivery) {
                         auto* queue = static_cast<Queue*>(self);
                         std::lock_guard lock(queue->mutex);
                         queue->deliveries.push_back(delivery);
                       }};
    std::mutex mutex;
    std::vector<kw_delivery*> deliveries;
    size_t events = 0;
  };
  FakeStore store;
  WatchHub hub(&store, 1);
  Queue queues[2];
  for (uint64_t id = 1; id <= 20; ++id) {
    kw_watch watch = {};
    watch.size = sizeof(watch);
    watch.key = ToSlice("k");
    watch.end = ToSlice("l");
    watch.credit_bytes = 1 << 30;
    watch.sink = &queues[id % 2].sink;
    hub.Open(id, watch);
  }
  std::vector<std::thread> threads;
  for (Queue& queue : queues) {
    threads.emplace_back([&queue] {
      while (queue.events < 10u * 500) {
        std::vector<kw_delivery*> taken;
        {
          std::lock_guard lock(queue.mutex);
          taken.swap(queue.deliveries);
        }
        if (taken.empty()) std::this_thread::yield();
        for (kw_delivery* delivery : taken) {
          for (size_t i = 0; i < delivery->batch_count; ++i) {
            for (size_t j = 0; j < delivery->batches[i].event_count; ++j) {
              ASSERT_FALSE(mvcc::RecordKey(ToView(delivery->batches[i].events[j]->record)).empty());
              ++queue.events;
            }
          }
          delivery->release(delivery);
        }
      }
    });
  }
  for (int i = 0; i < 500; ++i) {
    hub.Publish(store.Apply({{"k" + std::to_string(i % 7), "v"}}, false));
    hub.Flush(1, 1, 1);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(queues[0].events, 5000u);
  EXPECT_EQ(queues[1].events, 5000u);
}

}  // namespace
}  // namespace keyway::watch
