// SPDX-License-Identifier: Apache-2.0
//
// Names the plugin when the process goes down in its code: a signal such as SIGSEGV inside of a wrapped
// call, a use of a sealed copy (poison.h), and std::terminate, whose culprit is found at level off too,
// by the library that the stack runs through.
#pragma once

namespace keyway::check {

// For signals; at the levels cheap and full. Repeated calls do nothing.
void InstallCrashHandlers();
// For exceptions that nobody catches: of a plugin's own thread, or out of a noexcept function.
void InstallTerminateHandler();

}  // namespace keyway::check
