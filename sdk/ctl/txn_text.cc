// SPDX-License-Identifier: Apache-2.0
#include "txn_text.h"

#include <charconv>
#include <istream>
#include <memory>

#include "commands.h"

namespace keyway::ctl {
namespace {

constexpr size_t kItemsMax = 65536;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Reads an escape at line[*at], the character after the backslash.
void AppendEscape(std::string_view line, size_t* at, std::string* out) {
  const char c = line[*at];
  if (c == 'n') {
    out->push_back('\n');
  } else if (c == 't') {
    out->push_back('\t');
  } else if (c == 'x' && *at + 2 < line.size() && HexDigit(line[*at + 1]) >= 0 &&
             HexDigit(line[*at + 2]) >= 0) {
    out->push_back(static_cast<char>(HexDigit(line[*at + 1]) * 16 + HexDigit(line[*at + 2])));
    *at += 2;
  } else {
    out->push_back(c);
  }
}

void SkipSpace(std::string_view line, size_t* at) {
  while (*at < line.size() && (line[*at] == ' ' || line[*at] == '\t')) ++*at;
}

// Reads a quoted text at line[*at]. False: there is none, or it is not closed.
bool ReadQuoted(std::string_view line, size_t* at, std::string* out) {
  if (*at >= line.size() || line[*at] != '"') return false;
  for (++*at; *at < line.size() && line[*at] != '"'; ++*at) {
    if (line[*at] == '\\' && *at + 1 < line.size()) {
      ++*at;
      AppendEscape(line, at, out);
    } else {
      out->push_back(line[*at]);
    }
  }
  return *at < line.size() && line[(*at)++] == '"';
}

bool ReadNumber(const std::string& text, int base, int64_t* out) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return !text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

bool SetTarget(std::string_view target, const std::string& value, etcdserverpb::Compare* out) {
  using Compare = etcdserverpb::Compare;
  int64_t number = 0;
  if (target == "value" || target == "val") {
    out->set_target(Compare::VALUE);
    out->set_value(value);
    return true;
  }
  if (!ReadNumber(value, target == "lease" ? 16 : 10, &number)) return false;
  if (target == "version" || target == "ver") {
    out->set_target(Compare::VERSION);
    out->set_version(number);
  } else if (target == "create" || target == "c") {
    out->set_target(Compare::CREATE);
    out->set_create_revision(number);
  } else if (target == "mod" || target == "m") {
    out->set_target(Compare::MOD);
    out->set_mod_revision(number);
  } else if (target == "lease") {
    out->set_target(Compare::LEASE);
    out->set_lease(number);
  } else {
    return false;
  }
  return true;
}

// Parses `words` by the options of a command and makes its request.
template <typename Request>
std::string Make(CLI::App* app, const MakeRequest<Request>& make, std::vector<std::string> words,
                 const std::string& line, Request* out) {
  try {
    // CLI11 takes the words last first, without the name.
    app->parse(std::vector<std::string>(words.rbegin(), words.rend() - 1));
  } catch (const CLI::ParseError& e) {
    return "malformed request \"" + line + "\": " + e.what();
  }
  const std::string error = make(out);
  return error.empty() ? "" : "malformed request \"" + line + "\": " + error;
}

// Lines up to an empty one or the end.
std::vector<std::string> ReadBlock(std::istream* input) {
  std::vector<std::string> lines;
  std::string line;
  while (lines.size() < kItemsMax && std::getline(*input, line)) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    size_t at = 0;
    SkipSpace(line, &at);
    if (at == line.size()) break;
    lines.push_back(line);
  }
  return lines;
}

}  // namespace

bool SplitWords(std::string_view line, std::vector<std::string>* words) {
  size_t at = 0;
  while (true) {
    SkipSpace(line, &at);
    if (at == line.size()) return true;
    std::string word;
    while (at < line.size() && line[at] != ' ' && line[at] != '\t') {
      if (line[at] == '"') {
        if (!ReadQuoted(line, &at, &word)) return false;
      } else if (line[at] == '\'') {
        const size_t end = line.find('\'', at + 1);
        if (end == std::string_view::npos) return false;
        word.append(line.substr(at + 1, end - at - 1));
        at = end + 1;
      } else if (line[at] == '\\' && at + 1 < line.size()) {
        ++at;
        AppendEscape(line, &at, &word);
        ++at;
      } else {
        word.push_back(line[at++]);
      }
    }
    words->push_back(std::move(word));
  }
}

std::string ParseCompare(const std::string& line, etcdserverpb::Compare* out) {
  using Compare = etcdserverpb::Compare;
  const std::string malformed = "malformed comparison: " + line;
  size_t at = 0;
  SkipSpace(line, &at);
  const size_t open = line.find('(', at);
  if (open == std::string::npos) return malformed;
  const std::string target = line.substr(at, open - at);
  at = open + 1;
  std::string key, value;
  if (!ReadQuoted(line, &at, &key) || key.empty() || at >= line.size() || line[at++] != ')') return malformed;
  SkipSpace(line, &at);
  const size_t relation_end = line.find_first_of(" \t\"", at);
  if (relation_end == std::string::npos) return malformed;
  const std::string relation = line.substr(at, relation_end - at);
  at = relation_end;
  SkipSpace(line, &at);
  if (!ReadQuoted(line, &at, &value)) return malformed;
  SkipSpace(line, &at);
  if (at != line.size()) return malformed;
  out->set_key(key);
  if (relation == "=") {
    out->set_result(Compare::EQUAL);
  } else if (relation == "!=") {
    out->set_result(Compare::NOT_EQUAL);
  } else if (relation == "<") {
    out->set_result(Compare::LESS);
  } else if (relation == ">") {
    out->set_result(Compare::GREATER);
  } else {
    return malformed;
  }
  return SetTarget(target, value, out) ? "" : malformed;
}

std::string ParseOperation(const std::string& line, etcdserverpb::RequestOp* out) {
  std::vector<std::string> words;
  if (!SplitWords(line, &words)) return "a quote is not closed: " + line;
  if (words.empty()) return "empty request";
  CLI::App app;
  if (words[0] == "get") {
    const auto make = AddGetOptions(&app, std::make_shared<GetView>());
    return Make(&app, make, words, line, out->mutable_request_range());
  }
  if (words[0] == "put") {
    const auto make = AddPutOptions(&app, false);
    return Make(&app, make, words, line, out->mutable_request_put());
  }
  if (words[0] == "del") {
    const auto make = AddDeleteOptions(&app);
    return Make(&app, make, words, line, out->mutable_request_delete_range());
  }
  return "unknown request \"" + words[0] + "\" (get, put or del)";
}

std::string ParseTxn(std::istream* input, etcdserverpb::TxnRequest* out) {
  for (const std::string& line : ReadBlock(input)) {
    const std::string error = ParseCompare(line, out->add_compare());
    if (!error.empty()) return error;
  }
  for (const std::string& line : ReadBlock(input)) {
    const std::string error = ParseOperation(line, out->add_success());
    if (!error.empty()) return error;
  }
  for (const std::string& line : ReadBlock(input)) {
    const std::string error = ParseOperation(line, out->add_failure());
    if (!error.empty()) return error;
  }
  return out->success_size() + out->failure_size() == 0 ? "the transaction has no requests" : "";
}

}  // namespace keyway::ctl
