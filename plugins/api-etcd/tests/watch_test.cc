// SPDX-License-Identifier: Apache-2.0
//
// The Watch RPC, message by message, as etcd's semantics have them.
#include "api_fixture.h"

namespace keyway::api_etcd::testing {
namespace {

namespace pb = ::etcdserverpb;

TEST(Watch, IdsAreAssignedFromZeroAndMayBeChosen) {
  Api api;
  Client client(api.port());
  WatchClient watch(&client);
  const auto key = [](auto* create) { create->set_key("a"); };
  watch.Create(key);
  watch.Create(key);
  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_watch_id(2);
  });
  watch.Create(key);  // 2 is taken: 3.
  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_watch_id(1);
  });
  // Refusals are answered at once, so they may come before the kernel's answers.
  std::vector<int64_t> ids;
  pb::WatchResponse duplicate;
  for (size_t i = 0; i < 5; ++i) {
    const pb::WatchResponse response = watch.At(i);
    EXPECT_TRUE(response.created());
    if (response.canceled()) {
      duplicate = response;
    } else {
      ids.push_back(response.watch_id());
    }
  }

  EXPECT_EQ(ids, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(duplicate.watch_id(), -1);
  EXPECT_EQ(duplicate.cancel_reason(), "mvcc: duplicate watch ID provided on the WatchStream");
}

TEST(Watch, EventsCarryWhatTheWatchAskedFor) {
  Api api;
  Client client(api.port());
  WatchClient plain(&client);
  plain.Create([](auto* create) { create->set_key("a"); });
  EXPECT_TRUE(plain.At(0).created());
  EXPECT_EQ(plain.At(0).header().revision(), 1);
  WatchClient full(&client);
  full.Create([](auto* create) {
    create->set_key("a");
    create->set_range_end("b");
    create->set_prev_kv(true);
  });
  EXPECT_TRUE(full.At(0).created());
  WatchClient no_put(&client);
  no_put.Create([](auto* create) {
    create->set_key("");
    create->set_range_end(std::string("\0", 1));
    create->add_filters(pb::WatchCreateRequest::NOPUT);
  });
  EXPECT_TRUE(no_put.At(0).created());
  ASSERT_EQ(PutKey(&client, "a", "1"), 0);
  ASSERT_EQ(PutKey(&client, "a", "2"), 0);
  pb::DeleteRangeRequest del;
  del.set_key("a");
  ASSERT_EQ(client.Unary("/etcdserverpb.KV/DeleteRange", del, static_cast<pb::DeleteRangeResponse*>(nullptr)),
            0);

  std::vector<mvccpb::Event> events;
  for (size_t i = 1; events.size() < 3; ++i) {
    const pb::WatchResponse response = full.At(i);
    EXPECT_EQ(response.watch_id(), 0);
    EXPECT_EQ(response.header().revision(), response.events().rbegin()->kv().mod_revision());
    events.insert(events.end(), response.events().begin(), response.events().end());
  }
  EXPECT_FALSE(events[0].has_prev_kv());
  EXPECT_EQ(events[1].prev_kv().value(), "1");
  EXPECT_EQ(events[1].kv().value(), "2");
  EXPECT_EQ(events[2].type(), mvccpb::Event::DELETE);
  EXPECT_EQ(events[2].kv().mod_revision(), 4);
  EXPECT_EQ(events[2].prev_kv().value(), "2");
  EXPECT_FALSE(plain.At(1).events(0).has_prev_kv());
  const pb::WatchResponse deleted = no_put.At(1);
  ASSERT_EQ(deleted.events_size(), 1);
  EXPECT_EQ(deleted.events(0).type(), mvccpb::Event::DELETE);
}

TEST(Watch, RefusalsAreCreatedAndCanceledAtOnce) {
  Api api;
  Client client(api.port());
  WatchClient watch(&client);
  watch.Create([](auto* create) {
    create->set_key("b");
    create->set_range_end("a");
  });
  pb::WatchResponse response = watch.At(0);
  EXPECT_EQ(response.watch_id(), -1);
  EXPECT_TRUE(response.created() && response.canceled());
  EXPECT_EQ(response.cancel_reason(), "mvcc: watcher range is empty");

  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_start_revision(-1);
  });
  response = watch.At(1);
  EXPECT_EQ(response.watch_id(), -1);
  EXPECT_TRUE(response.created() && response.canceled());
  EXPECT_EQ(response.cancel_reason(), "etcdserver: mvcc: required revision has been compacted");

  watch.Create([](auto* create) { create->set_key("forbidden"); });
  response = watch.At(2);
  EXPECT_EQ(response.watch_id(), -1);
  EXPECT_TRUE(response.created() && response.canceled());
  EXPECT_TRUE(response.cancel_reason().starts_with("rpc error: code = PermissionDenied desc = "));
}

TEST(Watch, ACompactedStartIsCreatedFirstAndThenCanceledWithTheRevision) {
  Api api;
  Client client(api.port());
  for (int i = 0; i < 5; ++i) ASSERT_EQ(PutKey(&client, "a", "v"), 0);
  pb::CompactionRequest compact;
  compact.set_revision(4);
  ASSERT_EQ(client.Unary("/etcdserverpb.KV/Compact", compact, static_cast<pb::CompactionResponse*>(nullptr)),
            0);
  WatchClient watch(&client);
  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_start_revision(2);
  });

  const pb::WatchResponse created = watch.At(0);
  EXPECT_TRUE(created.created());
  EXPECT_FALSE(created.canceled());
  const pb::WatchResponse canceled = watch.At(1);
  EXPECT_FALSE(canceled.created());
  EXPECT_TRUE(canceled.canceled());
  EXPECT_EQ(canceled.watch_id(), 0);
  EXPECT_EQ(canceled.compact_revision(), 4);
  EXPECT_EQ(canceled.cancel_reason(), "");
}

TEST(Watch, CancelAnswersOnceAndUnknownIdsAreIgnored) {
  Api api;
  Client client(api.port());
  WatchClient watch(&client);
  watch.Create([](auto* create) { create->set_key("a"); });
  EXPECT_TRUE(watch.At(0).created());
  watch.Cancel(99);
  watch.Cancel(0);
  watch.Cancel(0);
  const pb::WatchResponse canceled = watch.At(1);
  EXPECT_TRUE(canceled.canceled());
  EXPECT_EQ(canceled.watch_id(), 0);
  EXPECT_EQ(canceled.cancel_reason(), "");
  EXPECT_EQ(canceled.compact_revision(), 0);
  // No event after that, and the id may be chosen again.
  ASSERT_EQ(PutKey(&client, "a", "1"), 0);
  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_watch_id(7);
  });
  EXPECT_EQ(watch.At(2).watch_id(), 7);
  ASSERT_TRUE(client.Until([&] { return api.kernel().open_watches() == 1; }));
}

TEST(Watch, ACancelThatOvertakesTheCreationStillComesSecond) {
  Api api;
  Client client(api.port());
  WatchClient watch(&client);
  watch.Create([](auto* create) { create->set_key("a"); });
  watch.Cancel(0);
  EXPECT_TRUE(watch.At(0).created());
  EXPECT_FALSE(watch.At(0).canceled());
  EXPECT_TRUE(watch.At(1).canceled());
}

TEST(Watch, ProgressRequestsAreAnsweredForTheWholeStream) {
  Api api;
  Client client(api.port());
  WatchClient watch(&client);
  watch.Progress();  // Without a watch: no answer.
  watch.Create([](auto* create) { create->set_key("a"); });
  EXPECT_TRUE(watch.At(0).created());
  ASSERT_EQ(PutKey(&client, "other", "1"), 0);
  watch.Progress();
  const pb::WatchResponse progress = watch.At(1);
  EXPECT_EQ(progress.watch_id(), -1);
  EXPECT_EQ(progress.header().revision(), 2);
  EXPECT_EQ(progress.events_size(), 0);
  // A watch of the future is not in sync: no answer until it is.
  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_start_revision(100);
  });
  EXPECT_TRUE(watch.At(2).created());
  watch.Progress();
  ASSERT_EQ(PutKey(&client, "a", "1"), 0);
  EXPECT_EQ(watch.At(3).events_size(), 1);
}

TEST(Watch, ProgressNotifyComesByItselfWhenIdle) {
  Api api(ApiOptions{{"watch_progress_notify_interval", "100"}});
  Client client(api.port());
  WatchClient watch(&client);
  watch.Create([](auto* create) {
    create->set_key("a");
    create->set_progress_notify(true);
  });
  watch.Create([](auto* create) { create->set_key("b"); });
  EXPECT_TRUE(watch.At(1).created());
  for (size_t i = 2; i < 5; ++i) {
    const pb::WatchResponse progress = watch.At(i);
    EXPECT_EQ(progress.watch_id(), 0);
    EXPECT_EQ(progress.events_size(), 0);
    EXPECT_FALSE(progress.created());
  }
}

TEST(Watch, FragmentsSplitBetweenEventsAndOnlyTheLastIsUnmarked) {
  Api api(ApiOptions{{"max_request_bytes", "4096"}});
  Client client(api.port());
  pb::TxnRequest txn;
  for (int i = 0; i < 3; ++i) {
    auto* const put = txn.add_success()->mutable_request_put();
    put->set_key("f" + std::to_string(i));
    put->set_value(std::string(1200, 'f'));
  }
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(client.Unary("/etcdserverpb.KV/Txn", txn, static_cast<pb::TxnResponse*>(nullptr)), 0);
  }
  // From history, so all nine events come as one batch.
  for (const bool is_fragmented : {true, false}) {
    WatchClient watch(&client);
    watch.Create([&](auto* create) {
      create->set_key("f");
      create->set_range_end("g");
      create->set_start_revision(2);
      create->set_fragment(is_fragmented);
    });
    EXPECT_TRUE(watch.At(0).created());
    int events = 0;
    size_t index = 1;
    while (events < 9) {
      const pb::WatchResponse response = watch.At(index++);
      ASSERT_GT(response.events_size(), 0);
      events += response.events_size();
      if (is_fragmented) {
        EXPECT_LE(response.ByteSizeLong(), 4096u);
        EXPECT_EQ(response.fragment(), events < 9);
      } else {
        EXPECT_FALSE(response.fragment());
      }
    }
    EXPECT_EQ(events, 9);
    EXPECT_EQ(index > 2, is_fragmented);
  }
}

TEST(Watch, ManyWatchesOnOneStreamGetEveryEventInOrder) {
  Api api(ApiOptions{{"watch_buffer_bytes", "65536"}});
  Client client(api.port());
  WatchClient watch(&client);
  constexpr size_t kWatches = 50;
  constexpr int kPuts = 40;
  for (size_t i = 0; i < kWatches; ++i) watch.Create([](auto* create) { create->set_key("k"); });
  watch.At(kWatches - 1);
  Client writer(api.port());
  for (int i = 0; i < kPuts; ++i) {
    ASSERT_EQ(PutKey(&writer, "k", std::string(4000, 'x') + std::to_string(i)), 0);
  }
  // More bytes than the credit of a watch: it must have been given back.
  std::map<int64_t, std::vector<int64_t>> revisions;
  const auto is_complete = [&] {
    revisions.clear();
    for (const std::string& message : Unframe(client.reply(watch.stream_id()).body)) {
      pb::WatchResponse response;
      if (!response.ParseFromString(message)) return false;
      for (const auto& event : response.events()) {
        revisions[response.watch_id()].push_back(event.kv().mod_revision());
      }
    }
    if (revisions.size() != kWatches) return false;
    for (const auto& [id, list] : revisions) {
      if (list.size() != kPuts) return false;
    }
    return true;
  };
  size_t body_bytes = 0;
  ASSERT_TRUE(client.Until([&] {
    // Parsing megabytes at each step is slow; look once the bytes could be there.
    const size_t now = client.reply(watch.stream_id()).body.size();
    if (now < kWatches * kPuts * 4000 || now == body_bytes) return false;
    body_bytes = now;
    return is_complete();
  }));

  for (const auto& [id, list] : revisions) {
    for (size_t i = 0; i < list.size(); ++i) EXPECT_EQ(list[i], static_cast<int64_t>(i) + 2);
  }
}

TEST(Watch, ClosingTheStreamClosesItsWatches) {
  Api api;
  Client client(api.port());
  WatchClient watch(&client);
  for (int i = 0; i < 10; ++i) watch.Create([](auto* create) { create->set_key("a"); });
  watch.At(9);
  EXPECT_EQ(api.kernel().open_watches(), 10u);
  client.Reset(watch.stream_id());
  EXPECT_TRUE(client.Until([&] { return api.kernel().open_watches() == 0; }));
}

TEST(Watch, AVanishedConnectionClosesItsWatches) {
  Api api;
  Client other(api.port());
  {
    Client client(api.port());
    WatchClient watch(&client);
    watch.Create([](auto* create) { create->set_key("a"); });
    watch.At(0);
  }
  EXPECT_TRUE(other.Until([&] { return api.kernel().open_watches() == 0; }));
}

}  // namespace
}  // namespace keyway::api_etcd::testing
