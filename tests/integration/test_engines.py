# SPDX-License-Identifier: Apache-2.0
"""Members on different engines, and a member that changes its engine: nothing acknowledged is lost."""

import json
import pathlib
import subprocess
import time

import pytest

from harness import loadgen, paths
from harness.client import rpc
from harness.cluster import DIE_WITH_PARENT, add_member, wait_until
from harness.loadgen import Writers, verify

OTHER = {"lmdb": "rocksdb", "rocksdb": "lmdb"}


@pytest.fixture(autouse=True)
def keyway_only(kind):
    if kind == "etcd":
        pytest.skip("about Keyway's engines")


def under_way(node, writes=100):
    before = node.client.revision()
    wait_until("the load is under way", lambda: node.client.revision() > before + writes)


def rewrite_command(source, from_dir, target, to_dir, *more):
    return [
        str(paths.KEYWAYCTL), "store", "rewrite",
        "--from-plugin", f"storage-{source}", "--from", f"dir={from_dir}",
        "--to-plugin", f"storage-{target}", "--to", f"dir={to_dir}", *more,
    ]  # fmt: skip


def rewrite(*arguments, code=0):
    """Runs keywayctl store rewrite; returns what it printed."""
    done = subprocess.run(
        rewrite_command(*arguments), capture_output=True, text=True, timeout=120 * paths.SLOWNESS
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def store_directory(node):
    """Where the node keeps its store now."""
    for line in node.storage_options:
        if line.startswith("dir = "):
            return pathlib.Path(line.split('"')[1])
    return node.data_dir / "storage"


def change_engine(node):
    """Rewrites the store of a stopped node into the other engine and configures that."""
    source, target = node.storage, OTHER[node.storage]
    new = node.data_dir / f"storage-{target}"
    report = json.loads(rewrite(source, store_directory(node), target, new, "-w", "json"))
    node.storage, node.storage_options = target, [f'dir = "{new}"']
    return report


def test_mixed_cluster_keeps_acknowledged_writes_over_kills(make_cluster):
    cluster = make_cluster(3, storage="mixed")
    assert [node.storage for node in cluster] == ["lmdb", "rocksdb", "rocksdb"]
    nodes = list(cluster)
    everything = {}
    for round_number in range(6):
        victim = nodes[round_number % 3]
        writers = Writers(cluster, f"mixed/{round_number}")
        under_way(cluster.leader())

        victim.kill()
        under_way(next(node for node in nodes if node is not victim), 20)
        victim.start().wait_ready()
        acknowledged = writers.stop()

        everything.update(acknowledged)
        verify(victim.client.prefix(b"mixed/%d/" % round_number), acknowledged)
        cluster.hashes_agree()
    for node in nodes:
        verify(node.client.prefix(b"mixed/"), everything)
    for node in nodes:  # All at once.
        node.kill()
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()
        verify(node.client.prefix(b"mixed/"), everything)
    cluster.hashes_agree()


@pytest.mark.parametrize("engine", ["lmdb", "rocksdb"])
def test_engine_is_changed_by_rewriting_the_store_under_load(make_cluster, engine):
    cluster = make_cluster(3, storage=engine)
    loadgen.run(
        cluster.one.endpoint,
        *["--order", "sequential", "--prefix", "old/", "-c", "4", "-m", "8"],
        *["--value-size", "300", "--count", "5000"],
    )
    changed = cluster.followers()[0]
    others = [node for node in cluster if node is not changed]
    writers = Writers(others, "rewritten")
    under_way(others[0])

    assert changed.stop() == 0
    report = change_engine(changed)
    under_way(others[0], 20)
    changed.start().wait_ready()
    under_way(others[0])
    acknowledged = writers.stop()

    assert changed.storage == OTHER[engine] and report["to"]["plugin"] == f"storage-{OTHER[engine]}"
    assert report["pairs"] > 0  # What the store had not yet at the stop is in the log.
    cluster.hashes_agree(60)
    verify(changed.client.prefix(b"rewritten/"), acknowledged)
    assert len(changed.client.prefix(b"old/")) == 5000
    # And over a restart, on what it wrote since.
    changed.kill()
    changed.start().wait_ready()
    verify(changed.client.prefix(b"rewritten/"), acknowledged)
    cluster.hashes_agree(60)


def test_engine_is_changed_by_replacing_the_member_under_load(make_cluster):
    cluster = make_cluster(3, storage="lmdb")
    gone = cluster.followers()[0]
    others = [node for node in cluster if node is not gone]
    gone_id = cluster.member_id(gone)
    writers = Writers(others, "replaced")
    under_way(others[0])

    remove = rpc.MemberRemoveRequest(ID=gone_id)
    wait_until("MemberRemove", lambda: others[0].client.Cluster.MemberRemove(remove))
    gone.close()
    del cluster.nodes[gone.name]
    added = add_member(cluster, "d", via=others[0])
    added.storage = "rocksdb"
    added.start()
    promotion = rpc.MemberPromoteRequest(ID=added.member_id)
    wait_until("the member is promoted", lambda: others[0].client.Cluster.MemberPromote(promotion), 30, 0.1)
    added.wait_ready()
    under_way(others[0])
    acknowledged = writers.stop()

    assert (added.data_dir / "storage" / "db" / "CURRENT").exists()
    cluster.hashes_agree(60)
    verify(added.client.prefix(b"replaced/"), acknowledged)


# ---- what a rewrite refuses -----------------------------------------------------------------------


@pytest.fixture(params=["lmdb", "rocksdb"])
def node(make_cluster, request):
    node = make_cluster(1, storage=request.param).one
    for number in range(50):
        node.client.put(b"k/%02d" % number, b"v" * 100)
    return node


def test_rewrite_refuses_a_store_in_use(node):
    new = node.data_dir / "new"
    said = rewrite(node.storage, store_directory(node), OTHER[node.storage], new, code=1)
    assert "another process uses" in said and str(store_directory(node)) in said, said
    assert not new.exists() and not pathlib.Path(f"{new}.rewrite").exists()
    assert node.client.put(b"k", b"v")  # Nothing happened to the node.


def test_rewrite_refuses_wrong_places_and_options(node):
    old, new, engine = store_directory(node), node.data_dir / "new", node.storage
    assert node.stop() == 0
    other = OTHER[engine]
    taken = node.data_dir / "taken"
    taken.mkdir()
    (taken / "file").write_text("x")
    assert "not empty" in rewrite(engine, old, other, taken, code=1)
    assert (taken / "file").read_text() == "x"
    assert "not empty" in rewrite(engine, old, other, old, code=1)
    assert "no such directory" in rewrite(engine, node.data_dir / "none", other, new, code=1)
    assert "not of this engine" in rewrite(other, old, engine, new, code=1)
    assert "no such option" in rewrite(engine, old, other, new, "--to", "sise=1", code=3)
    assert "dir" in rewrite(engine, old, other, new, "--to", "dir=x", code=3)
    assert "storage-none" in rewrite("none", old, other, new, code=3)
    log = paths.KEYWAYCTL.parents[1] / "lib" / "keyway" / "plugins" / "log-segmented.so"
    command = rewrite_command(engine, old, other, new)
    command[command.index("--to-plugin") + 1] = str(log)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3 and "keyway.kv-store/1" in done.stderr, done.stderr
    assert not new.exists()
    # An empty directory will do, and the node goes on with it.
    new.mkdir(mode=0o700)
    rewrite(engine, old, other, new)
    node.storage, node.storage_options = other, [f'dir = "{new}"']
    node.start().wait_ready()
    assert len(node.client.prefix(b"k/")) == 50


def test_node_refuses_the_directory_of_another_engine(node):
    """A wrong plugin name in the configuration must not look like a lost disk."""
    assert node.stop() == 0
    own = node.storage
    node.storage = OTHER[own]
    node.start()
    assert node.wait_exit() != 0
    assert "keywayctl store rewrite" in node.log()
    node.storage = own
    node.start().wait_ready()
    assert len(node.client.prefix(b"k/")) == 50


def test_killed_rewrite_leaves_nothing_that_looks_whole(node):
    loadgen.run(
        node.endpoint,
        *["--order", "sequential", "--prefix", "bulk/", "-c", "8", "-m", "8"],
        *["--value-size", "2000", "--count", "40000"],
    )
    assert node.stop() == 0
    source, target = node.storage, OTHER[node.storage]
    new = node.data_dir / "new"
    work = pathlib.Path(f"{new}.rewrite")
    kills = 0
    for pause in (0, 0.05, 0.15):
        process = subprocess.Popen(
            DIE_WITH_PARENT + rewrite_command(source, store_directory(node), target, new),
            stdout=subprocess.DEVNULL,
        )
        wait_until("the copy begins", lambda: (work / "store").exists(), interval=0.001)
        deadline = time.monotonic() + pause  # The moment of the kill is what is varied here.
        while time.monotonic() < deadline and process.poll() is None:
            pass
        process.kill()
        kills += process.wait() == -9
        assert not new.exists()
    assert kills == 3

    assert json.loads(rewrite(source, store_directory(node), target, new, "-w", "json"))["pairs"] > 40000
    assert not work.exists()
    node.storage, node.storage_options = target, [f'dir = "{new}"']
    node.start().wait_ready()
    assert len(node.client.prefix(b"bulk/")) == 40000


def test_rewrite_of_a_damaged_store_fails_and_names_the_file(make_cluster):
    node = make_cluster(1, storage="rocksdb").one
    for number in range(300):
        node.client.put(b"k/%03d" % number, b"%03d" % number * 400)
    assert node.stop() == 0
    tables = sorted((store_directory(node) / "db").glob("*.sst"), key=lambda path: path.stat().st_size)
    with open(tables[-1], "r+b") as table:
        table.seek(tables[-1].stat().st_size // 3)
        table.write(b"damage")
    new = node.data_dir / "new"

    said = rewrite("rocksdb", store_directory(node), "lmdb", new, code=1)

    assert tables[-1].name in said, said
    assert not new.exists()
