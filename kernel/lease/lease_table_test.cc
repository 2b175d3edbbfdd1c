// SPDX-License-Identifier: Apache-2.0
#include "kernel/lease/lease_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>

namespace keyway {
namespace {

TEST(LeaseTable, GrantRefusesWhatEtcdRefuses) {
  LeaseTable table;
  EXPECT_TRUE(table.Grant(7, 10, 0).ok());

  EXPECT_EQ(table.Grant(7, 10, 0), Failure(KW_DETAIL_LEASE_EXISTS));
  EXPECT_EQ(table.Grant(8, kLeaseTtlMaxSeconds + 1, 0), Failure(KW_DETAIL_LEASE_TTL_TOO_LARGE));
  EXPECT_TRUE(table.Grant(9, kLeaseTtlMaxSeconds, 0).ok());
  EXPECT_FALSE(table.Exists(8));
  EXPECT_EQ(table.Ids(), (std::vector<int64_t>{7, 9}));
  EXPECT_EQ(table.GrantedTtl(7), 10);
  EXPECT_EQ(table.GrantedTtl(8), 0);
}

TEST(LeaseTable, KeysAreSortedAndUnique) {
  LeaseTable table;
  ASSERT_TRUE(table.Grant(1, 10, 0).ok());
  for (std::string_view key : {"b", "a", "c", "b", ""}) table.Attach(1, key);
  table.Detach(1, "c");
  table.Detach(1, "nothing");
  table.Attach(99, "lost");  // Unknown lease.

  EXPECT_EQ(table.Keys(1), (std::vector<std::string_view>{"", "a", "b"}));
  EXPECT_EQ(table.KeyCount(1), 3u);
  std::vector<SharedBytes> revoked = table.Revoke(1);
  ASSERT_EQ(revoked.size(), 3u);
  EXPECT_EQ(revoked[0].view(), "");
  EXPECT_EQ(revoked[2].view(), "b");
  EXPECT_FALSE(table.Exists(1));
  EXPECT_TRUE(table.Revoke(1).empty());
  EXPECT_TRUE(table.Keys(1).empty());
}

TEST(LeaseTable, OnlyThePrimaryExpires) {
  LeaseTable table;
  table.Restore(1, 5);
  table.Restore(2, 60);
  EXPECT_TRUE(table.Expired(1'000'000, 10).empty());
  EXPECT_EQ(table.Renew(1, 0), 0);
  EXPECT_EQ(table.Remaining(1, 0), 5);

  table.Promote(100'000, 0);

  EXPECT_EQ(table.NextExpiryMs(), 105'000);
  EXPECT_TRUE(table.Expired(104'999, 10).empty());
  EXPECT_EQ(table.Remaining(1, 104'001), 0);  // 0.999 s, rounded down.
  EXPECT_EQ(table.Remaining(1, 104'000), 1);
  EXPECT_EQ(table.Remaining(3, 104'000), -1);
  EXPECT_EQ(table.Expired(105'000, 10), (std::vector<int64_t>{1}));
  table.Demote();
  EXPECT_TRUE(table.Expired(1'000'000, 10).empty());
}

TEST(LeaseTable, ReportsAnExpiredLeaseAgainUntilRevoked) {
  LeaseTable table;
  table.Promote(0, 0);
  ASSERT_TRUE(table.Grant(1, 2, 0).ok());

  EXPECT_EQ(table.Expired(2000, 10), (std::vector<int64_t>{1}));
  EXPECT_TRUE(table.Expired(2000, 10).empty());
  EXPECT_TRUE(table.Expired(2000 + kLeaseReportAgainMs - 1, 10).empty());
  EXPECT_EQ(table.Expired(2000 + kLeaseReportAgainMs, 10), (std::vector<int64_t>{1}));
  EXPECT_EQ(table.Renew(1, 2001), 0);
  EXPECT_EQ(table.Remaining(1, 9000), 0);
  table.Revoke(1);
  EXPECT_TRUE(table.Expired(1'000'000, 10).empty());
}

TEST(LeaseTable, RenewGivesTheFullTtlAgain) {
  LeaseTable table;
  table.Promote(0, 0);
  ASSERT_TRUE(table.Grant(1, 10, 1000).ok());

  EXPECT_EQ(table.Renew(1, 10'999), 10);
  EXPECT_TRUE(table.Expired(20'998, 10).empty());
  EXPECT_EQ(table.Renew(1, 20'999), 0);  // Due, though not reported yet.
  EXPECT_EQ(table.Renew(2, 0), 0);
  EXPECT_EQ(table.Expired(20'999, 10), (std::vector<int64_t>{1}));
}

TEST(LeaseTable, NewPrimaryExtendsEveryLease) {
  LeaseTable table;
  table.Promote(0, 0);
  ASSERT_TRUE(table.Grant(1, 10, 0).ok());
  EXPECT_EQ(table.Expired(10'000, 10).size(), 1u);
  table.Demote();

  table.Promote(50'000, 1500);

  EXPECT_TRUE(table.Expired(61'499, 10).empty());
  EXPECT_EQ(table.Renew(1, 61'499), 10);
}

TEST(LeaseTable, BoundsWhatItReportsAtOnce) {
  LeaseTable table;
  table.Promote(0, 0);
  for (int64_t id = 1; id <= 10; ++id) ASSERT_TRUE(table.Grant(id, 11 - id, 0).ok());

  EXPECT_EQ(table.Expired(60'000, 4), (std::vector<int64_t>{10, 9, 8, 7}));
  EXPECT_EQ(table.Expired(60'000, 100).size(), 6u);
}

TEST(LeaseTable, ClearForgetsAll) {
  LeaseTable table;
  table.Promote(0, 0);
  ASSERT_TRUE(table.Grant(1, 10, 0).ok());

  table.Clear();

  EXPECT_EQ(table.count(), 0u);
  EXPECT_FALSE(table.primary());
  table.Restore(1, 10);
  table.Promote(0, 0);
  EXPECT_EQ(table.Expired(10'000, 10), (std::vector<int64_t>{1}));
}

// Against the obvious model: a lease is reported exactly if its time has come.
TEST(LeaseTable, AgreesWithModel) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    struct ModelLease {
      int64_t ttl_s, expiry_ms, report_ms;
      std::set<std::string> keys;
    };
    std::map<int64_t, ModelLease> model;
    LeaseTable table;
    table.Promote(0, 0);
    int64_t now_ms = 0;
    for (int step = 0; step < 3000; ++step) {
      now_ms += random() % 50;
      int64_t id = 1 + random() % 40;
      auto at = model.find(id);
      switch (random() % 6) {
        case 0: {
          int64_t ttl_s = 1 + random() % 5;
          EXPECT_EQ(table.Grant(id, ttl_s, now_ms).ok(), at == model.end());
          int64_t expiry_ms = now_ms + ttl_s * 1000;
          if (at == model.end()) model[id] = {ttl_s, expiry_ms, expiry_ms, {}};
          break;
        }
        case 1: {
          bool alive = at != model.end() && now_ms < at->second.expiry_ms;
          EXPECT_EQ(table.Renew(id, now_ms), alive ? at->second.ttl_s : 0);
          if (alive) at->second.expiry_ms = at->second.report_ms = now_ms + at->second.ttl_s * 1000;
          break;
        }
        case 2: {
          std::string key = std::to_string(random() % 20);
          table.Attach(id, key);
          if (at != model.end()) at->second.keys.insert(key);
          break;
        }
        case 3: {
          std::string key = std::to_string(random() % 20);
          table.Detach(id, key);
          if (at != model.end()) at->second.keys.erase(key);
          break;
        }
        case 4: {
          std::set<int64_t> due;
          for (auto& [other, lease] : model) {
            if (lease.report_ms > now_ms) continue;
            due.insert(other);
            lease.report_ms = now_ms + kLeaseReportAgainMs;
          }
          std::vector<int64_t> expired = table.Expired(now_ms, 1000);
          EXPECT_EQ(std::set<int64_t>(expired.begin(), expired.end()), due);
          break;
        }
        case 5: {
          if (at == model.end() || now_ms < at->second.expiry_ms) break;
          std::vector<std::string> keys;
          for (const SharedBytes& key : table.Revoke(id)) keys.emplace_back(key.view());
          EXPECT_EQ(keys, std::vector<std::string>(at->second.keys.begin(), at->second.keys.end()));
          model.erase(at);
          break;
        }
      }
      ASSERT_EQ(table.count(), model.size());
    }
  }
}

}  // namespace
}  // namespace keyway
