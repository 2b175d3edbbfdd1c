// SPDX-License-Identifier: Apache-2.0
//
// Hostile and broken clients: each is shut out or ignored, and others are served meanwhile.
#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include "api_fixture.h"

namespace keyway::api_etcd::testing {
namespace {

namespace pb = ::etcdserverpb;

constexpr std::string_view kMagic = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string RangeFrame() {
  pb::RangeRequest request;
  request.set_key("a");
  return Frame(request.SerializeAsString());
}

std::string H2Frame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
  std::string out;
  out.push_back(static_cast<char>(payload.size() >> 16));
  out.push_back(static_cast<char>(payload.size() >> 8));
  out.push_back(static_cast<char>(payload.size()));
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(stream >> shift));
  return out + payload;
}

// Sends until the server hangs up; true if it did before `bytes_max`.
bool SendUntilClosed(int fd, const std::string& head, const std::string& repeated, size_t bytes_max) {
  std::string block;
  while (block.size() < 16384) block += repeated;
  if (send(fd, head.data(), head.size(), MSG_NOSIGNAL) < 0) return true;
  for (size_t sent = 0; sent < bytes_max; sent += block.size()) {
    // The answers are read away, so that only the flood itself can stop it.
    char drain[65536];
    while (recv(fd, drain, sizeof drain, MSG_DONTWAIT) > 0) {
    }
    size_t at = 0;
    while (at < block.size()) {
      const ssize_t count = send(fd, block.data() + at, block.size() - at, MSG_NOSIGNAL);
      if (count <= 0) return true;
      at += static_cast<size_t>(count);
    }
  }
  return false;
}

void ExpectServing(Api* api) {
  Client client(api->port());
  EXPECT_EQ(PutKey(&client, "alive", "1"), 0);
}

TEST(Abuse, GarbageIsAnsweredWith400AndClosed) {
  Api api;
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::string garbage(1 + random() % 300, '\0');
    for (char& byte : garbage) byte = static_cast<char>(random());
    garbage += "\r\n\r\n";
    const std::string answer = Http1(api.port(), garbage);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400")) << answer;
  }
  ExpectServing(&api);
}

TEST(Abuse, AnEndlessHttp1HeadIsCutOff) {
  Api api;
  const int fd = Connect(api.port());
  EXPECT_TRUE(SendUntilClosed(fd, "GET / HTTP/1.1\r\n", "X-Filler: aaaaaaaaaaaaaaaa\r\n", 64 << 20));
  close(fd);
  ExpectServing(&api);
}

TEST(Abuse, GarbageAfterThePrefaceEndsTheConnection) {
  Api api;
  std::mt19937 random(8);
  for (int round = 0; round < 50; ++round) {
    std::string garbage(kMagic);
    for (int i = 0; i < 3000; ++i) garbage.push_back(static_cast<char>(random()));
    const int fd = Connect(api.port());
    send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    ReadAll(fd);  // Until it closes.
    close(fd);
  }
  ExpectServing(&api);
}

TEST(Abuse, ATruncatedPrefaceWaitsWithoutHarm) {
  Api api;
  for (size_t bytes = 1; bytes < kMagic.size(); ++bytes) {
    const int fd = Connect(api.port());
    send(fd, kMagic.data(), bytes, MSG_NOSIGNAL);
    close(fd);
  }
  // In two parts it is a preface all the same.
  const int fd = Connect(api.port());
  send(fd, kMagic.data(), 10, MSG_NOSIGNAL);
  ExpectServing(&api);
  const std::string rest = std::string(kMagic.substr(10)) + H2Frame(4, 0, 0, "");
  send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
  const std::string answer = ReadAll(fd, [](const std::string& so_far) { return so_far.size() > 9; });
  ASSERT_GT(answer.size(), 9u);
  EXPECT_EQ(answer[3], 4);  // SETTINGS.
  close(fd);
}

TEST(Abuse, AnUnfinishedPrefaceIsClosedAfterItsDeadline) {
  Api api;
  const int silent = Connect(api.port());
  const int partial = Connect(api.port());
  const int slow_head = Connect(api.port());
  send(partial, kMagic.data(), 10, MSG_NOSIGNAL);
  send(slow_head, "GET /", 5, MSG_NOSIGNAL);
  for (const int fd : {silent, partial, slow_head}) {
    // Ends within the socket's timeout of 20 seconds because the server closes it.
    char byte = 0;
    EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
    close(fd);
  }
}

TEST(Abuse, RapidResetsAreBoundedAndCalmed) {
  Api api;
  api.kernel().Pause();  // Nothing completes.
  Client client(api.port());
  // Between streams that are closed at once the client must not wait for anything.
  for (int round = 0; round < 3000 && !client.is_dead() && !client.has_goaway(); ++round) {
    const int32_t id = client.Open("/etcdserverpb.KV/Range", {}, RangeFrame(), true);
    client.Flush();
    client.Reset(id);
    client.Flush();
  }
  ASSERT_TRUE(client.Until([&] { return client.has_goaway() || client.is_dead(); }));
  if (client.has_goaway()) {
    EXPECT_EQ(client.goaway_code(), static_cast<uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
  }
  EXPECT_EQ(api.kernel().Cell("keyway_client_connections_abusive_total"), 1u);
  api.kernel().Resume();
  ExpectServing(&api);
}

TEST(Abuse, ResetsOfAWorkingClientAreTolerated) {
  Api api;
  Client client(api.port());
  for (int round = 0; round < 1100; ++round) {
    ASSERT_EQ(PutKey(&client, "a", "1"), 0) << round;
    const int32_t id = client.Open("/etcdserverpb.Watch/Watch", {}, "", false);
    client.Flush();
    client.Reset(id);
  }
  EXPECT_FALSE(client.has_goaway());
}

TEST(Abuse, PingAndSettingsFloodsAreBounded) {
  Api api;
  for (const std::string& frame : {H2Frame(6, 0, 0, "12345678"), H2Frame(4, 0, 0, "")}) {
    const int fd = Connect(api.port());
    const std::string head = std::string(kMagic) + H2Frame(4, 0, 0, "");
    EXPECT_TRUE(SendUntilClosed(fd, head, frame, 256 << 20));
    close(fd);
  }
  ExpectServing(&api);
}

TEST(Abuse, AContinuationFloodIsBounded) {
  Api api;
  const int fd = Connect(api.port());
  const std::string head =
      std::string(kMagic) + H2Frame(4, 0, 0, "") + H2Frame(1, 0, 1, "\x82");  // HEADERS without END_HEADERS.
  EXPECT_TRUE(SendUntilClosed(fd, head, H2Frame(9, 0, 1, ""), 64 << 20));
  close(fd);
  ExpectServing(&api);
}

TEST(Abuse, OversizedHeadersAreRefused) {
  Api api;
  Client client(api.port());
  Headers headers;
  for (int i = 0; i < 6; ++i) {
    headers.emplace_back("x-" + std::to_string(i), std::string(14000, 'h'));
  }
  const int32_t id = client.Open("/etcdserverpb.KV/Range", headers, RangeFrame(), true);
  client.Until([&] { return client.reply(id).is_closed || client.is_dead(); });
  EXPECT_NE(client.StatusOf(id), 0);
  ExpectServing(&api);
}

TEST(Abuse, ConnectionsAboveTheLimitAreClosedAtOnce) {
  Api api(ApiOptions{{"max_connections", "2"}});
  Client first(api.port());
  Client second(api.port());
  ASSERT_EQ(PutKey(&first, "a", "1"), 0);
  ASSERT_EQ(PutKey(&second, "a", "1"), 0);
  const int fd = Connect(api.port());
  EXPECT_EQ(ReadAll(fd), "");
  close(fd);
  EXPECT_EQ(api.kernel().Cell("keyway_client_connections_refused_total"), 1u);
  EXPECT_EQ(api.kernel().Cell("keyway_client_connections"), 2u);
}

TEST(Abuse, StreamsAboveTheLimitAreRefused) {
  Api api(ApiOptions{{"max_concurrent_streams", "2"}});
  Client client(api.port());
  ASSERT_EQ(PutKey(&client, "a", "1"), 0);  // The settings have arrived.
  const int32_t first = client.Open("/etcdserverpb.Watch/Watch", {}, "", false);
  const int32_t second = client.Open("/etcdserverpb.Watch/Watch", {}, "", false);
  client.Open("/etcdserverpb.KV/Range", {}, RangeFrame(), true);  // Queued by the client.
  client.Reset(first);
  ASSERT_TRUE(client.Until([&] { return client.reply(first).is_closed; }));
  EXPECT_FALSE(client.reply(second).is_closed);
}

}  // namespace
}  // namespace keyway::api_etcd::testing
