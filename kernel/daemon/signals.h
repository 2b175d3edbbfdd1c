// SPDX-License-Identifier: Apache-2.0
//
// Signals: SIGTERM and SIGINT ask for the end, SIGHUP changes nothing (a reload is a rolling restart).
// One thread waits for them, so no code runs in a signal handler.
#pragma once

#include <functional>

#include "kernel/plugin/log.h"

namespace keyway {

// Blocks the signals in this thread and in all that it starts. Call first in main().
void BlockSignals();

// Starts the thread that waits for them, for the rest of the process. `on_terminate` runs there once, at
// the first SIGTERM or SIGINT. After it the process ends by itself, or at once with status 1: at the
// second signal, or after `limit_s` seconds.
void WatchSignals(Logger* logger, int limit_s, std::function<void()> on_terminate);

}  // namespace keyway
