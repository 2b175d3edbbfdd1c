# SPDX-License-Identifier: Apache-2.0
"""Runs all tests: ctest for the unit tests, pytest for the rest; ends with one plain closing line.

    tests/run.py [--no-unit] [suites or options of pytest]
    tests/run.py --variants [NAME ...]     the kill, lifecycle, durability, digest and client suites on every
                                           other combination of engine, transport and TLS
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree

from harness import paths


class Totals:
    """Counts over the JUnit reports of the runners."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, report):
        for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed += 1
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                self.skipped += 1
            else:
                self.passed += 1


# Every combination of engine, transport and TLS, and a cluster of both engines. The first one is the
# default: all suites run on it.
VARIANTS = [
    {"KEYWAY_STORAGE": storage, "KEYWAY_TRANSPORT": transport, "KEYWAY_TLS": tls}
    for tls in ("", "1")
    for transport in ("tcp", "grpc")
    for storage in ("lmdb", "rocksdb")
] + [{"KEYWAY_STORAGE": "mixed", "KEYWAY_TRANSPORT": "tcp", "KEYWAY_TLS": "1"}]
# What the variants beyond the first run, with fewer rounds of kill -9. The other suites are about the
# configuration, the tool and the host, or choose their variants themselves.
VARIANT_SUITES = ["compat"]
VARIANT_SUITES += [f"integration/test_{name}.py" for name in ("kill", "lifecycle", "durability", "digest")]
VARIANT_ENVIRONMENT = {"KEYWAY_KILL_ROUNDS": "6"}


def name_of(variant):
    tls = "mtls" if variant["KEYWAY_TLS"] else "plain"
    return f"{variant['KEYWAY_STORAGE']}-{variant['KEYWAY_TRANSPORT']}-{tls}"


def run_step(name, command, report, totals, cwd=None, environment=None):
    """Runs one runner; a runner that fails without a failed test in its report counts as one."""
    print(f"== {name}", flush=True)
    report.unlink(missing_ok=True)
    start = time.monotonic()
    code = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    ).returncode
    failed_before = totals.failed
    if report.exists():
        totals.add(report)
    if code != 0 and totals.failed == failed_before:
        totals.failed += 1
        print(f"{name} ended with {code} and reported no failed test")
    print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)


def main():
    arguments = sys.argv[1:]
    totals = Totals()
    paths.BUILD.mkdir(exist_ok=True)
    variants = VARIANTS[:1]
    if "--variants" in arguments:
        names = [argument for argument in arguments if argument != "--variants"]
        variants = [variant for variant in VARIANTS[1:] if not names or name_of(variant) in names]
        arguments = []
    elif "--no-unit" in arguments:
        arguments.remove("--no-unit")
    else:
        report = paths.BUILD / "junit-unit.xml"
        command = ["ctest", "--test-dir", str(paths.BUILD), "--output-on-failure"]
        if paths.SANITIZED == "tsan":
            command += ["--label-exclude", "sim"]  # One thread.
        command += ["--parallel", str(os.cpu_count()), "--output-junit", str(report)]
        run_step("unit tests (ctest)", command, report, totals)
    for variant in variants:
        name = name_of(variant)
        report = paths.BUILD / f"junit-{name}.xml"
        command = [sys.executable, "-m", "pytest", f"--junit-xml={report}"]
        environment = dict(variant)
        if variant is not VARIANTS[0]:
            command += ["-q", *VARIANT_SUITES]
            environment.update(VARIANT_ENVIRONMENT)
        command += arguments
        step = f"suites (pytest) on {name}"
        run_step(step, command, report, totals, cwd=paths.ROOT / "tests", environment=environment)
    line = f"{totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped"
    print(line, flush=True)
    return 1 if totals.failed or not totals.passed else 0


sys.exit(main())
