# SPDX-License-Identifier: Apache-2.0
"""Our checker of histories and porcupine agree, on good histories and on broken ones."""

import re
import subprocess

import pytest

from harness import paths, peers

SOURCES = paths.ROOT / "tests" / "sim" / "porcupine"
EXPORT = paths.BUILD / "bin" / "keyway-sim-histories"
SEEDS = range(11, 15)
LINE = re.compile(r"ours=(\w+) porcupine=(\w+) operations=(\d+) mutation=(\w*)$")


@pytest.fixture(scope="module")
def porcupine():
    try:
        return peers.go_build("porcupine", ".", SOURCES)
    except peers.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("seed", SEEDS)
def test_porcupine_agrees(seed, porcupine, tmp_path):
    subprocess.run([EXPORT, tmp_path, str(seed), "1"], check=True)
    files = sorted(tmp_path.glob("*.jsonl"))
    result = subprocess.run([porcupine, *files], capture_output=True, text=True)

    lines = [LINE.match(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(files) and all(lines), result.stdout + result.stderr
    verdicts = {line[4]: (line[1], line[2]) for line in lines}
    assert verdicts.pop("") == ("good", "good")
    assert len(verdicts) >= 10
    assert {name: both for name, both in verdicts.items() if both != ("bad", "bad")} == {}
    assert all(int(line[3]) > 200 for line in lines)
    assert result.returncode == 0, result.stderr
