// SPDX-License-Identifier: Apache-2.0
//
// What this transport does beyond the interface: greetings, bad messages, names, Unix sockets. A client
// written against gRPC's own interface plays the other member.
#include <grpc/grpc_security.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <random>

#include "io.h"
#include "stream.h"
#include "tests/abi/transport_host.h"
#include "wire.h"

extern "C" const kw_entry* kw_plugin_entry_transport_grpc(void);

namespace keyway::transport_test {
const kw_entry* TransportUnderTest() { return kw_plugin_entry_transport_grpc(); }
}  // namespace keyway::transport_test

namespace keyway::transport_grpc {
using namespace transport_test;
namespace {

// One call to a member, driven by hand.
class RawCall : public Stream::Owner {
 public:
  struct Greeting {
    std::string path = kPaths[KW_LANE_CONTROL];
    std::string version = std::to_string(kVersion);
    std::string token = "token";
    std::string sender = "2";
    std::string target = "1";
    std::string session = "77";
  };

  RawCall(const std::string& url, const Greeting& greeting) {
    grpc_init();
    queue_ = grpc_completion_queue_create_for_next(nullptr);
    grpc_channel_credentials* credentials = grpc_insecure_credentials_create();
    grpc_arg local = {};
    local.type = GRPC_ARG_INTEGER;
    local.key = const_cast<char*>(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL);
    local.value.integer = 1;
    const grpc_channel_args args = {1, &local};
    channel_ = grpc_channel_create(("ipv4:" + url.substr(7)).c_str(), credentials, &args);
    grpc_channel_credentials_release(credentials);
    const grpc_slice path = grpc_slice_from_copied_buffer(greeting.path.data(), greeting.path.size());
    grpc_call* call = grpc_channel_create_call(channel_, nullptr, GRPC_PROPAGATE_DEFAULTS, queue_, path,
                                               nullptr, gpr_inf_future(GPR_CLOCK_REALTIME), nullptr);
    grpc_slice_unref(path);
    stream_ = new Stream(call, 0, this, &count_);
    stream_->Dial({{"kw-version", greeting.version},
                   {"kw-token-bin", greeting.token},
                   {"kw-sender", greeting.sender},
                   {"kw-target", greeting.target},
                   {"kw-session", greeting.session}});
    Run([this] { return is_open_ || is_closed_; });
  }
  ~RawCall() override { Close(); }

  void Close() {
    if (stream_ == nullptr) return;
    std::exchange(stream_, nullptr)->Release();
    Run([this] { return count_ == 0; });
    grpc_channel_destroy(channel_);
    grpc_completion_queue_shutdown(queue_);
    while (grpc_completion_queue_next(queue_, gpr_inf_future(GPR_CLOCK_REALTIME), nullptr).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(queue_);
    grpc_shutdown();
  }
  bool is_welcome() const { return is_open_ && stream_->FindAnswer("kw-member") != nullptr; }
  void Send(const std::string& bytes) {
    is_sent_ = false;
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes.data(), bytes.size());
    stream_->Send(grpc_raw_byte_buffer_create(&slice, 1));
    grpc_slice_unref(slice);
    Run([this] { return is_sent_ || is_closed_; });
  }
  std::string ReadOne() {
    stream_->Read();
    Run([this] { return !message_.empty() || is_closed_; });
    return std::exchange(message_, "");
  }
  // Until the member ends the call: its reason.
  std::string WaitForEnd() {
    Run([this] { return is_closed_; });
    return reason_;
  }

  void OnOpened(Stream* stream) override { is_open_ = stream->FindAnswer("kw-member") != nullptr; }
  void OnMessage(Stream*, std::string_view bytes) override { message_ = bytes; }
  void OnSent(Stream*) override { is_sent_ = true; }
  void OnClosed(Stream*, grpc_status_code, const std::string& text) override {
    is_closed_ = true;
    reason_ = text;
  }

 private:
  void Run(const std::function<bool()>& until) {
    const gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(10, GPR_TIMESPAN));
    while (!until()) {
      const grpc_event event = grpc_completion_queue_next(queue_, deadline, nullptr);
      ASSERT_EQ(event.type, GRPC_OP_COMPLETE) << "no answer within 10 s";
      static_cast<Tag*>(event.tag)->Complete(event.success != 0);
    }
  }
  grpc_completion_queue* queue_;
  grpc_channel* channel_;
  Stream* stream_;
  size_t count_ = 0;
  bool is_open_ = false, is_closed_ = false, is_sent_ = false;
  std::string message_, reason_;
};

TEST(Greeting, AnotherProtocolVersionIsRefusedByName) {
  Member member(1, LocalUrl(FreePort()));
  RawCall call(member.url(), {.version = "7"});
  EXPECT_EQ(call.WaitForEnd(), "protocol version 7; this member speaks version 1");
  EXPECT_TRUE(member.host().WaitForLog("connection_rejected"));
}

TEST(Greeting, FaultsAreRefusedByName) {
  const std::pair<RawCall::Greeting, const char*> cases[] = {
      {{.version = ""}, "no greeting"},
      {{.token = "other"}, "another cluster token: \"other\" does not belong to this cluster"},
      {{.target = "3"}, "this is member 1, not 3"},
      {{.sender = "1"}, "member 1 is this one"},
      {{.path = "/etcdserverpb.KV/Put"}, "this port is for members of a Keyway cluster"},
      {{.path = kPaths[KW_LANE_BULK]}, "no control stream goes with it"}};
  for (const auto& [greeting, reason] : cases) {
    Member member(1, LocalUrl(FreePort()));
    RawCall call(member.url(), greeting);
    EXPECT_EQ(call.WaitForEnd(), reason);
  }
}

TEST(Session, PingsAreAnswered) {
  Member member(1, LocalUrl(FreePort()));
  RawCall call(member.url(), {});
  ASSERT_TRUE(call.is_welcome());
  call.Send(Encode(Kind::kPing, "12345678"));
  EXPECT_EQ(call.ReadOne(), Encode(Kind::kPong, "12345678"));
}

TEST(Session, PeerThatClosesItsOwnConnectionIsDoubtedUntilItAnswers) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));  // It does not dial: its own connection is the raw one.
  one.SetPeers({{2, {two.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  RawCall raw(one.url(), {});
  ASSERT_TRUE(raw.is_welcome());
  raw.Send(Encode(Kind::kPing, "12345678"));
  EXPECT_EQ(raw.ReadOne(), Encode(Kind::kPong, "12345678"));  // It counts as this peer's now.

  raw.Close();

  ASSERT_TRUE(one.sink().WaitForReports(3));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_DOWN), 1);
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 2);
  EXPECT_TRUE(one.Send(2, "still here"));
  EXPECT_TRUE(two.sink().WaitForFrames(1));
  EXPECT_EQ(one.host().CountLog("peer_lost"), 0);
}

TEST(Session, NewOneOfAPeerReplacesItsOldOneSilently) {
  Member one(1, LocalUrl(FreePort()));
  Member two(2, LocalUrl(FreePort()));
  one.SetPeers({{2, {two.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  RawCall old(one.url(), {});
  ASSERT_TRUE(old.is_welcome());

  RawCall next(one.url(), {.session = "78"});
  ASSERT_TRUE(next.is_welcome());

  old.WaitForEnd();
  next.Send(Encode(Kind::kData, "from the new one"));
  ASSERT_TRUE(one.sink().WaitForFrames(1));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_DOWN), 0);
}

TEST(Session, BadMessagesEndItAndHarmNobody) {
  auto members = Connected(2);
  std::mt19937 random(42);
  for (int i = 0; i < 60; ++i) {
    RawCall raw(members[0]->url(), {.sender = "3"});
    ASSERT_TRUE(raw.is_welcome());
    std::string bytes = Encode(Kind::kData, std::string(random() % 100, 'x'));
    bytes[random() % bytes.size()] ^= static_cast<char>(1 + random() % 255);
    raw.Send("" + bytes);
    raw.WaitForEnd();
  }
  EXPECT_TRUE(members[1]->Send(1, "alive"));
  ASSERT_TRUE(members[0]->sink().WaitForFrames(1));
  EXPECT_EQ(members[0]->sink().TakeFrames()[0].bytes, "alive");
  EXPECT_EQ(members[0]->host().CountLog("connection_rejected"), 1);  // One line an interval.
  EXPECT_EQ(members[0]->sink().StateCount(2, KW_PEER_DOWN), 0);
}

TEST(Session, MessageOverTheLimitEndsIt) {
  Member member(1, LocalUrl(FreePort()));
  RawCall raw(member.url(), {});
  raw.Send(std::string(kMessageBytesMax + 1, 'x'));
  raw.WaitForEnd();
  EXPECT_EQ(member.sink().TakeFrames().size(), 0u);
}

TEST(Session, ControlOvertakesBulkThatIsNotRead) {
  auto members = Connected(2, {{"send_buffer_bytes", "1073741824"}});
  const std::string body(1 << 20, 'b');
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(members[0]->Send(2, body));
  ASSERT_TRUE(members[0]->Send(2, "control", KW_LANE_CONTROL));
  size_t bulk_before = 0;
  bool is_there = false;
  while (!is_there && members[1]->sink().WaitForFrames(1)) {
    for (const Received& frame : members[1]->sink().TakeFrames()) {
      is_there |= frame.lane == KW_LANE_CONTROL;
      if (!is_there) ++bulk_before;
    }
  }
  EXPECT_TRUE(is_there);
  EXPECT_LT(bulk_before, 50u);
}

TEST(Names, AreResolvedAndOneWithoutAnAddressHoldsUpNobody) {
  Member one(1, LocalUrl(FreePort()));
  Member three(3, LocalUrl(FreePort()));
  const std::string named = "http://localhost:" + three.url().substr(three.url().rfind(':') + 1);
  one.SetPeers({{2, {"http://keyway-test.invalid:2380"}}, {3, {named}}});
  EXPECT_TRUE(one.sink().WaitForState(3, KW_PEER_UP));
  EXPECT_TRUE(one.host().WaitForLog("peer_unreachable peer=2", 30000));
}

TEST(Names, ResolverIsCAresWhateverTheEnvironmentSays) {
  setenv("GRPC_DNS_RESOLVER", "native", 1);
  Member member(1, LocalUrl(FreePort()));
  EXPECT_STREQ(getenv("GRPC_DNS_RESOLVER"), "ares");
  unsetenv("GRPC_DNS_RESOLVER");
}

TEST(UnixSockets, WorkAndAreTakenOverAfterACrash) {
  const std::string path = ::testing::TempDir() + "kwg-" + std::to_string(getpid()) + ".sock";
  const std::string url = "unix://" + path;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(stale, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(stale);  // The path stays, as after a crash.

  Member one(1, LocalUrl(FreePort()));
  Member two(2, url);
  ASSERT_EQ(two.listen_code(), KW_OK) << two.error();
  one.SetPeers({{2, {url}}});
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  EXPECT_TRUE(one.Send(2, "hello"));
  EXPECT_TRUE(two.sink().WaitForFrames(1));
  Member third(3, url);
  EXPECT_EQ(third.listen_code(), KW_UNAVAILABLE);
}

TEST(Stats, MetricsAndRoundTripAreMeasured) {
  auto members = Connected(2);
  members[0]->Send(2, std::string(1000, 'x'));
  ASSERT_TRUE(members[1]->sink().WaitForFrames(1));
  EXPECT_EQ(members[1]->host().Metric("etcd_network_peer_received_bytes_total{From=1}"), 1012u);
  for (int i = 0;
       i < 500 && (members[0]->Stats(2).round_trip_ns == 0 || members[0]->Stats(2).sent_bytes < 1012); ++i) {
    members[0]->sink().WaitFor([] { return false; }, 10);
  }
  EXPECT_GE(members[0]->host().Metric("etcd_network_peer_sent_bytes_total{To=2}"), 1012u);
  EXPECT_GT(members[0]->Stats(2).round_trip_ns, 0u);
  EXPECT_LT(members[0]->Stats(2).round_trip_ns, 1'000'000'000u);
}

}  // namespace
}  // namespace keyway::transport_grpc
