# SPDX-License-Identifier: Apache-2.0
"""Lets the simulator look for each mutant of the kernel and the log.

    run.py              all of them, from seed 1 on; writes mutants.md
    run.py NAME ...     some, without writing the table
    run.py --quick      those that the table says are found soon, each from its seed of the table on

A mutant is caught by the same checkers, and on the same mix of faults, as every seed of keyway-sim; the same
seeds without a mutant must find nothing.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import statistics
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
TABLE = FOLDER / "mutants.md"
BINARY = FOLDER.parents[2] / "build" / "tests" / "keyway-sim-mutants"
LIMIT_CPU_S = 100  # For each mutant; then it counts as not caught.
QUICK_CPU_S = 3  # What is found within this is looked for in `make test`,
QUICK_LIMIT_CPU_S = 20  # from its seed on and for so long, since seeds change with the simulator.

FOUND = re.compile(r"^seed (\d+) FAILED.*: ([\d.]+) s simulated in ([\d.]+) s", re.M)
ABORTED = re.compile(r"^seed (\d+) FAILED: aborted after ([\d.]+) s simulated in ([\d.]+) CPU s", re.M)
TOTAL = re.compile(r"^(\d+) seeds, \d+ failed; (\d+) s simulated in ([\d.]+) CPU s", re.M)
ROW = re.compile(r"^\| `([\w-]+)` \|.*\| (\d+) \| [\d.]+ \| ([\d.]+) \|$", re.M)


class Finding:
    def __init__(self, seed, message, virtual_s, cpu_s):
        self.seed, self.message, self.virtual_s, self.cpu_s = seed, message, virtual_s, cpu_s


def look(binary, arguments):
    """Runs the simulator; a Finding, None if there is none, or an error."""
    run = subprocess.run([binary, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode == 0:
        return None
    if aborted := ABORTED.search(run.stderr):
        # The last line before is the assertion.
        lines = run.stderr[: aborted.start()].strip().splitlines() or ["aborted"]
        return Finding(int(aborted[1]), lines[-1], float(aborted[2]), float(aborted[3]))
    found, total = FOUND.search(run.stdout), TOTAL.search(run.stdout)
    if run.returncode != 1 or not found or not total:
        sys.exit(f"{binary} {' '.join(arguments)} ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    message = run.stdout[found.end() :].split("\n")[1]
    return Finding(int(found[1]), message, float(total[2]), float(total[3]))


def short(message):
    message = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b", "..", message).replace("|", "/")
    return message if len(message) <= 110 else message[:107] + "..."


def known(binary):
    listed = subprocess.run([binary, "--mutants"], capture_output=True, text=True, check=True).stdout
    return dict(line.split("\t") for line in listed.splitlines())


def run_quick(binary):
    failed = 0
    rows = [(name, int(seed), float(cpu)) for name, seed, cpu in ROW.findall(TABLE.read_text())]
    quick = [row for row in rows if row[2] <= QUICK_CPU_S]
    if len(rows) < 40 or len(quick) < 15:
        sys.exit(f"{TABLE}: {len(rows)} mutants, {len(quick)} of them quick: the table is not whole")
    listed = set(re.findall(r"^\| `([\w-]+)` \|", TABLE.read_text(), re.M))  # Those not caught yet too.
    if missing := set(known(binary)) - listed:
        sys.exit(f"{TABLE} lacks {', '.join(sorted(missing))}: run `make mutants`")
    for name, seed, _ in quick:
        seeds = f"{seed}..1000000"
        found = look(binary, ["--mutant", name, "--seeds", seeds, "--cpu-seconds", str(QUICK_LIMIT_CPU_S)])
        failed += found is None
        print(f"{name}: " + (f"seed {found.seed}, {found.message}" if found else "NOT CAUGHT"), flush=True)
    print(f"{len(quick) - failed} of {len(quick)} quick mutants caught")
    return 1 if failed else 0


def run_all(binary, names, limit, jobs):
    mutants = known(binary)
    rows, missed, times = [], [], []

    def run(name):
        return name, look(binary, ["--mutant", name, "--seeds", "1..1000000", "--cpu-seconds", str(limit)])

    for name, found in concurrent.futures.ThreadPoolExecutor(jobs).map(run, names or mutants):
        times.append(found.cpu_s if found else limit)
        if found is None:
            missed.append(name)
            rows.append(f"| `{name}` | {mutants[name]} | **not caught** in {limit} CPU s | - | - | - |")
        else:
            rows.append(
                f"| `{name}` | {mutants[name]} | {short(found.message)} | {found.seed} "
                f"| {found.virtual_s:.0f} | {found.cpu_s:.1f} |"
            )
        print(rows[-1], flush=True)
    if names:
        return 1 if missed else 0
    last = max((int(row[1]) for row in ROW.findall("\n".join(rows))), default=1)
    alarm = look(binary, ["--seeds", f"1..{last}"])
    quiet = "nothing" if alarm is None else f"**seed {alarm.seed}: {alarm.message}**"
    summary = (
        f"{len(rows) - len(missed)} of {len(rows)} mutants are caught; CPU seconds to detection: median "
        f"{statistics.median(times):.1f}, most {max(times):.1f}. The same seeds without a mutant "
        f"(1..{last}) find {quiet}."
    )
    TABLE.write_text(
        "# Mutants of the kernel and the log\n\n"
        "Written by `make mutants`. The seed is the first one from 1 on that finds it; the seconds are those\n"
        "of all seeds up to there.\n\n"
        f"{summary}\n\n"
        "| mutant | what it puts back | found by | seed | virtual s | CPU s |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )
    print(summary)
    return 1 if missed or alarm else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--binary", default=str(BINARY))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--limit", type=int, default=LIMIT_CPU_S, help="CPU seconds for each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.quick:
        return run_quick(arguments.binary)
    return run_all(arguments.binary, arguments.names, arguments.limit, arguments.jobs)


sys.exit(main())
