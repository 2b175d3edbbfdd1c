// SPDX-License-Identifier: Apache-2.0
//
// Whole instances, driven through the ABI, over loopback.
#include "transport.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "test_host.h"
#include "wire.h"

namespace keyway::transport_tcp {
namespace {

// A raw connection to a member's port.
class Raw {
 public:
  explicit Raw(const std::string& url) {
    Url parsed;
    std::string error;
    Address address;
    EXPECT_TRUE(ParseUrl(url, &parsed, &error) && NumericAddress(parsed, &address));
    fd_ = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address.storage), address.size), 0);
    const timeval timeout = {10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  }
  ~Raw() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  bool Write(const std::string& bytes) {
    return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }
  // All that comes until the other side closes.
  std::string ReadToEnd() {
    std::string all;
    char bytes[4096];
    for (ssize_t got; (got = read(fd_, bytes, sizeof(bytes))) > 0;)
      all.append(bytes, static_cast<size_t>(got));
    return all;
  }
  std::string ReadOne() {
    char bytes[4096];
    const ssize_t got = read(fd_, bytes, sizeof(bytes));
    return std::string(bytes, got > 0 ? static_cast<size_t>(got) : 0);
  }

 private:
  int fd_ = -1;
};

// Members 1..count, each a peer of all others, all connected.
std::vector<std::unique_ptr<Member>> Connected(
    uint64_t count, std::vector<std::pair<std::string, std::string>> options = {}) {
  std::vector<std::unique_ptr<Member>> members;
  for (uint64_t id = 1; id <= count; ++id) {
    members.push_back(std::make_unique<Member>(id, LocalUrl(FreePort()), "token", nullptr, options));
    EXPECT_EQ(members.back()->listen_code(), KW_OK) << members.back()->error();
  }
  std::map<uint64_t, std::vector<std::string>> peers;
  for (const auto& member : members) peers[member->id()] = {member->url()};
  for (const auto& member : members) EXPECT_EQ(member->SetPeers(peers), KW_OK);
  for (const auto& member : members) {
    for (const auto& other : members) {
      if (other == member) continue;
      EXPECT_TRUE(member->sink().WaitForState(other->id(), KW_PEER_UP));
    }
  }
  return members;
}

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
  for (const size_t size : {size_t{0}, size_t{1}, size_t{65535}, size_t{1} << 20, size_t{kFrameBytesMax}}) {
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
  EXPECT_TRUE(members[0]->Send(2, std::string(kFrameBytesMax + 1, 'x')));
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

TEST(Transport, KilledProcessIsDownAtOnce) {
  const std::string urls[] = {LocalUrl(FreePort()), LocalUrl(FreePort())};
  const pid_t child = fork();  // Before this process has threads.
  ASSERT_GE(child, 0);
  if (child == 0) {
    Member member(2, urls[1]);
    member.SetPeers({{1, {urls[0]}}});
    pause();
    _exit(0);
  }
  Member member(1, urls[0]);
  member.SetPeers({{2, {urls[1]}}});
  ASSERT_TRUE(member.sink().WaitForState(2, KW_PEER_UP));

  const uint64_t begin = TestHost::Now();
  kill(child, SIGKILL);
  EXPECT_TRUE(member.sink().WaitForState(2, KW_PEER_DOWN));
  EXPECT_LT(TestHost::Now() - begin, 200'000'000u);
  waitpid(child, nullptr, 0);
}

TEST(Transport, PeerThatClosesItsOwnConnectionIsDoubtedUntilItAnswers) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));  // It does not dial: its own connection is the raw one.
  one.SetPeers({{2, {two.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  Raw raw(one.url());
  ASSERT_TRUE(raw.Write(EncodeHello("token", 2, 1)));
  ASSERT_NE(raw.ReadOne(), "");

  raw.Close();

  ASSERT_TRUE(one.sink().WaitForReports(3));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_DOWN), 1);
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 2);
  EXPECT_TRUE(one.Send(2, "still here"));
  EXPECT_TRUE(two.sink().WaitForFrames(1));
  EXPECT_EQ(one.host().CountLog("peer_lost"), 0);
}

TEST(Transport, NewConnectionOfAPeerReplacesItsOldOneSilently) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));
  one.SetPeers({{2, {two.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  Raw old(one.url());
  ASSERT_TRUE(old.Write(EncodeHello("token", 2, 1)));
  ASSERT_NE(old.ReadOne(), "");

  Raw next(one.url());
  ASSERT_TRUE(next.Write(EncodeHello("token", 2, 1)));
  ASSERT_NE(next.ReadOne(), "");

  EXPECT_EQ(old.ReadToEnd(), "");
  ASSERT_TRUE(next.Write(Encode(Kind::kData, "from the new one")));
  ASSERT_TRUE(one.sink().WaitForFrames(1));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_DOWN), 0);
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

TEST(Transport, AnotherProtocolVersionIsRefusedByName) {
  Member member(1, LocalUrl(FreePort()));
  Raw raw(member.url());
  ASSERT_TRUE(raw.Write(Encode(Kind::kHello, "from the future", 7)));
  const std::string answer = raw.ReadToEnd();
  Message message;
  const char* error = nullptr;
  uint64_t acceptor = 0;
  std::string_view reason;
  ASSERT_EQ(Parse(answer, 0, &message, &error), ParseResult::kMessage);
  ASSERT_TRUE(DecodeAnswer(message.payload, &acceptor, &reason));
  EXPECT_EQ(reason, "protocol version 7; this member speaks version 1");
  EXPECT_EQ(acceptor, 1u);
}

TEST(Transport, WrongMemberAtTheAddressIsRefused) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));
  one.SetPeers({{3, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("refused: this is member 2, not 3"));
}

TEST(Transport, GarbageClosesTheConnectionAndHarmsNobody) {
  auto members = Connected(2);
  const uint32_t seed = 42;
  std::mt19937 random(seed);
  for (int i = 0; i < 300; ++i) {
    Raw raw(members[0]->url());
    std::string bytes;
    if (i % 3 != 0) bytes = EncodeHello("token", 3, 1);
    if (i % 3 == 2) bytes += Encode(Kind::kData, std::string(random() % 100, 'x'));
    // Some bytes of a right message are changed, or noise follows it.
    std::string noise(random() % 200, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    if (i % 2 == 0 && !bytes.empty()) bytes[random() % bytes.size()] ^= static_cast<char>(1 + random() % 255);
    raw.Write(bytes + noise + "GET / HTTP/1.1\r\n\r\n");
    raw.Close();
  }
  Raw http(members[0]->url());
  http.Write("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(http.ReadToEnd(), "");

  EXPECT_TRUE(members[1]->Send(1, "alive"));
  bool is_alive = false;
  while (!is_alive && members[0]->sink().WaitForFrames(1)) {
    for (const Received& frame : members[0]->sink().TakeFrames())
      is_alive |= frame.bytes == "alive" && frame.peer == 2;
  }
  EXPECT_TRUE(is_alive);
  EXPECT_EQ(members[0]->host().CountLog("connection_rejected"), 1);  // One line an interval.
  EXPECT_EQ(members[0]->sink().StateCount(2, KW_PEER_DOWN), 0);
}

TEST(Transport, OversizeFrameOfAPeerClosesItsConnection) {
  Member member(1, LocalUrl(FreePort()));
  Raw raw(member.url());
  ASSERT_TRUE(raw.Write(EncodeHello("token", 2, 1)));
  ASSERT_NE(raw.ReadOne(), "");
  char header[kHeaderBytes];
  WriteHeader({kVersion, Kind::kData, 0, kFrameBytesMax + 1}, header);
  ASSERT_TRUE(raw.Write(std::string(header, kHeaderBytes)));
  EXPECT_EQ(raw.ReadToEnd(), "");
  EXPECT_TRUE(member.host().WaitForLog("message over the size limit"));
}

TEST(Transport, HalfOpenConnectionsAreBounded) {
  constexpr size_t kOver = 10;
  Member member(1, LocalUrl(FreePort()));
  std::vector<std::unique_ptr<Raw>> open;
  for (size_t i = 0; i < kHalfOpenMax + kOver; ++i) open.push_back(std::make_unique<Raw>(member.url()));
  // The oldest ones end in favour of the newer ones, so a member gets in whoever holds connections.
  const uint64_t before = TestHost::Now();
  for (size_t i = 0; i < kOver; ++i) EXPECT_EQ(open[i]->ReadToEnd(), "");
  EXPECT_LT(TestHost::Now() - before, kGreetingTimeoutNs / 2);
  EXPECT_EQ(member.host().Metric("keyway_tls_handshakes_evicted_total{port=peer}"), kOver);
  Raw next(member.url());
  next.Write(EncodeHello("token", 2, 1));
  EXPECT_FALSE(next.ReadOne().empty());
}

TEST(Transport, UnresolvableNameDoesNotHoldUpOtherPeers) {
  // A name server that never answers.
  const int dns = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(dns, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(dns, reinterpret_cast<sockaddr*>(&address), &size);
  TestHost host;
  TestSink sink;
  Options options;
  options.name_servers = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  Transport transport(host.get(), options);
  std::string error;
  ASSERT_EQ(transport.Start(&error), KW_OK) << error;
  const std::string own = LocalUrl(FreePort());
  const char* own_urls[] = {own.c_str()};
  ASSERT_EQ(transport.Listen(1, "token", own_urls, 1, sink.get(), &error), KW_OK) << error;
  Member other(3, LocalUrl(FreePort()));
  const std::string named = "http://localhost:" + other.url().substr(other.url().rfind(':') + 1);
  const char* bad_urls[] = {"http://keyway-test.invalid:2380"};
  const char* good_urls[] = {named.c_str()};
  const kw_peer peers[] = {{2, bad_urls, 1}, {3, good_urls, 1}};

  ASSERT_EQ(transport.SetPeers(1, peers, 2, &error), KW_OK) << error;

  EXPECT_TRUE(sink.WaitForState(3, KW_PEER_UP, 1000));
  EXPECT_TRUE(host.WaitForLog("name \"keyway-test.invalid\"", 15000) ||
              host.WaitForLog("no answer to the name query for \"keyway-test.invalid\""));
  transport.Stop();
  close(dns);
}

TEST(Transport, UrlsAreTriedInTurn) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));
  one.SetPeers({{2, {LocalUrl(FreePort()), "unix:///nonexistent/keyway.sock", two.url()}}});
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP, 2000));
}

TEST(Transport, UnixSocketsWorkAndAreTakenOverAfterACrash) {
  const std::string path = ::testing::TempDir() + "kw-" + std::to_string(getpid()) + ".sock";
  const std::string url = "unix://" + path;
  Url parsed;
  std::string error;
  Address address;
  ASSERT_TRUE(ParseUrl(url, &parsed, &error) && NumericAddress(parsed, &address));
  const int stale = OpenListener(address, &error);
  ASSERT_GE(stale, 0) << error;
  close(stale);  // The path stays, as after a crash.

  Member one(1, LocalUrl(FreePort()));
  Member two(2, url);
  ASSERT_EQ(two.listen_code(), KW_OK) << two.error();
  one.SetPeers({{2, {url}}});
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  EXPECT_TRUE(one.Send(2, "hello"));
  EXPECT_TRUE(two.sink().WaitForFrames(1));
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

TEST(Transport, MetricsAndRoundTripAreMeasured) {
  auto members = Connected(2);
  members[0]->Send(2, std::string(1000, 'x'));
  ASSERT_TRUE(members[1]->sink().WaitForFrames(1));
  EXPECT_GE(members[0]->host().Metric("etcd_network_peer_sent_bytes_total{To=2}"), 1016u);
  EXPECT_EQ(members[1]->host().Metric("etcd_network_peer_received_bytes_total{From=1}"), 1016u);
  for (int i = 0; i < 500 && members[0]->Stats(2).round_trip_ns == 0; ++i) {
    members[0]->sink().WaitFor([] { return false; }, 10);
  }
  EXPECT_GT(members[0]->Stats(2).round_trip_ns, 0u);
  EXPECT_LT(members[0]->Stats(2).round_trip_ns, 1'000'000'000u);
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
}  // namespace keyway::transport_tcp
