// SPDX-License-Identifier: Apache-2.0
//
// One test a rule of checked_transport.h, checked_identity.h and checked_host.h.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>

#include "kernel/base/bytes.h"
#include "kernel/plugin/check/checker.h"
#include "kernel/plugin/check/crash.h"

namespace keyway::check {
namespace {

NullLogger logger;
const ::testing::ExitedWithCode kCondemned(kExitBrokenPlugin);

// ---- transport -----------------------------------------------------------------------------------

const kw_transport_sink* given_sink = nullptr;
std::function<size_t(const kw_frame*, size_t)> sending;
std::function<void()> in_sink;
int frames_received = 0;

class TransportCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    thread_role = ThreadRole::kControl;
    InstallCrashHandlers();
    table_.size = sizeof table_;
    table_.frame_bytes_max = 4 << 20;
    table_.listen = [](kw_plugin*, uint64_t, const char*, const char* const*, size_t,
                       const kw_transport_sink* sink, kw_error*) {
      given_sink = sink;
      return KW_OK + 0;
    };
    table_.set_peers = [](kw_plugin*, uint64_t, const kw_peer*, size_t, kw_error*) { return KW_OK + 0; };
    table_.send = [](kw_plugin*, const kw_frame* frames, size_t count) { return sending(frames, count); };
    table_.stats = [](kw_plugin*, uint64_t, kw_transport_stats*) { return KW_NOT_FOUND + 0; };
    sending = [](const kw_frame*, size_t count) { return count; };
    in_sink = nullptr;
    sink_.size = sizeof sink_;
    sink_.frames = [](void*, const kw_frame*, size_t) {
      ++frames_received;
      if (in_sink) in_sink();
    };
    sink_.peer_state = [](void*, uint64_t, uint32_t, kw_slice) {};
  }
  void Make(Level level) {
    subject_ = Subject::Make("transport-x", level, &logger);
    checked_ = std::make_unique<CheckedTransport>(subject_, &plugin_, table_);
    const char* urls[] = {"http://h:1"};
    ASSERT_EQ(checked_->table().listen(checked_->plugin(), 1, "token", urls, 1, &sink_, &error_), KW_OK);
  }
  size_t Send() {
    const kw_frame frame = {2, KW_LANE_BULK, 0, ToSlice("head"), ToSlice("body")};
    return checked_->table().send(checked_->plugin(), &frame, 1);
  }
  static void Receive(uint32_t lane = 0, std::string_view body = "") {
    const kw_frame frame = {2, lane, 0, ToSlice("head"), body.empty() ? kw_slice{} : ToSlice(body)};
    given_sink->frames(given_sink->self, &frame, 1);
  }

  kw_plugin plugin_{};
  kw_transport table_{};
  kw_transport_sink sink_{};
  kw_error error_{sizeof(kw_error)};
  Subject* subject_ = nullptr;
  std::unique_ptr<CheckedTransport> checked_;
};

TEST_F(TransportCheck, KeepsQuietAboutAGoodTransport) {
  for (Level level : {Level::kCheap, Level::kFull}) {
    Make(level);
    const char* urls[] = {"http://h:1"};
    const kw_peer peer = {2, urls, 1};
    EXPECT_EQ(checked_->table().set_peers(checked_->plugin(), 1, &peer, 1, &error_), KW_OK);
    EXPECT_EQ(Send(), 1u);
    frames_received = 0;
    std::thread other([] { Receive(); });
    other.join();
    Receive();
    EXPECT_EQ(frames_received, 2);
    kw_transport_stats stats;
    EXPECT_EQ(checked_->table().stats(checked_->plugin(), 3, &stats), KW_NOT_FOUND);
  }
}

TEST_F(TransportCheck, TakenWithinGiven) {
  Make(Level::kCheap);
  sending = [](const kw_frame*, size_t count) { return count + 4; };
  EXPECT_EXIT(Send(), kCondemned,
              "plugin transport-x broke the contract: transport.send took 5 frames of 1 "
              "\\(rule taken-within-given\\)");
}

TEST_F(TransportCheck, SerialForOnePeer) {
  Make(Level::kCheap);
  in_sink = [] { Receive(); };  // A second call while the first has not returned.
  EXPECT_EXIT(Receive(), kCondemned, "transport-sink.frames .* for peer 2 \\(rule serial-for-one-peer\\)");
}

TEST_F(TransportCheck, SoundFrames) {
  Make(Level::kCheap);
  EXPECT_EXIT(Receive(5), kCondemned, "in lane 5 \\(rule sound-frames\\)");
  EXPECT_EXIT(Receive(0, "body"), kCondemned, "rule sound-frames");
  EXPECT_EXIT(given_sink->peer_state(given_sink->self, 2, 9, {}), kCondemned,
              "the state 9 \\(rule sound-frames");
}

TEST_F(TransportCheck, NoCallAfterStop) {
  Make(Level::kCheap);
  subject_->SetStopped();
  EXPECT_EXIT(Receive(), kCondemned, "transport-sink.frames .*\\(rule no-call-after-stop\\)");
}

TEST_F(TransportCheck, ArgumentLifetime) {
  Make(Level::kFull);
  static const kw_frame* kept = nullptr;
  sending = [](const kw_frame* frames, size_t count) {
    kept = frames;
    return count;
  };
  Send();
  EXPECT_EXIT(
      {
        volatile uint64_t peer = kept->peer;
        (void)peer;
      },
      kCondemned, "transport.send used an argument .*\\(rule argument-lifetime\\)");
}

// ---- authenticator -------------------------------------------------------------------------------

TEST(AuthenticatorCheck, PrincipalWithinBounds) {
  for (Level level : {Level::kCheap, Level::kFull}) {
    static uint32_t length = 8;
    kw_plugin plugin{};
    kw_authenticator table{};
    table.size = sizeof table;
    table.authenticate = [](kw_plugin*, const kw_evidence*, kw_principal* out, kw_completion* completion) {
      out->len = length;
      if (length % 2 == 0) return KW_OK + 0;
      completion->done(completion, KW_OK, nullptr);
      return KW_PENDING + 0;
    };
    CheckedAuthenticator checked(Subject::Make("auth-x", level, &logger), &plugin, table);
    kw_evidence evidence{sizeof(kw_evidence)};
    kw_principal principal{sizeof(kw_principal)};
    kw_completion completion{};
    completion.done = [](kw_completion*, int32_t, const kw_error*) {};
    const auto ask = [&] {
      return checked.table().authenticate(checked.plugin(), &evidence, &principal, &completion);
    };
    length = 8;
    EXPECT_EQ(ask(), KW_OK);
    length = 9;
    EXPECT_EQ(ask(), KW_PENDING);
    length = 300;
    EXPECT_EXIT(ask(), kCondemned,
                "gave a principal of 300 bytes; 248 are the most "
                "\\(rule principal-within-bounds\\)");
    length = 301;
    EXPECT_EXIT(ask(), kCondemned, "rule principal-within-bounds");
  }
}

TEST(AuthenticatorCheck, SoundMaterial) {
  static kw_tls material;
  kw_plugin plugin{};
  kw_authenticator table{};
  table.tls = [](kw_plugin*, const char*, kw_tls** out, kw_error*) {
    *out = &material;
    return KW_OK + 0;
  };
  CheckedAuthenticator checked(Subject::Make("auth-x", Level::kCheap, &logger), &plugin, table);
  material = {sizeof(kw_tls)};
  material.chain = ToSlice("chain");
  material.release = [](kw_tls*) {};
  kw_tls* tls = nullptr;
  EXPECT_EXIT(checked.table().tls(checked.plugin(), "peer-server", &tls, nullptr), kCondemned,
              "authenticator.tls gave unusable material .*\\(rule sound-material\\)");
}

TEST(ObserverCheck, NoException) {
  kw_plugin plugin{};
  kw_observer table{};
  table.render = [](kw_plugin*, const kw_sample*, size_t, kw_writer*, kw_error*) -> int32_t { throw 1; };
  CheckedObserver checked(Subject::Make("metrics-x", Level::kCheap, &logger), &plugin, table);
  EXPECT_EXIT(checked.table().render(checked.plugin(), nullptr, 0, nullptr, nullptr), kCondemned,
              "observer.render threw .*\\(rule no-exception\\)");
}

// ---- services of the host ------------------------------------------------------------------------

std::vector<kw_request*> in_kernel;
const kw_watch_sink* kernel_sink = nullptr;

class HostCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    thread_role = ThreadRole::kControl;
    InstallCrashHandlers();
    in_kernel.clear();
    kernel_.size = sizeof kernel_;
    kernel_.submit = [](const kw_host*, kw_request* const* requests, size_t count) {
      in_kernel.insert(in_kernel.end(), requests, requests + count);
    };
    kernel_.watch_open = [](const kw_host*, const kw_watch* watch) -> uint64_t {
      kernel_sink = watch->sink;
      return 7;
    };
    request_.req.size = sizeof request_;
    request_.req.kind = KW_REQ_RANGE;
    request_.req.ctx = this;
    request_.req.done = [](kw_request* request, int32_t, const kw_error*, kw_reply* reply) {
      static_cast<HostCheckTest*>(request->ctx)->reply_ = reply;
    };
  }
  void Make(Level level) {
    subject_ = Subject::Make("api-x", level, &logger);
    check_ = std::make_unique<HostCheck>(subject_);
  }
  void Submit() {
    kw_request* const requests[] = {&request_.req};
    check_->Submit(kernel_, nullptr, requests, 1);
  }
  // As the kernel would, with a reply of two records.
  void Answer() {
    static const kw_slice kRecords[] = {ToSlice("first"), ToSlice("second")};
    static kw_op_result result;
    result = {KW_OP_RANGE, 0, 2, kRecords, 2, nullptr, 0};
    inner_ = {};
    inner_.size = sizeof inner_;
    inner_.revision = 42;
    inner_.results = &result;
    inner_.result_count = 1;
    inner_.release = [](kw_reply* reply) { reply->revision = -1; };
    kw_request* request = in_kernel.back();
    in_kernel.pop_back();
    request->done(request, KW_OK, nullptr, &inner_);
  }

  kw_kernel kernel_{};
  kw_range_request request_{};
  kw_reply inner_{};
  kw_reply* reply_ = nullptr;
  Subject* subject_ = nullptr;
  std::unique_ptr<HostCheck> check_;
};

TEST_F(HostCheckTest, KeepsQuietAboutAGoodPlugin) {
  for (Level level : {Level::kCheap, Level::kFull}) {
    Make(level);
    for (int i = 0; i < 3; ++i) {
      Submit();
      Answer();
      EXPECT_EQ(reply_->revision, 42);
      EXPECT_EQ(ToView(reply_->results[0].records[1]), "second");
      reply_->release(reply_);
      EXPECT_EQ(inner_.revision, -1) << "the kernel's own reply is released";
    }
    check_->CheckStopped();
  }
}

TEST_F(HostCheckTest, SoundRequest) {
  Make(Level::kCheap);
  request_.req.kind = 99;
  EXPECT_EXIT(Submit(), kCondemned,
              "plugin api-x broke the contract: kernel.submit was given a request of kind 99 .*"
              "\\(rule sound-request\\)");
}

TEST_F(HostCheckTest, NoCallAfterStop) {
  Make(Level::kCheap);
  subject_->SetStopped();
  EXPECT_EXIT(Submit(), kCondemned, "kernel.submit was called after stop.*\\(rule no-call-after-stop\\)");
}

TEST_F(HostCheckTest, RequestOwnedByKernel) {
  Make(Level::kFull);
  Submit();
  EXPECT_EXIT(Submit(), kCondemned, "rule request-owned-by-kernel");
  EXPECT_EXIT(check_->CheckStopped(), kCondemned, "1 requests that were not done \\(rule done-before-stop");
  Answer();
  EXPECT_EXIT(check_->CheckStopped(), kCondemned, "1 replies .*\\(rule released-before-stop\\)");
  reply_->release(reply_);
}

TEST_F(HostCheckTest, ReplyIsNotReadAfterItsRelease) {
  Make(Level::kFull);
  Submit();
  Answer();
  reply_->release(reply_);
  EXPECT_EXIT(
      {
        volatile int64_t revision = reply_->revision;
        (void)revision;
      },
      kCondemned,
      "plugin api-x broke the contract: reply.release used an argument .*\\(rule argument-lifetime");
  EXPECT_EXIT(reply_->release(reply_), kCondemned, "rule argument-lifetime");
}

TEST_F(HostCheckTest, DoneDoesNotThrow) {
  Make(Level::kFull);
  request_.req.done = [](kw_request*, int32_t, const kw_error*, kw_reply*) { throw 1; };
  Submit();
  EXPECT_EXIT(Answer(), kCondemned, "request.done threw .*\\(rule no-exception\\)");
}

TEST_F(HostCheckTest, DeliveriesAreReleasedOnce) {
  Make(Level::kFull);
  static kw_delivery* given = nullptr;
  const kw_watch_sink sink = {nullptr, [](void*, kw_delivery* delivery) { given = delivery; }};
  kw_watch watch{};
  watch.size = sizeof watch;
  watch.sink = &sink;
  EXPECT_EQ(check_->WatchOpen(kernel_, nullptr, &watch), 7u);
  kw_delivery inner{};
  inner.release = [](kw_delivery*) {};
  kernel_sink->deliver(kernel_sink->self, &inner);
  EXPECT_EXIT(check_->CheckStopped(), kCondemned, "1 deliveries .*\\(rule released-before-stop\\)");
  given->release(given);
  EXPECT_EXIT(given->release(given), kCondemned,
              "delivery.release was called twice \\(rule released-once\\)");
  check_->CheckStopped();
}

TEST_F(HostCheckTest, MaterialIsReleasedOnceAndKept) {
  Make(Level::kFull);
  Subject* authenticator = Subject::Make("auth-x", Level::kFull, &logger);
  std::string key = "key";
  kw_tls inner{sizeof(kw_tls)};
  inner.key = ToSlice(key);
  inner.release = [](kw_tls*) {};
  kw_tls* tls = check_->Track(&inner, authenticator);
  EXPECT_EXIT(check_->CheckStopped(), kCondemned, "1 kw_tls .*\\(rule released-before-stop\\)");
  key[0] = 'X';
  EXPECT_EXIT(tls->release(tls), kCondemned,
              "plugin auth-x broke the contract: authenticator.tls changed .*\\(rule results-keep\\)");
  key[0] = 'k';
  tls->release(tls);
  EXPECT_EXIT(tls->release(tls), kCondemned, "tls.release was called twice \\(rule released-once\\)");
}

TEST_F(HostCheckTest, HistogramOnTheControlThread) {
  Make(Level::kCheap);
  check_->CheckControl("metrics.histogram");
  thread_role = ThreadRole::kOther;
  EXPECT_EXIT(check_->CheckControl("metrics.histogram"), kCondemned,
              "metrics.histogram was called on a thread that is not the control thread "
              "\\(rule called-on-its-thread\\)");
}

TEST(Terminate, NamesTheCallThatItHappenedIn) {
  Subject* subject = Subject::Make("store-x", Level::kCheap, &logger);
  static constexpr Function kFunction{"kv-store.write"};
  EXPECT_EXIT(
      {
        InstallTerminateHandler();
        const std::function<void()> fails = [] { throw std::runtime_error("oops"); };
        Guarded(*subject, kFunction, [&]() noexcept { fails(); });
      },
      kCondemned, "kv-store.write ended in std::terminate: oops \\(rule no-exception\\)");
}

}  // namespace
}  // namespace keyway::check
