// SPDX-License-Identifier: Apache-2.0
//
// mutant-log: keyway.log-store/1 with one defect. See mutants.md for the list.
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "keyway/log_store.h"
#include "mutant.h"

KW_PLUGIN_MANIFEST(
    "id=mutant-log;version=0.1.0;abi=1.0;license=Apache-2.0;stability=alpha;"
    "provides=keyway.log-store/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::mutants {
namespace {

const kw_log_store& Inner() { return Real<kw_log_store>(KW_LOG_STORE); }

std::atomic<uint64_t> appends{0};

// A completion of the mutant's own, in front of the host's.
struct Relay {
  kw_completion own{};
  kw_completion* host = nullptr;
};
Relay* NewRelay(kw_completion* host, void (*done)(kw_completion*, int32_t, const kw_error*)) {
  auto* relay = new Relay;  // Lives as long as the process: some fire more than once.
  relay->own.done = done;
  relay->own.ctx = relay;
  relay->host = host;
  return relay;
}
kw_completion* HostOf(kw_completion* own) { return static_cast<Relay*>(own->ctx)->host; }

void DoneTwice(kw_completion* own, int32_t code, const kw_error* error) {
  kw_completion* host = HostOf(own);
  host->done(host, code, error);
  host->done(host, code, error);
}
std::atomic<int> told{0};
void DoneAndTold(kw_completion* own, int32_t code, const kw_error* error) {
  kw_completion* host = HostOf(own);
  host->done(host, code, error);
  told = 1;
  told.notify_all();
}
void Never(kw_completion*, int32_t, const kw_error*) {}
void Nothing(kw_completion* own, int32_t, const kw_error*) { delete static_cast<Relay*>(own->ctx); }

// Completes the first of two after the second.
std::mutex swap_mutex;
kw_completion* first_of_two = nullptr;
void Swapped(kw_completion* own, int32_t code, const kw_error* error) {
  kw_completion* host = HostOf(own);
  std::lock_guard lock(swap_mutex);
  if (first_of_two == nullptr) {
    first_of_two = host;
    return;
  }
  host->done(host, code, error);
  first_of_two->done(first_of_two, code, error);
  first_of_two = nullptr;
}

// Acknowledges at once, and writes half a second later: what a crash in between would lose.
int32_t AcknowledgeFirst(const kw_log_entry* entries, size_t count, const kw_hard_state* hard_state,
                         kw_completion* completion) {
  struct Late {
    std::vector<kw_log_entry> entries;
    std::vector<std::string> bytes;
    kw_hard_state state{};
    bool has_state = false;
  };
  auto late = std::make_shared<Late>();
  late->entries.assign(entries, entries + count);
  late->bytes.reserve(count);
  for (kw_log_entry& entry : late->entries) {
    late->bytes.emplace_back(View(entry.data));
    entry.data.ptr = reinterpret_cast<const uint8_t*>(late->bytes.back().data());
  }
  if (hard_state != nullptr) late->state = *hard_state;
  late->has_state = hard_state != nullptr;
  static std::mutex mutex;
  std::thread([late] {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    std::lock_guard lock(mutex);
    Inner().append(me.inner, late->entries.data(), late->entries.size(),
                   late->has_state ? &late->state : nullptr, &NewRelay(nullptr, Nothing)->own);
  }).detach();
  completion->done(completion, KW_OK, nullptr);
  return KW_PENDING;
}

int32_t Append(kw_plugin*, const kw_log_entry* entries, size_t count, const kw_hard_state* hard_state,
               kw_completion* completion) {
  const bool is_late = ++appends > 10;
  if (me.is("acknowledges-before-sync")) {
    return AcknowledgeFirst(entries, count, hard_state, completion);
  }
  if (is_late && me.is("completes-twice")) completion = &NewRelay(completion, DoneTwice)->own;
  if (is_late && me.is("completes-never")) completion = &NewRelay(completion, Never)->own;
  if (is_late && me.is("completes-out-of-order")) completion = &NewRelay(completion, Swapped)->own;
  if (is_late && me.is("completes-and-returns")) {
    Relay* relay = NewRelay(completion, DoneAndTold);
    told = 0;
    Inner().append(me.inner, entries, count, hard_state, &relay->own);
    told.wait(0);
    return KW_OK;
  }
  return Inner().append(me.inner, entries, count, hard_state, completion);
}
int32_t Recover(kw_plugin*, kw_hard_state* hard_state, kw_log_bounds* bounds, kw_error* error) {
  const int32_t code = Inner().recover(me.inner, hard_state, bounds, error);
  if (me.is("gives-garbage-bounds")) *bounds = {5, 2, 1};
  return code;
}

// A batch whose entries were copied and damaged.
struct Damaged {
  kw_log_batch outer{};
  kw_log_batch* inner = nullptr;
  std::vector<kw_log_entry> entries;
  std::vector<std::string> bytes;
};
int32_t Read(kw_plugin*, uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out,
             kw_error* error) {
  const int32_t code = Inner().read(me.inner, begin, end, bytes_max, out, error);
  if (code != KW_OK || !me.is("corrupts-an-entry")) return code;
  auto* damaged = new Damaged;
  damaged->outer = **out;
  damaged->inner = *out;
  damaged->entries.assign((*out)->entries, (*out)->entries + (*out)->entry_count);
  for (kw_log_entry& entry : damaged->entries) damaged->bytes.emplace_back(View(entry.data));
  for (size_t i = 0; i < damaged->entries.size(); ++i) {
    std::string& bytes = damaged->bytes[i];
    if (bytes.size() > 20) bytes[20] ^= 1;
    damaged->entries[i].data.ptr = reinterpret_cast<const uint8_t*>(bytes.data());
  }
  damaged->outer.entries = damaged->entries.data();
  damaged->outer.release = [](kw_log_batch* batch) {
    auto* self = reinterpret_cast<Damaged*>(batch);
    self->inner->release(self->inner);
    delete self;
  };
  *out = &damaged->outer;
  return code;
}
int32_t TruncatePrefix(kw_plugin*, uint64_t first_kept, kw_completion* completion) {
  if (me.is("truncates-one-too-many")) ++first_kept;
  return Inner().truncate_prefix(me.inner, first_kept, completion);
}
int32_t Reset(kw_plugin*, uint64_t base_index, uint64_t base_term, kw_completion* completion) {
  return Inner().reset(me.inner, base_index, base_term, completion);
}

// Without try_append every append comes on the log thread.
constexpr kw_log_store kTable = {sizeof(kw_log_store), 0,     Recover, Append,  Read,
                                 TruncatePrefix,       Reset, nullptr, nullptr, nullptr};

int32_t CreateLog(const kw_host* host, const kw_config_item* items, size_t count, kw_plugin** out,
                  kw_error* error) {
  me.plugin = {sizeof(kw_plugin),
               0,
               nullptr,
               [](kw_plugin*, kw_error* failure) { return me.inner->start(me.inner, failure); },
               [](kw_plugin*) { me.inner->stop(me.inner); },
               [](kw_plugin*) { me.inner->destroy(me.inner); },
               [](kw_plugin*, const char* id) -> const void* {
                 return std::strcmp(id, KW_LOG_STORE) == 0 ? &kTable : nullptr;
               }};
  return Create(host, items, count, out, error);
}

constexpr kw_config_field kFields[] = {{"dir", "path", nullptr, "of the real plugin"},
                                       {"segment_bytes", "bytes(1MiB..1GiB)", "64MiB", "of the real plugin"},
                                       {"real", "path", nullptr, "the real plugin"},
                                       {"mutant", "string", "none", "the defect"}};
constexpr const char* kProvides[] = {KW_LOG_STORE, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "mutant-log",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "alpha",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       4,
                                       CreateLog};

}  // namespace
}  // namespace keyway::mutants

KW_PLUGIN_ENTRY(mutant_log) {
  static constexpr const kw_descriptor* kPlugins[] = {&keyway::mutants::kDescriptor};
  static constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};
  return &kEntry;
}
