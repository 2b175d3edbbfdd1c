// SPDX-License-Identifier: Apache-2.0
//
// One test a rule of checked_store.h and verdict.h, over a store in memory that breaks it.
#include <gtest/gtest.h>

#include <thread>

#include "kernel/plugin/check/checked_store.h"
#include "kernel/plugin/check/crash.h"
#include "kernel/plugin/check/fakes_test_util.h"

namespace keyway::check {
namespace {

NullLogger logger;
const ::testing::ExitedWithCode kCondemned(kExitBrokenPlugin);

class StoreCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    thread_role = ThreadRole::kControl;
    InstallCrashHandlers();
  }
  CheckedStore& Make(Level level) {
    checked_ = std::make_unique<CheckedStore>(Subject::Make("store-x", level, &logger), &store_.plugin,
                                              store_.Table());
    return *checked_;
  }
  int32_t Put(std::string_view key, std::string_view value) {
    const kw_kv_op op = {KW_KV_PUT, 0, ToSlice(key), ToSlice(value)};
    return checked_->table().write(checked_->plugin(), &op, 1, &error_);
  }
  kw_kv_view* Open() {
    kw_kv_view* view = nullptr;
    EXPECT_EQ(checked_->table().view_open(checked_->plugin(), &view, &error_), KW_OK);
    return view;
  }
  void Close(kw_kv_view* view) { checked_->table().view_close(checked_->plugin(), view); }
  kw_slice Get(kw_kv_view* view, std::string_view key) {
    const kw_slice slice = ToSlice(key);
    kw_slice value{};
    EXPECT_EQ(checked_->table().get(checked_->plugin(), view, 0, &slice, 1, &value, &error_), KW_OK);
    return value;
  }
  // The number of pairs of one cursor_next over [begin, end).
  size_t Scan(std::string_view begin, std::string_view end) {
    kw_kv_view* view = Open();
    kw_kv_cursor* cursor = nullptr;
    EXPECT_EQ(checked_->table().cursor_open(checked_->plugin(), view, 0, ToSlice(begin), ToSlice(end), 0,
                                            &cursor, &error_),
              KW_OK);
    kw_kv_pair pairs[70];
    size_t count = 0;
    EXPECT_EQ(checked_->table().cursor_next(checked_->plugin(), cursor, pairs, 64, &count, &error_), KW_OK);
    checked_->table().cursor_close(checked_->plugin(), cursor);
    Close(view);
    return count;
  }

  MemoryStore store_;
  std::unique_ptr<CheckedStore> checked_;
  kw_error error_{sizeof(kw_error)};
};

TEST_F(StoreCheck, KeepsQuietAboutAGoodStore) {
  for (Level level : {Level::kCheap, Level::kFull}) {
    Make(level);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(Put("key" + std::to_string(i % 20), std::to_string(i)), KW_OK);
    const kw_kv_op range = {KW_KV_DELETE_RANGE, 0, ToSlice("key1"), ToSlice("key2")};
    EXPECT_EQ(checked_->table().write(checked_->plugin(), &range, 1, &error_), KW_OK);
    kw_kv_view* view = Open();
    EXPECT_EQ(ToView(Get(view, "key2")), "42");
    EXPECT_EQ(Get(view, "key1").ptr, nullptr);
    Put("key2", "newer");
    EXPECT_EQ(ToView(Get(view, "key2")), "42");
    Close(view);
    EXPECT_EQ(Scan("a", ""), store_.pairs.size());
    EXPECT_EQ(checked_->table().sync(checked_->plugin(), &error_), KW_OK);
    checked_->CheckStopped();
  }
}

TEST_F(StoreCheck, CountWithinCapacity) {
  Make(Level::kCheap);
  store_.next = [](kw_kv_pair*, size_t* count) { *count = 70; };
  EXPECT_EXIT(Scan("a", ""), kCondemned,
              "plugin store-x broke the contract: kv-store.cursor_next gave 70 pairs for a capacity of 64 "
              "\\(rule count-within-capacity\\)");
}

TEST_F(StoreCheck, PairsInOrder) {
  Make(Level::kCheap);
  Put("a", "1");
  Put("b", "2");
  store_.next = [](kw_kv_pair* pairs, size_t*) { std::swap(pairs[0], pairs[1]); };
  EXPECT_EXIT(Scan("a", ""), kCondemned, "rule pairs-in-order");
}

TEST_F(StoreCheck, PairsWithinTheBounds) {
  Make(Level::kCheap);
  Put("a", "1");
  store_.next = [](kw_kv_pair* pairs, size_t*) { pairs[0].key = ToSlice("z"); };
  EXPECT_EXIT(Scan("a", "b"), kCondemned, "outside of the cursor's bounds \\(rule pairs-in-order");
}

TEST_F(StoreCheck, SoundSlices) {
  Make(Level::kCheap);
  Put("a", "1");
  store_.next = [](kw_kv_pair* pairs, size_t*) { pairs[0].key.len = 1 << 20; };
  EXPECT_EXIT(Scan("a", ""), kCondemned, "rule sound-slices");
  store_.value = [](kw_slice* value) { *value = {nullptr, 7}; };
  EXPECT_EXIT(Get(Open(), "a"), kCondemned, "kv-store.get gave .* \\(rule sound-slices");
}

TEST_F(StoreCheck, CodeOfTheEnum) {
  Make(Level::kCheap);
  store_.sync = [](kw_error*) { return 99; };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned,
              "kv-store.sync answered 99, which is no result code \\(rule code-of-the-enum\\)");
  store_.sync = [](kw_error*) { return KW_PENDING + 0; };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned, "rule code-of-the-enum");
}

TEST_F(StoreCheck, ErrorFilled) {
  Make(Level::kCheap);
  store_.sync = [](kw_error*) { return KW_INTERNAL + 0; };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned, "rule error-filled");
  store_.sync = [](kw_error* error) {
    error->code = KW_INTERNAL;
    std::memset(error->text, 'x', sizeof error->text);
    return KW_INTERNAL + 0;
  };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned,
              "not terminated \\(rule error-filled");
  store_.sync = [](kw_error* error) {
    FailWith(error, KW_RESOURCE_EXHAUSTED, "the disk is full");
    return KW_RESOURCE_EXHAUSTED + 0;
  };
  EXPECT_EQ(checked_->table().sync(checked_->plugin(), &error_), KW_RESOURCE_EXHAUSTED);
}

TEST_F(StoreCheck, NoException) {
  Make(Level::kCheap);
  store_.sync = [](kw_error*) -> int32_t { throw std::runtime_error("oops"); };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned,
              "kv-store.sync threw: oops \\(rule no-exception\\)");
  store_.sync = [](kw_error*) -> int32_t { throw 1; };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned, "rule no-exception");
}

int* volatile nowhere = nullptr;
// UndefinedBehaviorSanitizer would end the process before the signal.
__attribute__((no_sanitize("undefined", "address"))) int32_t Crash(kw_error*) { return *nowhere; }

TEST_F(StoreCheck, NoCrash) {
  Make(Level::kCheap);
  store_.sync = Crash;
  EXPECT_DEATH(checked_->table().sync(checked_->plugin(), &error_),
               "kv-store.sync crashed with SIGSEGV \\(rule no-crash\\)");
}

TEST_F(StoreCheck, CalledOnItsThread) {
  Make(Level::kCheap);
  thread_role = ThreadRole::kCore;
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned,
              "the kernel broke the contract with plugin store-x: kv-store.sync was called on the core "
              "thread \\(rule called-on-its-thread\\)");
  thread_role = ThreadRole::kStore;
  EXPECT_EQ(checked_->table().sync(checked_->plugin(), &error_), KW_OK);
}

TEST_F(StoreCheck, SerialOnItsThread) {
  Make(Level::kCheap);
  store_.sync = [&](kw_error*) {
    store_.sync = nullptr;
    return checked_->table().sync(checked_->plugin(), &error_);
  };
  EXPECT_EXIT(checked_->table().sync(checked_->plugin(), &error_), kCondemned, "rule serial-on-its-thread");
}

TEST_F(StoreCheck, ClosedBeforeStop) {
  Make(Level::kCheap);
  kw_kv_view* view = Open();
  EXPECT_EXIT(checked_->CheckStopped(), kCondemned, "1 views open \\(rule closed-before-stop\\)");
  Close(view);
}

TEST_F(StoreCheck, ReadsSeeWrites) {
  Make(Level::kFull);
  Put("a", "old");
  store_.write = [](const kw_kv_op*, size_t, kw_error*) { return KW_OK + 0; };
  EXPECT_EXIT(Put("a", "new"), kCondemned,
              "kv-store.write shows another value than the one that was written in batch 2 .*"
              "\\(rule reads-see-writes\\)");
  EXPECT_EXIT(Put("b", "new"), kCondemned, "does not show a key that was written");
  store_.write = nullptr;
  Put("b", "1");
  store_.next = [](kw_kv_pair* pairs, size_t* count) { pairs[0] = pairs[--*count]; };
  EXPECT_EXIT(Scan("a", ""), kCondemned, "left out a key .*\\(rule reads-see-writes");
  store_.next = nullptr;
  store_.pairs[{0, "a"}] = "damaged behind the back";
  EXPECT_EXIT(Get(Open(), "a"), kCondemned, "kv-store.get shows another value .*\\(rule reads-see-writes");
}

TEST_F(StoreCheck, ResultsKeep) {
  Make(Level::kFull);
  Put("a", "value");
  kw_kv_view* view = Open();
  const kw_slice value = Get(view, "a");
  const_cast<uint8_t*>(value.ptr)[0] ^= 1;
  EXPECT_EXIT(Close(view), kCondemned, "kv-store.get changed a result of 5 bytes .*\\(rule results-keep\\)");
  const_cast<uint8_t*>(value.ptr)[0] ^= 1;
  Close(view);
}

TEST_F(StoreCheck, ArgumentLifetime) {
  Make(Level::kFull);
  static const uint8_t* kept;
  store_.write = [&](const kw_kv_op* ops, size_t count, kw_error*) {
    kept = ops[0].key.ptr;
    return store_.Apply(ops, count);
  };
  Put("a", "1");
  EXPECT_EXIT(
      {
        volatile uint8_t read = *kept;
        (void)read;
      },
      kCondemned,
      "plugin store-x broke the contract: kv-store.write used an argument after its lifetime .*"
      "\\(rule argument-lifetime\\)");
}

}  // namespace
}  // namespace keyway::check
