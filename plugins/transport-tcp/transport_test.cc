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

#include "tests/abi/transport_host.h"
#include "wire.h"

extern "C" const kw_entry* kw_plugin_entry_transport_tcp(void);

namespace keyway::transport_test {
const kw_entry* TransportUnderTest() { return kw_plugin_entry_transport_tcp(); }
}  // namespace keyway::transport_test

namespace keyway::transport_tcp {
using namespace transport_test;
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

}  // namespace
}  // namespace keyway::transport_tcp
