# SPDX-License-Identifier: Apache-2.0
"""Runs all tests: ctest for the unit tests, pytest for the rest; ends with one plain closing line.

    tests/run.py [--no-unit] [suites or options of pytest]
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


def run_step(name, command, report, totals, cwd=None):
    """Runs one runner; a runner that fails without a failed test in its report counts as one."""
    print(f"== {name}", flush=True)
    report.unlink(missing_ok=True)
    start = time.monotonic()
    code = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL).returncode
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
    if "--no-unit" in arguments:
        arguments.remove("--no-unit")
    else:
        report = paths.BUILD / "junit-unit.xml"
        command = ["ctest", "--test-dir", str(paths.BUILD), "--output-on-failure"]
        command += ["--parallel", str(os.cpu_count()), "--output-junit", str(report)]
        run_step("unit tests (ctest)", command, report, totals)
    report = paths.BUILD / "junit-suites.xml"
    command = [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments]
    run_step("suites (pytest)", command, report, totals, cwd=paths.ROOT / "tests")
    line = f"{totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped"
    print(line, flush=True)
    return 1 if totals.failed or not totals.passed else 0


sys.exit(main())
