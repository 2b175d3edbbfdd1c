// SPDX-License-Identifier: Apache-2.0
//
// Messages name the plugin, its section and its line, since they are all that an operator sees of a node
// that does not start.
#include "kernel/plugin/plugin_set.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>

#include "absl/strings/str_cat.h"
#include "kernel/base/check.h"
#include "kernel/plugin/inventory.h"
#include "kernel/plugin/manifest.h"

namespace keyway {
namespace {

// The interface that a section's plugin must provide.
const char* InterfaceOf(std::string_view kind) {
  if (kind == "storage") return KW_KV_STORE;
  if (kind == "log") return KW_LOG_STORE;
  if (kind == "transport") return KW_TRANSPORT;
  if (kind == "auth") return KW_AUTHENTICATOR;
  if (kind == "metrics") return KW_OBSERVER;
  return KW_API;
}

kw_error EmptyError() {
  kw_error error = {};
  error.size = sizeof error;
  return error;
}

const char* CodeName(int32_t code) {
  constexpr const char* kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code < static_cast<int32_t>(std::size(kNames)) ? kNames[code] : "UNKNOWN";
}

constexpr check::Function kCreate{"kw_descriptor.create", check::ThreadTag::kControl};
constexpr check::Function kStart{"kw_plugin.start", check::ThreadTag::kControl};
constexpr check::Function kStop{"kw_plugin.stop", check::ThreadTag::kControl};
constexpr check::Function kDestroy{"kw_plugin.destroy", check::ThreadTag::kControl};

// An exception out of a plugin breaks the ABI; on the control path it can still be told.
template <typename Call>
int32_t Guarded(const check::InstanceCheck* maybe_check, const check::Function& function, kw_error* error,
                Call call) {
  std::optional<check::CallScope> scope;  // For the watchdog.
  if (maybe_check != nullptr) scope.emplace(maybe_check->subject(), function);
  std::string what = "something that is not a std::exception";
  try {
    return call();
  } catch (const std::exception& exception) {
    what = exception.what();
  } catch (...) {
  }
  *error = EmptyError();
  const std::string text =
      absl::StrCat("it threw an exception, which the ABI forbids (rule no-exception): ", what);
  std::strncpy(error->text, text.c_str(), sizeof error->text - 1);
  return KW_INTERNAL;
}

}  // namespace

PluginSet::PluginSet(const Config* config, PluginLoader* loader, NodeServices* services)
    : config_(*config), loader_(*loader), services_(*services) {}

PluginSet::~PluginSet() {
  StopApis();
  Stop();
}

std::string PluginSet::NameOf(const Instance& instance) const {
  const PluginSection& section = *instance.section;
  std::string text = absl::StrCat("plugin ", section.plugin, " ([", section.label, "], ", config_.file);
  if (section.place.line != 0) absl::StrAppend(&text, ":", section.place.line);
  return text.append(")");
}

absl::Status PluginSet::Failed(const Instance& instance, const std::string& what, int32_t code,
                               const kw_error& error) const {
  const size_t text_bytes = strnlen(error.text, sizeof error.text);
  const std::string text(error.text, text_bytes);
  return absl::Status(
      static_cast<absl::StatusCode>(code > 0 ? code : KW_INTERNAL),
      absl::StrCat(NameOf(instance), ": ", what, ": ", CodeName(code), text.empty() ? "" : ": ", text));
}

void PluginSet::Load(std::vector<ConfigError>* errors) {
  KW_CHECK(instances_.empty());
  for (const PluginSection& section : config_.plugins) {
    auto fail = [&](std::string message) {
      errors->push_back({section.place, absl::StrCat(section.label, ".plugin: ", message)});
    };
    Instance& instance = instances_.emplace_back();
    instance.section = &section;
    absl::StatusOr<const kw_descriptor*> descriptor = loader_.Load(section.plugin);
    if (!descriptor.ok()) {
      fail(std::string(descriptor.status().message()));
      continue;
    }
    instance.descriptor = *descriptor;
    const Manifest manifest = ManifestOf(**descriptor);
    auto has = [](const std::vector<std::string>& list, std::string_view name) {
      return std::find(list.begin(), list.end(), name) != list.end();
    };
    const std::string wanted = InterfaceOf(section.kind);
    if (!has(manifest.provides, wanted)) {
      std::string provided;
      for (const std::string& each : manifest.provides) {
        absl::StrAppend(&provided, provided.empty() ? "" : ", ", each);
      }
      fail(absl::StrCat("this section needs a plugin that provides ", wanted, "; ", manifest.id, " provides ",
                        provided));
      continue;
    }
    if (section.kind != "api" && has(manifest.needs, KW_KERNEL)) {
      fail(absl::StrCat(manifest.id, " needs " KW_KERNEL ", which is granted to [[api]] only"));
      continue;
    }
    instance.options = CheckPluginOptions(
        config_, section, {instance.descriptor->fields, instance.descriptor->field_count}, errors);
  }
}

std::vector<Options> PluginSet::PluginOptions() const {
  std::vector<Options> all;
  for (const Instance& instance : instances_) all.push_back(instance.options);
  return all;
}

std::string PluginSet::Inventory() const {
  std::vector<InventoryItem> items;
  for (const Instance& instance : instances_) {
    items.push_back({instance.section->label, ManifestOf(*instance.descriptor), instance.options});
  }
  return InventoryJson(config_.check_level, items);
}

std::vector<std::string> PluginSet::ListenClientUrls() const {
  std::vector<std::string> urls;
  for (const Instance& instance : instances_) {
    if (!IsApi(instance)) continue;
    const std::vector<std::string>& own = instance.options.Strings("listen");
    urls.insert(urls.end(), own.begin(), own.end());
  }
  return urls;
}

absl::Status PluginSet::Create() {
  thread_role = ThreadRole::kControl;
  const check::Level level = check::LevelOf(config_.check_level);
  if (level != check::Level::kOff) {
    const check::Deadlines deadlines = {config_.check_core_warn_ms * 1'000'000,
                                        config_.check_warn_ms * 1'000'000, config_.check_stop_ms * 1'000'000,
                                        config_.check_control_stop_ms * 1'000'000};
    checker_ = std::make_unique<check::Checker>(level, deadlines, services_.clock, services_.logger);
  }
  for (Instance& instance : instances_) {
    absl::Status created = CreateOne(&instance);
    if (!created.ok()) {
      DestroyAll();
      return created;
    }
  }
  return absl::OkStatus();
}

absl::Status PluginSet::CreateOne(Instance* instance) {
  KW_CHECK(instance->descriptor != nullptr);
  KW_CHECK(instance->plugin == nullptr);
  if (checker_ != nullptr) instance->check = checker_->Add(instance->descriptor->id);
  instance->host = std::make_unique<PluginHost>(&services_, instance->descriptor, IsApi(*instance),
                                                checker_ == nullptr ? nullptr : instance->check->host());
  const std::vector<kw_config_item> items = instance->options.Items();
  kw_error error = EmptyError();
  kw_plugin* plugin = nullptr;
  const int32_t code = Guarded(instance->check.get(), kCreate, &error, [&] {
    return instance->descriptor->create(instance->host->host(), items.data(), items.size(), &plugin, &error);
  });
  if (code != KW_OK) return Failed(*instance, "cannot be created", code, error);
  absl::Status checked = CheckInstance(plugin);
  if (!checked.ok()) {
    return absl::Status(checked.code(), absl::StrCat(NameOf(*instance), ": ", checked.message()));
  }
  instance->plugin = plugin;
  return TakeTables(instance);
}

absl::Status PluginSet::TakeTables(Instance* instance) {
  const std::string& kind = instance->section->kind;
  const void* given = instance->plugin->get(instance->plugin, InterfaceOf(kind));
  absl::Status taken = absl::OkStatus();
  auto complete = [&](auto& role) {
    role.plugin = instance->plugin;
    taken = CompleteTable(given, &role.table);
    if (taken.ok() && instance->is_started && instance->check != nullptr) {
      instance->check->Wrap(&role.plugin, &role.table);
    }
  };
  if (kind == "storage") complete(store_);
  if (kind == "log") complete(log_);
  if (kind == "transport") complete(transport_);
  if (kind == "auth") complete(authenticator_);
  if (kind == "metrics") {
    // The first one serves the exposition; the others are only checked.
    Role<kw_observer> other;
    const bool is_first = observer_instance_ == nullptr || observer_instance_ == instance;
    if (is_first) observer_instance_ = instance;
    complete(is_first ? observer_ : other);
  }
  if (taken.ok()) return taken;
  return absl::Status(taken.code(), absl::StrCat(NameOf(*instance), ": ", taken.message()));
}

absl::Status PluginSet::StartOne(Instance* instance) {
  KW_CHECK(instance->plugin != nullptr);
  KW_CHECK(!instance->is_started);
  kw_error error = EmptyError();
  const int32_t code = Guarded(instance->check.get(), kStart, &error,
                               [&] { return instance->plugin->start(instance->plugin, &error); });
  if (code != KW_OK) return Failed(*instance, "did not start", code, error);
  instance->is_started = true;
  // What a table promises may depend on what start() found.
  absl::Status taken = TakeTables(instance);
  if (taken.ok()) Publish(*instance);
  return taken;
}

void PluginSet::Publish(const Instance& instance) {
  if (instance.section->kind == "auth") {
    if (instance.check != nullptr) services_.authenticator_subject.store(&instance.check->subject());
    services_.authenticator_plugin.store(authenticator_.plugin, std::memory_order_relaxed);
    services_.authenticator.store(&authenticator_.table, std::memory_order_release);
  }
  if (&instance == observer_instance_) {
    services_.observer_plugin.store(observer_.plugin, std::memory_order_relaxed);
    services_.observer.store(&observer_.table, std::memory_order_release);
  }
}

absl::Status PluginSet::Start() {
  for (Instance& instance : instances_) {
    if (IsApi(instance)) continue;
    absl::Status started = StartOne(&instance);
    if (!started.ok()) {
      Stop();
      return started;
    }
  }
  return absl::OkStatus();
}

absl::Status PluginSet::StartApis() {
  KW_CHECK(services_.kernel.load() != nullptr);
  services_.inventory = Inventory();
  for (Instance& instance : instances_) {
    if (!IsApi(instance)) continue;
    absl::Status started = StartOne(&instance);
    if (!started.ok()) {
      StopApis();
      return started;
    }
  }
  return absl::OkStatus();
}

// stop() and destroy() have no error to return: an exception ends the node under check, else it is told.
void PluginSet::End(const Instance& instance, const check::Function& function,
                    void (*end)(kw_plugin* plugin)) {
  kw_error error = EmptyError();
  const int32_t code = Guarded(instance.check.get(), function, &error, [&] {
    end(instance.plugin);
    return KW_OK + 0;
  });
  if (code == KW_OK) return;
  if (instance.check != nullptr) instance.check->subject().Condemn(function.name, "no-exception", error.text);
  Log(services_.logger, KW_LOG_ERROR, "plugin_threw",
      {{"plugin", NameOf(instance)}, {"function", function.name}, {"error", error.text}});
}

void PluginSet::StopOne(Instance* instance) {
  if (!instance->is_started) return;
  if (instance->section->kind == "auth") services_.authenticator.store(nullptr);
  if (instance == observer_instance_) services_.observer.store(nullptr);
  if (instance->check != nullptr) instance->check->BeforeStop();
  End(*instance, kStop, instance->plugin->stop);
  if (instance->check != nullptr) instance->check->AfterStop();
  instance->is_started = false;
}

void PluginSet::StopApis() {
  for (auto instance = instances_.rbegin(); instance != instances_.rend(); ++instance) {
    if (IsApi(*instance)) StopOne(&*instance);
  }
}

void PluginSet::Stop() {
  for (auto instance = instances_.rbegin(); instance != instances_.rend(); ++instance) {
    StopOne(&*instance);
  }
  DestroyAll();
}

void PluginSet::DestroyAll() {
  for (auto instance = instances_.rbegin(); instance != instances_.rend(); ++instance) {
    if (instance->plugin != nullptr) End(*instance, kDestroy, instance->plugin->destroy);
    instance->plugin = nullptr;
  }
  store_.plugin = log_.plugin = transport_.plugin = authenticator_.plugin = observer_.plugin = nullptr;
  observer_instance_ = nullptr;
}

}  // namespace keyway
