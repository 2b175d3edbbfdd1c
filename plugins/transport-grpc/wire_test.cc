// SPDX-License-Identifier: Apache-2.0
#include "wire.h"

#include <gtest/gtest.h>

#include "url.h"

namespace keyway::transport_grpc {
namespace {

ParseResult ParseOne(std::string_view bytes, std::string* payload, const char** error) {
  Header header;
  std::string_view view;
  const ParseResult result = Parse(&bytes, &header, &view, error);
  *payload = view;
  return result;
}

TEST(Wire, FramesOfAMessageComeBackInOrder) {
  const std::string bytes =
      Encode(Kind::kPing, "12345678") + Encode(Kind::kData, "") + Encode(Kind::kData, "x");
  std::string_view rest = bytes;
  Header header;
  std::string_view payload;
  const char* error = nullptr;

  ASSERT_EQ(Parse(&rest, &header, &payload, &error), ParseResult::kFrame);
  EXPECT_EQ(header.kind, Kind::kPing);
  EXPECT_EQ(payload, "12345678");
  ASSERT_EQ(Parse(&rest, &header, &payload, &error), ParseResult::kFrame);
  EXPECT_EQ(payload, "");
  ASSERT_EQ(Parse(&rest, &header, &payload, &error), ParseResult::kFrame);
  EXPECT_EQ(payload, "x");
  EXPECT_EQ(Parse(&rest, &header, &payload, &error), ParseResult::kEnd);
}

TEST(Wire, EveryCutIsNoticed) {
  const std::string bytes = Encode(Kind::kData, "some payload");
  for (size_t size = 1; size < bytes.size(); ++size) {
    std::string payload;
    const char* error = nullptr;
    EXPECT_EQ(ParseOne(std::string_view(bytes).substr(0, size), &payload, &error), ParseResult::kBad) << size;
  }
}

TEST(Wire, EveryFlippedBitIsNoticed) {
  const std::string bytes = Encode(Kind::kData, "some payload");
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    std::string payload;
    const char* error = nullptr;
    EXPECT_EQ(ParseOne(flipped, &payload, &error), ParseResult::kBad) << "bit " << bit;
  }
}

TEST(Wire, FrameOverTheLimitIsRefusedByItsHeader) {
  uint8_t header[kHeaderBytes];
  WriteHeader({Kind::kData, 0, kFrameBytesMax + 1}, header);
  std::string payload;
  const char* error = nullptr;
  EXPECT_EQ(ParseOne({reinterpret_cast<char*>(header), kHeaderBytes}, &payload, &error), ParseResult::kBad);
  EXPECT_STREQ(error, "frame over the size limit");
}

TEST(Wire, IdsAreHexadecimal) {
  uint64_t id = 0;
  EXPECT_EQ(Hex(0x8e9e05c52164694d), "8e9e05c52164694d");
  EXPECT_TRUE(ParseHex("8e9e05c52164694d", &id));
  EXPECT_EQ(id, 0x8e9e05c52164694du);
  for (const char* bad : {"", "x1", "1x", "18e9e05c52164694d", "-1"}) EXPECT_FALSE(ParseHex(bad, &id)) << bad;
}

TEST(Url, TargetsOfGrpc) {
  const std::pair<const char*, const char*> cases[] = {{"http://10.0.0.1:2380", "ipv4:10.0.0.1:2380"},
                                                       {"tcp://a.example:2380/", "dns:///a.example:2380"},
                                                       {"https://[::1]:2380", "ipv6:[::1]:2380"},
                                                       {"unix:///run/kw.sock", "unix:/run/kw.sock"},
                                                       {"https://b.example:443", "dns:///b.example:443"}};
  for (const auto& [text, target] : cases) {
    Url url;
    std::string error;
    ASSERT_TRUE(ParseUrl(text, &url, &error)) << error;
    EXPECT_EQ(url.Target(), target);
    EXPECT_EQ(url.is_tls, std::string_view(text).starts_with("https"));
  }
}

TEST(Url, FaultsAreNamed) {
  for (const char* text : {"10.0.0.1:2380", "ftp://a:1", "http://a", "http://a:0", "http://a:65536",
                           "http://:1", "http://a/b:1", "unix://relative", "http://user@a:1"}) {
    Url url;
    std::string error;
    EXPECT_FALSE(ParseUrl(text, &url, &error)) << text;
    EXPECT_NE(error.find(text), std::string::npos) << error;
  }
}

TEST(Url, AddressesOfGrpcArePlain) {
  EXPECT_EQ(PlainAddress("ipv4:127.0.0.1:40312"), "127.0.0.1:40312");
  EXPECT_EQ(PlainAddress("ipv6:%5B::1%5D:40312"), "[::1]:40312");
  EXPECT_EQ(PlainAddress("unix:"), "unix:");
}

}  // namespace
}  // namespace keyway::transport_grpc
