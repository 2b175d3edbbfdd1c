# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load: what was acknowledged stays, and the members agree."""

import os
import random
import time

import pytest

from harness import paths
from harness.client import grpc
from harness.cluster import wait_until
from harness.loadgen import Load

ROUNDS = int(os.environ.get("KEYWAY_KILL_ROUNDS", "50"))
WRITES_PER_SECOND = 400  # For each of the three writers.
WRITES_BEFORE_KILL = 60


class Writers:
    """One open-loop writer for each member, each with keys of its own that are written once."""

    def __init__(self, cluster, round_number):
        self.loads = {}
        for node in cluster:
            prefix = f"kill/{round_number:03}/{node.name}/"
            self.loads[prefix] = Load(
                node.endpoint,
                *["--mode", "put", "--order", "sequential", "--prefix", prefix, "-c", "3"],
                *["--rate", WRITES_PER_SECOND, "--value-size", "64", "--timeout-ms", "1500"],
                *["--tolerate-errors", "--duration", "60", "--gap-ms", "100"],
                ack_log=paths.WORK / f"acks-{node.name}.log",
            )

    def stop(self):
        """Returns {key: revision} of all that was acknowledged."""
        acknowledged = {}
        for prefix, load in self.loads.items():
            report = load.stop()
            assert report["revision_regressions"] == 0, f"revisions went back: {report}"
            for number, revision in load.acknowledged().items():
                acknowledged[f"{prefix}{number:010}".encode()] = revision
        return acknowledged


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


def choose_victims(cluster, round_number, dice):
    """leader, any member, all at once, a follower, and again."""
    nodes = list(cluster)
    match round_number % 4:
        case 0:
            return [cluster.leader()]
        case 1:
            return [dice.choice(nodes)]
        case 2:
            return nodes
        case _:
            return [dice.choice(cluster.followers())]


def answer_time(nodes):
    """Milliseconds until one of the nodes acknowledges a new write."""
    start = time.monotonic()

    def answers():
        for node in nodes:
            try:
                return node.client.put(b"kill/probe", b"x", timeout=0.3)
            except grpc.RpcError:
                continue
        return None

    wait_until("a new leader acknowledges a write", answers, timeout=20, interval=0.002)
    return (time.monotonic() - start) * 1000


@pytest.mark.parametrize("seed", [int(os.environ.get("KEYWAY_SEED", "20260801"))])
def test_acknowledged_writes_survive_kill_under_load(make_cluster, seed):
    dice = random.Random(seed)
    cluster = make_cluster(3)
    all_acknowledged = {}
    answer_ms = []

    for round_number in range(ROUNDS):
        before = cluster.one.client.revision()
        writers = Writers(cluster, round_number)
        wait_until(
            "the load is under way",
            lambda: cluster.one.client.revision() > before + WRITES_BEFORE_KILL,
        )
        victims = choose_victims(cluster, round_number, dice)
        survivors = [node for node in cluster if node not in victims]

        for node in victims:
            node.signal(9)
        for node in victims:
            node.kill()
        if survivors:
            answer_ms.append(answer_time(survivors))
        for node in victims:
            node.start()
        for node in cluster:
            node.wait_ready()
        acknowledged = writers.stop()

        assert len(acknowledged) > WRITES_BEFORE_KILL // 2
        all_acknowledged.update(acknowledged)
        newest = max(acknowledged.values())
        for node in cluster:
            assert node.client.revision() >= newest, f"{node.name} went back before {newest}"
        prefix = f"kill/{round_number:03}/".encode()
        verify(dice.choice(list(cluster)).client.prefix(prefix), acknowledged)
        cluster.hashes_agree()

    verify(cluster.leader().client.prefix(b"kill/"), all_acknowledged)
    answer_ms.sort()
    print(
        f"{ROUNDS} rounds, {len(all_acknowledged)} acknowledged writes; first answer after a kill: "
        f"median {answer_ms[len(answer_ms) // 2]:.0f} ms, longest {answer_ms[-1]:.0f} ms"
    )


def test_one_node_keeps_acknowledged_writes_over_kills(make_cluster):
    cluster = make_cluster(1)
    node = cluster.one
    for round_number in range(8):
        prefix = f"one/{round_number:03}/"
        before = node.client.revision()
        load = Load(
            node.endpoint,
            *["--mode", "put", "--order", "sequential", "--prefix", prefix, "-c", "4", "-m", "8"],
            *["--value-size", "200", "--tolerate-errors", "--duration", "60"],
            ack_log=paths.WORK / "acks-one.log",
        )
        wait_until("the load is under way", lambda: node.client.revision() > before + 500)

        node.kill()
        report = load.stop()
        node.start().wait_ready()

        assert report["revision_regressions"] == 0
        acknowledged = {f"{prefix}{n:010}".encode(): r for n, r in load.acknowledged().items()}
        assert node.client.revision() >= max(acknowledged.values())
        verify(node.client.prefix(prefix.encode()), acknowledged)
