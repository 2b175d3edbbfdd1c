// SPDX-License-Identifier: Apache-2.0
//
// What every command shares: the global flags, the exit codes, and how a command is run.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace keyway::ctl {

enum ExitCode : int { kOk = 0, kError = 1, kBadConnection = 2, kInvalidInput = 3, kBadArguments = 128 };

struct Flags {
  std::vector<std::string> endpoints;
  std::string write_out;  // "", "simple", "table" or "json"
  bool hex = false;
  std::string command_timeout = "5s";
  std::string dial_timeout = "2s";
  std::string ca_file, certificate_file, key_file;
  bool skips_tls_verify = false;

  bool is_json() const { return write_out == "json"; }
  // Lists are tables for people; keys and values are plain lines, unless a table is asked for.
  bool wants_table(bool by_default) const { return write_out.empty() ? by_default : write_out == "table"; }
};

struct Context {
  Flags flags;
  std::chrono::nanoseconds command_timeout{0}, dial_timeout{0};  // Parsed from the flags.
  std::function<int()> command;  // The one that was named; returns the exit code.
};

// Prints "Error: ..." as one line on stderr and returns `code`.
int Fail(ExitCode code, std::string_view text);

// "5s", "100ms", "1m30s"; a plain number is seconds. False if malformed or not positive.
bool ParseDuration(std::string_view text, std::chrono::nanoseconds* out);

// A hexadecimal id, with or without 0x. False if malformed.
bool ParseHexId(std::string_view text, uint64_t* out);
std::string HexId(uint64_t id);

// The parts between commas, without empty ones.
std::vector<std::string> SplitCommas(std::string_view text);

}  // namespace keyway::ctl
