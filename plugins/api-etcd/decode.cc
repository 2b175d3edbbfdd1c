// SPDX-License-Identifier: Apache-2.0
//
// Decoding of RangeRequest, PutRequest, DeleteRangeRequest and TxnRequest.
#include "decode.h"

#include "options.h"
#include "wire.h"

namespace keyway::api_etcd {
namespace {

// An enum of the wire as the kernel's byte; whatever does not fit is an unknown value.
uint8_t EnumByte(uint64_t value) { return value > 254 ? 255 : static_cast<uint8_t>(value); }

void SetFlag(bool is_set, uint32_t flag, uint32_t* flags) {
  *flags = is_set ? *flags | flag : *flags & ~flag;
}
void SetFlag(bool is_set, uint8_t flag, uint8_t* flags) {
  *flags = static_cast<uint8_t>(is_set ? *flags | flag : *flags & ~flag);
}

struct TxnDecoder {
  Arena* arena;
  TxnInfo* info;
  uint32_t elements = 0;

  Decoded Txn(kw_slice message, kw_txn* out, uint32_t depth);
  Decoded Compare(kw_slice message, kw_cmp* out);
  Decoded Op(kw_slice message, kw_op* out, uint32_t depth);
};

Decoded TxnDecoder::Compare(kw_slice message, kw_cmp* out) {
  WireReader reader(message);
  uint64_t number = 0;
  uint32_t union_field = 0;  // Which target_union was set last.
  int64_t union_number = 0;
  kw_slice union_value = {};
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        if (reader.Number(&number)) out->relation = EnumByte(number);
        break;
      case 2:
        if (reader.Number(&number)) out->target = EnumByte(number);
        break;
      case 3:
        reader.Bytes(&out->key);
        break;
      case 4:
      case 5:
      case 6:
      case 8:
        if (reader.Signed(&union_number)) union_field = reader.field();
        break;
      case 7:
        if (reader.Bytes(&union_value)) union_field = 7;
        break;
      case 64:
        reader.Bytes(&out->end);
        break;
      default:
        break;
    }
  }
  // A union of another target than `target` counts as unset.
  if (union_field != 0 && union_field == out->target + 4) {
    if (union_field == 7) {
      out->value = union_value;
    } else {
      out->number = union_number;
    }
  }
  return reader.ok() ? Decoded::kOk : Decoded::kMalformed;
}

Decoded TxnDecoder::Op(kw_slice message, kw_op* out, uint32_t depth) {
  WireReader reader(message);
  uint32_t kind = 0;
  kw_slice request = {};
  while (reader.Next()) {
    if (reader.field() < 1 || reader.field() > 4) continue;
    if (reader.Bytes(&request)) kind = reader.field();
  }
  if (!reader.ok()) return Decoded::kMalformed;
  switch (kind) {
    case 1: {
      auto* const range = arena->Array<kw_range>(1);
      RangeInfo range_info;
      const Decoded decoded = DecodeRange(request, range, &range_info);
      if (!range_info.is_serializable) info->is_serializable = false;
      out->kind = KW_OP_RANGE;
      out->range = range;
      return decoded;
    }
    case 2:
      info->is_read_only = false;
      return DecodePut(request, out);
    case 3:
      info->is_read_only = false;
      return DecodeDeleteRange(request, out);
    case 4: {
      info->is_read_only = false;
      auto* const txn = arena->Array<kw_txn>(1);
      out->kind = KW_OP_TXN;
      out->txn = txn;
      return Txn(request, txn, depth + 1);
    }
    default:
      info->is_read_only = false;
      out->kind = 0;  // The kernel answers KEY_NOT_FOUND, as etcd does for an unset operation.
      return Decoded::kOk;
  }
}

Decoded TxnDecoder::Txn(kw_slice message, kw_txn* out, uint32_t depth) {
  if (depth > kTxnDepthMax) return Decoded::kTooManyOps;
  WireReader counter(message);
  size_t counts[4] = {};
  while (counter.Next()) {
    if (counter.field() >= 1 && counter.field() <= 3) ++counts[counter.field()];
  }
  if (!counter.ok()) return Decoded::kMalformed;
  if (counts[1] + counts[2] + counts[3] > kTxnElementsMax - elements) return Decoded::kTooManyOps;
  elements += static_cast<uint32_t>(counts[1] + counts[2] + counts[3]);

  auto* const cmps = arena->Array<kw_cmp>(counts[1]);
  auto* const then_ops = arena->Array<kw_op>(counts[2]);
  auto* const else_ops = arena->Array<kw_op>(counts[3]);
  *out = {cmps, then_ops, else_ops, counts[1], counts[2], counts[3]};
  size_t filled[4] = {};
  WireReader reader(message);
  while (reader.Next()) {
    const uint32_t field = reader.field();
    if (field < 1 || field > 3) continue;
    kw_slice element = {};
    if (!reader.Bytes(&element)) break;
    Decoded decoded = Decoded::kOk;
    if (field == 1) decoded = Compare(element, &cmps[filled[1]++]);
    if (field == 2) decoded = Op(element, &then_ops[filled[2]++], depth);
    if (field == 3) decoded = Op(element, &else_ops[filled[3]++], depth);
    if (decoded != Decoded::kOk) return decoded;
  }
  return reader.ok() ? Decoded::kOk : Decoded::kMalformed;
}

}  // namespace

Decoded DecodeRange(kw_slice message, kw_range* out, RangeInfo* info) {
  WireReader reader(message);
  uint64_t number = 0;
  bool is_set = false;
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        reader.Bytes(&out->key);
        break;
      case 2:
        reader.Bytes(&out->end);
        break;
      case 3:
        reader.Signed(&out->limit);
        break;
      case 4:
        reader.Signed(&out->revision);
        break;
      case 5:
        if (reader.Number(&number)) out->sort_order = EnumByte(number);
        break;
      case 6:
        if (reader.Number(&number)) out->sort_target = EnumByte(number);
        break;
      case 7:
        reader.Bool(&info->is_serializable);
        break;
      case 8:
        if (reader.Bool(&is_set)) SetFlag(is_set, uint8_t{KW_RANGE_KEYS_ONLY}, &out->flags);
        break;
      case 9:
        if (reader.Bool(&is_set)) SetFlag(is_set, uint8_t{KW_RANGE_COUNT_ONLY}, &out->flags);
        break;
      case 10:
        reader.Signed(&out->mod_min);
        break;
      case 11:
        reader.Signed(&out->mod_max);
        break;
      case 12:
        reader.Signed(&out->create_min);
        break;
      case 13:
        reader.Signed(&out->create_max);
        break;
      default:
        break;
    }
  }
  if (out->revision < 0) out->revision = 0;
  if (out->limit < 0) out->limit = 0;
  return reader.ok() ? Decoded::kOk : Decoded::kMalformed;
}

Decoded DecodePut(kw_slice message, kw_op* out) {
  out->kind = KW_OP_PUT;
  WireReader reader(message);
  bool is_set = false;
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        reader.Bytes(&out->key);
        break;
      case 2:
        reader.Bytes(&out->value);
        break;
      case 3:
        reader.Signed(&out->lease);
        break;
      case 4:
        if (reader.Bool(&is_set)) SetFlag(is_set, uint32_t{KW_PUT_PREV_KV}, &out->flags);
        break;
      case 5:
        if (reader.Bool(&is_set)) SetFlag(is_set, uint32_t{KW_PUT_IGNORE_VALUE}, &out->flags);
        break;
      case 6:
        if (reader.Bool(&is_set)) SetFlag(is_set, uint32_t{KW_PUT_IGNORE_LEASE}, &out->flags);
        break;
      default:
        break;
    }
  }
  return reader.ok() ? Decoded::kOk : Decoded::kMalformed;
}

Decoded DecodeDeleteRange(kw_slice message, kw_op* out) {
  out->kind = KW_OP_DELETE;
  WireReader reader(message);
  bool is_set = false;
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        reader.Bytes(&out->key);
        break;
      case 2:
        reader.Bytes(&out->end);
        break;
      case 3:
        if (reader.Bool(&is_set)) SetFlag(is_set, uint32_t{KW_DELETE_PREV_KV}, &out->flags);
        break;
      default:
        break;
    }
  }
  return reader.ok() ? Decoded::kOk : Decoded::kMalformed;
}

Decoded DecodeTxn(kw_slice message, Arena* arena, kw_txn* out, TxnInfo* info) {
  TxnDecoder decoder{arena, info};
  return decoder.Txn(message, out, 0);
}

kw_slice RecordKey(kw_slice record) {
  WireReader reader(record);
  kw_slice key = {};
  while (reader.Next()) {
    if (reader.field() == 1 && reader.Bytes(&key)) return key;
  }
  return {};
}

}  // namespace keyway::api_etcd
