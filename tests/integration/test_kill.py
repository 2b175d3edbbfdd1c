# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load: what was acknowledged stays, and the members agree."""

import os
import random
import time

import pytest

from harness import paths
from harness.client import grpc
from harness.cluster import wait_until
from harness.loadgen import Load, Writers, verify

ROUNDS = int(os.environ.get("KEYWAY_KILL_ROUNDS", "50"))
WRITES_BEFORE_KILL = 60


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
        writers = Writers(cluster, f"kill/{round_number:03}")
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
