// SPDX-License-Identifier: Apache-2.0
#include "kernel/member/membership.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace keyway {
namespace {

using Urls = std::vector<std::string>;

Membership Cluster(size_t size) {
  std::vector<InitialMember> initial;
  for (size_t i = 0; i < size; ++i) {
    initial.push_back({"n" + std::to_string(i), {"http://10.0.0." + std::to_string(i + 1) + ":2380"}});
  }
  Membership membership;
  EXPECT_TRUE(membership.Bootstrap(initial, "token").ok());
  return membership;
}

MemberChange Change(ChangeKind kind, uint64_t id, Urls peer_urls = {}) {
  MemberChange change;
  change.kind = kind;
  change.member.id = id;
  change.member.peer_urls = std::move(peer_urls);
  return change;
}

uint64_t FirstId(const Membership& membership) { return membership.members().begin()->first; }

TEST(MemberUrls, TakesWhatEtcdTakes) {
  for (const char* url : {"http://127.0.0.1:2380", "https://node.example:1", "http://[::1]:2380",
                          "unix://a.sock", "unixs:///run/a.sock", "http://:2380"}) {
    Urls urls = {url};
    EXPECT_TRUE(NormalizeUrls(&urls).ok()) << url;
  }
  for (const char* url : {"", "127.0.0.1:2380", "ftp://a:1", "http://a", "http://a:", "http://a:x",
                          "http://a:1/path", "http://a:65536", "http://a:1?q", "http://::1:2380",
                          "http://[]:1", "unix://", "http://a b:1", "http://user@a:1"}) {
    Urls urls = {url};
    EXPECT_EQ(NormalizeUrls(&urls), Failure(KW_DETAIL_MEMBER_BAD_URLS)) << url;
  }
  Urls none;
  EXPECT_FALSE(NormalizeUrls(&none).ok());
  Urls many(kMemberUrlsMax + 1, "http://a:1");
  EXPECT_FALSE(NormalizeUrls(&many).ok());
}

TEST(MemberUrls, AreTrimmedSortedUnique) {
  Urls urls = {" http://b:1 ", "http://a:1", "http://b:1"};

  ASSERT_TRUE(NormalizeUrls(&urls).ok());

  EXPECT_EQ(urls, (Urls{"http://a:1", "http://b:1"}));
}

TEST(MembershipBootstrap, SameIdsInAnyOrder) {
  Membership a, b, c;
  ASSERT_TRUE(a.Bootstrap({{"x", {"http://a:1", "http://b:1"}}, {"y", {"http://c:1"}}}, "t").ok());
  ASSERT_TRUE(b.Bootstrap({{"y", {"http://c:1"}}, {"x", {"http://b:1", "http://a:1"}}}, "t").ok());
  ASSERT_TRUE(c.Bootstrap({{"y", {"http://c:1"}}, {"x", {"http://b:1", "http://a:1"}}}, "u").ok());

  EXPECT_EQ(a.cluster_id(), b.cluster_id());
  EXPECT_EQ(a.members(), b.members());
  EXPECT_NE(a.cluster_id(), 0u);
  EXPECT_NE(a.cluster_id(), c.cluster_id());
  EXPECT_NE(a.FindByName("x")->id, c.FindByName("x")->id);
  EXPECT_EQ(a.FindByPeerUrls({"http://b:1"})->name, "x");
  EXPECT_EQ(a.FindByPeerUrls({"http://d:1"}), nullptr);
}

TEST(MembershipBootstrap, RefusesNonsenseAndKeepsWhatItHad) {
  Membership membership = Cluster(1);
  uint64_t cluster_id = membership.cluster_id();

  EXPECT_EQ(membership.Bootstrap({}, "t"), Failure(KW_DETAIL_MEMBER_BAD_URLS));
  EXPECT_EQ(membership.Bootstrap({{"x", {"a:1"}}}, "t"), Failure(KW_DETAIL_MEMBER_BAD_URLS));
  EXPECT_EQ(membership.Bootstrap({{"x", {"http://a:1"}}, {"x", {"http://b:1"}}}, "t"),
            Failure(KW_DETAIL_MEMBER_EXISTS));
  EXPECT_EQ(membership.Bootstrap({{"x", {"http://a:1"}}, {"y", {"http://a:1"}}}, "t"),
            Failure(KW_DETAIL_PEER_URL_EXISTS));
  EXPECT_EQ(membership.cluster_id(), cluster_id);
}

TEST(Membership, AddPromoteRemove) {
  Membership membership = Cluster(1);
  uint64_t id = membership.NewMemberId({"http://new:1"}, 42);

  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kAddLearner, id, {"http://new:1"})).ok());
  EXPECT_EQ(membership.Configuration().learners, std::vector<uint64_t>{id});
  EXPECT_TRUE(membership.Find(id)->name.empty());
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kPromote, id)).ok());
  EXPECT_EQ(membership.Configuration().voters.size(), 2u);
  EXPECT_TRUE(membership.Configuration().learners.empty());
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kRemove, id)).ok());
  EXPECT_TRUE(membership.IsRemoved(id));
  EXPECT_EQ(membership.Find(id), nullptr);
  EXPECT_NE(membership.NewMemberId({"http://new:1"}, 42), id);
}

TEST(Membership, RefusesWithEtcdsErrors) {
  Membership membership = Cluster(3);
  uint64_t voter = FirstId(membership);
  auto check = [&](MemberChange change) { return membership.Apply(change).detail; };

  EXPECT_EQ(check(Change(ChangeKind::kAdd, 5, {"http://10.0.0.1:2380"})), KW_DETAIL_PEER_URL_EXISTS);
  EXPECT_EQ(check(Change(ChangeKind::kAdd, 5, {})), KW_DETAIL_MEMBER_BAD_URLS);
  EXPECT_EQ(check(Change(ChangeKind::kAdd, voter, {"http://x:1"})), KW_DETAIL_MEMBER_EXISTS);
  EXPECT_EQ(check(Change(ChangeKind::kAdd, 0, {"http://x:1"})), KW_DETAIL_MEMBER_NOT_FOUND);
  EXPECT_EQ(check(Change(ChangeKind::kRemove, 5)), KW_DETAIL_MEMBER_NOT_FOUND);
  EXPECT_EQ(check(Change(ChangeKind::kPromote, 5)), KW_DETAIL_MEMBER_NOT_FOUND);
  EXPECT_EQ(check(Change(ChangeKind::kPromote, voter)), KW_DETAIL_MEMBER_NOT_LEARNER);
  EXPECT_EQ(check(Change(ChangeKind::kUpdateUrls, 5, {"http://x:1"})), KW_DETAIL_MEMBER_NOT_FOUND);
  EXPECT_EQ(check(Change(ChangeKind::kUpdateUrls, voter, {"x"})), KW_DETAIL_MEMBER_BAD_URLS);
  EXPECT_EQ(check(Change(ChangeKind::kPublish, 5)), KW_DETAIL_MEMBER_NOT_FOUND);
  EXPECT_EQ(check(Change(ChangeKind::kAddLearner, 5, {"http://x:1"})), KW_DETAIL_NONE);
  EXPECT_EQ(check(Change(ChangeKind::kAddLearner, 6, {"http://y:1"})), KW_DETAIL_TOO_MANY_LEARNERS);
  EXPECT_EQ(check(Change(ChangeKind::kRemove, 5)), KW_DETAIL_NONE);
  EXPECT_EQ(check(Change(ChangeKind::kAdd, 5, {"http://x:1"})), KW_DETAIL_MEMBER_NOT_FOUND);
}

TEST(Membership, UpdateMayKeepItsOwnUrl) {
  Membership membership = Cluster(2);
  uint64_t id = membership.FindByName("n0")->id;

  Urls urls = {"http://new:1", "http://10.0.0.1:2380"};
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kUpdateUrls, id, urls)).ok());

  EXPECT_EQ(membership.Find(id)->peer_urls, (Urls{"http://10.0.0.1:2380", "http://new:1"}));
}

TEST(Membership, LastVoterStays) {
  Membership membership = Cluster(1);
  uint64_t voter = FirstId(membership);
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kAddLearner, 5, {"http://x:1"})).ok());

  EXPECT_EQ(membership.Apply(Change(ChangeKind::kRemove, voter)),
            Failure(KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS));
  EXPECT_TRUE(membership.Apply(Change(ChangeKind::kRemove, 5)).ok());
}

TEST(Membership, PublishNamesAMember) {
  Membership membership = Cluster(1);
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kAdd, 5, {"http://x:1"})).ok());
  MemberChange publish = Change(ChangeKind::kPublish, 5);
  publish.member.name = "five";
  publish.member.client_urls = {"http://c:2", "http://c:1"};
  publish.member.incarnation = 77;

  ASSERT_TRUE(membership.Apply(publish).ok());

  EXPECT_EQ(membership.Find(5)->name, "five");
  EXPECT_EQ(membership.Find(5)->incarnation, 77u);
  EXPECT_EQ(membership.Find(5)->client_urls, (Urls{"http://c:1", "http://c:2"}));
  EXPECT_EQ(membership.Find(5)->peer_urls, (Urls{"http://x:1"}));
  EXPECT_FALSE(publish.Reconfigures());
}

// Source: etcd, cluster_test.go, TestIsReadyToAddVotingMember and others.
TEST(Membership, StrictReconfigurationWantsAStartedQuorum) {
  Membership one = Cluster(1);
  EXPECT_TRUE(one.CheckStarted(Change(ChangeKind::kAdd, 5, {"http://x:1"})).ok());
  ASSERT_TRUE(one.Apply(Change(ChangeKind::kAdd, 5, {"http://x:1"})).ok());
  // Two voters, one has not started: a third would need two started ones.
  EXPECT_EQ(one.CheckStarted(Change(ChangeKind::kAdd, 6, {"http://y:1"})),
            Failure(KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS));
  EXPECT_TRUE(one.CheckStarted(Change(ChangeKind::kAddLearner, 6, {"http://y:1"})).ok());
  EXPECT_TRUE(one.CheckStarted(Change(ChangeKind::kRemove, 5)).ok());
  EXPECT_FALSE(one.CheckStarted(Change(ChangeKind::kRemove, one.FindByName("n0")->id)).ok());
  Membership three = Cluster(3);
  EXPECT_TRUE(three.CheckStarted(Change(ChangeKind::kAdd, 5, {"http://x:1"})).ok());
  EXPECT_TRUE(three.CheckStarted(Change(ChangeKind::kRemove, FirstId(three))).ok());
}

TEST(MemberCoding, RoundTripsAndRefusesEveryTruncation) {
  MemberChange change = Change(ChangeKind::kPublish, 0xdeadbeefcafe, {"http://a:1", "http://b:1"});
  change.member.name = "name";
  change.member.client_urls = {"http://c:1"};
  change.member.is_learner = true;
  change.member.incarnation = 99;
  std::string bytes = EncodeMemberChange(change);

  MemberChange decoded;
  ASSERT_TRUE(DecodeMemberChange(bytes, &decoded));
  EXPECT_EQ(decoded.kind, change.kind);
  EXPECT_EQ(decoded.member, change.member);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(DecodeMemberChange(std::string_view(bytes).substr(0, size), &decoded)) << size;
  }
  EXPECT_FALSE(DecodeMemberChange(bytes + "x", &decoded));
  bytes[1] = 9;
  EXPECT_FALSE(DecodeMemberChange(bytes, &decoded));
}

TEST(MemberCoding, EngineValuesRestoreTheState) {
  Membership membership = Cluster(3);
  uint64_t removed = FirstId(membership);
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kRemove, removed)).ok());
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kAddLearner, 5, {"http://x:1"})).ok());

  Membership restored;
  for (const auto& [id, member] : membership.members()) {
    ASSERT_TRUE(restored.RestoreMember(EncodeMember(member)));
  }
  std::string cluster = membership.EncodeCluster();
  ASSERT_TRUE(restored.RestoreCluster(cluster));

  EXPECT_EQ(restored.members(), membership.members());
  EXPECT_EQ(restored.cluster_id(), membership.cluster_id());
  EXPECT_TRUE(restored.IsRemoved(removed));
  EXPECT_EQ(restored.EncodeCluster(), cluster);
  for (size_t size = 0; size < cluster.size(); ++size) {
    EXPECT_FALSE(restored.RestoreCluster(std::string_view(cluster).substr(0, size))) << size;
  }
  EXPECT_FALSE(restored.RestoreMember("junk"));
}

TEST(Membership, ReplyListsMembersById) {
  Membership membership = Cluster(3);
  ASSERT_TRUE(membership.Apply(Change(ChangeKind::kAddLearner, 5, {"http://x:1"})).ok());
  ReplyPtr reply(Reply::New());

  membership.FillReply(reply.get());
  uint64_t cluster_id = membership.cluster_id();
  membership.Clear();  // The reply owns what it holds.

  ASSERT_EQ(reply->member_count, 4u);
  EXPECT_EQ(reply->cluster_id, cluster_id);
  EXPECT_EQ(reply->members[0].id, 5u);
  EXPECT_EQ(reply->members[0].is_learner, 1u);
  EXPECT_EQ(reply->members[0].name.len, 0u);
  EXPECT_EQ(ToView(reply->members[0].peer_urls[0]), "http://x:1");
  for (size_t i = 1; i < 4; ++i) EXPECT_LT(reply->members[i - 1].id, reply->members[i].id);
}

}  // namespace
}  // namespace keyway
