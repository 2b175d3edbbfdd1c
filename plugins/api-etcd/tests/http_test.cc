// SPDX-License-Identifier: Apache-2.0
//
// The HTTP/1.1 paths, their parser, and the same paths over HTTP/2.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api_fixture.h"
#include "http1.h"

namespace keyway::api_etcd::testing {
namespace {

std::string Get(int port, const std::string& target, const std::string& method = "GET") {
  return Http1(port, method + " " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
}
std::string BodyOf(const std::string& response) {
  const size_t end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}

TEST(Http, PathsAnswerAsEtcdDoes) {
  Api api;
  EXPECT_EQ(BodyOf(Get(api.port(), "/health")), "{\"health\":\"true\",\"reason\":\"\"}");
  EXPECT_EQ(BodyOf(Get(api.port(), "/livez")), "ok\n");
  EXPECT_EQ(BodyOf(Get(api.port(), "/livez?verbose")), "[+]serializable_read ok\nok\n");
  EXPECT_EQ(BodyOf(Get(api.port(), "/readyz?verbose&exclude=non_learner")),
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n");
  EXPECT_EQ(BodyOf(Get(api.port(), "/readyz/linearizable_read")), "ok\n");
  EXPECT_EQ(BodyOf(Get(api.port(), "/version")),
            "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}");
  EXPECT_EQ(BodyOf(Get(api.port(), "/metrics")), "fake_metric 1\n");
  EXPECT_TRUE(Get(api.port(), "/nope").starts_with("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_TRUE(Get(api.port(), "/livez/nope").starts_with("HTTP/1.1 404"));
  EXPECT_TRUE(Get(api.port(), "/livezz").starts_with("HTTP/1.1 404"));
  EXPECT_TRUE(Get(api.port(), "/health", "POST").starts_with("HTTP/1.1 405"));
  EXPECT_NE(Get(api.port(), "/health", "PUT").find("\r\nAllow: GET\r\n"), std::string::npos);
}

TEST(Http, HealthFailsWithoutALeaderAndReadyzOnALearner) {
  Api api;
  api.kernel().SetLeader(0, 1);
  std::string response = Get(api.port(), "/health");
  EXPECT_TRUE(response.starts_with("HTTP/1.1 503"));
  EXPECT_EQ(BodyOf(response), "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}");
  EXPECT_TRUE(Get(api.port(), "/health?serializable=true").starts_with("HTTP/1.1 200"));
  api.kernel().SetLearner(true);
  response = Get(api.port(), "/readyz");
  EXPECT_TRUE(response.starts_with("HTTP/1.1 503"));
  EXPECT_NE(response.find("[-]non_learner failed"), std::string::npos);
}

TEST(Http, KeepAliveServesPipelinedRequestsInOrder) {
  Api api;
  const int fd = Connect(api.port());
  const std::string requests =
      "GET /livez HTTP/1.1\r\n\r\nGET /version HTTP/1.1\r\n\r\n"
      "HEAD /version HTTP/1.1\r\nConnection: close\r\n\r\n";
  send(fd, requests.data(), requests.size(), 0);
  const std::string all = ReadAll(fd);
  close(fd);

  const size_t live = all.find("ok\n");
  const size_t version = all.find("etcdserver");
  ASSERT_NE(live, std::string::npos);
  ASSERT_NE(version, std::string::npos);
  EXPECT_LT(live, version);
  EXPECT_EQ(all.find("etcdserver", version + 10), std::string::npos);  // HEAD has no body.
  EXPECT_NE(all.find("Connection: close"), std::string::npos);
}

TEST(Http, ARequestInBytesIsARequest) {
  Api api;
  const int fd = Connect(api.port());
  const std::string request = "GET /livez HTTP/1.0\r\nHost: x\r\n\r\n";
  for (const char byte : request) ASSERT_EQ(send(fd, &byte, 1, 0), 1);
  EXPECT_EQ(BodyOf(ReadAll(fd)), "ok\n");
  close(fd);
}

TEST(Http, TheSamePathsOverHttp2) {
  Api api;
  Client client(api.port());
  const int32_t version = client.Open("/version", {}, "", true, "", "GET");
  const int32_t ready = client.Open("/readyz", {}, "", true, "", "GET");
  const int32_t missing = client.Open("/nope", {}, "", true, "", "GET");
  const int32_t post = client.Open("/health", {}, "{}", true, "application/json");
  ASSERT_TRUE(client.Until([&] {
    return client.reply(version).is_closed && client.reply(ready).is_closed &&
           client.reply(missing).is_closed && client.reply(post).is_closed;
  }));

  EXPECT_EQ(client.reply(version).headers[":status"], "200");
  EXPECT_EQ(client.reply(version).headers["content-type"], "application/json");
  EXPECT_EQ(client.reply(ready).body, "ok\n");
  EXPECT_EQ(client.reply(missing).headers[":status"], "404");
  EXPECT_EQ(client.reply(post).headers[":status"], "405");
}

TEST(Http, AConnectionThatVanishesDuringAProbeIsFine) {
  Api api;
  api.kernel().Pause();
  const int fd = Connect(api.port());
  const std::string request = "GET /readyz HTTP/1.1\r\n\r\n";
  send(fd, request.data(), request.size(), 0);
  while (api.kernel().requests_waiting() == 0) usleep(1000);
  close(fd);
  while (api.kernel().Cell("keyway_client_connections") != 0) usleep(1000);
  api.kernel().Resume();
  EXPECT_EQ(BodyOf(Get(api.port(), "/livez")), "ok\n");
}

TEST(Http, UnixSocketsWork) {
  const std::string path = "api_etcd_test." + std::to_string(getpid()) + ".sock";
  Api api(ApiOptions{{"listen", "unix://" + path}});
  kw_error error = {};
  error.size = sizeof error;
  ASSERT_EQ(api.Start(&error), KW_OK) << error.text;
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const std::string request = "GET /livez HTTP/1.0\r\n\r\n";
  send(fd, request.data(), request.size(), 0);
  EXPECT_EQ(BodyOf(ReadAll(fd)), "ok\n");
  close(fd);
  api.Stop();
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST(Http1Parser, AcceptsHeadsAndRefusesWhatIsNotOne) {
  Http1Request request;
  const std::string good = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\nrest";
  EXPECT_EQ(ParseHttp1Head(good, &request), static_cast<ssize_t>(good.size() - 4));
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.target, "/a?b=c");
  EXPECT_TRUE(request.keeps_alive);
  for (size_t cut = 0; cut < good.size() - 4; ++cut) {
    Http1Request partial;
    EXPECT_EQ(ParseHttp1Head(good.substr(0, cut), &partial), 0) << cut;
  }
  for (const char* bad :
       {"GET / HTTP/2.0\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET x HTTP/1.1\r\n\r\n",
        "G T / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\n\n", "GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        "GET / HTTP/1.1\r\n Folded: x\r\n\r\n", "GET / HTTP/1.1\r\nA : x\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "\r\n\r\n"}) {
    Http1Request refused;
    EXPECT_EQ(ParseHttp1Head(bad, &refused), -1) << bad;
  }
}

}  // namespace
}  // namespace keyway::api_etcd::testing
