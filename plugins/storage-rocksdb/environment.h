// SPDX-License-Identifier: Apache-2.0
//
// What RocksDB gets of its surroundings: threads that end with the store, and a log that is the host's.
#pragma once

#include <rocksdb/env.h>

#include <memory>

#include "keyway/plugin.hpp"

namespace keyway::storage_rocksdb {

// The default environment but for its threads: those of the default one belong to the process and are
// never joined; these are, when the environment is destroyed (after the database).
std::unique_ptr<rocksdb::Env> NewEnvironment();

// RocksDB's own log lines from warnings upwards go to keyway.log/1; no LOG files are made.
std::shared_ptr<rocksdb::Logger> NewInfoLog(const Logger& log);

}  // namespace keyway::storage_rocksdb
