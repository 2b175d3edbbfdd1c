// SPDX-License-Identifier: Apache-2.0
//
// mutant-api: keyway.api/1 in front of the real API plugin. Beside that it asks the kernel for one range
// and the host for an identity and for TLS material, rightly or with one defect. See mutants.md for the
// list.
#include <atomic>
#include <thread>

#include "keyway/kernel.h"
#include "mutant.h"

KW_PLUGIN_MANIFEST(
    "id=mutant-api;version=0.1.0;abi=1.0;license=Apache-2.0;stability=alpha;provides=keyway.api/1;"
    "needs=keyway.kernel/1,keyway.clock/1,keyway.log/1,keyway.metrics/1,keyway.exposition/1,"
    "keyway.identity/1");

namespace keyway::mutants {
namespace {

const kw_kernel& Kernel() { return *static_cast<const kw_kernel*>(me.host->get(me.host, KW_KERNEL)); }
const kw_identity& Identity() { return *static_cast<const kw_identity*>(me.host->get(me.host, KW_IDENTITY)); }

std::thread worker;
std::atomic<int> answers{0};
std::atomic<kw_reply*> last_reply{nullptr};
kw_range_request request = {};
// The second is for a defect: in one call, or the first might be done between two.
kw_request* const requests[] = {&request.req, &request.req};

void Done(kw_request*, int32_t, const kw_error*, kw_reply* reply) {
  if (me.is("throws-in-done")) throw std::runtime_error("a mutant's done");
  last_reply = reply;
  answers.fetch_add(1);
  answers.notify_all();
}

void Prepare() {
  request = {};
  request.req.size = sizeof request;
  request.req.kind = me.is("submits-garbage") ? 99 : KW_REQ_RANGE;
  request.req.flags = KW_REQ_SERIALIZABLE;
  request.req.done = Done;
  static const uint8_t kKey[] = {'k'};
  request.range.key = {kKey, 1};
}

// So many that they are not done a moment later.
void SubmitMany() {
  static std::vector<kw_range_request> many(20000, request);
  std::vector<kw_request*> pointers;
  for (kw_range_request& each : many) {
    each.req.done = [](kw_request*, int32_t, const kw_error*, kw_reply* reply) {
      if (reply != nullptr) reply->release(reply);
    };
    pointers.push_back(&each.req);
  }
  Kernel().submit(me.host, pointers.data(), pointers.size());
}

void Authenticated(kw_completion* completion, int32_t, const kw_error*) {
  auto* count = static_cast<std::atomic<int>*>(completion->ctx);
  count->fetch_add(1);
}

void AskIdentity() {
  static kw_evidence evidence = {};
  static kw_principal principal = {};
  static kw_completion completion = {};
  static std::atomic<int> fired{0};
  evidence.size = sizeof evidence;
  principal.size = sizeof principal;
  completion.done = Authenticated;
  completion.ctx = &fired;
  Identity().authenticate(me.host, &evidence, &principal, &completion);
  kw_tls* tls = nullptr;
  kw_error error = NoError();
  if (Identity().tls(me.host, "material", &tls, &error) != KW_OK || tls == nullptr) return;
  if (me.is("leaks-tls-material")) return;
  tls->release(tls);
  if (me.is("releases-twice")) tls->release(tls);
}

void Work() {
  if (me.is("throws-on-its-own-thread")) throw std::runtime_error("a mutant's thread");
  if (me.is("makes-a-histogram-on-its-own-thread")) {
    const auto* metrics = static_cast<const kw_metrics*>(me.host->get(me.host, KW_METRICS));
    const double bounds[] = {1};
    metrics->histogram(me.host, "mutant_seconds", "help", nullptr, 0, bounds, 1);
  }
  Prepare();
  Kernel().submit(me.host, requests, me.is("submits-twice") ? 2 : 1);
  answers.wait(0);
  kw_reply* reply = last_reply;
  if (reply == nullptr || me.is("leaks-a-reply")) return;
  reply->release(reply);
  if (me.is("uses-a-reply-after-release")) {
    static std::atomic<int64_t> sum;
    sum += reply->revision;
  }
}

int32_t Start(kw_plugin*, kw_error* error) {
  const int32_t code = me.inner->start(me.inner, error);
  if (code != KW_OK) return code;
  AskIdentity();
  worker = std::thread(Work);
  return code;
}
void Stop(kw_plugin*) {
  worker.join();
  me.inner->stop(me.inner);
  if (me.is("stops-before-done")) SubmitMany();
}
void Destroy(kw_plugin*) {
  if (me.is("submits-after-stop")) {
    Prepare();
    Kernel().submit(me.host, requests, 1);
  }
  me.inner->destroy(me.inner);
}

int32_t CreateApi(const kw_host* host, const kw_config_item* items, size_t count, kw_plugin** out,
                  kw_error* error) {
  me.plugin = {sizeof(kw_plugin), 0, nullptr, Start, Stop, Destroy, [](kw_plugin*, const char* id) {
                 return me.inner->get(me.inner, id);
               }};
  return Create(host, items, count, out, error);
}

constexpr kw_config_field kFields[] = {{"listen", "strings", "[]", "of the real plugin"},
                                       {"real", "path", nullptr, "the real plugin"},
                                       {"mutant", "string", "none", "the defect"}};
constexpr const char* kProvides[] = {KW_API, nullptr};
constexpr const char* kNeeds[] = {KW_KERNEL,     KW_CLOCK,    KW_LOG, KW_METRICS,
                                  KW_EXPOSITION, KW_IDENTITY, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "mutant-api",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "alpha",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       3,
                                       CreateApi};

}  // namespace
}  // namespace keyway::mutants

KW_PLUGIN_ENTRY(mutant_api) {
  static constexpr const kw_descriptor* kPlugins[] = {&keyway::mutants::kDescriptor};
  static constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};
  return &kEntry;
}
