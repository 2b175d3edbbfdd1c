// SPDX-License-Identifier: Apache-2.0
#include "outbox.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <thread>
#include <vector>

namespace keyway::transport_tcp {
namespace {

kw_slice Slice(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// An outbox on one end of a socket pair, and a reader of messages on the other.
class OutboxTest : public ::testing::Test {
 protected:
  OutboxTest() : outbox_(1 << 20, 4 << 20, &sent_) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    stream_ = std::make_unique<Stream>(fds[0], nullptr);
    reader_ = fds[1];
    epoll_ = epoll_create1(0);
    epoll_event event = {};
    event.events = EPOLLIN;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fds[0], &event);
    outbox_.Open(epoll_, nullptr, stream_.get());
  }
  ~OutboxTest() override {
    outbox_.Close();
    close(reader_);
    close(epoll_);
  }

  // Reads what has come, at most `bytes_max`, and appends whole messages to messages_.
  bool ReadSome(size_t bytes_max) {
    std::string piece(bytes_max, '\0');
    const ssize_t got = read(reader_, piece.data(), piece.size());
    if (got <= 0) return false;
    received_.append(piece.data(), static_cast<size_t>(got));
    while (true) {
      Message message;
      const char* error = "";
      const ParseResult result = Parse(received_, kFrameBytesMax, &message, &error);
      EXPECT_NE(result, ParseResult::kBad) << error;
      if (result != ParseResult::kMessage) return true;
      messages_.push_back({message.header.lane, std::string(message.payload)});
      received_.erase(0, message.bytes);
    }
  }
  void Drain() {
    do {
      EXPECT_EQ(outbox_.FlushFromIo(), 0);
    } while (ReadSome(1 << 20));
  }

  Counter sent_;
  Outbox outbox_;
  std::unique_ptr<Stream> stream_;
  int reader_ = -1;
  int epoll_ = -1;
  std::string received_;
  std::vector<std::pair<uint8_t, std::string>> messages_;
};

TEST_F(OutboxTest, ControlOvertakesBulkAtTheNextFrame) {
  const std::string bulk(1 << 20, 'b');
  ASSERT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice(bulk), {}), Outbox::Taken::kYes);
  ASSERT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice(bulk), {}), Outbox::Taken::kYes);
  ASSERT_EQ(outbox_.FlushFromIo(), 0);  // The first frame is half on its way.
  ASSERT_EQ(outbox_.Append(Kind::kData, KW_LANE_CONTROL, Slice("control"), {}), Outbox::Taken::kYes);

  Drain();

  ASSERT_EQ(messages_.size(), 3u);
  EXPECT_EQ(messages_[0].second, bulk);
  EXPECT_EQ(messages_[1].second, "control");
  EXPECT_EQ(messages_[2].second, bulk);
}

TEST_F(OutboxTest, FullLaneRefusesAndTheOtherDoesNot) {
  const std::string frame(1 << 20, 'x');
  size_t taken = 0;
  while (outbox_.Append(Kind::kData, KW_LANE_BULK, Slice(frame), {}) == Outbox::Taken::kYes) ++taken;
  EXPECT_EQ(taken, 3u);  // 4 MiB, less the headers.
  EXPECT_EQ(outbox_.Append(Kind::kData, KW_LANE_CONTROL, Slice("c"), {}), Outbox::Taken::kYes);

  Drain();

  EXPECT_EQ(messages_.size(), 4u);
  EXPECT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice(frame), {}), Outbox::Taken::kYes);
}

TEST_F(OutboxTest, EmptyLaneTakesAFrameOverItsBound) {
  const std::string frame(8 << 20, 'x');
  ASSERT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice(frame), {}), Outbox::Taken::kYes);
  EXPECT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice("y"), {}), Outbox::Taken::kFull);
  Drain();
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_EQ(messages_[0].second, frame);
}

TEST_F(OutboxTest, CloseCountsWhatItDrops) {
  for (int i = 0; i < 3; ++i) outbox_.Append(Kind::kData, KW_LANE_BULK, Slice("frame"), {});
  EXPECT_EQ(outbox_.Close(), 3u);
  EXPECT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice("frame"), {}), Outbox::Taken::kClosed);
}

TEST_F(OutboxTest, BrokenConnectionIsToldToTheIoThread) {
  close(reader_);
  outbox_.Append(Kind::kData, KW_LANE_BULK, Slice("frame"), {});
  EXPECT_LT(outbox_.FlushFromIo(), 0);
  EXPECT_EQ(outbox_.Append(Kind::kData, KW_LANE_BULK, Slice("frame"), {}), Outbox::Taken::kClosed);
  reader_ = -1;
}

// Random sizes around the block and the checksum borders, random short reads, both flushers.
TEST_F(OutboxTest, LanesKeepTheirOrderWhateverTheSizes) {
  const uint32_t seed = 20240611;
  std::mt19937 random(seed);
  const size_t sizes[] = {0, 1, 100, 16 << 10, (16 << 10) + 1, 65472 - 16, 65472, 65536, 200000};
  std::vector<std::string> expected[2];
  for (int step = 0; step < 3000; ++step) {
    const uint32_t lane = random() % 2;
    std::string frame(sizes[random() % std::size(sizes)] + random() % 3, static_cast<char>('a' + step % 26));
    const size_t split = frame.empty() ? 0 : random() % frame.size();
    const kw_slice whole = Slice(frame);
    if (outbox_.Append(Kind::kData, lane, {whole.ptr, split}, {whole.ptr + split, whole.len - split}) ==
        Outbox::Taken::kYes) {
      expected[lane].push_back(std::move(frame));
    }
    if (random() % 2 == 0) outbox_.FlushFromCore();
    if (random() % 3 == 0) {
      ASSERT_EQ(outbox_.FlushFromIo(), 0);
    }
    if (random() % 2 == 0) ReadSome(1 + random() % 300000);
  }
  Drain();

  std::vector<std::string> got[2];
  for (auto& [lane, bytes] : messages_) got[lane].push_back(std::move(bytes));
  EXPECT_TRUE(got[0] == expected[0]) << "seed " << seed;
  EXPECT_TRUE(got[1] == expected[1]) << "seed " << seed;
  EXPECT_GT(expected[0].size() + expected[1].size(), 1000u);
}

// The two flushers at the same time: nothing is left behind, nothing is torn.
TEST_F(OutboxTest, CoreAndIoThreadShareTheSocket) {
  constexpr size_t kFrames = 20000;
  std::atomic<bool> done{false};
  std::thread io([&] {
    while (!done.load()) {
      epoll_event event;
      if (epoll_wait(epoll_, &event, 1, 1) == 1 && (event.events & EPOLLOUT) != 0) {
        EXPECT_EQ(outbox_.FlushFromIo(), 0);
      }
    }
  });
  std::thread reader([&] {
    while (messages_.size() < kFrames) ReadSome(65536);
  });
  for (size_t i = 0; i < kFrames;) {
    const std::string frame = std::to_string(i) + std::string(i % 700, '.');
    if (outbox_.Append(Kind::kData, KW_LANE_BULK, Slice(frame), {}) == Outbox::Taken::kYes) ++i;
    outbox_.FlushFromCore();
  }
  reader.join();
  done = true;
  io.join();
  for (size_t i = 0; i < kFrames; ++i) {
    ASSERT_EQ(messages_[i].second, std::to_string(i) + std::string(i % 700, '.'));
  }
}

}  // namespace
}  // namespace keyway::transport_tcp
