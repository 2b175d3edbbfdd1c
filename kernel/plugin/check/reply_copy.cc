// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/reply_copy.h"

#include <deque>
#include <vector>

namespace keyway::check {
namespace {

// Counts what a copy takes. Arrays are copied, since their elements are written to.
class Measure {
 public:
  template <typename T>
  T* Array(const T* from, size_t count) {
    if (from == nullptr) return nullptr;
    bytes_ += PoisonedCopy::RoundUp(count * sizeof(T));
    arrays_.emplace_back(count * sizeof(T) + 1);
    if (count != 0) std::memcpy(arrays_.back().data(), from, count * sizeof(T));
    return reinterpret_cast<T*>(arrays_.back().data());
  }
  kw_slice Slice(kw_slice from) {
    if (from.ptr != nullptr) bytes_ += PoisonedCopy::RoundUp(from.len);
    return from;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
  std::deque<std::vector<char>> arrays_;
};

template <typename To>
const kw_slice* Slices(To* to, const kw_slice* from, size_t count) {
  kw_slice* slices = to->Array(from, count);
  for (size_t i = 0; i < count; ++i) slices[i] = to->Slice(from[i]);
  return slices;
}

template <typename To>
const kw_op_result* Results(To* to, const kw_op_result* from, size_t count) {
  kw_op_result* results = to->Array(from, count);
  for (size_t i = 0; i < count; ++i) {
    results[i].records = Slices(to, from[i].records, from[i].record_count);
    results[i].nested = Results(to, from[i].nested, from[i].nested_count);
  }
  return results;
}

template <typename To>
kw_reply* Copy(To* to, const kw_reply& from) {
  kw_reply* reply = to->Array(&from, 1);
  reply->results = Results(to, from.results, from.result_count);
  kw_member* members = to->Array(from.members, from.member_count);
  for (size_t i = 0; i < from.member_count; ++i) {
    members[i].name = to->Slice(from.members[i].name);
    members[i].peer_urls = Slices(to, from.members[i].peer_urls, from.members[i].peer_url_count);
    members[i].client_urls = Slices(to, from.members[i].client_urls, from.members[i].client_url_count);
  }
  reply->members = members;
  if (from.lease != nullptr) {
    kw_lease_info* lease = to->Array(from.lease, 1);
    lease->keys = Slices(to, from.lease->keys, from.lease->key_count);
    lease->ids = to->Array(from.lease->ids, from.lease->id_count);
    reply->lease = lease;
  }
  if (from.status != nullptr) {
    kw_status* status = to->Array(from.status, 1);
    status->errors = Slices(to, from.status->errors, from.status->error_count);
    reply->status = status;
  }
  if (from.hash != nullptr) reply->hash = to->Array(from.hash, 1);
  return reply;
}

}  // namespace

PoisonedCopy CopyReply(const Subject& subject, const Function& function, const kw_reply& reply,
                       kw_reply** out) {
  Measure measure;
  Copy(&measure, reply);
  PoisonedCopy copy(subject, function, measure.bytes());
  *out = Copy(&copy, reply);
  return copy;
}

}  // namespace keyway::check
