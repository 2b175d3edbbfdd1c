# SPDX-License-Identifier: Apache-2.0
"""A damaged record in the log of one member: told apart from a torn tail, and mended from the others."""

import re
import struct

import pytest

from harness import loadgen
from harness.cluster import wait_until

HEADER_BYTES, RECORD_BYTES = 4096, 64
ENTRY, LAST = 1, 6


def records(path):
    """(offset, type, sequence of its flush, data bytes) of a log-segmented segment, up to its end."""
    bytes_ = path.read_bytes()
    offset = HEADER_BYTES
    while offset + RECORD_BYTES <= len(bytes_):
        kind, _, sequence = struct.unpack_from("<IIQ", bytes_, offset + 8)
        if not ENTRY <= kind <= LAST:
            return
        data_bytes = struct.unpack_from("<I", bytes_, offset + 48)[0] if kind == ENTRY else 0
        yield offset, kind, sequence, data_bytes
        offset += RECORD_BYTES + (data_bytes + 7) // 8 * 8


def flip(path, offset):
    with open(path, "r+b") as segment:
        segment.seek(offset)
        byte = segment.read(1)[0]
        segment.seek(offset)
        segment.write(bytes([byte ^ 0x10]))


def damage_entry(node, recent):
    """Flips a bit in an entry's data: of the third newest flush with entries, or of one long before."""
    path = sorted((node.data_dir / "log").glob("log-*.seg"))
    found = [(segment, *each) for segment in path for each in records(segment)]
    entries = [each for each in found if each[2] == ENTRY and each[4] > 8]
    flushes = sorted({each[3] for each in entries})
    damaged = flushes[-3] if recent else flushes[20]
    segment, offset, *_ = next(each for each in entries if each[3] == damaged)
    flip(segment, offset + RECORD_BYTES + 4)
    return segment.name, offset


@pytest.fixture
def need_keyway(kind):
    if kind == "etcd":
        pytest.skip("about Keyway's log")


def first_writes(cluster):
    """The first flushes of each log, and in each engine too: a hash has it written first."""
    for number in range(60):
        cluster.one.client.put(b"first/%d" % number, b"v" * 100)
    for node in cluster:
        node.client.hash_kv(0)


def rebuilt(node, size):
    return re.search(r"log_rebuilt .*waits_for_leader=(true|false)", node.log()[size:])


@pytest.mark.parametrize("recent", [False, True], ids=["old-record", "newest-records"])
def test_a_damaged_record_is_mended_from_the_others(make_cluster, need_keyway, recent):
    """Old: the engine has it already. Among the newest: the member waits for its leader to send it."""
    cluster = make_cluster(3)
    first_writes(cluster)
    waited = 0
    for round_number in range(6):
        victim = cluster.followers()[0]
        writers = loadgen.Writers(list(cluster), f"mend/{round_number}", rate=500)
        target = cluster.one.client.revision() + 300
        wait_until("some writes", lambda: cluster.one.client.revision() > target)  # noqa: B023
        victim.kill()
        size = len(victim.log())
        name, offset = damage_entry(victim, recent)
        victim.start().wait_ready()
        acknowledged = writers.stop()
        verdict = rebuilt(victim, size)
        assert verdict, f"{name} at {offset}: {victim.log()[size:]}"
        assert name in victim.log()[size:]
        loadgen.verify(victim.client.prefix(b"mend/%d/" % round_number), acknowledged)
        cluster.hashes_agree()
        if verdict[1] == "true":
            waited += 1
            wait_until("the promise is kept", lambda: "log_repaired" in victim.log()[size:])  # noqa: B023
        if waited or not recent:
            break
    assert (waited > 0) == recent


def test_members_that_wait_for_a_log_elect_nobody_without_it(make_cluster, need_keyway):
    """Of two members, one with a damaged record among its newest: it neither leads nor forgets its vote."""
    cluster = make_cluster(3)
    first_writes(cluster)
    writers = loadgen.Writers(list(cluster), "wait", rate=500)
    target = cluster.one.client.revision() + 300
    wait_until("some writes", lambda: cluster.one.client.revision() > target)
    leader = cluster.leader()
    victim, other = cluster.followers()
    other.kill()  # From here on, what is acknowledged is on the leader and the victim.
    target = leader.client.revision() + 200
    wait_until("some more writes", lambda: leader.client.revision() > target)
    victim.kill()
    leader.kill()
    acknowledged = writers.stop()
    size = len(victim.log())
    damage_entry(victim, True)
    victim.start()
    other.start()
    wait_until("the log is rebuilt", lambda: rebuilt(victim, size))
    # Neither has all that was acknowledged: the one knows, the other must not get its vote.
    for _ in range(3):
        with pytest.raises(Exception, match="(?i)no leader|deadline|unavailable|timed out"):
            other.client.put(b"too-early", b"", timeout=1)
    leader.start().wait_ready()
    for node in cluster:
        node.wait_ready()
        loadgen.verify(node.client.prefix(b"wait/"), acknowledged)
    cluster.hashes_agree()


def test_a_single_node_says_what_is_lost(make_cluster, need_keyway):
    cluster = make_cluster(1)
    first_writes(cluster)
    node = cluster.one
    writers = loadgen.Writers([node], "one", rate=500)
    target = node.client.revision() + 300
    wait_until("some writes", lambda: node.client.revision() > target)
    node.kill()
    acknowledged = writers.stop()
    size = len(node.log())
    name, _ = damage_entry(node, True)
    node.start()
    said = wait_until("it refuses or serves", lambda: node.log()[size:] if not node.alive() else rebuilt(node, size))
    if node.alive():  # The engine had the entry already.
        node.wait_ready()
        loadgen.verify(node.client.prefix(b"one/"), acknowledged)
    else:
        assert node.process.returncode == 1
        assert re.search(rf"the log is damaged: {name} at offset \d+.*no other voter has the rest", said), said
