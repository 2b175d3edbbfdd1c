// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/inventory.h"

namespace keyway {
namespace {

void AppendText(std::string_view text, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  out->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20) {
      out->append("\\u00").push_back(kHex[byte >> 4]);
      out->push_back(kHex[byte & 15]);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

void AppendField(std::string_view name, std::string_view text, std::string* out) {
  AppendText(name, out);
  out->push_back(':');
  AppendText(text, out);
  out->push_back(',');
}

void AppendTexts(const std::vector<std::string>& texts, std::string* out) {
  out->push_back('[');
  for (size_t i = 0; i < texts.size(); ++i) {
    if (i != 0) out->push_back(',');
    AppendText(texts[i], out);
  }
  out->push_back(']');
}

void AppendOption(const Option& option, std::string* out) {
  out->push_back('{');
  AppendField("key", option.key, out);
  out->append("\"value\":");
  if (IsSecretOption(option.key)) {
    AppendText("***", out);
  } else if (option.is_list) {
    AppendTexts(option.values, out);
  } else {
    AppendText(option.values.empty() ? "" : option.values[0], out);
  }
  out->append(",\"line\":").append(std::to_string(option.line)).append("}");
}

void AppendItem(const InventoryItem& item, std::string* out) {
  const Manifest& manifest = item.manifest;
  out->push_back('{');
  AppendField("section", item.section, out);
  AppendField("id", manifest.id, out);
  AppendField("version", manifest.version, out);
  AppendField("abi", std::to_string(manifest.abi_major) + "." + std::to_string(manifest.abi_minor), out);
  AppendField("license", manifest.license, out);
  AppendField("stability", manifest.stability, out);
  out->append("\"provides\":");
  AppendTexts(manifest.provides, out);
  out->append(",\"needs\":");
  AppendTexts(manifest.needs, out);
  out->append(",\"options\":[");
  for (size_t i = 0; i < item.options.list.size(); ++i) {
    if (i != 0) out->push_back(',');
    AppendOption(item.options.list[i], out);
  }
  out->append("]}");
}

}  // namespace

bool IsSecretOption(std::string_view key) {
  for (std::string_view word : {"password", "passphrase", "secret", "token"}) {
    if (key.find(word) != std::string_view::npos) return true;
  }
  return false;
}

std::string InventoryJson(std::string_view check_level, const std::vector<InventoryItem>& items) {
  std::string out = "{";
  AppendField("check", check_level, &out);
  out.append("\"plugins\":[");
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out.push_back(',');
    AppendItem(items[i], &out);
  }
  return out.append("]}");
}

}  // namespace keyway
