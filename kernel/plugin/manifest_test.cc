// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/manifest.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>

namespace keyway {
namespace {

std::string FixtureBytes() {
  std::ifstream file(FIXTURE_DIR "/fixture-good.so", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST(Manifest, IsReadWithoutLoading) {
  const std::string bytes = FixtureBytes();

  auto manifests = ReadManifests(MemorySource(bytes));

  ASSERT_TRUE(manifests.ok()) << manifests.status();
  ASSERT_EQ(manifests->size(), 1u);
  const Manifest& manifest = manifests->front();
  EXPECT_EQ(manifest.id, "fixture-good");
  EXPECT_EQ(manifest.version, "0.3.0");
  EXPECT_EQ(manifest.license, "Apache-2.0");
  EXPECT_EQ(manifest.stability, "stable");
  EXPECT_EQ(manifest.abi_major, 1);
  EXPECT_EQ(manifest.abi_minor, 0);
  EXPECT_EQ(manifest.provides, std::vector<std::string>{"keyway.observer/1"});
  EXPECT_EQ(manifest.needs, std::vector<std::string>{"keyway.log/1"});
}

TEST(Manifest, IsFoundInSegmentsWithoutSectionHeaders) {
  std::string bytes = FixtureBytes();
  std::fill_n(bytes.begin() + 40, 8, '\0');  // e_shoff
  std::fill_n(bytes.begin() + 60, 2, '\0');  // e_shnum

  auto manifests = ReadManifests(MemorySource(bytes));

  ASSERT_TRUE(manifests.ok()) << manifests.status();
  EXPECT_EQ(manifests->front().id, "fixture-good");
}

TEST(Manifest, GarbageIsRefusedByName) {
  EXPECT_EQ(Text(ReadManifests(MemorySource("")).status()), "not a plugin: shorter than an ELF header");
  EXPECT_EQ(Text(ReadManifests(MemorySource(std::string(100, 'x'))).status()),
            "not a plugin: not an ELF file");
  std::string bytes = FixtureBytes();
  bytes[18] = '\x28';
  EXPECT_NE(Text(ReadManifests(MemorySource(bytes)).status()).find("another machine"), std::string::npos);
}

TEST(Manifest, SurvivesTruncationAtEveryByte) {
  const std::string bytes = FixtureBytes();
  ASSERT_GT(bytes.size(), 1000u);
  size_t refused = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    auto manifests = ReadManifests(MemorySource(std::string_view(bytes).substr(0, size)));
    refused += !manifests.ok();
    if (manifests.ok()) {
      EXPECT_EQ(manifests->front().id, "fixture-good");
    }
  }
  EXPECT_GT(refused, 64u);
}

TEST(Manifest, SurvivesDamage) {
  const std::string good = FixtureBytes();
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    // Mostly in the headers, where offsets and sizes are.
    for (int change = 0; change < 4; ++change) {
      const size_t shoff = bytes.size() - 64 * 30;
      size_t at = random() % bytes.size();
      if (random() % 3 == 0) at = random() % 600;
      if (random() % 3 == 0) at = shoff + random() % (bytes.size() - shoff);
      bytes[at] = random() % 2 == 0 ? static_cast<char>(0xff) : static_cast<char>(random());
    }
    (void)ReadManifests(MemorySource(bytes));
  }
}

TEST(Manifest, TextIsParsedStrictly) {
  auto good = ParseManifest("id=a;version=1.0.0;abi=1.2;provides=x/1,y/1;needs=;later=z");
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->provides, (std::vector<std::string>{"x/1", "y/1"}));
  EXPECT_TRUE(good->needs.empty());
  EXPECT_EQ(good->abi_minor, 2);
  for (const char* bad : {"", "id=a", "id=a;version=1", "id=a;version=1;abi=1", "id=a;version=1;abi=1.x",
                          "id=a;version=1;abi=1.70000", "id=a;id=b;version=1;abi=1.0", "=a",
                          "id=a;version=1;abi=1.0;needs=,a", "id=a\n;version=1;abi=1.0"}) {
    EXPECT_FALSE(ParseManifest(bad).ok()) << bad;
  }
}

TEST(Abi, MessageNamesBothVersionsAndTheFix) {
  EXPECT_TRUE(CheckAbi("x", "0.3.0", 1, 0).ok());
  EXPECT_EQ(Text(CheckAbi("x", "0.3.0", 1, 4)),
            "plugin x 0.3.0 needs ABI 1.4, this keywayd offers 1.0: use a keywayd that offers ABI 1.4 or "
            "later, or a x built for ABI 1.0");
  EXPECT_EQ(Text(CheckAbi("x", "0.3.0", 2, 0)),
            "plugin x 0.3.0 needs ABI 2.0, this keywayd offers 1.0: use a keywayd of ABI major 2, or a x "
            "built for ABI 1.0");
  EXPECT_EQ(Text(CheckAbi("x", "0.3.0", 0, 9)),
            "plugin x 0.3.0 needs ABI 0.9, this keywayd offers 1.0: use a x built for ABI 1.0");
}

}  // namespace
}  // namespace keyway
