// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/proposal.h"

#include <gtest/gtest.h>

#include "kernel/base/bytes.h"

namespace keyway::core {
namespace {

struct NestedTxn {
  kw_cmp cmps[2]{};
  kw_op then_ops[3]{}, else_ops[1]{}, nested_ops[1]{};
  kw_range range{};
  kw_txn nested{}, txn{};

  NestedTxn() {
    cmps[0] = {.key = ToSlice("k"), .value = ToSlice("v"), .target = KW_CMP_VALUE, .relation = KW_CMP_LESS};
    cmps[1] = {.key = ToSlice("k"),
               .end = ToSlice("l"),
               .number = -7,
               .target = KW_CMP_LEASE,
               .relation = KW_CMP_NOT_EQUAL};
    then_ops[0] = {
        .kind = KW_OP_PUT, .flags = KW_PUT_PREV_KV, .key = ToSlice("a"), .value = ToSlice("1"), .lease = 42};
    range = {.key = ToSlice("b"),
             .end = ToSlice("c"),
             .revision = 9,
             .limit = 3,
             .mod_max = 8,
             .sort_target = KW_SORT_MOD,
             .sort_order = KW_ORDER_DESCEND,
             .flags = KW_RANGE_KEYS_ONLY};
    then_ops[1] = {.kind = KW_OP_RANGE, .range = &range};
    nested_ops[0] = {
        .kind = KW_OP_DELETE, .flags = KW_DELETE_PREV_KV, .key = ToSlice("d"), .end = ToSlice("e")};
    nested = {.then_ops = nested_ops, .then_count = 1};
    then_ops[2] = {.kind = KW_OP_TXN, .txn = &nested};
    else_ops[0] = {.kind = KW_OP_DELETE, .key = ToSlice("x")};
    txn = {.cmps = cmps,
           .then_ops = then_ops,
           .else_ops = else_ops,
           .cmp_count = 2,
           .then_count = 3,
           .else_count = 1};
  }
};

TEST(Proposal, RoundTripsEveryKindInOneEntry) {
  NestedTxn source;
  std::string entry;
  EncodeTxnProposal(1, 100, source.txn, false, &entry);
  EncodeCompactProposal(2, 101, 55, &entry);
  EncodeLeaseProposal(3, 102, ProposalKind::kLeaseGrant, 7, 60, &entry);
  EncodeExpireProposal(12, 9, &entry);
  EncodeMemberProposal(4, 103, ProposalKind::kMemberChange, "change", &entry);
  EncodeDigestMarkProposal(&entry);
  EncodeDigestVerdictProposal({300, true, 0x123456789abcdef0}, &entry);
  Arena arena;
  Proposal proposal;
  ProposalReader reader(entry);

  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.origin, 1u);
  EXPECT_EQ(proposal.id, 100u);
  ASSERT_EQ(proposal.txn.cmp_count, 2u);
  EXPECT_EQ(ToView(proposal.txn.cmps[0].value), "v");
  EXPECT_EQ(proposal.txn.cmps[1].number, -7);
  EXPECT_EQ(ToView(proposal.txn.cmps[1].end), "l");
  ASSERT_EQ(proposal.txn.then_count, 3u);
  EXPECT_EQ(proposal.txn.then_ops[0].lease, 42);
  EXPECT_EQ(proposal.txn.then_ops[0].flags, static_cast<uint32_t>(KW_PUT_PREV_KV));
  EXPECT_EQ(proposal.txn.then_ops[1].range->revision, 9);
  EXPECT_EQ(proposal.txn.then_ops[1].range->mod_max, 8);
  EXPECT_EQ(proposal.txn.then_ops[1].range->flags, KW_RANGE_KEYS_ONLY);
  ASSERT_EQ(proposal.txn.then_ops[2].txn->then_count, 1u);
  EXPECT_EQ(ToView(proposal.txn.then_ops[2].txn->then_ops[0].end), "e");
  ASSERT_EQ(proposal.txn.else_count, 1u);
  EXPECT_EQ(ToView(proposal.txn.else_ops[0].key), "x");

  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.kind, ProposalKind::kCompact);
  EXPECT_EQ(proposal.revision, 55);
  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.kind, ProposalKind::kLeaseGrant);
  EXPECT_EQ(proposal.lease, 7);
  EXPECT_EQ(proposal.ttl_s, 60);
  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.kind, ProposalKind::kLeaseExpire);
  EXPECT_EQ(proposal.term, 12u);
  EXPECT_EQ(proposal.lease, 9);
  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.member_change, "change");
  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.kind, ProposalKind::kDigestMark);
  ASSERT_TRUE(reader.Next(&arena, &proposal));
  EXPECT_EQ(proposal.kind, ProposalKind::kDigestVerdict);
  EXPECT_EQ(proposal.verdict.mark, 300u);
  EXPECT_TRUE(proposal.verdict.agreed);
  EXPECT_EQ(proposal.verdict.digest, 0x123456789abcdef0u);
  EXPECT_FALSE(reader.Next(&arena, &proposal));
  EXPECT_TRUE(reader.ok());
}

TEST(Proposal, RefusesEveryTruncation) {
  NestedTxn source;
  std::string entry;
  EncodeTxnProposal(1, 100, source.txn, false, &entry);

  for (size_t size = 1; size < entry.size(); ++size) {
    Arena arena;
    Proposal proposal;
    ProposalReader reader(std::string_view(entry).substr(0, size));
    EXPECT_FALSE(reader.Next(&arena, &proposal)) << size;
    EXPECT_FALSE(reader.ok()) << size;
  }
}

TEST(Proposal, SurvivesEveryChangedByte) {
  NestedTxn source;
  std::string entry;
  EncodeTxnProposal(1, 100, source.txn, false, &entry);

  for (size_t at = 0; at < entry.size(); ++at) {
    for (int value = 0; value < 256; value += 5) {
      std::string changed = entry;
      changed[at] = static_cast<char>(value);
      Arena arena;
      Proposal proposal;
      ProposalReader reader(changed);
      while (reader.Next(&arena, &proposal)) {
      }
    }
  }
}

}  // namespace
}  // namespace keyway::core
