// SPDX-License-Identifier: Apache-2.0
//
// The output queue of a stream.
#include "body.h"

#include <algorithm>

namespace keyway::api_etcd {

uint8_t* Body::Extend(size_t count) {
  pending_bytes_ += count;
  if (chunks_ == nullptr || chunks_->empty()) return flat_.Extend(count);
  Chunk& last = chunks_->back();
  if (last.records != nullptr || last.reply != nullptr) chunks_->emplace_back();
  return chunks_->back().bytes.Extend(count);
}

void Body::AppendRecords(uint32_t field, const kw_slice* records, size_t count, size_t total_bytes) {
  if (count == 0) return;
  if (chunks_ == nullptr) chunks_ = new std::deque<Chunk>();
  Chunk& chunk = chunks_->emplace_back();
  chunk.records = records;
  chunk.record_count = count;
  chunk.field = field;
  pending_bytes_ += total_bytes;
}

void Body::Hold(kw_reply* reply) {
  if (chunks_ == nullptr) chunks_ = new std::deque<Chunk>();
  chunks_->emplace_back().reply = reply;
}

bool Body::Finished(const Chunk& chunk) {
  return chunk.bytes.empty() && chunk.record_index == chunk.record_count;
}

size_t Body::CopyRecords(Chunk& chunk, uint8_t* out, size_t count) {
  size_t copied = 0;
  while (copied < count && chunk.record_index < chunk.record_count) {
    const kw_slice record = chunk.records[chunk.record_index];
    uint8_t head[16];
    const size_t head_bytes = static_cast<size_t>(PutBytesHead(head, chunk.field, record.len) - head);
    if (chunk.record_offset < head_bytes) {
      const size_t part = std::min(head_bytes - chunk.record_offset, count - copied);
      std::memcpy(out + copied, head + chunk.record_offset, part);
      chunk.record_offset += part;
      copied += part;
      if (chunk.record_offset < head_bytes) break;
    }
    const size_t done = chunk.record_offset - head_bytes;
    const size_t part = std::min(record.len - done, count - copied);
    if (part != 0) std::memcpy(out + copied, record.ptr + done, part);
    chunk.record_offset += part;
    copied += part;
    if (done + part == record.len) {
      ++chunk.record_index;
      chunk.record_offset = 0;
    }
  }
  return copied;
}

void Body::DropFinished() {
  while (!chunks_->empty() && Finished(chunks_->front())) {
    kw_reply* const reply = chunks_->front().reply;
    chunks_->pop_front();
    if (reply != nullptr) reply->release(reply);
  }
}

void Body::CopyOut(uint8_t* out, size_t count) {
  pending_bytes_ -= count;
  consumed_bytes_ += count;
  if (!flat_.empty()) {
    const size_t part = std::min(count, flat_.size());
    std::memcpy(out, flat_.data(), part);
    flat_.Consume(part);
    out += part;
    count -= part;
  }
  if (chunks_ == nullptr || !flat_.empty()) return;
  while (count != 0) {
    DropFinished();
    Chunk& chunk = chunks_->front();
    size_t part = 0;
    if (chunk.records != nullptr) {
      part = CopyRecords(chunk, out, count);
    } else {
      part = std::min(count, chunk.bytes.size());
      std::memcpy(out, chunk.bytes.data(), part);
      chunk.bytes.Consume(part);
    }
    out += part;
    count -= part;
  }
  DropFinished();
}

void Body::Clear(size_t keep_bytes) {
  flat_.Reset(keep_bytes);
  if (chunks_ != nullptr) {
    for (Chunk& chunk : *chunks_) {
      if (chunk.reply != nullptr) chunk.reply->release(chunk.reply);
    }
    delete chunks_;
    chunks_ = nullptr;
  }
  pending_bytes_ = 0;
  consumed_bytes_ = 0;
}

}  // namespace keyway::api_etcd
