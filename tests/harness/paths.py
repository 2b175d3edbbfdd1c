# SPDX-License-Identifier: Apache-2.0
"""Where things are. KEYWAY_BUILD names the build directory when it is not `build/`."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("KEYWAY_BUILD", "build")).resolve()
PEERS = ROOT / "build" / "peers"
LOGS = BUILD / "test-logs"
WORK = BUILD / "test-work"
STUBS = ROOT / "build" / "stubs"
KEYWAYD = BUILD / "bin" / "keywayd"
SANITIZED = os.environ.get("KEYWAY_SANITIZED")
# gRPC is linked into keywayctl: tests/sanitizers/README.md
KEYWAYCTL = (ROOT / "build" if SANITIZED == "tsan" else BUILD) / "bin" / "keywayctl"
LOADGEN = BUILD / "bin" / "keyway-loadgen"

# A sanitizer makes everything several times slower and larger: limits on time and memory are widened.
SLOWNESS = 8 if SANITIZED else 1
# A start scans whole segments, which takes seconds with sanitizers.
LOG_OPTIONS = ['segment_bytes = "1MiB"'] if SANITIZED else []
