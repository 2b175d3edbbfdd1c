// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/proposal.h"

#include "kernel/base/bytes.h"

namespace keyway::core {
namespace {

constexpr int kTxnDepthMax = 256;

// Signed numbers travel as their two's complement bits: negative ones are rare and long.
void PutSigned(std::string* out, int64_t value) { PutVarint(out, static_cast<uint64_t>(value)); }
int64_t Signed(Reader* reader) { return static_cast<int64_t>(reader->Varint()); }
kw_slice SliceOf(Reader* reader) { return ToSlice(reader->Bytes()); }

// Starts a proposal; the returned offset is for EndProposal.
size_t BeginProposal(uint64_t origin, uint64_t id, ProposalKind kind, std::string* out) {
  size_t start = out->size();
  PutFixed32(out, 0);
  PutFixed64(out, origin);
  PutFixed64(out, id);
  out->push_back(static_cast<char>(kind));
  return start;
}

void EndProposal(size_t start, std::string* out) {
  uint32_t length = static_cast<uint32_t>(out->size() - start - 4);
  std::memcpy(out->data() + start, &length, 4);
}

void EncodeRange(const kw_range& range, std::string* out) {
  PutBytes(out, ToView(range.key));
  PutBytes(out, ToView(range.end));
  for (int64_t number :
       {range.revision, range.limit, range.mod_min, range.mod_max, range.create_min, range.create_max}) {
    PutSigned(out, number);
  }
  out->push_back(static_cast<char>(range.sort_target));
  out->push_back(static_cast<char>(range.sort_order));
  out->push_back(static_cast<char>(range.flags));
}

void DecodeRange(Reader* reader, kw_range* range) {
  range->key = SliceOf(reader);
  range->end = SliceOf(reader);
  for (int64_t* number : {&range->revision, &range->limit, &range->mod_min, &range->mod_max,
                          &range->create_min, &range->create_max}) {
    *number = Signed(reader);
  }
  range->sort_target = reader->Byte();
  range->sort_order = reader->Byte();
  range->flags = reader->Byte();
}

void EncodeTxn(const kw_txn& txn, std::string* out);

void EncodeOp(const kw_op& op, std::string* out) {
  out->push_back(static_cast<char>(op.kind));
  switch (op.kind) {
    case KW_OP_PUT:
      out->push_back(static_cast<char>(op.flags));
      PutSigned(out, op.lease);
      PutBytes(out, ToView(op.key));
      PutBytes(out, ToView(op.value));
      break;
    case KW_OP_DELETE:
      out->push_back(static_cast<char>(op.flags));
      PutBytes(out, ToView(op.key));
      PutBytes(out, ToView(op.end));
      break;
    case KW_OP_RANGE:
      EncodeRange(*op.range, out);
      break;
    case KW_OP_TXN:
      EncodeTxn(*op.txn, out);
      break;
    default:
      KW_UNREACHABLE();  // CheckTxn refused it.
  }
}

void EncodeTxn(const kw_txn& txn, std::string* out) {
  PutVarint(out, txn.cmp_count);
  PutVarint(out, txn.then_count);
  PutVarint(out, txn.else_count);
  for (size_t i = 0; i < txn.cmp_count; ++i) {
    const kw_cmp& cmp = txn.cmps[i];
    out->push_back(static_cast<char>(cmp.target));
    out->push_back(static_cast<char>(cmp.relation));
    PutBytes(out, ToView(cmp.key));
    PutBytes(out, ToView(cmp.end));
    if (cmp.target == KW_CMP_VALUE) {
      PutBytes(out, ToView(cmp.value));
    } else {
      PutSigned(out, cmp.number);
    }
  }
  for (size_t i = 0; i < txn.then_count; ++i) EncodeOp(txn.then_ops[i], out);
  for (size_t i = 0; i < txn.else_count; ++i) EncodeOp(txn.else_ops[i], out);
}

bool DecodeTxn(Reader* reader, Arena* arena, int depth, kw_txn* txn);

bool DecodeOps(Reader* reader, Arena* arena, int depth, size_t count, const kw_op** out) {
  kw_op* ops = arena->NewArray<kw_op>(count);
  for (size_t i = 0; i < count; ++i) {
    kw_op& op = ops[i];
    op.kind = reader->Byte();
    switch (op.kind) {
      case KW_OP_PUT:
        op.flags = reader->Byte();
        op.lease = Signed(reader);
        op.key = SliceOf(reader);
        op.value = SliceOf(reader);
        break;
      case KW_OP_DELETE:
        op.flags = reader->Byte();
        op.key = SliceOf(reader);
        op.end = SliceOf(reader);
        break;
      case KW_OP_RANGE: {
        kw_range* range = arena->New<kw_range>();
        DecodeRange(reader, range);
        op.range = range;
        break;
      }
      case KW_OP_TXN: {
        kw_txn* nested = arena->New<kw_txn>();
        if (!DecodeTxn(reader, arena, depth + 1, nested)) return false;
        op.txn = nested;
        break;
      }
      default:
        return false;
    }
    if (!reader->ok()) return false;
  }
  *out = ops;
  return true;
}

bool DecodeTxn(Reader* reader, Arena* arena, int depth, kw_txn* txn) {
  if (depth > kTxnDepthMax) return false;
  txn->cmp_count = reader->Varint();
  txn->then_count = reader->Varint();
  txn->else_count = reader->Varint();
  // Each takes at least one byte, so a count beyond the rest is corrupt (and never allocated).
  size_t rest = reader->remaining();
  if (txn->cmp_count > rest || txn->then_count > rest || txn->else_count > rest) return false;
  kw_cmp* cmps = arena->NewArray<kw_cmp>(txn->cmp_count);
  for (size_t i = 0; i < txn->cmp_count; ++i) {
    kw_cmp& cmp = cmps[i];
    cmp.target = reader->Byte();
    cmp.relation = reader->Byte();
    cmp.key = SliceOf(reader);
    cmp.end = SliceOf(reader);
    if (cmp.target == KW_CMP_VALUE) {
      cmp.value = SliceOf(reader);
    } else {
      cmp.number = Signed(reader);
    }
  }
  txn->cmps = cmps;
  return reader->ok() && DecodeOps(reader, arena, depth, txn->then_count, &txn->then_ops) &&
         DecodeOps(reader, arena, depth, txn->else_count, &txn->else_ops);
}

}  // namespace

void EncodeTxnProposal(uint64_t origin, uint64_t id, const kw_txn& txn, bool plain, std::string* out) {
  size_t start = BeginProposal(origin, id, ProposalKind::kTxn, out);
  out->push_back(plain ? 1 : 0);
  EncodeTxn(txn, out);
  EndProposal(start, out);
}

void EncodeCompactProposal(uint64_t origin, uint64_t id, int64_t revision, std::string* out) {
  size_t start = BeginProposal(origin, id, ProposalKind::kCompact, out);
  PutSigned(out, revision);
  EndProposal(start, out);
}

void EncodeLeaseProposal(uint64_t origin, uint64_t id, ProposalKind kind, int64_t lease, int64_t ttl_s,
                         std::string* out) {
  size_t start = BeginProposal(origin, id, kind, out);
  PutSigned(out, lease);
  PutSigned(out, ttl_s);
  EndProposal(start, out);
}

void EncodeExpireProposal(uint64_t term, int64_t lease, std::string* out) {
  size_t start = BeginProposal(0, 0, ProposalKind::kLeaseExpire, out);
  PutVarint(out, term);
  PutSigned(out, lease);
  EndProposal(start, out);
}

void EncodeMemberProposal(uint64_t origin, uint64_t id, ProposalKind kind, std::string_view change,
                          std::string* out) {
  size_t start = BeginProposal(origin, id, kind, out);
  PutBytes(out, change);
  EndProposal(start, out);
}

void EncodeDigestMarkProposal(std::string* out) {
  EndProposal(BeginProposal(0, 0, ProposalKind::kDigestMark, out), out);
}

void EncodeDigestVerdictProposal(const DigestVerdict& verdict, std::string* out) {
  size_t start = BeginProposal(0, 0, ProposalKind::kDigestVerdict, out);
  PutVarint(out, verdict.mark);
  out->push_back(verdict.agreed ? 1 : 0);
  PutFixed64(out, verdict.digest);
  EndProposal(start, out);
}

bool ProposalReader::Next(Arena* arena, Proposal* proposal) {
  if (!ok_ || reader_.empty()) return false;
  Reader reader(reader_.Raw(reader_.Fixed32()));
  proposal->origin = reader.Fixed64();
  proposal->id = reader.Fixed64();
  proposal->kind = static_cast<ProposalKind>(reader.Byte());
  bool known = true;
  switch (proposal->kind) {
    case ProposalKind::kTxn:
      proposal->plain = reader.Byte() != 0;
      proposal->txn = {};
      known = DecodeTxn(&reader, arena, 0, &proposal->txn);
      break;
    case ProposalKind::kCompact:
      proposal->revision = Signed(&reader);
      break;
    case ProposalKind::kLeaseGrant:
    case ProposalKind::kLeaseRevoke:
      proposal->lease = Signed(&reader);
      proposal->ttl_s = Signed(&reader);
      break;
    case ProposalKind::kLeaseExpire:
      proposal->term = reader.Varint();
      proposal->lease = Signed(&reader);
      break;
    case ProposalKind::kMemberChange:
    case ProposalKind::kBootstrap:
      proposal->member_change = reader.Bytes();
      break;
    case ProposalKind::kDigestMark:
      break;
    case ProposalKind::kDigestVerdict:
      proposal->verdict.mark = reader.Varint();
      proposal->verdict.agreed = reader.Byte() != 0;
      proposal->verdict.digest = reader.Fixed64();
      break;
    default:
      known = false;
  }
  ok_ = known && reader_.ok() && reader.ok() && reader.empty();
  return ok_;
}

}  // namespace keyway::core
