# SPDX-License-Identifier: Apache-2.0
"""Runs keyway-loadgen and reads its JSON and its log of acknowledged writes."""

import json
import subprocess

from harness import paths
from harness.cluster import DIE_WITH_PARENT


class Load:
    """A running load; stop() ends it and returns its report."""

    def __init__(self, endpoints, *arguments, ack_log=None):
        command = [str(paths.LOADGEN), "--endpoints", endpoints, *map(str, arguments)]
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


def run(endpoints, *arguments):
    """One load from start to end; a failed one raises."""
    report = Load(endpoints, *arguments).wait()
    if report["exit_code"] != 0:
        raise RuntimeError(f"keyway-loadgen failed: {report}")
    return report
