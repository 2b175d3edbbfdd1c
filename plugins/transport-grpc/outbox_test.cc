// SPDX-License-Identifier: Apache-2.0
#include "outbox.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace keyway::transport_grpc {
namespace {

class OutboxTest : public ::testing::Test {
 protected:
  OutboxTest() { grpc_init(); }
  ~OutboxTest() override {
    outbox_.Close();
    grpc_shutdown();
  }
  Outbox::Taken Append(const std::string& bytes, uint32_t lane = KW_LANE_BULK) {
    const size_t half = bytes.size() / 2;
    const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
    return outbox_.Append(Kind::kData, lane, {at, half}, {at + half, bytes.size() - half}, &must_wake_);
  }
  // The payloads of the next message. Empty: there is none.
  std::vector<std::string> Take(uint32_t lane = KW_LANE_BULK) {
    std::vector<std::string> payloads;
    grpc_byte_buffer* message = outbox_.Take(lane);
    if (message == nullptr) return payloads;
    EXPECT_LE(grpc_byte_buffer_length(message), kMessageBytesMax);
    grpc_byte_buffer_reader reader;
    grpc_byte_buffer_reader_init(&reader, message);
    const grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    std::string_view bytes(reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(all)), GRPC_SLICE_LENGTH(all));
    Header header;
    std::string_view payload;
    const char* error = nullptr;
    ParseResult result;
    while ((result = Parse(&bytes, &header, &payload, &error)) == ParseResult::kFrame) {
      EXPECT_EQ(header.lane, lane);
      payloads.emplace_back(payload);
    }
    EXPECT_EQ(result, ParseResult::kEnd) << error;
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(message);
    return payloads;
  }

  bool must_wake_ = false;
  Outbox outbox_{1 << 20, 1 << 20};
};

TEST_F(OutboxTest, ClosedTakesNothing) {
  EXPECT_EQ(Append("x"), Outbox::Taken::kClosed);
  outbox_.Open();
  EXPECT_EQ(Append("x"), Outbox::Taken::kYes);
  EXPECT_EQ(outbox_.Close(), 1u);
  EXPECT_EQ(Append(std::string(100'000, 'x')), Outbox::Taken::kClosed);
}

TEST_F(OutboxTest, WhatWaitsGoesTogetherInOrder) {
  outbox_.Open();
  std::vector<std::string> sent;
  for (size_t i = 0; i < 500; ++i) {
    sent.push_back(std::string(i % 50 == 0 ? 20'000 + i : i, static_cast<char>('a' + i % 26)));
    ASSERT_EQ(Append(sent.back()), Outbox::Taken::kYes);
  }
  std::vector<std::string> got;
  int messages = 0;
  for (auto next = Take(); !next.empty(); next = Take(), ++messages) {
    got.insert(got.end(), next.begin(), next.end());
    EXPECT_TRUE(Take().empty());  // One on its way at a time.
    outbox_.Sent(KW_LANE_BULK);
  }
  EXPECT_EQ(got, sent);
  EXPECT_LE(messages, 4);
}

TEST_F(OutboxTest, WakesOnceUntilTaken) {
  outbox_.Open();
  Append("a");
  EXPECT_TRUE(must_wake_);
  Append("b");
  EXPECT_FALSE(must_wake_);
  EXPECT_EQ(Take().size(), 2u);
  Append("c");  // The end of the message on its way looks again.
  EXPECT_FALSE(must_wake_);
  outbox_.Sent(KW_LANE_BULK);
  EXPECT_EQ(Take().size(), 1u);
  outbox_.Sent(KW_LANE_BULK);
  Append("d");
  EXPECT_TRUE(must_wake_);
}

TEST_F(OutboxTest, BoundCountsWhatIsOnItsWay) {
  outbox_.Open();
  const std::string frame(300 << 10, 'f');
  EXPECT_EQ(Append(frame), Outbox::Taken::kYes);
  EXPECT_EQ(Append(frame), Outbox::Taken::kYes);
  EXPECT_EQ(Append(frame), Outbox::Taken::kYes);
  EXPECT_EQ(Append(frame), Outbox::Taken::kFull);
  EXPECT_EQ(Take().size(), 1u);
  EXPECT_EQ(Append(frame), Outbox::Taken::kFull);
  EXPECT_EQ(outbox_.Sent(KW_LANE_BULK), frame.size() + kHeaderBytes);
  EXPECT_EQ(Append(frame), Outbox::Taken::kYes);
}

TEST_F(OutboxTest, EmptyLaneTakesAFrameOverItsBound) {
  outbox_.Open();
  EXPECT_EQ(Append(std::string(kFrameBytesMax, 'x')), Outbox::Taken::kYes);
  EXPECT_EQ(Append("y"), Outbox::Taken::kFull);
  EXPECT_EQ(Append("z", KW_LANE_CONTROL), Outbox::Taken::kYes);
  EXPECT_EQ(Take(KW_LANE_CONTROL), std::vector<std::string>{"z"});
  EXPECT_EQ(Take()[0].size(), kFrameBytesMax);
}

}  // namespace
}  // namespace keyway::transport_grpc
