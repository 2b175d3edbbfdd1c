// SPDX-License-Identifier: Apache-2.0
//
// The functions behind each service's table. None throws: the plugin may be C.
#include "kernel/plugin/host_services.h"

#include <algorithm>
#include <cstring>

#include "kernel/base/bytes.h"

namespace keyway {
namespace {

NodeServices& ServicesOf(const kw_host* host) { return PluginHost::From(host).services(); }

// Under check: a service that is called after stop() is a verdict.
void Check(const kw_host* host, const char* function) {
  if (const check::HostCheck* check = PluginHost::From(host).maybe_check()) check->CheckCall(function);
}

// ---- keyway.log/1

void LogWrite(const kw_host* host, uint32_t level, const char* event, const kw_field* fields,
              size_t field_count) noexcept {
  Logger* logger = ServicesOf(host).logger;
  if (!logger->Enabled(level)) return;
  logger->Write(level, PluginHost::From(host).plugin_id(), event, {fields, field_count});
}

// ---- keyway.clock/1

uint64_t ClockMonoNs(const kw_host* host) noexcept { return ServicesOf(host).clock->MonoNs(); }
uint64_t ClockWallNs(const kw_host* host) noexcept { return ServicesOf(host).clock->WallNs(); }
int32_t ClockAfter(const kw_host* host, uint64_t delay_ns, kw_completion* completion) noexcept {
  Check(host, "clock.after");
  ServicesOf(host).clock->After(delay_ns, completion);
  return KW_PENDING;
}
void ClockCancel(const kw_host* host, kw_completion* completion) noexcept {
  ServicesOf(host).clock->Cancel(completion);
}
constexpr kw_clock kClockTable = {sizeof(kw_clock), 0, ClockMonoNs, ClockWallNs, ClockAfter, ClockCancel};

// ---- keyway.metrics/1

MetricLabels LabelsOf(const kw_field* labels, size_t label_count) {
  MetricLabels out;
  for (size_t i = 0; i < label_count; ++i) {
    out.emplace_back(labels[i].key, std::string(ToView(labels[i].value)));
  }
  return out;
}

uint64_t* MetricsCell(const kw_host* host, uint32_t kind, const char* name, const char* help,
                      const kw_field* labels, size_t label_count) noexcept {
  MetricsRegistry* metrics = ServicesOf(host).metrics;
  const MetricLabels label_list = LabelsOf(labels, label_count);
  return kind == KW_METRIC_GAUGE ? metrics->Gauge(name, help, label_list)
                                 : metrics->Counter(name, help, label_list);
}

uint64_t* MetricsHistogram(const kw_host* host, const char* name, const char* help, const kw_field* labels,
                           size_t label_count, const double* bounds, size_t bound_count) noexcept {
  if (const check::HostCheck* check = PluginHost::From(host).maybe_check()) {
    check->CheckControl("metrics.histogram");
  }
  // The plugin writes bound_count + 2 cells; a cut array would be overrun.
  if (bound_count > MetricsRegistry::kBoundsMax) return nullptr;
  return ServicesOf(host)
      .metrics->Histogram(name, help, LabelsOf(labels, label_count), {bounds, bound_count})
      .cells;
}
constexpr kw_metrics kMetricsTable = {sizeof(kw_metrics), 0, MetricsCell, MetricsHistogram};

// ---- keyway.exposition/1 and keyway.samples/1

int32_t ExpositionRender(const kw_host* host, kw_writer* writer, kw_error* error) noexcept {
  Check(host, "exposition.render");
  NodeServices& services = ServicesOf(host);
  const kw_observer* observer = services.observer.load(std::memory_order_acquire);
  if (observer == nullptr) {
    if (error != nullptr) {
      error->code = KW_NOT_FOUND;
      error->detail = KW_DETAIL_NONE;
      std::strncpy(error->text, "no [[metrics]] plugin is configured", sizeof error->text);
    }
    return KW_NOT_FOUND;
  }
  int32_t code = KW_OK;
  services.metrics->Collect([&](std::span<const kw_sample> samples) {
    code = observer->render(services.observer_plugin.load(std::memory_order_relaxed), samples.data(),
                            samples.size(), writer, error);
  });
  return code;
}
constexpr kw_exposition kExpositionTable = {sizeof(kw_exposition), 0, ExpositionRender};

void SamplesCollect(const kw_host* host, void* self,
                    void (*visit)(void*, const kw_sample*, size_t)) noexcept {
  ServicesOf(host).metrics->Collect(
      [&](std::span<const kw_sample> samples) { visit(self, samples.data(), samples.size()); });
}
constexpr kw_samples kSamplesTable = {sizeof(kw_samples), 0, SamplesCollect};

// ---- keyway.identity/1

int32_t IdentityAuthenticate(const kw_host* host, const kw_evidence* evidence, kw_principal* out,
                             kw_completion* completion) noexcept {
  Check(host, "identity.authenticate");
  NodeServices& services = ServicesOf(host);
  const kw_authenticator* authenticator = services.authenticator.load(std::memory_order_acquire);
  if (authenticator == nullptr) {
    out->len = 0;
    return KW_OK;
  }
  return authenticator->authenticate(services.authenticator_plugin.load(std::memory_order_relaxed), evidence,
                                     out, completion);
}

int32_t IdentityTls(const kw_host* host, const char* role, kw_tls** out, kw_error* error) noexcept {
  Check(host, "identity.tls");
  NodeServices& services = ServicesOf(host);
  const kw_authenticator* authenticator = services.authenticator.load(std::memory_order_acquire);
  if (authenticator == nullptr) {
    *out = nullptr;
    return KW_OK;
  }
  const int32_t code =
      authenticator->tls(services.authenticator_plugin.load(std::memory_order_relaxed), role, out, error);
  check::HostCheck* check = PluginHost::From(host).maybe_check();
  if (check != nullptr && code == KW_OK && *out != nullptr) {
    *out = check->Track(*out, services.authenticator_subject.load(std::memory_order_relaxed));
  }
  return code;
}
constexpr kw_identity kIdentityTable = {sizeof(kw_identity), 0, IdentityAuthenticate, IdentityTls};

// ---- keyway.kernel/1 under check

const kw_kernel& KernelOf(const kw_host* host) {
  return *ServicesOf(host).kernel.load(std::memory_order_acquire);
}
check::HostCheck& CheckOf(const kw_host* host) { return *PluginHost::From(host).maybe_check(); }

void CheckedSubmit(const kw_host* host, kw_request* const* requests, size_t request_count) noexcept {
  CheckOf(host).Submit(KernelOf(host), host, requests, request_count);
}
uint64_t CheckedWatchOpen(const kw_host* host, const kw_watch* watch) noexcept {
  return CheckOf(host).WatchOpen(KernelOf(host), host, watch);
}
void CheckedWatchCredit(const kw_host* host, uint64_t watch_id, uint64_t bytes) noexcept {
  Check(host, "kernel.watch_credit");
  KernelOf(host).watch_credit(host, watch_id, bytes);
}
void CheckedWatchProgress(const kw_host* host, const kw_watch_sink* sink, const uint64_t* watch_ids,
                          size_t watch_count, void* ctx) noexcept {
  CheckOf(host).WatchProgress(KernelOf(host), host, sink, watch_ids, watch_count, ctx);
}
void CheckedWatchClose(const kw_host* host, uint64_t watch_id) noexcept {
  Check(host, "kernel.watch_close");
  KernelOf(host).watch_close(host, watch_id);
}
const kw_node_state* CheckedState(const kw_host* host) noexcept { return KernelOf(host).state(host); }
int32_t CheckedPlugins(const kw_host* host, kw_writer* writer) noexcept {
  Check(host, "kernel.plugins");
  return KernelOf(host).plugins(host, writer);
}
constexpr kw_kernel kCheckedKernel = {sizeof(kw_kernel),  0,
                                      CheckedSubmit,      CheckedWatchOpen,
                                      CheckedWatchCredit, CheckedWatchProgress,
                                      CheckedWatchClose,  CheckedState,
                                      CheckedPlugins};

constexpr std::string_view kServices[] = {KW_LOG,     KW_CLOCK,    KW_METRICS, KW_EXPOSITION,
                                          KW_SAMPLES, KW_IDENTITY, KW_KERNEL};

}  // namespace

bool IsKnownService(std::string_view service_id) {
  return std::find(std::begin(kServices), std::end(kServices), service_id) != std::end(kServices);
}

PluginHost::PluginHost(NodeServices* services, const kw_descriptor* descriptor, bool grants_kernel,
                       check::HostCheck* maybe_check)
    : services_(services),
      descriptor_(descriptor),
      grants_kernel_(grants_kernel),
      maybe_check_(maybe_check),
      log_{sizeof(kw_log), services->log_level_min, LogWrite},
      host_{sizeof(kw_host), KW_ABI_MAJOR, KW_ABI_MINOR, this, kProduct, &PluginHost::Get} {}

const void* PluginHost::Get(const kw_host* host, const char* service_id) {
  const PluginHost& self = From(host);
  if (service_id == nullptr) return nullptr;
  const std::string_view id = service_id;
  bool is_needed = false;
  for (const char* const* need = self.descriptor_->needs; need != nullptr && *need != nullptr; ++need) {
    if (id == *need) is_needed = true;
  }
  if (!is_needed) return nullptr;
  if (id == KW_LOG) return &self.log_;
  if (id == KW_CLOCK) return &kClockTable;
  if (id == KW_METRICS) return &kMetricsTable;
  if (id == KW_EXPOSITION) return &kExpositionTable;
  if (id == KW_SAMPLES) return &kSamplesTable;
  if (id == KW_IDENTITY) return &kIdentityTable;
  if (id == KW_KERNEL && self.grants_kernel_) {
    const kw_kernel* kernel = self.services_->kernel.load(std::memory_order_acquire);
    return kernel != nullptr && self.maybe_check_ != nullptr ? &kCheckedKernel : kernel;
  }
  return nullptr;
}

}  // namespace keyway
