# SPDX-License-Identifier: Apache-2.0
"""Every client does its tour against Keyway and etcd; the transcripts must be the same."""

import difflib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import paths, peers

HERE = paths.ROOT / "tests" / "compat"
TOUR_SECONDS_MAX = 90


def etcdctl_37(need):
    return [sys.executable, HERE / "tour_etcdctl.py", need(peers.etcdctl)]


def etcdctl_debian(need):
    return [sys.executable, HERE / "tour_etcdctl.py", need(peers.debian_etcdctl)]


def go_client(need):
    return [need(peers.go_tour)]


def python_grpc(need):
    return [sys.executable, HERE / "tour_grpc.py"]


def python_etcd3(need):
    return [sys.executable, HERE / "tour_etcd3.py"]


def node_etcd3(need):
    binary, directory = need(peers.node)
    return [binary, directory / "tour.js"]


TOURS = [etcdctl_37, etcdctl_debian, go_client, python_grpc, python_etcd3, node_etcd3]


def take_tour(command, cluster, log):
    """Returns the transcript. On three nodes the client talks to a follower, which must forward."""
    node = cluster.one if len(cluster.nodes) == 1 else cluster.followers()[0]
    # The etcd3 package was generated for an older protobuf than ours.
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(
        [*map(str, command), node.endpoint],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=TOUR_SECONDS_MAX,
        env=environment,
    )
    log.write_text(done.stdout + done.stderr, errors="backslashreplace")
    if done.returncode != 0:
        return done.stdout + f"\nthe tour ended with {done.returncode}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("tour", TOURS, ids=lambda tour: tour.__name__)
def test_tour_is_the_same_as_on_etcd(tour, kind, make_cluster, need, label):
    command = tour(need)
    need(peers.etcd)
    clusters = {
        "etcd": make_cluster(1, name=f"{label}-etcd", of="etcd", start=False),
        "one": make_cluster(1, name=f"{label}-one", start=False),
        "three": make_cluster(3, name=f"{label}-three", start=False),
    }
    for cluster in clusters.values():
        cluster.start()

    with ThreadPoolExecutor() as pool:
        running = {
            name: pool.submit(take_tour, command, cluster, cluster.log_directory / "transcript.txt")
            for name, cluster in clusters.items()
        }
        transcripts = {name: tour.result() for name, tour in running.items()}

    expected = transcripts["etcd"].splitlines(keepends=True)
    assert len(expected) > 20, f"the tour on etcd failed: {transcripts['etcd']}"
    assert "the tour ended with" not in transcripts["etcd"], transcripts["etcd"][-3000:]
    differences = ""
    for name in ("one", "three"):
        differences += "".join(
            difflib.unified_diff(
                expected,
                transcripts[name].splitlines(keepends=True),
                fromfile="etcd",
                tofile=f"{kind}, {name} node{'s' if name == 'three' else ''}",
                n=1,
            )
        )
    if differences:
        pytest.fail(f"answers differ:\n{differences}", pytrace=False)
