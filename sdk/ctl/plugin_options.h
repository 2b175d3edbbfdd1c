// SPDX-License-Identifier: Apache-2.0
//
// Options of a plugin from the command line, KEY=VALUE, checked against its schema as the host checks
// keyway.toml: see kw_config_field.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "keyway/abi.h"

namespace keyway::ctl {

// What create() gets: keys and values in base units, in the order of the schema.
using PluginOptions = std::vector<std::pair<std::string, std::string>>;

// Checks `given` ("KEY=VALUE"; an element of an array each time) and fills in defaults. An error text
// names the option and what is expected.
std::string ReadOptions(const kw_descriptor& plugin, const std::vector<std::string>& given,
                        PluginOptions* out);

// One value in base units; an error text says what is expected of the type.
std::string ConvertOption(const std::string& type, const std::string& text, std::string* out);

}  // namespace keyway::ctl
