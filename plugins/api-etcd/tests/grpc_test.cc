// SPDX-License-Identifier: Apache-2.0
//
// gRPC over HTTP/2: calls, statuses, framing, compression, flow control, deadlines, stopping.
#include <unistd.h>

#include <chrono>

#include "api_fixture.h"
#include "errors.h"
#include "etcd/health.pb.h"
#include "gzip.h"
#include "keyway/slice.hpp"

namespace keyway::api_etcd::testing {
namespace {

namespace pb = ::etcdserverpb;

constexpr char kRange[] = "/etcdserverpb.KV/Range";
constexpr char kPut[] = "/etcdserverpb.KV/Put";

std::string RangeOf(const std::string& key, const std::string& end = "") {
  pb::RangeRequest request;
  request.set_key(key);
  request.set_range_end(end);
  return request.SerializeAsString();
}

TEST(Grpc, PutRangeDeleteAndTxnAnswerWithHeaders) {
  Api api;
  Client client(api.port());
  pb::PutResponse put;
  ASSERT_EQ(PutKey(&client, "a", "1", &put), 0);
  EXPECT_EQ(put.header().revision(), 2);
  EXPECT_EQ(put.header().cluster_id(), 7u);
  EXPECT_EQ(put.header().member_id(), 8u);
  EXPECT_EQ(put.header().raft_term(), 2u);

  pb::RangeRequest range;
  range.set_key("a");
  pb::RangeResponse ranged;
  ASSERT_EQ(client.Unary(kRange, range, &ranged), 0);
  ASSERT_EQ(ranged.kvs_size(), 1);
  EXPECT_EQ(ranged.kvs(0).value(), "1");

  pb::TxnRequest txn;
  auto* const compare = txn.add_compare();
  compare->set_key("a");
  compare->set_target(pb::Compare::VERSION);
  compare->set_version(1);
  txn.add_success()->mutable_request_put()->set_key("b");
  txn.add_success()->mutable_request_range()->set_key("a");
  pb::TxnResponse done;
  ASSERT_EQ(client.Unary("/etcdserverpb.KV/Txn", txn, &done), 0);
  EXPECT_TRUE(done.succeeded());
  EXPECT_EQ(done.header().revision(), 3);
  EXPECT_EQ(done.responses(1).response_range().kvs(0).key(), "a");

  pb::DeleteRangeRequest del;
  del.set_key("a");
  del.set_range_end("z");
  del.set_prev_kv(true);
  pb::DeleteRangeResponse deleted;
  ASSERT_EQ(client.Unary("/etcdserverpb.KV/DeleteRange", del, &deleted), 0);
  EXPECT_EQ(deleted.deleted(), 2);
  EXPECT_EQ(deleted.prev_kvs_size(), 2);
  EXPECT_EQ(api.kernel().Cell("grpc_server_handled_total{grpc_type=unary,grpc_service="
                              "etcdserverpb.KV,grpc_method=Put,grpc_code=OK}"),
            1u);
  EXPECT_GT(api.kernel().Cell("etcd_network_client_grpc_received_bytes_total"), 0u);
}

TEST(Grpc, ColdServicesAnswer) {
  Api api;
  Client client(api.port());
  pb::LeaseGrantRequest grant;
  grant.set_id(77);
  grant.set_ttl(30);
  pb::LeaseGrantResponse granted;
  ASSERT_EQ(client.Unary("/etcdserverpb.Lease/LeaseGrant", grant, &granted), 0);
  EXPECT_EQ(granted.id(), 77);
  EXPECT_EQ(granted.ttl(), 30);
  pb::PutRequest put;
  put.set_key("leased");
  put.set_lease(77);
  ASSERT_EQ(client.Unary<pb::PutRequest>(kPut, put, static_cast<pb::PutResponse*>(nullptr)), 0);
  pb::LeaseTimeToLiveRequest ttl;
  ttl.set_id(77);
  ttl.set_keys(true);
  pb::LeaseTimeToLiveResponse lived;
  ASSERT_EQ(client.Unary("/etcdserverpb.Lease/LeaseTimeToLive", ttl, &lived), 0);
  EXPECT_EQ(lived.keys_size(), 1);
  ttl.set_id(1);
  ASSERT_EQ(client.Unary("/etcdserverpb.Lease/LeaseTimeToLive", ttl, &lived), 0);
  EXPECT_EQ(lived.ttl(), -1);
  EXPECT_EQ(lived.id(), 1);
  pb::LeaseLeasesResponse leases;
  ASSERT_EQ(client.Unary("/etcdserverpb.Lease/LeaseLeases", pb::LeaseLeasesRequest(), &leases), 0);
  EXPECT_EQ(leases.leases(0).id(), 77);

  pb::MemberAddRequest add;
  add.add_peerurls("http://x:1");
  pb::MemberAddResponse added;
  ASSERT_EQ(client.Unary("/etcdserverpb.Cluster/MemberAdd", add, &added), 0);
  EXPECT_EQ(added.members_size(), 2);
  EXPECT_EQ(added.member().peerurls(0), "http://x:1");
  pb::MemberRemoveRequest remove;
  remove.set_id(99);
  EXPECT_EQ(client.Unary("/etcdserverpb.Cluster/MemberRemove", remove,
                         static_cast<pb::MemberRemoveResponse*>(nullptr)),
            KW_NOT_FOUND);
  pb::StatusResponse status;
  ASSERT_EQ(client.Unary("/etcdserverpb.Maintenance/Status", pb::StatusRequest(), &status), 0);
  EXPECT_EQ(status.version(), "3.7.1");
  EXPECT_EQ(status.dbsize(), 4096);
  EXPECT_TRUE(status.has_downgradeinfo());
  pb::HashKVResponse hash;
  ASSERT_EQ(client.Unary("/etcdserverpb.Maintenance/HashKV", pb::HashKVRequest(), &hash), 0);
  EXPECT_EQ(hash.hash(), 42u);
  pb::AlarmResponse alarms;
  ASSERT_EQ(client.Unary("/etcdserverpb.Maintenance/Alarm", pb::AlarmRequest(), &alarms), 0);
  EXPECT_EQ(alarms.alarms_size(), 0);
  pb::AuthStatusResponse auth;
  ASSERT_EQ(client.Unary("/etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest(), &auth), 0);
  EXPECT_FALSE(auth.enabled());
  grpc::health::v1::HealthCheckResponse health;
  ASSERT_EQ(client.Unary("/grpc.health.v1.Health/Check", grpc::health::v1::HealthCheckRequest(), &health), 0);
  EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

TEST(Grpc, DetailsBecomeEtcdsStatuses) {
  Api api;
  Client client(api.port());
  for (const uint32_t detail :
       {KW_DETAIL_NO_SPACE, KW_DETAIL_TOO_MANY_REQUESTS, KW_DETAIL_LEADER_CHANGED, KW_DETAIL_CORRUPT}) {
    pb::RangeRequest request;
    request.set_key("error/" + std::to_string(detail));
    const Status expected = FromDetail(detail);

    EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr)), expected.code);
    EXPECT_EQ(client.last_message, expected.text);
  }
  pb::RangeRequest request;
  request.set_key("error/1000");  // No detail: the error's own text, percent-encoded.
  EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr)), KW_ABORTED);
  EXPECT_EQ(client.last_message, "plain text: %C3%A4%25");
  request.set_key("");
  EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr)), KW_INVALID_ARGUMENT);
}

TEST(Grpc, UnknownMethodsAndContentTypesAreRefused) {
  Api api;
  Client client(api.port());
  const int32_t service = client.Open("/a.B/C", {}, Frame(""), true);
  const int32_t method = client.Open("/etcdserverpb.KV/Nope", {}, Frame(""), true);
  const int32_t type = client.Open(kRange, {}, "{}", true, "application/json");
  const int32_t get = client.Open(kRange, {}, "", true, "application/grpc", "GET");
  const int32_t encoding = client.Open(kRange, {{"grpc-encoding", "snappy"}}, Frame(""), true);
  ASSERT_TRUE(client.Until([&] {
    for (const int32_t id : {service, method, type, get, encoding}) {
      if (!client.reply(id).is_closed) return false;
    }
    return true;
  }));

  EXPECT_EQ(client.StatusOf(service), KW_UNIMPLEMENTED);
  EXPECT_EQ(client.reply(service).headers["grpc-message"], "unknown service a.B");
  EXPECT_EQ(client.reply(method).headers["grpc-message"], "unknown method Nope for service etcdserverpb.KV");
  EXPECT_EQ(client.reply(type).headers[":status"], "415");
  EXPECT_EQ(client.reply(type).headers["grpc-message"],
            "invalid gRPC request content-type \"application/json\"");
  EXPECT_EQ(client.reply(get).headers[":status"], "405");
  EXPECT_EQ(client.StatusOf(encoding), KW_UNIMPLEMENTED);
}

TEST(Grpc, MalformedMessagesAreRefusedAsGrpcGoDoes) {
  Api api;
  Client client(api.port());
  const int32_t garbage = client.Open(kRange, {}, Frame("\x0a\xff"), true);
  const int32_t cold = client.Open("/etcdserverpb.Lease/LeaseGrant", {}, Frame("\x0a\xff"), true);
  const int32_t cut = client.Open(kRange, {}, Frame("abcdef").substr(0, 8), true);
  const int32_t none = client.Open(kRange, {}, "", true);
  const int32_t flag = client.Open(kRange, {}, Frame("x", true), true);
  ASSERT_TRUE(client.Until([&] {
    for (const int32_t id : {garbage, cold, cut, none, flag}) {
      if (!client.reply(id).is_closed) return false;
    }
    return true;
  }));

  for (const int32_t id : {garbage, cold, flag}) {
    EXPECT_EQ(client.StatusOf(id), KW_INTERNAL) << id;
  }
  EXPECT_EQ(client.StatusOf(cut), KW_UNKNOWN);  // As grpc-go.
  EXPECT_EQ(client.reply(cut).headers["grpc-message"], "unexpected EOF");
  EXPECT_EQ(client.reply(none).headers["grpc-message"], "EOF");
}

TEST(Grpc, SizeLimitsOfGrpcAndOfEtcd) {
  Api api(ApiOptions{{"max_request_bytes", "65536"}});
  Client client(api.port());
  pb::PutRequest request;
  request.set_key("k");
  request.set_value(std::string(65536, 'v'));
  EXPECT_EQ(client.Unary(kPut, request, static_cast<pb::PutResponse*>(nullptr)), KW_INVALID_ARGUMENT);
  EXPECT_EQ(client.last_message, "etcdserver: request is too large");
  request.set_value(std::string(65000, 'v'));
  EXPECT_EQ(client.Unary(kPut, request, static_cast<pb::PutResponse*>(nullptr)), 0);

  const std::string body = Frame(std::string(65536 + (512 << 10) + 1, 'x'));
  const int32_t id = client.Open(kPut, {}, body, true);
  ASSERT_TRUE(client.Until([&] { return client.reply(id).is_closed; }));
  EXPECT_EQ(client.StatusOf(id), KW_RESOURCE_EXHAUSTED);
  EXPECT_EQ(client.reply(id).headers["grpc-message"],
            "grpc: received message larger than max (589825 vs. 589824)");
}

TEST(Grpc, GzipBothWaysWhenTheRequestIsCompressed) {
  Api api;
  Client client(api.port());
  ASSERT_EQ(PutKey(&client, "z", std::string(50000, 'z')), 0);
  Buffer packed;
  const std::string message = RangeOf("z");
  GzipCompress(Slice(message), &packed);
  const int32_t id = client.Open(kRange, {{"grpc-encoding", "gzip"}, {"grpc-accept-encoding", "gzip"}},
                                 Frame(std::string(View(packed.slice())), true), true);
  ASSERT_TRUE(client.Until([&] { return client.reply(id).is_closed; }));

  EXPECT_EQ(client.StatusOf(id), 0);
  EXPECT_EQ(client.reply(id).headers["grpc-encoding"], "gzip");
  ASSERT_EQ(client.reply(id).body[0], '\1');
  EXPECT_LT(client.reply(id).body.size(), 5000u);
  Buffer unpacked;
  const std::string compressed = Unframe(client.reply(id).body)[0];
  ASSERT_EQ(GzipDecompress(Slice(compressed), 1 << 20, &unpacked), Inflated::kOk);
  pb::RangeResponse response;
  ASSERT_TRUE(response.ParseFromString(std::string(View(unpacked.slice()))));
  EXPECT_EQ(response.kvs(0).value(), std::string(50000, 'z'));
}

TEST(Grpc, AGzipBombIsTooLarge) {
  Api api(ApiOptions{{"max_request_bytes", "65536"}});
  Client client(api.port());
  Buffer packed;
  const std::string zeros(16 << 20, '\0');
  GzipCompress(Slice(zeros), &packed);
  const int32_t id =
      client.Open(kPut, {{"grpc-encoding", "gzip"}}, Frame(std::string(View(packed.slice())), true), true);
  ASSERT_TRUE(client.Until([&] { return client.reply(id).is_closed; }));

  EXPECT_EQ(client.StatusOf(id), KW_RESOURCE_EXHAUSTED);
}

TEST(Grpc, ABigRangeObeysTinyWindowsAndLeavesRoomForOthers) {
  Api api;
  Client loader(api.port());
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(PutKey(&loader, "big/" + std::to_string(1000 + i), std::string(1000, 'b')), 0);
  }
  Client client(api.port(), 100);  // 100 bytes at a time.
  const int32_t big = client.Open(kRange, {}, Frame(RangeOf("big/", "big0")), true);
  ASSERT_TRUE(client.Until([&] { return client.reply(big).body.size() >= 500; }));
  // A small call overtakes the big answer on the same connection.
  pb::RangeRequest small;
  small.set_key("big/1000");
  small.set_keys_only(true);
  small.set_count_only(true);
  pb::RangeResponse counted;
  ASSERT_EQ(client.Unary(kRange, small, &counted), 0);
  EXPECT_FALSE(client.reply(big).is_closed);
  ASSERT_TRUE(client.Until([&] { return client.reply(big).is_closed; }));

  EXPECT_EQ(client.StatusOf(big), 0);
  pb::RangeResponse response;
  ASSERT_TRUE(response.ParseFromString(Unframe(client.reply(big).body)[0]));
  EXPECT_EQ(response.kvs_size(), 200);
  EXPECT_EQ(response.count(), 200);
}

TEST(Grpc, AClientThatOpensNoWindowGetsNothingAndHarmsNobody) {
  Api api;
  Client loader(api.port());
  ASSERT_EQ(PutKey(&loader, "big", std::string(500000, 'b')), 0);
  {
    Client stingy(api.port(), 0, false);
    const int32_t id = stingy.Open(kRange, {}, Frame(RangeOf("big")), true);
    ASSERT_TRUE(stingy.Until([&] { return stingy.reply(id).body.size() == 65535; }));
    EXPECT_EQ(PutKey(&loader, "other", "1"), 0);
    EXPECT_FALSE(stingy.reply(id).is_closed);
  }
  EXPECT_EQ(PutKey(&loader, "other", "2"), 0);
}

TEST(Grpc, DeadlinesEndCallsAndTheLateReplyIsDropped) {
  Api api;
  Client client(api.port());
  api.kernel().Pause();
  pb::RangeRequest request;
  request.set_key("a");
  EXPECT_EQ(
      client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr), {{"grpc-timeout", "50m"}}),
      KW_DEADLINE_EXCEEDED);
  EXPECT_EQ(client.last_message, "context deadline exceeded");
  api.kernel().Resume();
  EXPECT_EQ(
      client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr), {{"grpc-timeout", "10S"}}), 0);
}

TEST(Grpc, ACancelledCallIsCountedAndItsReplyDropped) {
  Api api;
  Client client(api.port());
  api.kernel().Pause();
  const int32_t id = client.Open(kRange, {}, Frame(RangeOf("a")), true);
  ASSERT_TRUE(client.Until([&] { return api.kernel().requests_waiting() == 1; }));
  client.Reset(id);
  const std::string cell =
      "grpc_server_handled_total{grpc_type=unary,grpc_service=etcdserverpb.KV,grpc_method=Range,"
      "grpc_code=Canceled}";
  ASSERT_TRUE(client.Until([&] { return api.kernel().Cell(cell) == 1; }));
  api.kernel().Resume();
  EXPECT_EQ(PutKey(&client, "a", "1"), 0);
}

TEST(Grpc, HasLeaderIsRefusedWithoutOneAndStreamsEndWhenItIsLost) {
  Api api;
  Client client(api.port());
  pb::RangeRequest request;
  request.set_key("a");
  WatchClient watch(&client, {{"hasleader", "true"}});
  watch.Create([](auto* create) { create->set_key("a"); });
  EXPECT_TRUE(watch.At(0).created());
  api.kernel().SetLeader(0, 1);  // Lost long ago.
  EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr), {{"hasleader", "true"}}),
            KW_UNAVAILABLE);
  EXPECT_EQ(client.last_message, "etcdserver: no leader");
  EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr)), 0);
  ASSERT_TRUE(client.Until([&] { return client.reply(watch.stream_id()).is_closed; }));
  EXPECT_EQ(client.StatusOf(watch.stream_id()), KW_UNAVAILABLE);
  EXPECT_EQ(client.reply(watch.stream_id()).headers["grpc-message"], "etcdserver: no leader");
}

TEST(Grpc, ALearnerServesOnlySerializableRangesAndStatus) {
  Api api;
  api.kernel().SetLearner(true);
  Client client(api.port());
  EXPECT_EQ(PutKey(&client, "a", "1"), KW_FAILED_PRECONDITION);
  EXPECT_EQ(client.last_message, "etcdserver: rpc not supported for learner");
  pb::RangeRequest request;
  request.set_key("a");
  EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr)), KW_FAILED_PRECONDITION);
  request.set_serializable(true);
  EXPECT_EQ(client.Unary(kRange, request, static_cast<pb::RangeResponse*>(nullptr)), 0);
  EXPECT_EQ(client.Unary("/etcdserverpb.Maintenance/Status", pb::StatusRequest(),
                         static_cast<pb::StatusResponse*>(nullptr)),
            0);
}

TEST(Grpc, KeepAliveAnswersInOrderWithZeroForUnknownLeases) {
  Api api;
  Client client(api.port());
  pb::LeaseGrantRequest grant;
  grant.set_id(5);
  grant.set_ttl(60);
  ASSERT_EQ(
      client.Unary("/etcdserverpb.Lease/LeaseGrant", grant, static_cast<pb::LeaseGrantResponse*>(nullptr)),
      0);
  const int32_t id = client.Open("/etcdserverpb.Lease/LeaseKeepAlive", {}, "", false);
  for (int i = 0; i < 3000; ++i) {  // Above what may be in flight.
    pb::LeaseKeepAliveRequest request;
    request.set_id(i % 2 == 0 ? 5 : 10 + i);
    client.Send(id, Frame(request.SerializeAsString()), false);
  }
  client.Send(id, "", true);
  ASSERT_TRUE(client.Until([&] { return client.reply(id).is_closed; }));

  EXPECT_EQ(client.StatusOf(id), 0);
  const std::vector<std::string> messages = Unframe(client.reply(id).body);
  ASSERT_EQ(messages.size(), 3000u);
  for (int i = 0; i < 3000; ++i) {
    pb::LeaseKeepAliveResponse response;
    ASSERT_TRUE(response.ParseFromString(messages[static_cast<size_t>(i)]));
    EXPECT_EQ(response.id(), i % 2 == 0 ? 5 : 10 + i);
    EXPECT_EQ(response.ttl(), i % 2 == 0 ? 60 : 0);
  }
}

TEST(Grpc, RangeStreamSendsChunksAndTheHeaderWithTheLast) {
  Api api(ApiOptions{{"max_request_bytes", "65536"}});
  Client client(api.port());
  for (int i = 0; i < 300; ++i) {
    ASSERT_EQ(PutKey(&client, "s/" + std::to_string(1000 + i), std::string(500, 's')), 0);
  }
  pb::RangeRequest request;
  request.set_key("s/");
  request.set_range_end("s0");
  const auto read = [&](const pb::RangeRequest& range) {
    const int32_t id =
        client.Open("/etcdserverpb.KV/RangeStream", {}, Frame(range.SerializeAsString()), true);
    EXPECT_TRUE(client.Until([&] { return client.reply(id).is_closed; }));
    return id;
  };
  const int32_t all = read(request);
  EXPECT_EQ(client.StatusOf(all), 0);
  const std::vector<std::string> messages = Unframe(client.reply(all).body);
  ASSERT_GT(messages.size(), 3u);
  pb::RangeResponse merged;
  for (size_t i = 0; i < messages.size(); ++i) {
    pb::RangeStreamResponse response;
    ASSERT_TRUE(response.ParseFromString(messages[i]));
    EXPECT_EQ(response.range_response().has_header(), i + 1 == messages.size());
    merged.MergeFrom(response.range_response());
  }
  EXPECT_EQ(merged.kvs_size(), 300);
  EXPECT_EQ(merged.count(), 300);
  EXPECT_EQ(merged.header().revision(), 301);
  EXPECT_FALSE(merged.more());

  request.set_limit(25);
  merged.Clear();
  for (const std::string& message : Unframe(client.reply(read(request)).body)) {
    pb::RangeStreamResponse response;
    ASSERT_TRUE(response.ParseFromString(message));
    merged.MergeFrom(response.range_response());
  }
  EXPECT_EQ(merged.kvs_size(), 25);
  EXPECT_EQ(merged.count(), 300);
  EXPECT_TRUE(merged.more());

  request.set_sort_target(pb::RangeRequest::MOD);
  request.set_sort_order(pb::RangeRequest::DESCEND);
  const int32_t sorted = read(request);
  EXPECT_EQ(client.StatusOf(sorted), KW_UNIMPLEMENTED);
  EXPECT_EQ(client.reply(sorted).headers["grpc-message"], "RangeStream does not support custom sort orders");
}

TEST(Grpc, StopEndsStreamsWithUnavailableAndJoins) {
  Api api(ApiOptions{{"io_threads", "2"}, {"shutdown_grace", "5000"}});
  Client client(api.port());
  WatchClient watch(&client);
  watch.Create([](auto* create) { create->set_key("a"); });
  EXPECT_TRUE(watch.At(0).created());
  api.kernel().Pause();
  const int32_t call = client.Open(kRange, {}, Frame(RangeOf("a")), true);
  ASSERT_TRUE(client.Until([&] { return api.kernel().requests_waiting() == 1; }));
  std::thread stopper([&] { api.Stop(); });
  ASSERT_TRUE(client.Until([&] { return client.reply(watch.stream_id()).is_closed; }));
  // The running call is still answered.
  api.kernel().Resume();
  ASSERT_TRUE(client.Until([&] { return client.reply(call).is_closed; }));
  stopper.join();

  EXPECT_EQ(client.StatusOf(watch.stream_id()), KW_UNAVAILABLE);
  EXPECT_EQ(client.StatusOf(call), 0);
  EXPECT_TRUE(client.has_goaway());
  EXPECT_EQ(client.goaway_code(), static_cast<uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_EQ(api.kernel().open_watches(), 0u);
  EXPECT_EQ(Connect(api.port()), -1);
}

TEST(Grpc, StopDoesNotWaitForAClientThatNeverEnds) {
  Api api(ApiOptions{{"shutdown_grace", "50"}});
  Client stingy(api.port(), 0, false);
  ASSERT_EQ(PutKey(&stingy, "big", std::string(500000, 'b')), 0);
  const int32_t id = stingy.Open(kRange, {}, Frame(RangeOf("big")), true);
  ASSERT_TRUE(stingy.Until([&] { return stingy.reply(id).body.size() > 60000; }));
  const auto before = std::chrono::steady_clock::now();
  api.Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(10));
}

TEST(Grpc, BindErrorsNameTheAddress) {
  Api first;
  const std::string url = "http://127.0.0.1:" + std::to_string(first.port());
  Api second(ApiOptions{{"listen", url}});
  kw_error error = {};
  error.size = sizeof error;

  EXPECT_EQ(second.Start(&error), KW_UNAVAILABLE);
  EXPECT_NE(std::string(error.text).find(url), std::string::npos) << error.text;
  for (const char* bad : {"ftp://x:1", "http://127.0.0.1", "http://", "unix://", "nothing"}) {
    Api api(ApiOptions{{"listen", bad}});
    EXPECT_NE(api.Start(&error), KW_OK) << bad;
  }
}

}  // namespace
}  // namespace keyway::api_etcd::testing
