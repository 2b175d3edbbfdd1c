// SPDX-License-Identifier: Apache-2.0
//
// The hand-written encoders and decoders against generated code, and the tables beside them.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "decode.h"
#include "encode.h"
#include "errors.h"
#include "etcd/rpc.pb.h"
#include "fake_kernel.h"
#include "gzip.h"
#include "keyway/slice.hpp"
#include "methods.h"
#include "timer_wheel.h"

namespace keyway::api_etcd {
namespace {

using testing::FakeRecord;

std::string Record(const std::string& key, const std::string& value, int64_t revision) {
  FakeRecord record;
  record.key = key;
  record.value = value;
  record.create = record.mod = revision;
  record.version = 1;
  return record.Encode();
}

template <typename Encode>
std::string Flat(size_t bytes, const Encode& encode) {
  std::string out(bytes, '\0');
  FlatSink sink(reinterpret_cast<uint8_t*>(out.data()));
  encode(sink);
  EXPECT_EQ(sink.at(), reinterpret_cast<uint8_t*>(out.data()) + bytes) << "size not exact";
  return out;
}

TEST(Wire, VarintSizesAndBytesAgreeAtEveryLengthBoundary) {
  for (uint32_t bits = 0; bits < 64; ++bits) {
    for (const int64_t delta : {-1, 0, 1}) {
      const uint64_t value = (uint64_t{1} << bits) + static_cast<uint64_t>(delta);
      uint8_t bytes[10];
      const auto count = static_cast<size_t>(PutVarint(bytes, value) - bytes);

      EXPECT_EQ(count, VarintBytes(value)) << value;
    }
  }
  EXPECT_EQ(VarintBytes(~uint64_t{0}), 10u);
}

TEST(Wire, ReaderRefusesEveryTruncationWithinAField) {
  etcdserverpb::PutRequest request;
  request.set_key("some key");
  request.set_value(std::string(300, 'v'));
  request.set_lease(-5);
  const std::string bytes = request.SerializeAsString();
  size_t accepted = 0;
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    etcdserverpb::PutRequest expected;
    kw_op op = {};
    const bool is_ok = DecodePut(Slice(std::string_view(bytes).substr(0, cut)), &op) == Decoded::kOk;

    EXPECT_EQ(is_ok, expected.ParseFromString(bytes.substr(0, cut))) << cut;
    accepted += is_ok ? 1 : 0;
  }
  EXPECT_EQ(accepted, 4u);  // Between fields only.
}

TEST(Wire, DecodesARangeRequestLikeGeneratedCode) {
  etcdserverpb::RangeRequest request;
  request.set_key("a");
  request.set_range_end(std::string("\0", 1));
  request.set_limit(10);
  request.set_revision(1'000'000'000'000);
  request.set_sort_order(etcdserverpb::RangeRequest::DESCEND);
  request.set_sort_target(etcdserverpb::RangeRequest::MOD);
  request.set_serializable(true);
  request.set_keys_only(true);
  request.set_count_only(true);
  request.set_min_mod_revision(1);
  request.set_max_mod_revision(2);
  request.set_min_create_revision(3);
  request.set_max_create_revision(4);
  const std::string bytes = request.SerializeAsString();
  kw_range range = {};
  RangeInfo info;

  ASSERT_EQ(DecodeRange(Slice(bytes), &range, &info), Decoded::kOk);

  EXPECT_EQ(View(range.key), "a");
  EXPECT_EQ(View(range.end), std::string_view("\0", 1));
  EXPECT_EQ(range.limit, 10);
  EXPECT_EQ(range.revision, 1'000'000'000'000);
  EXPECT_EQ(range.sort_order, KW_ORDER_DESCEND);
  EXPECT_EQ(range.sort_target, KW_SORT_MOD);
  EXPECT_EQ(range.flags, KW_RANGE_KEYS_ONLY | KW_RANGE_COUNT_ONLY);
  EXPECT_TRUE(info.is_serializable);
  EXPECT_EQ(range.mod_min, 1);
  EXPECT_EQ(range.mod_max, 2);
  EXPECT_EQ(range.create_min, 3);
  EXPECT_EQ(range.create_max, 4);
}

TEST(Wire, UnknownEnumValuesStayUnknown) {
  const std::string bytes("\x0a\x01k\x28\x80\x02", 6);  // sort_order = 256, which must not become 0.
  kw_range range = {};
  RangeInfo info;

  ASSERT_EQ(DecodeRange(Slice(bytes), &range, &info), Decoded::kOk);

  EXPECT_EQ(range.sort_order, 255);
}

TEST(Wire, DecodesNestedTransactionsAndCompares) {
  etcdserverpb::TxnRequest request;
  auto* compare = request.add_compare();
  compare->set_key("k");
  compare->set_target(etcdserverpb::Compare::VALUE);
  compare->set_result(etcdserverpb::Compare::NOT_EQUAL);
  compare->set_value("v");
  compare->set_range_end("z");
  compare = request.add_compare();
  compare->set_key("m");
  compare->set_target(etcdserverpb::Compare::LEASE);
  compare->set_version(9);  // Of another target: counts as unset.
  request.add_success()->mutable_request_put()->set_key("p");
  auto* const nested = request.add_success()->mutable_request_txn();
  nested->add_failure()->mutable_request_range()->set_key("r");
  request.add_failure()->mutable_request_delete_range()->set_key("d");
  request.add_failure();  // An unset operation.
  const std::string bytes = request.SerializeAsString();
  Arena arena;
  kw_txn txn = {};
  TxnInfo info;

  ASSERT_EQ(DecodeTxn(Slice(bytes), &arena, &txn, &info), Decoded::kOk);

  ASSERT_EQ(txn.cmp_count, 2u);
  EXPECT_EQ(txn.cmps[0].target, static_cast<uint32_t>(KW_CMP_VALUE));
  EXPECT_EQ(txn.cmps[0].relation, static_cast<uint32_t>(KW_CMP_NOT_EQUAL));
  EXPECT_EQ(View(txn.cmps[0].value), "v");
  EXPECT_EQ(View(txn.cmps[0].end), "z");
  EXPECT_EQ(txn.cmps[1].number, 0);
  ASSERT_EQ(txn.then_count, 2u);
  EXPECT_EQ(txn.then_ops[0].kind, static_cast<uint32_t>(KW_OP_PUT));
  ASSERT_EQ(txn.then_ops[1].kind, static_cast<uint32_t>(KW_OP_TXN));
  EXPECT_EQ(View(txn.then_ops[1].txn->else_ops[0].range->key), "r");
  ASSERT_EQ(txn.else_count, 2u);
  EXPECT_EQ(txn.else_ops[1].kind, 0u);
  EXPECT_FALSE(info.is_read_only);
}

TEST(Wire, ADeepTransactionIsRefusedAndNotRecursedInto) {
  std::string bytes;
  for (int depth = 0; depth < 400; ++depth) {
    std::string op;  // RequestOp{request_txn: <bytes>}, then TxnRequest{success: op}.
    const auto wrap = [](char tag, const std::string& inner) {
      uint8_t length[10];
      const auto count = static_cast<size_t>(PutVarint(length, inner.size()) - length);
      return std::string(1, tag) + std::string(reinterpret_cast<char*>(length), count) + inner;
    };
    op = wrap('\x22', bytes);
    bytes = wrap('\x12', op);
  }
  Arena arena;
  kw_txn txn = {};
  TxnInfo info;

  EXPECT_EQ(DecodeTxn(Slice(bytes), &arena, &txn, &info), Decoded::kTooManyOps);
}

TEST(Wire, TooManyOperationsAreRefusedBeforeTheyAreAllocated) {
  std::string bytes;
  for (int i = 0; i < 70000; ++i) bytes += std::string("\x12\0", 2);
  Arena arena;
  kw_txn txn = {};
  TxnInfo info;

  EXPECT_EQ(DecodeTxn(Slice(bytes), &arena, &txn, &info), Decoded::kTooManyOps);
}

TEST(Wire, RandomBytesNeverReadOutOfBounds) {
  std::mt19937 random(42);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % 4 == 0 ? random() : random() % 40);
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);  // For ASan.
    std::memcpy(exact.get(), bytes.data(), bytes.size());
    const kw_slice slice = {exact.get(), bytes.size()};
    Arena arena;
    kw_txn txn = {};
    TxnInfo txn_info;
    etcdserverpb::TxnRequest expected;

    const Decoded decoded = DecodeTxn(slice, &arena, &txn, &txn_info);

    if (decoded == Decoded::kOk && expected.ParseFromString(bytes)) {
      EXPECT_EQ(txn.cmp_count, static_cast<size_t>(expected.compare_size()));
      EXPECT_EQ(txn.then_count, static_cast<size_t>(expected.success_size()));
    }
  }
}

TEST(Wire, RangeResponseRoundTripsFlatAndInPieces) {
  const std::string first = Record("a", "1", 5);
  const std::string second = Record("b", std::string(5000, 'x'), 300);
  const kw_slice records[] = {Slice(first), Slice(second)};
  kw_op_result result = {};
  result.kind = KW_OP_RANGE;
  result.flags = KW_RESULT_MORE;
  result.count = 1234;
  result.records = records;
  result.record_count = 2;
  const EncodedHeader header(~uint64_t{0}, 2, 300, 4);
  const size_t bytes = RangeResponseBytes(&header, result);
  const std::string flat = Flat(bytes, [&](auto& sink) { EncodeRangeResponse(sink, &header, result); });
  etcdserverpb::RangeResponse parsed;

  ASSERT_TRUE(parsed.ParseFromString(flat));

  EXPECT_EQ(parsed.header().cluster_id(), ~uint64_t{0});
  EXPECT_EQ(parsed.header().revision(), 300);
  ASSERT_EQ(parsed.kvs_size(), 2);
  EXPECT_EQ(parsed.kvs(1).value(), std::string(5000, 'x'));
  EXPECT_EQ(parsed.kvs(0).mod_revision(), 5);
  EXPECT_TRUE(parsed.more());
  EXPECT_EQ(parsed.count(), 1234);
  EXPECT_EQ(parsed.SerializeAsString(), flat);  // The canonical order.
  // The same bytes leave a Body in pieces of any size.
  for (const size_t step : {size_t{1}, size_t{7}, size_t{4096}, bytes}) {
    Body body;
    BodySink sink(&body);
    EncodeRangeResponse(sink, &header, result);
    ASSERT_EQ(body.pending_bytes(), bytes);
    std::string out;
    while (body.pending_bytes() != 0) {
      std::string part(std::min(step, body.pending_bytes()), '\0');
      body.CopyOut(reinterpret_cast<uint8_t*>(part.data()), part.size());
      out += part;
    }
    EXPECT_EQ(out, flat) << step;
  }
}

TEST(Wire, BodyReleasesAReplyWhenItsBytesAreGoneOrDropped) {
  static int released = 0;
  released = 0;
  kw_reply reply = {};
  reply.release = [](kw_reply*) { ++released; };
  const std::string record = Record("a", "1", 5);
  const kw_slice slice = Slice(record);
  uint8_t out[256];
  Body body;
  body.AppendRecords(2, &slice, 1, RecordsBytes(2, &slice, 1));
  body.Hold(&reply);
  *body.Extend(1) = 7;

  body.CopyOut(out, body.pending_bytes() - 2);
  EXPECT_EQ(released, 0);
  body.CopyOut(out, 1);
  EXPECT_EQ(released, 1);
  body.CopyOut(out, 1);
  EXPECT_EQ(out[0], 7);

  body.AppendRecords(2, &slice, 1, RecordsBytes(2, &slice, 1));
  body.Hold(&reply);
  body.Clear(0);
  EXPECT_EQ(released, 2);
}

// etcd: each operation's header has the revision that the operation saw or made.
TEST(Wire, TxnResponseHeadersFollowTheRevisionWithinTheTransaction) {
  const std::string record = Record("a", "1", 9);
  const kw_slice records[] = {Slice(record)};
  kw_op_result nested[1] = {};
  nested[0].kind = KW_OP_RANGE;
  nested[0].records = records;
  nested[0].record_count = 1;
  kw_op_result results[5] = {};
  results[0].kind = KW_OP_RANGE;
  results[1].kind = KW_OP_DELETE;
  results[2].kind = KW_OP_PUT;
  results[2].records = records;
  results[2].record_count = 1;
  results[3].kind = KW_OP_TXN;
  results[3].flags = KW_RESULT_SUCCEEDED;
  results[3].nested = nested;
  results[3].nested_count = 1;
  results[4].kind = KW_OP_DELETE;
  results[4].count = 3;
  kw_reply reply = {};
  reply.succeeded = 1;
  reply.revision = 10;
  reply.results = results;
  reply.result_count = 5;
  const EncodedHeader header(reply);
  const std::string bytes =
      Flat(TxnResponseBytes(header, reply), [&](auto& sink) { EncodeTxnResponse(sink, header, reply); });
  etcdserverpb::TxnResponse parsed;

  ASSERT_TRUE(parsed.ParseFromString(bytes));

  EXPECT_TRUE(parsed.succeeded());
  ASSERT_EQ(parsed.responses_size(), 5);
  EXPECT_EQ(parsed.responses(0).response_range().header().revision(), 9);
  EXPECT_EQ(parsed.responses(1).response_delete_range().header().revision(), 9);
  EXPECT_EQ(parsed.responses(2).response_put().header().revision(), 10);
  EXPECT_EQ(parsed.responses(2).response_put().prev_kv().key(), "a");
  EXPECT_TRUE(parsed.responses(3).response_txn().succeeded());
  EXPECT_EQ(parsed.responses(3).response_txn().responses(0).response_range().kvs_size(), 1);
  EXPECT_EQ(parsed.responses(4).response_delete_range().deleted(), 3);
  EXPECT_EQ(parsed.SerializeAsString(), bytes);
}

TEST(Wire, WatchResponseRoundTripsWithAndWithoutPreviousPairs) {
  const std::string record = Record("a", "1", 9);
  const std::string prev = Record("a", "0", 8);
  kw_event put = {KW_EVENT_PUT, 0, 9, Slice(record), Slice(prev)};
  kw_event del = {KW_EVENT_DELETE, 0, 10, Slice(record), {}};
  const kw_event* const events[] = {&put, &del};
  const EncodedHeader header(1, 2, 10, 3);
  for (const bool has_prev : {false, true}) {
    WatchResponse response;
    response.header = &header;
    response.watch_id = -1;
    response.is_created = true;
    response.is_canceled = true;
    response.compact_revision = 77;
    response.cancel_reason = Slice("why");
    response.is_fragment = true;
    response.events = events;
    response.event_count = 2;
    response.has_prev = has_prev;
    std::string bytes(WatchResponseBytes(response), '\0');
    auto* const start = reinterpret_cast<uint8_t*>(bytes.data());
    ASSERT_EQ(EncodeWatchResponse(start, response), start + bytes.size());
    etcdserverpb::WatchResponse parsed;

    ASSERT_TRUE(parsed.ParseFromString(bytes));

    EXPECT_EQ(parsed.watch_id(), -1);
    EXPECT_TRUE(parsed.created() && parsed.canceled() && parsed.fragment());
    EXPECT_EQ(parsed.compact_revision(), 77);
    EXPECT_EQ(parsed.cancel_reason(), "why");
    ASSERT_EQ(parsed.events_size(), 2);
    EXPECT_EQ(parsed.events(0).has_prev_kv(), has_prev);
    EXPECT_EQ(parsed.events(1).type(), mvccpb::Event::DELETE);
    EXPECT_FALSE(parsed.events(1).has_prev_kv());
    EXPECT_EQ(parsed.SerializeAsString(), bytes);
  }
}

TEST(Gzip, RoundTripsAndBoundsWhatAMessageUnpacksTo) {
  const std::string text(1 << 20, 'a');
  Buffer packed;
  GzipCompress(Slice(text), &packed);
  ASSERT_LT(packed.size(), text.size() / 100);
  Buffer unpacked;

  EXPECT_EQ(GzipDecompress(packed.slice(), text.size(), &unpacked), Inflated::kOk);
  EXPECT_EQ(View(unpacked.slice()), text);
  unpacked.Reset(0);
  EXPECT_EQ(GzipDecompress(packed.slice(), text.size() - 1, &unpacked), Inflated::kTooLarge);
  EXPECT_LT(unpacked.size(), text.size() + (64 << 10));
  unpacked.Reset(0);
  EXPECT_EQ(GzipDecompress(Slice("garbage"), 100, &unpacked), Inflated::kCorrupt);
  unpacked.Reset(0);
  EXPECT_EQ(GzipDecompress({packed.data(), packed.size() / 2}, text.size(), &unpacked), Inflated::kCorrupt);
}

TEST(Errors, DetailsHaveEtcdsTextsAndCodes) {
  EXPECT_EQ(FromDetail(KW_DETAIL_EMPTY_KEY).text, "etcdserver: key is not provided");
  EXPECT_EQ(FromDetail(KW_DETAIL_EMPTY_KEY).code, KW_INVALID_ARGUMENT);
  EXPECT_EQ(FromDetail(KW_DETAIL_COMPACTED).code, KW_OUT_OF_RANGE);
  EXPECT_EQ(FromDetail(KW_DETAIL_COMPACTED).text, "etcdserver: mvcc: required revision has been compacted");
  // etcd sends these two without a status.
  EXPECT_EQ(FromDetail(KW_DETAIL_TOO_MANY_REQUESTS).code, KW_UNKNOWN);
  EXPECT_EQ(FromDetail(KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS).code, KW_UNKNOWN);
}

TEST(Errors, EveryDetailOfTheKernelHasAnEntry) {
  const uint32_t last_of_group[][2] = {{KW_DETAIL_EMPTY_KEY, KW_DETAIL_TOO_MANY_REQUESTS},
                                       {KW_DETAIL_LEASE_NOT_FOUND, KW_DETAIL_LEASE_TTL_TOO_LARGE},
                                       {KW_DETAIL_MEMBER_NOT_FOUND, KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER},
                                       {KW_DETAIL_NO_LEADER, KW_DETAIL_NOT_PRIMARY_LESSOR},
                                       {KW_DETAIL_WATCH_EMPTY_RANGE, KW_DETAIL_WATCH_EMPTY_RANGE}};
  for (const auto& [first, last] : last_of_group) {
    for (uint32_t detail = first; detail <= last; ++detail) {
      int32_t code = -1;
      std::string_view text;
      EXPECT_TRUE(DetailStatus(detail, &code, &text)) << detail;
      EXPECT_FALSE(text.empty()) << detail;
    }
  }
}

TEST(Errors, UnknownDetailsKeepTheirOwnTextAndCode) {
  EXPECT_EQ(ToStatus(KW_ABORTED, 0, "own").text, "own");
  EXPECT_EQ(ToStatus(KW_ABORTED, 0, "own").code, KW_ABORTED);
  EXPECT_EQ(ToStatus(99, 0, "own").code, KW_UNKNOWN);
  EXPECT_EQ(PercentEncode("a%\n\xc3\xa4"), "a%25%0A%C3%A4");
}

TEST(Methods, AreFoundByPathAndUnknownOnesAreNamedAsGrpcGoDoes) {
  for (size_t i = 0; i < kRpcCount; ++i) {
    const Method& method = MethodOf(static_cast<Rpc>(i));
    EXPECT_EQ(FindMethod(method.path), &method);
  }
  EXPECT_EQ(FindMethod("/etcdserverpb.KV/Rangf"), nullptr);
  EXPECT_EQ(FindMethod(""), nullptr);
  EXPECT_EQ(UnknownMethodText("/x.Y/Z"), "unknown service x.Y");
  EXPECT_EQ(UnknownMethodText("/etcdserverpb.KV/Z"), "unknown method Z for service etcdserverpb.KV");
  EXPECT_EQ(UnknownMethodText("/x"), "malformed method name: \"/x\"");
}

TEST(TimerWheel, FiresInTimeAcrossRoundsAndNotWhenCleared) {
  struct Probe : TimerWheel::Timer {
    int count = 0;
  };
  TimerWheel wheel;
  wheel.Start(1'000'000'000);
  Probe soon, late, cleared;
  for (Probe* probe : {&soon, &late, &cleared}) {
    probe->fire = [](TimerWheel::Timer* timer) { ++static_cast<Probe*>(timer)->count; };
  }
  wheel.Set(&soon, 1'020'000'000);
  EXPECT_GE(wheel.NextMs(1'000'000'000), 20);
  EXPECT_LE(wheel.NextMs(1'000'000'000), 40);
  wheel.Set(&late, 1'000'000'000 + 3 * TimerWheel::kTickNs * TimerWheel::kSlotCount);
  wheel.Set(&cleared, 1'020'000'000);
  wheel.Clear(&cleared);

  wheel.Advance(1'015'000'000);
  EXPECT_EQ(soon.count, 0);
  wheel.Advance(1'040'000'000);
  EXPECT_EQ(soon.count, 1);
  for (uint64_t now = 1'040'000'000; now < late.at_ns; now += 50'000'000) wheel.Advance(now);
  EXPECT_EQ(late.count, 0);
  wheel.Advance(late.at_ns + 2 * TimerWheel::kTickNs);
  EXPECT_EQ(late.count, 1);
  EXPECT_EQ(cleared.count, 0);
  EXPECT_EQ(wheel.NextMs(late.at_ns), -1);
}

}  // namespace
}  // namespace keyway::api_etcd
