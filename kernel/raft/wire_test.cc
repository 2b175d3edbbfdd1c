// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/wire.h"

#include "gtest/gtest.h"
#include "kernel/base/coding.h"
#include "keyway/crc32c.h"

namespace keyway::raft {
namespace {

Entry MakeEntry(uint64_t index, uint64_t term, const std::string& data, EntryKind kind) {
  Entry entry;
  entry.index = index;
  entry.term = term;
  entry.kind = kind;
  entry.data = SharedBytes::Copy(data);
  entry.crc32c = kw_crc32c(0, data.data(), data.size());
  return entry;
}

Message MakeAppend() {
  Message message;
  message.kind = MessageKind::kAppend;
  message.from = 0x1122334455667788;
  message.to = 2;
  message.term = 300;
  message.index = 1000;
  message.log_term = 299;
  message.commit = 998;
  message.entries.push_back(MakeEntry(1001, 300, "first", EntryKind::kNormal));
  message.entries.push_back(MakeEntry(1002, 300, "", EntryKind::kConfiguration));
  Entry empty;
  empty.index = 1003;
  empty.term = 300;
  message.entries.push_back(empty);
  message.entries.push_back(MakeEntry(1004, 300, std::string(300, '\0'), EntryKind::kNormal));
  return message;
}

std::string Encode(const Message& message) {
  std::string bytes;
  EncodeMessage(message, &bytes);
  return bytes;
}

void ExpectEqual(const Message& a, const Message& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.from, b.from);
  EXPECT_EQ(a.to, b.to);
  EXPECT_EQ(a.term, b.term);
  EXPECT_EQ(a.index, b.index);
  EXPECT_EQ(a.log_term, b.log_term);
  EXPECT_EQ(a.commit, b.commit);
  EXPECT_EQ(a.hint, b.hint);
  EXPECT_EQ(a.context, b.context);
  EXPECT_EQ(a.reject, b.reject);
  EXPECT_EQ(a.needs_snapshot, b.needs_snapshot);
  EXPECT_EQ(a.forced, b.forced);
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (size_t i = 0; i < a.entries.size(); ++i) {
    EXPECT_EQ(a.entries[i].index, b.entries[i].index);
    EXPECT_EQ(a.entries[i].term, b.entries[i].term);
    EXPECT_EQ(a.entries[i].kind, b.entries[i].kind);
    EXPECT_EQ(a.entries[i].crc32c, b.entries[i].crc32c);
    EXPECT_EQ(a.entries[i].data.has_value(), b.entries[i].data.has_value());
    EXPECT_EQ(a.entries[i].data.view(), b.entries[i].data.view());
  }
}

TEST(RaftWire, EveryKindAndFlagComesBack) {
  for (int kind = 1; kind <= 11; ++kind) {
    for (int flags = 0; flags < 8; ++flags) {
      Message message;
      message.kind = static_cast<MessageKind>(kind);
      message.from = 1;
      message.to = UINT64_MAX;
      message.term = UINT64_MAX;
      message.index = 127;
      message.log_term = 128;
      message.commit = uint64_t{1} << 56;
      message.hint = 5;
      message.context = uint64_t{1} << 63;
      message.reject = (flags & 1) != 0;
      message.needs_snapshot = (flags & 2) != 0;
      message.forced = (flags & 4) != 0;

      std::optional<Message> decoded = DecodeMessage(Encode(message));

      ASSERT_TRUE(decoded.has_value());
      ExpectEqual(message, *decoded);
    }
  }
}

TEST(RaftWire, EntriesComeBack) {
  const Message message = MakeAppend();

  std::optional<Message> decoded = DecodeMessage(Encode(message));

  ASSERT_TRUE(decoded.has_value());
  ExpectEqual(message, *decoded);
}

TEST(RaftWire, AppendsToWhatIsThere) {
  std::string bytes = "frame";
  EncodeMessage(MakeAppend(), &bytes);

  EXPECT_EQ(bytes, "frame" + Encode(MakeAppend()));
}

TEST(RaftWire, RefusesEveryTruncation) {
  const std::string bytes = Encode(MakeAppend());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(DecodeMessage(std::string_view(bytes).substr(0, size)).has_value()) << size;
  }
}

TEST(RaftWire, RefusesTrailingBytes) { EXPECT_FALSE(DecodeMessage(Encode(MakeAppend()) + '\0').has_value()); }

TEST(RaftWire, RefusesUnknownKindsAndFlags) {
  std::string bytes = Encode(MakeAppend());
  for (int kind : {0, 12, 255}) {
    std::string changed = bytes;
    changed[0] = static_cast<char>(kind);
    EXPECT_FALSE(DecodeMessage(changed).has_value());
  }
  bytes[1] = 16;
  EXPECT_FALSE(DecodeMessage(bytes).has_value());
}

TEST(RaftWire, RefusesEntriesInAnotherKind) {
  std::string bytes = Encode(MakeAppend());
  bytes[0] = static_cast<char>(MessageKind::kHeartbeat);
  EXPECT_FALSE(DecodeMessage(bytes).has_value());
}

// Each bit of the data and of the checksum of the first entry.
TEST(RaftWire, RefusesDamagedData) {
  const std::string bytes = Encode(MakeAppend());
  const size_t data = bytes.find("first");
  ASSERT_NE(data, std::string::npos);
  for (size_t at = data - 5; at < data + 5; ++at) {
    if (at == data - 1) continue;  // The length.
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      EXPECT_FALSE(DecodeMessage(damaged).has_value()) << at << "." << bit;
    }
  }
}

TEST(RaftWire, RefusesCountsThatCannotFit) {
  Message message;
  message.kind = MessageKind::kAppend;
  message.from = 1;
  message.to = 2;
  std::string bytes = Encode(message);
  bytes.pop_back();
  PutVarint(&bytes, UINT64_MAX);
  EXPECT_FALSE(DecodeMessage(bytes).has_value());
}

// Any bytes decode or do not, without a crash; what decodes is encoded to a message that decodes.
TEST(RaftWire, SurvivesRandomChanges) {
  const std::string bytes = Encode(MakeAppend());
  uint64_t random = 88172645463325252u;
  auto next = [&] { return random = random * 6364136223846793005u + 1442695040888963407u, random >> 33; };
  for (int i = 0; i < 20000; ++i) {
    std::string changed = bytes.substr(0, next() % 4 == 0 ? next() % bytes.size() : bytes.size());
    for (uint64_t count = next() % 4 + 1; count > 0 && !changed.empty(); --count) {
      changed[next() % changed.size()] = static_cast<char>(next());
    }
    std::optional<Message> decoded = DecodeMessage(changed);
    if (!decoded.has_value()) continue;
    std::optional<Message> again = DecodeMessage(Encode(*decoded));
    ASSERT_TRUE(again.has_value());
    ExpectEqual(*decoded, *again);
  }
}

}  // namespace
}  // namespace keyway::raft
