// SPDX-License-Identifier: Apache-2.0
#include "kernel/daemon/kernel_table.h"

#include "kernel/core/node.h"
#include "kernel/plugin/host_services.h"

namespace keyway {
namespace {

core::Node& NodeOf(const kw_host* host) { return *static_cast<core::Node*>(KernelSelf(host)); }

void Submit(const kw_host* host, kw_request* const* requests, size_t count) noexcept {
  NodeOf(host).Submit(requests, count);
}
uint64_t WatchOpen(const kw_host* host, const kw_watch* watch) noexcept {
  return NodeOf(host).WatchOpen(*watch);
}
void WatchCredit(const kw_host* host, uint64_t watch_id, uint64_t bytes) noexcept {
  NodeOf(host).WatchCredit(watch_id, bytes);
}
void WatchProgress(const kw_host* host, const kw_watch_sink* sink, const uint64_t* watch_ids,
                   size_t watch_count, void* ctx) noexcept {
  NodeOf(host).WatchProgress(sink, watch_ids, watch_count, ctx);
}
void WatchClose(const kw_host* host, uint64_t watch_id) noexcept { NodeOf(host).WatchClose(watch_id); }
const kw_node_state* State(const kw_host* host) noexcept { return NodeOf(host).state(); }
int32_t Plugins(const kw_host* host, kw_writer* writer) noexcept {
  const std::string& text = PluginHost::From(host).services().inventory;
  return writer->write(writer->self, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

}  // namespace

const kw_kernel* KernelTable() {
  static constexpr kw_kernel kTable = {sizeof(kw_kernel), 0,          Submit, WatchOpen, WatchCredit,
                                       WatchProgress,     WatchClose, State,  Plugins};
  return &kTable;
}

}  // namespace keyway
