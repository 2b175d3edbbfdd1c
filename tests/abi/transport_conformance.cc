// SPDX-License-Identifier: Apache-2.0
//
// What keyway.transport/1 promises, tested over the ABI alone: whole instances over loopback. Compiled
// once for each transport, which is linked statically and named by TransportUnderTest().
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "tests/abi/transport_host.h"

namespace keyway::transport_test {

extern "C" const kw_entry* KEYWAY_TRANSPORT_ENTRY(void);  // Defined by the build.

const kw_entry* TransportUnderTest() { return KEYWAY_TRANSPORT_ENTRY(); }

namespace {

TEST(Transport, ThreeMembersDeliverInOrderOnEachLane) {
  auto members = Connected(3);
  constexpr int kCount = 2000;
  for (int i = 0; i < kCount; ++i) {
    for (auto& from : members) {
      for (auto& to : members) {
        if (from == to) continue;
        ASSERT_TRUE(from->Send(to->id(), std::to_string(i), static_cast<uint32_t>(i % 2)));
      }
    }
  }
  for (auto& to : members) {
    ASSERT_TRUE(to->sink().WaitForFrames(2 * kCount));
    std::map<std::pair<uint64_t, uint32_t>, int> next;
    for (const Received& frame : to->sink().TakeFrames()) {
      EXPECT_NE(frame.peer, to->id());
      int& expected = next[{frame.peer, frame.lane}];
      ASSERT_EQ(frame.bytes, std::to_string(2 * expected + static_cast<int>(frame.lane)));
      ++expected;
    }
  }
}

TEST(Transport, FramesOfEverySizeArriveUnchanged) {
  auto members = Connected(2);
  std::mt19937 random(7);
  std::vector<std::string> sent;
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{65535}, size_t{1} << 20, size_t{members[0]->table()->frame_bytes_max}}) {
    std::string frame(size, '\0');
    for (char& c : frame) c = static_cast<char>(random());
    ASSERT_TRUE(members[0]->Send(2, frame));
    sent.push_back(std::move(frame));
  }
  ASSERT_TRUE(members[1]->sink().WaitForFrames(sent.size()));
  const std::vector<Received> got = members[1]->sink().TakeFrames();
  for (size_t i = 0; i < sent.size(); ++i) EXPECT_TRUE(got[i].bytes == sent[i]) << i;
}

TEST(Transport, FrameOverTheMaximumIsDroppedAndCounted) {
  auto members = Connected(2);
  EXPECT_TRUE(members[0]->Send(2, std::string(members[0]->table()->frame_bytes_max + 1, 'x')));
  EXPECT_TRUE(members[0]->Send(2, "next"));
  ASSERT_TRUE(members[1]->sink().WaitForFrames(1));
  EXPECT_EQ(members[1]->sink().TakeFrames()[0].bytes, "next");
  EXPECT_EQ(members[0]->Stats(2).send_failures, 1u);
}

TEST(Transport, FullQueueTakesAPrefixAndGoesOnLater) {
  auto members = Connected(2, {{"send_buffer_bytes", "1048576"}});
  members[1]->sink().Hold();
  const std::string body(100 << 10, 'f');
  const kw_frame frame = {
      2, KW_LANE_BULK, 0, {reinterpret_cast<const uint8_t*>(body.data()), body.size()}, {}};
  const std::vector<kw_frame> batch(64, frame);
  size_t taken_total = 0;
  size_t taken = 0;
  // The sockets' buffers fill first, then the queue.
  for (int i = 0; i < 1000; ++i) {
    taken = members[0]->table()->send(members[0]->plugin(), batch.data(), batch.size());
    taken_total += taken;
    if (taken == 0) break;
  }
  EXPECT_LT(taken, batch.size());
  // Control frames have room of their own.
  EXPECT_TRUE(members[0]->Send(2, "control", KW_LANE_CONTROL));

  members[1]->sink().Release();
  ASSERT_TRUE(members[1]->sink().WaitForFrames(taken_total + 1));
  EXPECT_TRUE(members[0]->Send(2, body));
}

TEST(Transport, UnknownAndUnconnectedPeersDropFrames) {
  Member member(1, LocalUrl(FreePort()));
  ASSERT_EQ(member.SetPeers({{2, {LocalUrl(FreePort())}}}), KW_OK);
  EXPECT_TRUE(member.Send(9, "x"));
  EXPECT_TRUE(member.Send(2, "x"));
  EXPECT_EQ(member.Stats(2).send_failures, 1u);
  kw_transport_stats stats;
  EXPECT_EQ(member.table()->stats(member.plugin(), 9, &stats), KW_NOT_FOUND);
}

TEST(Transport, RestartedPeerIsConnectedAgain) {
  auto members = Connected(2);
  const std::string url = members[1]->url();
  members[1].reset();
  ASSERT_TRUE(members[0]->sink().WaitForState(2, KW_PEER_DOWN));

  members[1] = std::make_unique<Member>(2, url);
  ASSERT_EQ(members[1]->listen_code(), KW_OK) << members[1]->error();
  members[1]->SetPeers({{1, {members[0]->url()}}});

  ASSERT_TRUE(members[0]->sink().WaitForState(2, KW_PEER_UP));
  ASSERT_TRUE(members[1]->sink().WaitForState(1, KW_PEER_UP));
  EXPECT_TRUE(members[0]->Send(2, "to"));
  EXPECT_TRUE(members[1]->Send(1, "back"));
  EXPECT_TRUE(members[1]->sink().WaitForFrames(1));
  EXPECT_TRUE(members[0]->sink().WaitForFrames(1));
}

// Not a test: what the process that is killed below runs. A fork alone would share the transport's
// descriptors with the test.
TEST(Child, DISABLED_IsAMemberUntilItIsKilled) {
  Member member(2, getenv("KEYWAY_CHILD_URL"));
  member.SetPeers({{1, {getenv("KEYWAY_CHILD_PEER")}}});
  pause();
}

TEST(Transport, KilledProcessIsDownAtOnce) {
  const std::string urls[] = {LocalUrl(FreePort()), LocalUrl(FreePort())};
  const std::string own = "KEYWAY_CHILD_URL=" + urls[1];
  const std::string peer = "KEYWAY_CHILD_PEER=" + urls[0];
  const char* arguments[] = {"child", "--gtest_also_run_disabled_tests",
                             "--gtest_filter=Child.DISABLED_IsAMemberUntilItIsKilled", nullptr};
  const char* environment[] = {own.c_str(), peer.c_str(), nullptr};
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execve("/proc/self/exe", const_cast<char**>(arguments), const_cast<char**>(environment));
    _exit(127);
  }
  Member member(1, urls[0]);
  member.SetPeers({{2, {urls[1]}}});
  const bool is_up = member.sink().WaitForState(2, KW_PEER_UP);

  const uint64_t begin = TestHost::Now();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_TRUE(is_up);
  EXPECT_TRUE(member.sink().WaitForState(2, KW_PEER_DOWN));
  EXPECT_LT(TestHost::Now() - begin, 200'000'000u);
}

TEST(Transport, AnotherTokenIsRefusedAndLoggedOnBothSides) {
  Member one(1, LocalUrl(FreePort()), "token");
  Member two(2, LocalUrl(FreePort()), "other");
  one.SetPeers({{2, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("peer_unreachable peer=2"));
  EXPECT_TRUE(one.host().WaitForLog("refused: another cluster token"));
  EXPECT_TRUE(two.host().WaitForLog("connection_rejected"));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
}

TEST(Transport, WrongMemberAtTheAddressIsRefused) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));
  one.SetPeers({{3, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("refused: this is member 2, not 3"));
}

TEST(Transport, UrlsAreTriedInTurn) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));
  one.SetPeers({{2, {LocalUrl(FreePort()), "unix:///nonexistent/keyway.sock", two.url()}}});
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP, 2000));
}

TEST(Transport, TakenAddressIsUnavailableByName) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, one.url());
  EXPECT_EQ(two.listen_code(), KW_UNAVAILABLE);
  EXPECT_NE(std::string(two.error()).find(one.url()), std::string::npos) << two.error();
  EXPECT_NE(std::string(two.error()).find("in use"), std::string::npos) << two.error();
}

TEST(Transport, HttpsWithoutMaterialIsRefusedWithTheReason) {
  Member member(1, "https://127.0.0.1:" + std::to_string(FreePort()));
  EXPECT_EQ(member.listen_code(), KW_UNAVAILABLE);
  EXPECT_NE(std::string(member.error()).find("needs an [auth] plugin"), std::string::npos) << member.error();
}

TEST(Transport, LearnedIdIsUsedByNewConnections) {
  Member one(1, LocalUrl(FreePort()));
  Member two(0, LocalUrl(FreePort()));
  two.SetPeers(0, {{1, {one.url()}}});
  ASSERT_TRUE(two.sink().WaitForState(1, KW_PEER_UP));
  two.Send(1, "who am I");
  ASSERT_TRUE(one.sink().WaitForFrames(1));
  EXPECT_EQ(one.sink().TakeFrames()[0].peer, 0u);

  two.SetPeers(2, {{1, {one.url()}}});
  bool is_renamed = false;
  for (int i = 0; i < 1000 && !is_renamed; ++i) {
    two.Send(1, "now I know");
    if (!one.sink().WaitForFrames(1, 20)) continue;
    for (const Received& frame : one.sink().TakeFrames()) is_renamed |= frame.peer == 2;
  }
  EXPECT_TRUE(is_renamed);
}

TEST(Transport, RemovedPeerIsClosedWithoutADownReport) {
  auto members = Connected(2);
  members[0]->SetPeers({});
  EXPECT_TRUE(members[1]->sink().WaitForState(1, KW_PEER_DOWN));
  EXPECT_EQ(members[0]->sink().StateCount(2, KW_PEER_DOWN), 0);
  EXPECT_TRUE(members[0]->Send(2, "dropped"));
}

TEST(Transport, StopsWithOpenConnectionsAndFramesOnTheirWay) {
  for (int round = 0; round < 10; ++round) {
    auto members = Connected(3);
    for (int i = 0; i < 100; ++i) {
      for (auto& from : members) {
        for (auto& to : members) {
          if (from != to) from->Send(to->id(), std::string(50000, 'x'));
        }
      }
    }
  }
}

}  // namespace
}  // namespace keyway::transport_test
