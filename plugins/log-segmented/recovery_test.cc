// SPDX-License-Identifier: Apache-2.0
//
// Recovery over images of segments that are made byte by byte: torn tails and damage, exhaustively.
#include "recovery.h"

#include <gtest/gtest.h>

#include <random>

#include "keyway/crc32c.h"
#include "memory_file_system.h"

namespace keyway::log_segmented {
namespace {

constexpr char kDirectory[] = "/log";
constexpr uint64_t kFileBytes = kSegmentBytesMin;

// One segment in the making.
class Image {
 public:
  explicit Image(uint64_t number = 1, uint64_t id = 0x1234567890abcdef, Chain chain = {}, uint64_t last = 0,
                 uint64_t last_term = 0)
      : header_{id, number, kFileBytes},
        bytes_(kFileBytes),
        chain_(chain),
        last_(last),
        last_term_(last_term) {
    EncodeHeader(header_, std::span<uint8_t, kHeaderBytes>(bytes_.data(), kHeaderBytes));
  }
  // A flush with entries of these sizes, term 1 to 9.
  Image& Flush(const std::vector<size_t>& sizes, uint64_t oldest = 1) {
    FlushEncoder flush(header_, end_, chain_);
    if (end_ == kHeaderBytes) flush.AddBase(RecordType::kBase, last_, last_term_);
    for (const size_t size : sizes) {
      const std::string data(size, static_cast<char>('a' + (last_ + 1) % 26));
      kw_log_entry entry = {last_ + 1,
                            last_term_ == 0 ? 1 : last_term_,
                            1,
                            kw_crc32c(0, data.data(), size),
                            {reinterpret_cast<const uint8_t*>(data.data()), size}};
      flush.AddEntry(entry, last_term_);
      last_ += 1;
      last_term_ = entry.term;
    }
    flush.Close({{3, 7, last_}, oldest});
    std::copy(flush.bytes().begin(), flush.bytes().end(), bytes_.begin() + static_cast<ptrdiff_t>(end_));
    starts_.push_back(end_);
    end_ = flush.end_offset();
    chain_ = flush.chain();
    return *this;
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  uint64_t end() const { return end_; }
  uint64_t start(size_t flush) const { return flush < starts_.size() ? starts_[flush] : end_; }
  Chain chain() const { return chain_; }
  uint64_t last() const { return last_; }
  std::string path() const { return std::string(kDirectory) + "/" + SegmentName(header_.number); }

 private:
  SegmentHeader header_;
  std::vector<uint8_t> bytes_;
  std::vector<uint64_t> starts_;
  uint64_t end_ = kHeaderBytes;
  Chain chain_;
  uint64_t last_, last_term_;
};

Status RecoverFrom(MemoryFileSystem& disk, RecoveredLog* log) {
  *log = RecoveredLog();
  return Recover(disk, kDirectory, kFileBytes, RandomSegmentId, Logger(), log);
}
Status RecoverBytes(const std::string& path, std::vector<uint8_t> bytes, RecoveredLog* log) {
  MemoryFileSystem disk;
  disk.Put(path, std::move(bytes));
  return RecoverFrom(disk, log);
}

TEST(Recovery, StartsANewLogInAnEmptyDirectory) {
  MemoryFileSystem disk;
  RecoveredLog log;

  ASSERT_TRUE(RecoverFrom(disk, &log).ok());

  EXPECT_EQ(log.bounds.first, 1u);
  EXPECT_EQ(log.bounds.last, 0u);
  EXPECT_EQ(log.hard_state.term, 0u);
  EXPECT_EQ(disk.Paths(), std::vector<std::string>{"/log/log-0000000000000001.seg"});
}

// etcd issues 5230, 6515, 15069: a record that was synced in part kept the server from booting.
TEST(Recovery, BootsFromATailTornAtAnyByte) {
  Image image;
  image.Flush({10, 300}).Flush({40}).Flush({600, 33, 700});
  const uint64_t torn_from = image.start(2);
  std::mt19937 random(11);

  for (uint64_t at = torn_from; at <= image.end(); ++at) {
    for (int variant = 0; variant < 4; ++variant) {
      std::vector<uint8_t> bytes = image.bytes();
      switch (variant) {
        case 0:  // Cut.
          bytes.resize(at);
          break;
        case 1:  // Zeros from here on.
          std::fill(bytes.begin() + static_cast<ptrdiff_t>(at), bytes.end(), uint8_t{0});
          break;
        case 2:  // Garbage from here on.
          for (uint64_t i = at; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(random());
          break;
        case 3:  // The start is missing, the end came through.
          std::fill(bytes.begin() + static_cast<ptrdiff_t>(torn_from),
                    bytes.begin() + static_cast<ptrdiff_t>(at), uint8_t{0});
          break;
      }
      RecoveredLog log;
      const Status status = RecoverBytes(image.path(), bytes, &log);

      ASSERT_TRUE(status.ok()) << "at " << at << " variant " << variant << ": " << status.text;
      bytes.resize(kFileBytes);  // What is cut off counts as zeros, and the last bytes may be zeros.
      const bool whole = std::equal(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(image.end()),
                                    image.bytes().begin());
      ASSERT_EQ(log.bounds.last, whole ? 6u : 3u) << "at " << at << " variant " << variant;
      ASSERT_EQ(log.bounds.first, 1u);
      ASSERT_EQ(log.hard_state.term, 3u);
      ASSERT_EQ(log.hard_state.commit, log.bounds.last);
      ASSERT_EQ(log.write_offset, whole ? image.end() : torn_from);
    }
  }
}

TEST(Recovery, ZerosATornTailAndTakesNoRecordOfItLater) {
  Image image;
  image.Flush({10}).Flush({100, 200, 300});
  std::vector<uint8_t> bytes = image.bytes();
  bytes[image.start(1)] ^= 1;  // The first record of the last flush; the others check out.
  MemoryFileSystem disk;
  disk.Put(image.path(), bytes);
  RecoveredLog log;

  ASSERT_TRUE(RecoverFrom(disk, &log).ok());

  EXPECT_GT(log.torn_bytes, 0u);
  const auto after = disk.AfterPowerLoss(MemoryFileSystem::Survival::kNothing, 1);
  const std::vector<uint8_t>& stored = after->Bytes(image.path());
  for (uint64_t i = image.start(1); i < log.write_offset + log.torn_bytes; ++i) {
    ASSERT_EQ(stored[i], 0) << i;
  }
  ASSERT_TRUE(RecoverFrom(*after, &log).ok());
  EXPECT_EQ(log.torn_bytes, 0u);
  EXPECT_EQ(log.bounds.last, 1u);
}

// Reliability catalogue D8: damage in the middle was taken for the tail.
TEST(Recovery, NeverShortensTheLogForAFlippedBit) {
  Image image;
  image.Flush({10, 61}).Flush({0}).Flush({40, 5, 17}).Flush({}).Flush({128}).Flush({20});
  const uint64_t acknowledged = image.start(5);
  RecoveredLog intact;
  ASSERT_TRUE(RecoverBytes(image.path(), image.bytes(), &intact).ok());
  uint64_t found = 0;

  for (uint64_t bit = 0; bit < acknowledged * 8; ++bit) {
    std::vector<uint8_t> bytes = image.bytes();
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    RecoveredLog log;
    const Status status = RecoverBytes(image.path(), std::move(bytes), &log);

    if (status.ok()) {
      ASSERT_EQ(log.bounds.last, intact.bounds.last) << "bit " << bit;
      ASSERT_EQ(log.write_offset, intact.write_offset) << "bit " << bit;
      ASSERT_EQ(log.chain.crc, intact.chain.crc) << "bit " << bit;
    } else {
      ASSERT_EQ(status.code, KW_DATA_LOSS) << "bit " << bit;
      ASSERT_NE(status.text.find("log-0000000000000001.seg at offset"), std::string::npos);
      found += 1;
    }
  }
  // All but the padding (3 + 3 + 3 + 7 bytes ...) of what holds records is covered by a checksum.
  EXPECT_GE(found, (acknowledged - kHeaderBytes - 40) * 8);
}

// Reliability catalogue D8, the 4096-pattern test: any subset of 12 flushes is destroyed.
TEST(Recovery, TellsTornFromDamagedForEverySubsetOfFlushes) {
  Image image;
  for (int i = 0; i < 12; ++i) image.Flush({static_cast<size_t>(20 + i)});

  for (uint32_t mask = 0; mask < 4096; ++mask) {
    std::vector<uint8_t> bytes = image.bytes();
    for (size_t flush = 0; flush < 12; ++flush) {
      if ((mask >> flush & 1) == 0) continue;
      for (uint64_t i = image.start(flush); i < image.start(flush + 1); ++i) bytes[i] = 0xa5;
    }
    RecoveredLog log;
    const Status status = RecoverBytes(image.path(), std::move(bytes), &log);

    const size_t first_bad = mask == 0 ? 12 : static_cast<size_t>(__builtin_ctz(mask));
    const bool nothing_after = (mask >> first_bad) == (4095u >> first_bad);
    if (nothing_after) {
      ASSERT_TRUE(status.ok()) << mask << status.text;
      ASSERT_EQ(log.bounds.last, first_bad) << mask;
    } else {
      ASSERT_EQ(status.code, KW_DATA_LOSS) << mask;
    }
  }
}

TEST(Recovery, RejectsRecordsOfTheFilesEarlierLife) {
  // The same places and sequences under another id, then a new header over it.
  Image old(1, 0x1111111122222222);
  for (int i = 0; i < 20; ++i) old.Flush({100});
  Image fresh(1, 0x3333333344444444);
  fresh.Flush({100}).Flush({100});
  std::vector<uint8_t> bytes = old.bytes();
  std::copy_n(fresh.bytes().begin(), fresh.end(), bytes.begin());
  RecoveredLog log;

  ASSERT_TRUE(RecoverBytes(fresh.path(), bytes, &log).ok());

  EXPECT_EQ(log.bounds.last, 2u);
  EXPECT_EQ(log.torn_bytes, 0u);
}

class RecoverySegments : public ::testing::Test {
 protected:
  RecoverySegments() {
    first_.Flush({10}).Flush({20});
    second_ = Image(2, 77, first_.chain(), first_.last(), 1);
    second_.Flush({30}).Flush({40});
    third_ = Image(3, 78, second_.chain(), second_.last(), 1);
    third_.Flush({50}).Flush({60});
  }
  void PutAll() {
    for (const Image* image : {&first_, &second_, &third_}) disk_.Put(image->path(), image->bytes());
  }
  Image first_, second_, third_;
  MemoryFileSystem disk_;
  RecoveredLog log_;
};

TEST_F(RecoverySegments, ReadsThemInOrder) {
  PutAll();

  ASSERT_TRUE(RecoverFrom(disk_, &log_).ok());

  EXPECT_EQ(log_.bounds.first, 1u);
  EXPECT_EQ(log_.bounds.last, 6u);
  EXPECT_EQ(log_.segments.size(), 3u);
}

TEST_F(RecoverySegments, ReportsAMissingOneByName) {
  PutAll();
  ASSERT_TRUE(disk_.Remove(second_.path()).ok());

  const Status status = RecoverFrom(disk_, &log_);

  EXPECT_EQ(status.code, KW_DATA_LOSS);
  EXPECT_NE(status.text.find(SegmentName(2)), std::string::npos) << status.text;
}

TEST_F(RecoverySegments, ReportsADamagedEndOfAnEarlierOne) {
  PutAll();
  disk_.Bytes(first_.path())[first_.start(1) + 70] ^= 4;

  const Status status = RecoverFrom(disk_, &log_);

  EXPECT_EQ(status.code, KW_DATA_LOSS);
  EXPECT_NE(status.text.find(SegmentName(1) + " at offset " + std::to_string(first_.start(1))),
            std::string::npos)
      << status.text;
}

TEST_F(RecoverySegments, ReportsADamagedFirstFlushOfTheLastOne) {
  PutAll();
  disk_.Bytes(third_.path())[third_.start(0) + 70] ^= 4;

  const Status status = RecoverFrom(disk_, &log_);

  EXPECT_EQ(status.code, KW_DATA_LOSS);
  EXPECT_NE(status.text.find(SegmentName(3) + " at offset 4096"), std::string::npos) << status.text;
}

TEST_F(RecoverySegments, DropsATornFirstFlushOfTheLastOne) {
  third_ = Image(3, 78, second_.chain(), second_.last(), 1);
  third_.Flush({50, 500});
  PutAll();
  disk_.Bytes(third_.path())[third_.start(0) + 70] ^= 4;

  ASSERT_TRUE(RecoverFrom(disk_, &log_).ok());

  EXPECT_EQ(log_.bounds.last, 4u);
  EXPECT_EQ(log_.spare, nullptr);  // It is removed rather than used again.
  EXPECT_EQ(disk_.Paths().size(), 2u);
}

TEST_F(RecoverySegments, NeedsOnlyWhatTheLastCommitNames) {
  third_.Flush({}, 3);
  PutAll();
  ASSERT_TRUE(disk_.Remove(first_.path()).ok());

  ASSERT_TRUE(RecoverFrom(disk_, &log_).ok());

  EXPECT_EQ(log_.bounds.first, 5u);
  EXPECT_EQ(log_.bounds.last, 6u);
  EXPECT_EQ(log_.bounds.base_term, 1u);
  EXPECT_EQ(log_.leftovers.size(), 1u);
}

TEST_F(RecoverySegments, ChangesNothingWhenItReportsDamage) {
  PutAll();
  disk_.Put("/log/spare.tmp", {1, 2, 3});
  disk_.Bytes(second_.path())[second_.start(0) + 70] ^= 4;
  const uint64_t operations = disk_.operations();

  EXPECT_EQ(RecoverFrom(disk_, &log_).code, KW_DATA_LOSS);

  EXPECT_EQ(disk_.operations(), operations);
}

// Reliability catalogue D9: after a failed fdatasync the page cache shows what the disk lacks.
TEST_F(RecoverySegments, WritesTheLastFlushAnewBeforeItTrustsIt) {
  PutAll();
  bool wrote_last = false;
  disk_.SetFault([&](const std::string& call, const std::string& name) -> Status {
    wrote_last |= call == "write" && name == SegmentName(3);
    return {};
  });

  ASSERT_TRUE(RecoverFrom(disk_, &log_).ok());

  EXPECT_TRUE(wrote_last);
}

}  // namespace
}  // namespace keyway::log_segmented
