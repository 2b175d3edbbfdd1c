// SPDX-License-Identifier: Apache-2.0
//
// The text form of a transaction, that of etcdctl: compares, an empty line, the requests on success, an
// empty line, the requests on failure. One item a line:
//
//   mod("key") > "0"        create, c, mod, m, version, ver, value, val, lease; =, !=, <, >
//   put key "a value"       get, put, del with their flags
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "etcd/rpc.pb.h"

namespace keyway::ctl {

// Splits a line into words as a shell does: quotes, and backslash with n, t, xHH or the next character.
// False: a quote is not closed.
bool SplitWords(std::string_view line, std::vector<std::string>* words);

// An error text means invalid input and names the line.
std::string ParseCompare(const std::string& line, etcdserverpb::Compare* out);
std::string ParseOperation(const std::string& line, etcdserverpb::RequestOp* out);
std::string ParseTxn(std::istream* input, etcdserverpb::TxnRequest* out);

}  // namespace keyway::ctl
