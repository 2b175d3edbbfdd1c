# SPDX-License-Identifier: Apache-2.0
"""A member whose store holds something else than what was applied stops, before it tells it to a client."""

import re
import struct

import lmdb
import pytest

from harness import loadgen, paths
from harness.client import grpc, rpc
from harness.cluster import wait_until

INTERVAL = ['digest_interval = "500ms"']
NEEDLE = b"needle-" + b"0123456789abcdef" * 20


def flip(directory, needle):
    """Changes one byte in the middle of every copy of `needle` in the files, behind the engine's back."""
    flipped = 0
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        with open(path, "r+b") as file:
            data = file.read()
            at = data.find(needle)
            while at >= 0:
                file.seek(at + len(needle) // 2)
                file.write(bytes([data[at + len(needle) // 2] ^ 1]))
                flipped += 1
                at = data.find(needle, at + 1)
    return flipped


def start(cluster):
    """The values must lie in the files as they are. (At [check] level full the host would find first that
    the engine does not give back what was written.)"""
    for node in cluster:
        if node.storage == "rocksdb":
            node.storage_options = ['compression = "none"']
    return cluster.start()


def put_needle(cluster, keys=200):
    """Keys of which every one has the needle in its value, and history in the log beyond them."""
    client = cluster.leader().client
    for index in range(keys):
        client.put(b"hay/%05d" % index, NEEDLE + b"%05d" % index)
    revision = client.revision()
    for node in cluster:
        wait_until(f"{node.name} has it stored", lambda n=node: n.client.hash_kv(revision).hash)
    return revision


def reason(node):
    """Why the node stopped, as its log says at the end."""
    return re.findall(r"node_failed reason=(.*)", node.log())[-1]


def answer(node, key):
    """The value that this member gives on its own word, or None if it answers with an error."""
    try:
        request = rpc.RangeRequest(key=key, serializable=True)
        return node.client.KV.Range(request, timeout=5).kvs[0].value
    except (grpc.RpcError, IndexError):
        return None


def test_changed_value_is_never_told_and_the_member_stops(make_cluster):
    cluster = start(make_cluster(3, start=False, check="cheap", check_options=INTERVAL))
    put_needle(cluster)
    victim = cluster.followers()[0]
    victim.kill()
    victim.start().wait_ready()  # Nothing is in its cache now.
    assert flip(victim.data_dir / "storage", NEEDLE) > 0
    for index in range(0, 200, 20):
        value = answer(victim, b"hay/%05d" % index)
        assert value is None or value == NEEDLE + b"%05d" % index
    assert victim.wait_exit(30) != 0
    assert f"storage-{victim.storage} " in reason(victim)
    rest = [node for node in cluster if node is not victim]
    assert rest[0].client.get(b"hay/00000").kvs[0].value == NEEDLE + b"00000"
    rest[0].client.put(b"after", b"1")


def test_scrub_finds_what_nobody_reads(make_cluster):
    cluster = start(make_cluster(3, start=False, check="cheap", check_options=INTERVAL))
    put_needle(cluster)
    victim = cluster.followers()[0]
    assert flip(victim.data_dir / "storage", NEEDLE) > 0
    assert victim.wait_exit(30) != 0
    assert f"storage-{victim.storage} " in reason(victim)
    victim.start()
    assert victim.wait_exit(30) != 0
    assert "keywayctl member remove" in victim.log()
    assert cluster.leader() is not victim


def test_store_changed_while_the_node_was_down_is_refused(make_cluster):
    cluster = start(make_cluster(1, start=False, check="cheap", check_options=['digest_interval = "0s"']))
    put_needle(cluster)
    node = cluster.one
    assert node.stop() == 0
    assert flip(node.data_dir / "storage", NEEDLE) > 0
    node.start()
    assert node.wait_exit(30) != 0
    assert f"storage-{node.storage} " in reason(node)


MASK = (1 << 64) - 1
TABLE = [0] * 256
for byte in range(256):
    value = byte
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    TABLE[byte] = value


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def mix(x):
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & MASK
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ x >> 33


def item_hash(table, key, value):
    """kernel/core/state_digest.h, HashOf."""
    words = struct.unpack("<2Q", key.ljust(16, b"\0"))
    state = mix((words[0] + table * 0x9E3779B97F4A7C15) & MASK)
    state = mix(state ^ words[1])
    return mix(state ^ (crc32c(value) << 8 | len(key)))


def forge(data_dir):
    """Changes one record, and the digest in the store with it, so that the store agrees with itself."""
    directory = next(data_dir.rglob("data.mdb")).parent
    with lmdb.open(str(directory), max_dbs=8, map_size=1 << 30) as environment:
        meta = environment.open_db(b"0")
        revisions = environment.open_db(b"1")
        with environment.begin(write=True) as transaction:
            for key, record in transaction.cursor(db=revisions):
                if NEEDLE in record:
                    break
            changed = record.replace(b"needle", b"nettle")
            transaction.put(key, changed, db=revisions)
            # It ends with the digest and a checksum: kernel/core/store_format.cc.
            applied = transaction.get(b"applied", db=meta)[:-12]
            digest = struct.unpack("<Q", transaction.get(b"applied", db=meta)[-12:-4])[0]
            digest += item_hash(1, key, changed) - item_hash(1, key, record)
            applied += struct.pack("<Q", digest & MASK)
            applied += struct.pack("<I", crc32c(applied))
            transaction.put(b"applied", applied, db=meta)


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_member_that_differs_from_the_majority_fences_itself(make_cluster, leads):
    """Its store agrees with itself, so that only the comparison with the others can tell."""
    interval = 3 * paths.SLOWNESS
    cluster = make_cluster(3, storage="lmdb", check="cheap", check_options=[f'digest_interval = "{interval}s"'])
    put_needle(cluster)
    victim, other = cluster.followers()
    assert victim.stop() == 0
    forge(victim.data_dir)

    def move_leader(to):
        cluster.leader().client.Maintenance.MoveLeader(
            rpc.MoveLeaderRequest(targetID=cluster.member_id(to))
        )

    if leads:
        move_leader(other)  # A new leader waits for an interval before its first digest.
        victim.start().wait_ready()
        move_leader(victim)
    else:
        victim.start()  # The comparison may come before its first answer.
    assert victim.wait_exit(30 + 2 * interval) != 0
    assert "state differs from that of the majority at index" in victim.log()
    assert "(storage-lmdb)" in victim.log()
    victim.start()
    assert victim.wait_exit(30) != 0
    assert "this member has fenced itself" in victim.log()
    cluster.leader().client.put(b"after", b"1")


def test_no_alarm_under_load_compaction_and_snapshots(make_cluster):
    cluster = make_cluster(3, check="cheap", check_options=['digest_interval = "100ms"'])
    writers = loadgen.Load(
        cluster.endpoints,
        *["--mode", "put", "-c", 3, "-m", 10, "--order", "random", "--key-space", 2000],
        *["--value-size", 100, "--duration", 60, "--tolerate-errors"],
    )
    client = cluster.leader().client
    for round_number in range(8):
        lease = client.Lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=60)).ID
        before = client.revision()
        wait_until("more revisions", lambda b=before: client.revision() > b + 2000)
        client.KV.Compact(rpc.CompactionRequest(revision=client.revision() - 500), timeout=10)
        if round_number % 2:
            client.Lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=lease))
        if round_number == 4:
            follower = cluster.followers()[0]
            follower.kill()
            follower.start().wait_ready()
    writers.stop()
    cluster.hashes_agree()
    assert all(node.alive() for node in cluster)
    assert not any("digest" in node.log() for node in cluster)
