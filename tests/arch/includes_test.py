#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the arrows between folders over every #include line.

  plugins -> sdk            never kernel, never another plugin
  kernel  -> sdk/include    never sdk/cpp, never a plugin's library, no files, sockets or clocks
  sdk     -> sdk
"""
import pathlib
import re
import sys

# Folder of the kernel -> folders of the kernel that it may include.
KERNEL = {
    "base": set(),
    "raft": {"base"},
    "mvcc": {"base"},
    "watch": {"base", "mvcc"},
    "lease": {"base", "mvcc"},
    "member": {"base", "raft"},
    "config": {"base"},
    "plugin": {"base", "config"},
    "core": {"base", "raft", "mvcc", "watch", "lease", "member", "plugin"},
    "daemon": {"base", "config", "plugin", "core"},
}
# Third-party headers of the kernel, each in one file.
ONLY_IN = {"toml++/": "kernel/config/document.cc", "CLI/": "kernel/daemon/main.cc"}
# Files, sockets, time: a plugin's business. The loader looks at libraries, the daemon is the outside.
FORBIDDEN_SYSTEM = re.compile(
    r"^(fstream|filesystem|chrono|ctime|time\.h|fcntl\.h|dlfcn\.h|poll\.h|signal\.h|netdb\.h"
    r"|netinet/.*|arpa/.*|sys/(socket|mman|stat|epoll|file|random|time|uio|un)\.h)$")
SYSTEM_ALLOWED = {
    "kernel/plugin/loader.cc": {"dlfcn.h", "fcntl.h", "sys/stat.h"},
    "kernel/plugin/check/poison.cc": {"sys/mman.h"},
    "kernel/plugin/check/crash.cc": {"dlfcn.h", "execinfo.h", "signal.h"},
    "kernel/base/futex.h": {"linux/futex.h"},
    "kernel/daemon/real_clock.cc": {"chrono", "time.h"},
    "kernel/daemon/stderr_logger.cc": {"poll.h", "time.h"},
    "kernel/daemon/signals.cc": {"signal.h", "time.h"},
    "kernel/daemon/daemon.cc": {"sys/random.h"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
SUFFIXES = {".h", ".hpp", ".c", ".cc", ".cpp"}


def is_test(path):
    return bool(re.search(r"(_test|_bench|_harness|_model|_fuzz|_test_util)\.\w+$|/(fixtures|tests)/", path))


def check_kernel(path, form, name):
    folder = path.split("/")[1]
    if name.startswith("kernel/"):
        target = name.split("/")[1]
        if target != folder and target not in KERNEL[folder]:
            return f"kernel/{folder} may not include kernel/{target}"
        return None
    if name.startswith("keyway/"):
        return "the kernel includes the C ABI only, not sdk/cpp" if name.endswith(".hpp") else None
    if name.startswith("absl/"):
        return None
    for prefix, owner in ONLY_IN.items():
        if name.startswith(prefix):
            return None if path == owner else f"only {owner} may include {prefix}"
    if is_test(path) or name.startswith(("gtest/", "gmock/")):
        if name.startswith(("gtest/", "gmock/")) and not is_test(path):
            return "gtest outside of a test"
        return None
    if form == '"':
        return "a quoted include of the kernel names its folder: kernel/... or keyway/..."
    if FORBIDDEN_SYSTEM.match(name) and name not in SYSTEM_ALLOWED.get(path, set()):
        return "the kernel touches no file, socket or clock"
    if name in SYSTEM_ALLOWED.get(path, set()):
        return None
    if "/" in name and not name.startswith("sys/"):
        return "the kernel knows no library but Abseil, toml++ and CLI11"
    if not re.match(r"^(sys/)?[a-z0-9_]+(\.h)?$", name):
        return "not a standard header"
    if re.match(r"^(lmdb|nghttp2|openssl|zlib|rocksdb|ares)", name):
        return "a plugin's library"
    return None


def check_plugin(path, form, name):
    own = "/".join(path.split("/")[:2]) + "/"
    if name.startswith("kernel/"):
        return "a plugin never includes the kernel"
    if name.startswith("plugins/") and not name.startswith(own):
        return "a plugin never includes another plugin"
    if name.startswith(("absl/log", "../")) or "/../" in name:
        return "not by a relative way out of the folder"
    return None


def check_sdk(path, form, name):
    if name.startswith(("kernel/", "plugins/")):
        return "the SDK knows neither kernel nor plugins"
    if path.startswith("sdk/include/") and not (name.startswith("keyway/") or re.match(r"^\w+\.h$", name)):
        return "the C headers include C headers and themselves only"
    if path.startswith("sdk/cpp/") and name.startswith("absl/"):
        return "sdk/cpp is header-only without Abseil"
    return None


CHECKS = {"kernel": check_kernel, "plugins": check_plugin, "sdk": check_sdk}


def main():
    root = pathlib.Path(sys.argv[1])
    faults = []
    files = 0
    for top, check in CHECKS.items():
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in SUFFIXES or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            text = file.read_text(errors="replace")
            files += 1
            for match in INCLUDE.finditer(text):
                reason = check(path, match.group(1), match.group(2))
                if reason:
                    line = text.count("\n", 0, match.start(2)) + 1
                    faults.append(f"{path}:{line}: {match.group(2)}: {reason}")
    # The check itself must be able to fail.
    probes = [check_kernel("kernel/raft/x.h", '"', "kernel/core/core.h"),
              check_kernel("kernel/core/x.cc", "<", "lmdb.h"),
              check_kernel("kernel/core/x.cc", "<", "grpcpp/grpcpp.h"),
              check_kernel("kernel/core/x.cc", "<", "sys/socket.h"),
              check_kernel("kernel/core/x.cc", "<", "toml++/toml.h"),
              check_plugin("plugins/api-etcd/x.cc", '"', "kernel/base/bytes.h"),
              check_sdk("sdk/ctl/x.cc", '"', "kernel/base/bytes.h")]
    if not all(probes) or files < 20:
        sys.exit("the check does not work: a planted fault was not found")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{files} files keep to the arrows")


main()
