# SPDX-License-Identifier: Apache-2.0
"""Runs keyway-loadgen and reads its JSON and its log of acknowledged writes."""

import json
import subprocess

from harness import paths, pki
from harness.cluster import DIE_WITH_PARENT


class Load:
    """A running load; stop() ends it and returns its report."""

    def __init__(self, endpoints, *arguments, ack_log=None, tls=None):
        command = [str(paths.LOADGEN), "--endpoints", endpoints, *map(str, arguments)]
        tls = tls or pki.from_environment()
        if tls is not None:
            command += map(str, tls.loadgen_arguments())
        if ack_log is not None:
            command += ["--ack-log", str(ack_log)]
        self.ack_log = ack_log
        self.process = subprocess.Popen(
            DIE_WITH_PARENT + command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, timeout=600):
        out, err = self.process.communicate(timeout=timeout)
        try:
            report = json.loads(out)
        except ValueError:
            raise RuntimeError(f"keyway-loadgen: no report: {out}{err}") from None
        report["exit_code"] = self.process.returncode
        return report

    def stop(self):
        self.process.terminate()
        return self.wait(30)

    def acknowledged(self):
        """key number -> revision, after the end of the load."""
        result = {}
        with open(self.ack_log) as lines:
            for line in lines:
                key, revision = line.split()
                result[int(key)] = int(revision)
        return result


def run(endpoints, *arguments, tls=None):
    """One load from start to end; a failed one raises."""
    report = Load(endpoints, *arguments, tls=tls).wait()
    if report["exit_code"] != 0:
        raise RuntimeError(f"keyway-loadgen failed: {report}")
    return report


WRITES_PER_SECOND = 400  # For each of the writers.


class Writers:
    """One open-loop writer for each member, each with keys of its own that are written once."""

    def __init__(self, nodes, prefix, rate=WRITES_PER_SECOND, timeout_ms=1500):
        self.loads = {}
        self.reports = {}
        for node in nodes:
            own = f"{prefix}/{node.name}/"
            log = node.cluster.directory / f"acks-{own.replace('/', '_')}.log"
            self.loads[own] = Load(
                node.endpoint,
                *["--mode", "put", "--order", "sequential", "--prefix", own, "-c", "3"],
                *["--rate", rate, "--value-size", "64", "--timeout-ms", timeout_ms],
                *["--tolerate-errors", "--duration", "120", "--gap-ms", "20"],
                ack_log=log,
                tls=node.cluster.client_files,
            )

    def stop(self):
        """Ends the load; returns {key: revision} of all that was acknowledged."""
        acknowledged = {}
        for prefix, load in self.loads.items():
            report = self.reports[prefix] = load.stop()
            assert report["revision_regressions"] == 0, f"revisions went back: {report}"
            for number, revision in load.acknowledged().items():
                acknowledged[f"{prefix}{number:010}".encode()] = revision
        return acknowledged

    def longest_gap_ms(self):
        """The longest time in which a writer got no acknowledgement."""
        gaps = [gap["length"] for report in self.reports.values() for gap in report["gaps_ms"]]
        return max(gaps, default=0.0)


def verify(pairs, acknowledged):
    """Every acknowledged write is there, once, at the revision that its writer was told."""
    stored = {pair.key: pair for pair in pairs}
    missing = [key for key in acknowledged if key not in stored]
    assert not missing, f"{len(missing)} acknowledged writes are gone, the first: {missing[:5]}"
    for key, revision in acknowledged.items():
        pair = stored[key]
        assert pair.mod_revision == revision, f"{key}: told {revision}, stored {pair.mod_revision}"
        assert pair.version == 1 and pair.create_revision == revision, f"{key} was written twice"
        number = str(int(key[-10:])).encode()
        assert pair.value.startswith(number), f"{key} holds the value of another key"
