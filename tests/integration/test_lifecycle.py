# SPDX-License-Identifier: Apache-2.0
"""The life of a cluster under load: catching up, growing, replacing, handing over, restarting."""

import re
import shutil
import signal
import statistics
import time

import pytest

from harness import loadgen, paths
from harness.client import grpc, rpc
from harness.cluster import add_member, free_port, wait_until
from harness.loadgen import Writers, verify
from harness.proxy import CuttingProxy

# etcd 3.7 needs 1.3 s (median) to 1.8 s; the suite can be run against it.
FAILOVER_MS_MAX = {"keyway": 500 * paths.SLOWNESS, "etcd": 4000}


def under_way(node, writes=100):
    before = node.client.revision()
    wait_until("the load is under way", lambda: node.client.revision() > before + writes)


def promote(cluster, node, via):
    """Promotes a learner as soon as it has caught up."""
    request = rpc.MemberPromoteRequest(ID=node.member_id)
    wait_until(f"{node.name} is promoted", lambda: via.client.Cluster.MemberPromote(request), 30, 0.1)
    node.wait_ready()


def member_count(node):
    return len(node.client.Cluster.MemberList(rpc.MemberListRequest(linearizable=True)).members)


def check_all(cluster, prefix, acknowledged):
    cluster.hashes_agree(60)
    for node in cluster:
        if node.alive():
            verify(node.client.prefix(prefix), acknowledged)


def test_member_behind_the_log_catches_up_by_snapshot_under_load(make_cluster, kind):
    cluster = make_cluster(
        3, snapshot_entries=50, log_options=['segment_bytes = "4MiB"']
    )
    away = cluster.followers()[0]
    others = [node for node in cluster if node is not away]
    away.kill()
    loadgen.run(
        others[0].endpoint,
        *["--order", "sequential", "--prefix", "bulk/", "-c", "10", "-m", "10"],
        *["--value-size", "1024", "--count", "40000"],
    )

    writers = Writers(others, "snap")
    under_way(others[0])
    log_size = len(away.log())
    away.start().wait_ready(60)
    under_way(others[0])
    acknowledged = writers.stop()

    check_all(cluster, b"snap/", acknowledged)
    if kind == "keyway":
        assert "applied snapshot" in away.log()[log_size:], "the member caught up, but not by a snapshot"


def test_snapshot_goes_on_after_lost_connections(make_cluster, kind):
    """Connections to the receiver break in the middle of the transfer; it does not start anew."""
    if kind == "etcd":
        pytest.skip("etcd starts anew")
    cluster = make_cluster(
        3, start=False, snapshot_entries=50, log_options=['segment_bytes = "4MiB"']
    )
    away = cluster.nodes["c"]
    away.peer_listen_port = free_port()
    others = [node for node in cluster if node is not away]
    for node in others:
        node.start()
    for node in others:
        node.wait_ready()
    loadgen.run(
        others[0].endpoint,
        *["--order", "sequential", "--prefix", "bulk/", "-c", "10", "-m", "10"],
        *["--value-size", "1024", "--count", "40000"],
    )
    proxy = CuttingProxy(away, cut_after=6 << 20, cuts=3)
    away.start().wait_ready(60)
    proxy.close()
    assert proxy.cut_count == 3
    assert away.log().count("snapshot_install_started") == 1, "the transfer started anew"
    assert "snapshot_install_abandoned" not in away.log()
    cluster.hashes_agree()


def test_writes_through_a_follower_survive_lost_connections(make_cluster, kind):
    """Frames to the leader are lost again and again; no write fails, and none is applied twice."""
    if kind == "etcd":
        pytest.skip("etcd's clients see a timeout")
    cluster = make_cluster(3, start=False)
    for node in cluster:
        node.peer_listen_port = free_port()
    proxies = [CuttingProxy(node, cut_after=50_000, cuts=15) for node in cluster]
    cluster.start()
    follower = cluster.followers()[0]
    # Below the seven seconds after which the node itself gives up a request.
    writers = Writers([follower], "lossy", timeout_ms=5000)
    wait_until("connections broke", lambda: sum(p.cut_count for p in proxies) >= 20, 60)
    acknowledged = writers.stop()
    assert [report["error_texts"] for report in writers.reports.values()] == [{}]
    check_all(cluster, b"lossy/", acknowledged)
    assert all(kv.version == 1 for kv in follower.client.prefix(b"lossy/"))
    for proxy in proxies:
        proxy.close()


def test_leader_whose_disk_hangs_hands_over(make_cluster, kind):
    if kind == "etcd":
        pytest.skip("etcd's leader stays")
    cluster = make_cluster(3, start=False)
    for node in cluster:
        stall = node.directory / "stall"
        node.wrapper = [
            "env", f"LD_PRELOAD={paths.BUILD / 'tests' / 'slow_disk.so'}", f"KEYWAY_STALL_FILE={stall}",
            "ASAN_OPTIONS=verify_asan_link_order=0",  # Otherwise its runtime must come first.
        ]  # fmt: skip
    cluster.start()
    slow = cluster.leader()
    writers = Writers(list(cluster), "hang")
    under_way(slow)
    (slow.directory / "stall").touch()
    wait_until("another leader", lambda: cluster.leader() is not slow, 10 * paths.SLOWNESS)
    assert "disk_stalls" in slow.log()
    under_way(next(node for node in cluster if node is not slow))
    (slow.directory / "stall").unlink()
    acknowledged = writers.stop()
    check_all(cluster, b"hang/", acknowledged)


def test_emptied_voter_is_refused_under_its_old_id(make_cluster, kind):
    if kind == "etcd":
        pytest.skip("etcd lets an emptied member back in; this is where Keyway is stricter")
    cluster = make_cluster(3)
    emptied = cluster.followers()[0]
    others = [node for node in cluster if node is not emptied]
    emptied.kill()
    shutil.rmtree(emptied.data_dir)
    log_size = len(emptied.log())

    for state in ("new", "existing"):
        emptied.state = state
        emptied.start()

        def refused():
            said = emptied.log()[log_size:].lower()
            return re.search(r"replace|member add", said) and re.search(r"learner|member", said)

        wait_until("a message that says how to replace the member", refused, 20)
        with pytest.raises(grpc.RpcError):
            emptied.client.get(b"\0", timeout=1)
        emptied.kill()
        log_size = len(emptied.log())

    # The others go on, and the member comes back as a new one.
    others[0].client.put(b"k", b"v")
    members = others[0].client.Cluster.MemberList(rpc.MemberListRequest()).members
    old_id = next(m.ID for m in members if m.name == emptied.name)
    others[0].client.Cluster.MemberRemove(rpc.MemberRemoveRequest(ID=old_id))
    emptied.close()
    shutil.rmtree(emptied.data_dir, ignore_errors=True)
    del cluster.nodes[emptied.name]
    replacement = add_member(cluster, "d", via=others[0])
    replacement.start()
    promote(cluster, replacement, others[0])
    cluster.hashes_agree()


def test_cluster_grows_from_one_to_three_under_load(make_cluster):
    cluster = make_cluster(1)
    first = cluster.one
    writers = Writers([first], "grow")
    under_way(first)

    for name in ("b", "c"):
        node = add_member(cluster, name, via=first)
        node.start()
        promote(cluster, node, first)
        under_way(first)
    acknowledged = writers.stop()

    assert member_count(first) == 3
    check_all(cluster, b"grow/", acknowledged)
    # The grown cluster survives the loss of its first member.
    first.kill()
    survivors = [node for node in cluster if node.alive()]
    wait_until("the others go on", lambda: survivors[0].client.put(b"after", b"1", timeout=1))


def test_member_is_replaced_under_load(make_cluster):
    cluster = make_cluster(3)
    gone = cluster.followers()[0]
    others = [node for node in cluster if node is not gone]
    gone_id = cluster.member_id(gone)
    writers = Writers(others, "replace")
    under_way(others[0])

    gone.kill()
    wait_until(
        "MemberRemove",
        lambda: others[0].client.Cluster.MemberRemove(rpc.MemberRemoveRequest(ID=gone_id)),
    )
    gone.close()
    del cluster.nodes[gone.name]
    node = add_member(cluster, "d", via=others[0])
    node.start()
    promote(cluster, node, others[0])
    under_way(others[0])
    acknowledged = writers.stop()

    assert member_count(node) == 3
    check_all(cluster, b"replace/", acknowledged)


def test_removed_leader_hands_over(make_cluster):
    cluster = make_cluster(3)
    leader = cluster.leader()
    others = [node for node in cluster if node is not leader]
    leader_id = cluster.member_id(leader)

    wait_until(
        "MemberRemove of the leader",
        lambda: others[0].client.Cluster.MemberRemove(rpc.MemberRemoveRequest(ID=leader_id)),
    )
    leader.close()
    del cluster.nodes[leader.name]

    wait_until("the others go on", lambda: others[1].client.put(b"k", b"v", timeout=1))
    assert member_count(others[0]) == 2


def test_cluster_shrinks_to_one_by_its_leaders(make_cluster):
    cluster = make_cluster(3)
    first = cluster.one
    writers = Writers([first], "shrink")
    under_way(first)
    acknowledged = {}
    for left in (2, 1):
        leader = cluster.leader()
        leader_id = cluster.member_id(leader)
        rest = [node for node in cluster if node is not leader]
        if leader is first:  # Who is written to.
            acknowledged.update(writers.stop())
            first = rest[0]
            writers = Writers([first], f"shrink/{left}")
        # Asked by the one that is to go: it answers once the others can do without it, and ends.
        leader.client.Cluster.MemberRemove(rpc.MemberRemoveRequest(ID=leader_id), timeout=5)
        wait_until("the removed leader ends", lambda: not leader.alive(), 5)
        assert "was removed from the cluster" in leader.log()
        leader.close()
        del cluster.nodes[leader.name]
        # Whoever is left knows it for good: it needs no vote of the removed one.
        for node in rest:
            node.kill()
        for node in rest:
            node.start()
        wait_until("the others go on", lambda: rest[0].client.put(b"k", b"v", timeout=1))
        assert member_count(rest[0]) == left
    acknowledged.update(writers.stop())
    check_all(cluster, b"shrink/", acknowledged)


def measure_handover(cluster, end_leader):
    """Milliseconds without an acknowledgement around the end of the leader, seen by the others."""
    leader = cluster.leader()
    others = [node for node in cluster if node is not leader]
    writers = Writers(others, f"hand/{time.monotonic_ns()}", rate=300)
    under_way(others[0])
    end_leader(leader)
    wait_until("a new leader", lambda: cluster.leader() in others)
    under_way(others[0], 20)
    acknowledged = writers.stop()
    verify(others[0].client.prefix(b"hand/"), acknowledged)
    return leader, writers.longest_gap_ms()


def test_sigterm_of_the_leader_hands_over(make_cluster, kind):
    cluster = make_cluster(3)
    gaps = []
    for _ in range(5):
        leader, gap = measure_handover(cluster, lambda node: node.signal(signal.SIGTERM))
        code = leader.wait_exit(10)
        assert kind == "etcd" or code == 0, f"SIGTERM ended with {code}"
        gaps.append(gap)
        leader.start().wait_ready()
    print(f"longest time without an acknowledgement after SIGTERM: {sorted(gaps)} ms")
    assert statistics.median(gaps) <= FAILOVER_MS_MAX[kind]


def test_failover_after_kill_of_the_leader_is_quick(make_cluster, kind):
    cluster = make_cluster(3)
    gaps = []
    for _ in range(7):
        leader, gap = measure_handover(cluster, lambda node: node.kill())
        gaps.append(gap)
        leader.start().wait_ready()
    print(f"longest time without an acknowledgement after kill -9: {sorted(gaps)} ms")
    assert statistics.median(gaps) <= FAILOVER_MS_MAX[kind]


def test_paused_leader_does_not_answer_stale_reads(make_cluster):
    cluster = make_cluster(3)
    leader = cluster.leader()
    others = [node for node in cluster if node is not leader]
    others[0].client.put(b"key", b"old")

    leader.pause()
    wait_until("a new leader takes writes", lambda: others[0].client.put(b"key", b"new", timeout=1))
    leader.resume()
    reply = wait_until("the old leader answers", lambda: leader.client.get(b"key", timeout=2))

    assert reply.kvs[0].value == b"new"
    cluster.hashes_agree()


def test_minority_serves_no_linearizable_call(make_cluster):
    cluster = make_cluster(3)
    cluster.one.client.put(b"key", b"value")
    last = cluster.one
    last.client.get(b"key")
    for node in cluster:
        if node is not last:
            node.kill()

    with pytest.raises(grpc.RpcError):
        last.client.put(b"key", b"lost", timeout=2)
    with pytest.raises(grpc.RpcError):
        last.client.get(b"key", timeout=2)
    assert last.client.get(b"key", serializable=True).kvs[0].value == b"value"

    for node in cluster:
        if not node.alive():
            node.start()
    last.wait_ready()
    cluster.hashes_agree()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_on_the_same_ports_works_at_once(make_cluster, how):
    cluster = make_cluster(1)
    node = cluster.one
    for round_number in range(5):
        node.client.put(b"round", str(round_number).encode())  # Leaves an open connection behind.
        getattr(node, how)()
        node.start().wait_ready(10)
        assert node.client.get(b"round").kvs[0].value == str(round_number).encode()
