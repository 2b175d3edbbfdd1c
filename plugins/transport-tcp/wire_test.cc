// SPDX-License-Identifier: Apache-2.0
#include "wire.h"

#include <gtest/gtest.h>

#include "url.h"

namespace keyway::transport_tcp {
namespace {

TEST(Wire, HelloComesBackAsItWasEncoded) {
  const std::string bytes = EncodeHello("etcd-cluster", 0x1234, 0xabcd);
  Message message;
  const char* error = nullptr;
  Hello hello;

  ASSERT_EQ(Parse(bytes, kFrameBytesMax, &message, &error), ParseResult::kMessage);
  ASSERT_TRUE(DecodeHello(message.payload, &hello));

  EXPECT_EQ(message.header.kind, Kind::kHello);
  EXPECT_EQ(message.bytes, bytes.size());
  EXPECT_EQ(hello.sender, 0x1234u);
  EXPECT_EQ(hello.target, 0xabcdu);
  EXPECT_EQ(hello.token, "etcd-cluster");
}

TEST(Wire, EveryPrefixNeedsMore) {
  const std::string bytes = Encode(Kind::kData, "some payload");
  for (size_t size = 0; size < bytes.size(); ++size) {
    Message message;
    const char* error = nullptr;
    EXPECT_EQ(Parse(std::string_view(bytes).substr(0, size), kFrameBytesMax, &message, &error),
              ParseResult::kNeedMore);
    EXPECT_EQ(message.bytes, size < kHeaderBytes ? kHeaderBytes : bytes.size());
  }
}

TEST(Wire, EveryFlippedBitIsNoticed) {
  const std::string bytes = Encode(Kind::kData, "some payload");
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    Message message;
    const char* error = nullptr;
    // A larger size waits for bytes that never come; all else is wrong at once.
    EXPECT_NE(Parse(flipped, kFrameBytesMax, &message, &error), ParseResult::kMessage) << "bit " << bit;
  }
}

TEST(Wire, MessageOverTheLimitIsRefusedByItsHeader) {
  char header[kHeaderBytes];
  WriteHeader({kVersion, Kind::kData, 0, kFrameBytesMax + 1}, header);
  Message message;
  const char* error = nullptr;

  EXPECT_EQ(Parse({header, kHeaderBytes}, kFrameBytesMax, &message, &error), ParseResult::kBad);
  EXPECT_STREQ(error, "message over the size limit");

  WriteHeader({kVersion, Kind::kPing, 0, kGreetingBytesMax + 1}, header);
  EXPECT_EQ(Parse({header, kHeaderBytes}, kFrameBytesMax, &message, &error), ParseResult::kBad);
}

TEST(Wire, AnotherProtocolIsToldByItsFirstByte) {
  Message message;
  const char* error = nullptr;
  EXPECT_EQ(Parse("G", kFrameBytesMax, &message, &error), ParseResult::kBad);
  EXPECT_EQ(Parse("\x16\x03\x01", kFrameBytesMax, &message, &error), ParseResult::kBad);
}

TEST(Url, TakesTheFormsThatMembersUse) {
  Url url;
  std::string error;
  ASSERT_TRUE(ParseUrl("http://10.0.0.1:2380", &url, &error)) << error;
  EXPECT_EQ(url.host, "10.0.0.1");
  EXPECT_EQ(url.port, 2380);
  ASSERT_TRUE(ParseUrl("tcp://[::1]:1", &url, &error)) << error;
  EXPECT_EQ(url.host, "::1");
  ASSERT_TRUE(ParseUrl("https://node-1.example.org:2380/", &url, &error)) << error;
  EXPECT_TRUE(url.is_tls);
  ASSERT_TRUE(ParseUrl("unix:///run/keyway.sock", &url, &error)) << error;
  EXPECT_EQ(url.host, "/run/keyway.sock");
}

TEST(Url, RefusesTheRestByName) {
  Url url;
  std::string error;
  for (const char* text :
       {"", "127.0.0.1:2380", "ftp://a:1", "http://a", "http://a:", "http://:1", "http://a:0",
        "http://a:65536", "http://a:1x", "http://::1:2380", "http://a/b:1", "unix://"}) {
    EXPECT_FALSE(ParseUrl(text, &url, &error)) << text;
    EXPECT_NE(error.find(text), std::string::npos);
  }
}

}  // namespace
}  // namespace keyway::transport_tcp
