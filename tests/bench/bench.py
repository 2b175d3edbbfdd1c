#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs Keyway and etcd in turn under the same load and prints medians, ratios and the floors.

    bench.py [--quick] [--only GROUP ...] [--rounds N] [--kinds keyway etcd]

Rules: the same load generator for both; A B A B ... with a fresh data directory on the same disk for
every run; fsync on for both; ratios are taken within a pair and their median is reported. CPU is that
of the server processes (utime + stime). A run with a failed reply is void and stops the benchmark.
Everything measured goes to build/bench.json.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import loadgen, paths, peers  # noqa: E402
from harness.cluster import Cluster, wait_until  # noqa: E402

SHAPES = [("1x1", 1, 1), ("10x10", 10, 10), ("100x10", 100, 10)]
VALUE_BYTES = 256
LIST_KEYS = 10_000


@dataclasses.dataclass
class Floor:
    """Keyway's value divided by etcd's must be on the right side of `ratio` (or of `absolute`)."""

    ratio: float | None = None
    absolute: float | None = None
    at_least: bool = True

    def holds(self, keyway, ratio):
        value, limit = (ratio, self.ratio) if self.ratio is not None else (keyway, self.absolute)
        return value >= limit if self.at_least else value <= limit

    def __str__(self):
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.ratio:.2f}x" if self.ratio is not None else f"{sign} {self.absolute:g}"


FLOORS = {
    "put 100x10 per second": Floor(ratio=2.0),
    "range 100x10 per second": Floor(ratio=3.0),
    "put 100x10 cpu us": Floor(ratio=1 / 3, at_least=False),
    "range 100x10 cpu us": Floor(ratio=1 / 4, at_least=False),
    "put 1x1 mean us": Floor(ratio=1.0, at_least=False),
    "watch events per cpu second": Floor(ratio=4.0),
    "memory 1M keys MiB": Floor(ratio=1.0, at_least=False),
    "restart 1M keys ms": Floor(ratio=0.5, at_least=False),
    "failover kill -9 ms": Floor(absolute=500, at_least=False),
    "tls: put 100x10 per second": Floor(ratio=2.0),
    "tls: range 100x10 per second": Floor(ratio=3.0),
    "sim simulated seconds per CPU second": Floor(absolute=500),
}


class Bench:
    def __init__(self, arguments):
        self.quick = arguments.quick
        self.seconds = 2 if self.quick else 5
        self.big = 100_000 if self.quick else 1_000_000
        self.results = {}  # row -> kind -> [values]
        self.prefix = ""  # Of the rows, and
        self.options = {}  # of the clusters: see variant().

    @contextlib.contextmanager
    def variant(self, name, **options):
        """The rows of the groups run inside are called `name: row`; etcd takes what it knows of `options`."""
        self.prefix, self.options = f"{name}: ", options
        yield
        self.prefix, self.options = "", {}

    def record(self, kind, row, value):
        row = self.prefix + row
        self.results.setdefault(row, {}).setdefault(kind, []).append(value)
        print(f"    {kind:7} {row:32} {value:12.2f}", flush=True)

    def cluster(self, kind, size, label):
        extra = {"limits": ["[limits]", 'quota_bytes = "8GiB"'], "check": "cheap"}
        return Cluster(kind, size, f"bench-{label}-{kind}", **extra, **self.options)

    def load(self, cluster, endpoints, *arguments):
        pids = ",".join(map(str, cluster.pids))
        return loadgen.run(endpoints, "--server-pid", pids, *arguments, tls=cluster.client_files)

    def fill(self, node, count, prefix="bench/"):
        loadgen.run(
            node.endpoint,
            *["--mode", "put", "-c", 10, "-m", 20, "--order", "sequential", "--prefix", prefix],
            *["--value-size", VALUE_BYTES, "--count", count],
            tls=node.cluster.client_files,
        )

    def shapes(self, kind, cluster, node, mode):
        for name, connections, streams in SHAPES:
            report = self.load(
                cluster,
                node.endpoint,
                *["--mode", mode, "-c", connections, "-m", streams, "--order", "random"],
                *["--key-space", LIST_KEYS, "--value-size", VALUE_BYTES],
                *["--duration", self.seconds, "--warmup", 1],
            )
            row = f"{mode} {name}"
            self.record(kind, f"{row} per second", report["operations_per_second"])
            self.record(kind, f"{row} cpu us", report["server_cpu_us_per_operation"])
            self.record(kind, f"{row} mean us", report["latency_us"]["mean"])
            self.record(kind, f"{row} p99 us", report["latency_us"]["p99"])

    # Groups: each starts what it needs and records its rows for one kind of server.
    def put(self, kind):
        with self.cluster(kind, 1, "put").start() as cluster:
            self.fill(cluster.one, LIST_KEYS)
            self.shapes(kind, cluster, cluster.one, "put")

    def range(self, kind):
        with self.cluster(kind, 1, "range").start() as cluster:
            self.fill(cluster.one, LIST_KEYS)
            self.shapes(kind, cluster, cluster.one, "range")

    def txn(self, kind):
        with self.cluster(kind, 1, "txn").start() as cluster:
            report = self.load(
                cluster,
                cluster.one.endpoint,
                *["--mode", "txn", "-c", 10, "-m", 10, "--order", "random"],
                *["--duration", self.seconds, "--warmup", 1],
            )
            self.record(kind, "txn 10x10 per second", report["operations_per_second"])
            self.record(kind, "txn 10x10 cpu us", report["server_cpu_us_per_operation"])

    def list(self, kind):
        with self.cluster(kind, 1, "list").start() as cluster:
            self.fill(cluster.one, LIST_KEYS)
            report = self.load(
                cluster,
                cluster.one.endpoint,
                *["--mode", "list", "--list-limit", LIST_KEYS, "--value-size", VALUE_BYTES],
                *["--duration", self.seconds, "--warmup", 1],
            )
            cpu_ns = report["server_cpu_us_per_operation"] * 1000 / LIST_KEYS
            self.record(kind, "range of 10k keys mean us", report["latency_us"]["mean"])
            self.record(kind, "range of 10k keys cpu ns/key", cpu_ns)

    def watch(self, kind):
        with self.cluster(kind, 1, "watch").start() as cluster:
            common = ["--mode", "watch", "--watchers", 1000, "--watch-streams", 10]
            steady = self.load(
                cluster,
                cluster.one.endpoint,
                *common,
                *["--rate", 100, "-m", 16, "--count", 100 * self.seconds],
            )
            self.record(kind, "watch events per cpu second", steady["events_per_server_cpu_second"])
            self.record(kind, "watch lag p99 us", steady["lag_us"]["p99"])
            burst = self.load(
                cluster, cluster.one.endpoint, *common, *["-m", 16, "--count", 400 * self.seconds]
            )
            self.record(kind, "watch burst events per second", burst["events_per_second"])
            self.record(
                kind, "watch burst events per cpu s", burst["events_per_server_cpu_second"]
            )

    def memory(self, kind):
        with self.cluster(kind, 1, "memory").start() as cluster:
            node = cluster.one
            self.fill(node, self.big)
            count = f"{self.big // 1000}k" if self.quick else "1M"
            time.sleep(2)  # Both get the time to finish their background writes.
            self.record(kind, f"memory {count} keys MiB", resident_mib(node.pid, "VmRSS"))
            self.record(kind, f"memory {count} keys anon MiB", resident_mib(node.pid, "RssAnon"))
            node.kill()
            # Both start on warm page cache: the files were just written.
            start = time.monotonic()
            node.start()
            first = loadgen.Load(
                node.endpoint,
                *["--mode", "range", "--order", "fixed", "--value-size", VALUE_BYTES],
                *["--count", 1, "--tolerate-errors", "--timeout-ms", 10_000],
            )
            # The first read: the generator retries its connection every 5 ms.
            wait_until("the first read", lambda: first.process.poll() is not None, 120, 0.001)
            self.record(kind, f"restart {count} keys ms", (time.monotonic() - start) * 1000)
            assert first.wait()["exit_code"] == 0, "the read after the restart failed"

    def three(self, kind):
        with self.cluster(kind, 3, "three").start() as cluster:
            leader = cluster.leader()
            for name, connections, streams in SHAPES:
                report = self.load(
                    cluster,
                    leader.endpoint,
                    *["--mode", "put", "-c", connections, "-m", streams, "--order", "random"],
                    *["--key-space", LIST_KEYS, "--value-size", VALUE_BYTES],
                    *["--duration", self.seconds, "--warmup", 1],
                )
                row = f"three-node put {name}"
                self.record(kind, f"{row} per second", report["operations_per_second"])
                self.record(kind, f"{row} cpu us", report["server_cpu_us_per_operation"])
                self.record(kind, f"{row} mean us", report["latency_us"]["mean"])

    def failover(self, kind):
        with self.cluster(kind, 3, "failover").start() as cluster:
            for _ in range(3 if self.quick else 7):
                leader = cluster.leader()
                others = [node for node in cluster if node is not leader]
                load = loadgen.Load(
                    ",".join(node.endpoint for node in others),
                    *["--mode", "put", "-c", 4, "--rate", 500, "--order", "random"],
                    *["--timeout-ms", 5000, "--tolerate-errors", "--duration", 60, "--gap-ms", 10],
                )
                before = others[0].client.revision()
                wait_until("the load", lambda: others[0].client.revision() > before + 100)
                leader.kill()
                wait_until("a new leader", lambda: cluster.leader() in others)
                before = others[0].client.revision()
                wait_until("new writes", lambda: others[0].client.revision() > before + 20)
                report = load.stop()
                gap = max((gap["length"] for gap in report["gaps_ms"]), default=0)
                self.record(kind, "failover kill -9 ms", gap)
                leader.start().wait_ready()
                cluster.hashes_agree()

    def rocksdb(self, kind):
        with self.variant("rocksdb", storage="rocksdb"):
            for group in (self.put, self.range, self.list, self.memory):
                group(kind)

    def grpc(self, kind):
        with self.variant("grpc", transport="grpc"):
            self.three(kind)
            self.failover(kind)

    def tls(self, kind):
        with self.variant("tls", tls=True):
            for group in (self.put, self.range, self.three):
                group(kind)

    def abi(self, kind):
        """What a call through the plugin ABI costs, linked, loaded and behind the checking host."""
        if kind != "keyway":
            return
        program = paths.BUILD / "tests" / "crossing_bench"
        plugins = paths.BUILD / "lib" / "keyway" / "plugins"
        answer = subprocess.run([program, plugins], check=True, capture_output=True, text=True)
        for row, nanoseconds in json.loads(answer.stdout).items():
            self.record(kind, f"abi {row} ns/call", nanoseconds)

    def sim(self, kind):
        """The deterministic simulator: the default mix of three nodes over a fixed set of seeds."""
        if kind != "keyway":
            return
        program = paths.BUILD / "bin" / "keyway-sim"
        answer = subprocess.run([program, "--bench"], check=True, capture_output=True, text=True)
        for line in answer.stdout.splitlines():
            row, value = line.rsplit(": ", 1)
            self.record(kind, f"sim {row}", float(value))


GROUPS = ["put", "range", "txn", "list", "watch", "memory", "three", "failover"]
GROUPS += ["rocksdb", "grpc", "tls", "abi", "sim"]


def resident_mib(pid, field):
    """VmRSS counts mapped file pages that were touched; RssAnon is the heap alone."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} for {pid}")


def sync_latency_us():
    """p50 and p99 of a 4 KiB overwrite with fdatasync on the disk of the data directories."""
    path = paths.WORK / "sync-probe"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, bytes(1 << 20))
    os.fsync(descriptor)
    samples = []
    for index in range(300):
        start = time.monotonic()
        os.pwrite(descriptor, bytes(4096), index % 256 * 4096)
        os.fdatasync(descriptor)
        samples.append((time.monotonic() - start) * 1e6)
    os.close(descriptor)
    path.unlink()
    samples.sort()
    return samples[150], samples[297]


def spread(values):
    return f"{statistics.median(values):,.1f} [{min(values):,.1f}-{max(values):,.1f}]"


def table(results):
    """Prints the table; returns the rows for the JSON file."""
    rows = []
    print(f"\n{'row':36} {'Keyway':>30} {'etcd':>30} {'ratio':>7} {'floor':>9}")
    for row, by_kind in results.items():
        keyway, etcd = by_kind.get("keyway", []), by_kind.get("etcd", [])
        ratio = None
        if keyway and etcd:
            # Paired where every round gave one value of each, else median over median.
            if len(keyway) == len(etcd):
                ratio = statistics.median(a / b for a, b in zip(keyway, etcd) if b)
            else:
                ratio = statistics.median(keyway) / statistics.median(etcd)
        floor = FLOORS.get(row)
        verdict = ""
        if floor and keyway and (ratio is not None or floor.absolute is not None):
            verdict = "PASS" if floor.holds(statistics.median(keyway), ratio) else "MISS"
        print(
            f"{row:36} {spread(keyway) if keyway else '-':>30} {spread(etcd) if etcd else '-':>30} "
            f"{f'{ratio:.2f}' if ratio is not None else '-':>7} {str(floor or ''):>9} {verdict}"
        )
        rows.append({"row": row, "keyway": keyway, "etcd": etcd, "ratio": ratio,
                     "floor": str(floor) if floor else None, "verdict": verdict or None})  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, 100k keys: a look")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP",
                        help=f"some of: {' '.join(GROUPS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="pairs of runs (default 3, quick 1)")
    parser.add_argument("--kinds", nargs="+", choices=["keyway", "etcd"], default=["keyway", "etcd"])
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    if "etcd" in arguments.kinds:
        peers.etcd()
    bench = Bench(arguments)
    p50, p99 = sync_latency_us()
    print(f"{os.cpu_count()} CPUs, {platform.release()}; fdatasync p50 {p50:.0f} us, p99 {p99:.0f} us")
    for round_number in range(rounds):
        for group in arguments.only:
            print(f"  round {round_number + 1} of {rounds}: {group}")
            # The order within the pair alternates, so that neither always meets the fresher disk.
            kinds = arguments.kinds if round_number % 2 == 0 else arguments.kinds[::-1]
            for kind in kinds:
                getattr(bench, group)(kind)
    rows = table(bench.results)
    output = paths.BUILD / "bench.json"
    output.write_text(
        json.dumps(
            {"cpus": os.cpu_count(), "kernel": platform.release(), "sync_us": [p50, p99],
             "quick": arguments.quick, "rounds": rounds, "rows": rows}, indent=1,
        )
    )  # fmt: skip
    missed = [row["row"] for row in rows if row["verdict"] == "MISS"]
    print(f"\nwritten to {output}" + (f"; missed: {', '.join(missed)}" if missed else ""))


main()
