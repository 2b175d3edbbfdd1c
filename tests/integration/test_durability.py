# SPDX-License-Identifier: Apache-2.0
"""What was acknowledged is on the disk: the order of the system calls, and torn tails of the log."""

import codecs
import random
import re
import shutil

import pytest

from harness import loadgen, pki
from harness.client import Client
from harness.cluster import wait_until

PUTS = 60


def test_no_acknowledgement_before_the_sync(make_cluster, kind, need, label):
    """Follows the system calls of a node that serves one client, one put at a time.

    Between the read that brings put N and the send that acknowledges it there must be an fdatasync
    that started after the read and returned before the send.
    """
    if pki.is_on():
        pytest.skip("the system calls of an encrypted connection show no keys; the order is the same")
    cluster = make_cluster(1, start=False)
    node = cluster.one
    trace = cluster.directory / "strace.txt"
    trace.parent.mkdir(parents=True, exist_ok=True)
    # With -D the node stays our child, and strace ends with it.
    node.wrapper = ["strace", "-D", "-f", "-ttt", "-s", "300", "-o", str(trace)]
    node.wrapper += ["-e", "trace=read,recvfrom,recvmsg,readv,write,sendto,sendmsg,writev,"
                     "fdatasync,fsync,sync_file_range,msync"]  # fmt: skip
    node.start().wait_ready(60)
    loadgen.run(
        node.endpoint,
        *["--order", "sequential", "--prefix", "synced/", "--count", PUTS, "--value-size", "40"],
        *["--duration", "60"],
    )
    node.kill()
    wait_until("strace ends", lambda: "+++ killed by SIGKILL +++" in trace.read_text()[-4000:])

    acknowledged = check_order(trace.read_text(errors="replace").splitlines())
    assert acknowledged > PUTS * 0.9  # strace may show a read or a send in a form that is not told.


READ = re.compile(r"^(\d+) +([\d.]+) (?:<\.\.\. )?(read|recvfrom|recvmsg|readv)\b.*synced/(\d{10})")
SOCKET = re.compile(r"^\d+ +[\d.]+ (?:read|recvfrom|recvmsg|readv)\((\d+),")
SEND = re.compile(r"^\d+ +[\d.]+ (?:write|sendto|sendmsg|writev)\((\d+),")
SENT = re.compile(r"^\d+ +[\d.]+ (?:<\.\.\. )?(?:write|sendto|sendmsg|writev)\b.* = (\d+)$")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
SYNC = re.compile(r"^(\d+) +[\d.]+ (?:<\.\.\. )?(fdatasync|fsync)\b(.*)")
HEADERS_FRAME = 1  # Every answer has one; SETTINGS, PING and WINDOW_UPDATE do not count as answers.


def holds_answer(line):
    """Whether the bytes that a send was called with hold a HEADERS frame of HTTP/2."""
    data = b"".join(codecs.escape_decode(text.encode())[0] for text in STRING.findall(line))
    while len(data) >= 9:
        if data[3] == HEADERS_FRAME:
            return True
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return False


def check_order(lines):
    """Returns the number of puts that were read, synced and then answered, in this order."""
    socket_of = {}  # thread -> the descriptor of its unfinished read
    sending = {}  # thread -> the state when its send to the client began
    client = None
    state = None  # None, "read" or "synced"
    syncing = set()
    acknowledged = 0
    for line in lines:
        thread = line.split(" ", 1)[0]
        if found := SOCKET.match(line):
            socket_of[thread] = found[1]
        if found := READ.match(line):
            client = socket_of[thread]
            state = "read"
            syncing.clear()
        elif (found := SYNC.match(line)) and state == "read":
            if "unfinished" in found[3]:
                syncing.add(thread)
            elif "= 0" in found[3] and ("resumed" not in found[3] or thread in syncing):
                state = "synced"
        if (found := SEND.match(line)) and client == found[1]:
            sending[thread] = (state, holds_answer(line))
        if (found := SENT.match(line)) and thread in sending:
            began, is_answer = sending.pop(thread)
            if is_answer and began is not None:
                assert began == "synced", f"an answer left before its write was durable: {line}"
                acknowledged += 1
                state = None
    return acknowledged


# ---- Torn tails -----------------------------------------------------------------------------------


def newest_segment(node):
    """(path, end): the log file that was written last and the end of what is written in it."""
    candidates = []
    for path in node.data_dir.rglob("*"):
        if path.is_file() and "log" in str(path.relative_to(node.data_dir)).lower():
            data = path.read_bytes()
            marker = data.rfind(b"torn/")
            if marker >= 0:
                candidates.append((path.stat().st_mtime_ns, path, len(data.rstrip(b"\0"))))
    assert candidates, f"no log file below {node.data_dir} holds the writes"
    _, path, end = max(candidates)
    return path, end


def boot_and_read(node):
    node.start().wait_ready(20)
    with Client(node.endpoint) as client:
        return {pair.key: pair.mod_revision for pair in client.prefix(b"torn/")}


@pytest.fixture
def killed_node(make_cluster, kind):
    """A node with 40 acknowledged writes that was killed; with a copy of its data."""
    if kind == "etcd":
        pytest.skip("about Keyway's log")
    cluster = make_cluster(1)
    node = cluster.one
    acknowledged = {}
    for number in range(40):
        key = b"torn/%02d" % number
        acknowledged[key] = node.client.put(key, b"value-%02d" % number * 5).header.revision
    node.kill()
    original = cluster.directory / "original"
    shutil.copytree(node.data_dir, original)

    def restore():
        node.kill()
        shutil.rmtree(node.data_dir)
        shutil.copytree(original, node.data_dir)

    return node, acknowledged, restore


def test_bytes_after_the_last_record_are_a_torn_tail(killed_node):
    """A write that was cut by the crash was not acknowledged: whatever it left, the node boots."""
    node, acknowledged, restore = killed_node
    dice = random.Random(3)
    path, end = newest_segment(node)
    last_bytes = path.read_bytes()[max(0, end - 400) : end]
    for round_number in range(24):
        restore()
        size = dice.choice([1, 2, 3, 7, 8, 15, 16, 31, 64, 200, 400])
        start = (end + 7) // 8 * 8 + dice.choice([0, 8, 64])
        torn = [dice.randbytes(size), last_bytes[:size], b"\xff" * size][round_number % 3]
        with open(path, "r+b") as segment:
            segment.seek(start)
            segment.write(torn)
        found = boot_and_read(node)
        assert found == acknowledged, f"{size} bytes of garbage at {start} lost writes"


def test_tail_cut_inside_the_last_records_boots_with_all_before(killed_node):
    """Where the disk lost the end of the log, what is before it is served, in order and whole."""
    node, acknowledged, restore = killed_node
    dice = random.Random(5)
    path, end = newest_segment(node)
    in_order = sorted(acknowledged, key=acknowledged.get)
    for cut in sorted({1, 2, 3, 5, 9, 17, 33, *(dice.randrange(1, 300) for _ in range(13))}):
        restore()
        with open(path, "r+b") as segment:
            segment.seek(end - cut)
            segment.write(b"\0" * cut)
        found = boot_and_read(node)
        assert list(sorted(found, key=found.get)) == in_order[: len(found)], f"cut {cut}: a hole"
        assert len(found) >= len(in_order) - cut // 40 - 2, f"cut {cut}: lost {len(in_order) - len(found)}"


def test_damage_before_the_tail_is_never_silent(killed_node):
    """A flipped bit in an old record: the node serves everything, or refuses and names the file."""
    node, acknowledged, restore = killed_node
    dice = random.Random(8)
    path, end = newest_segment(node)
    first = path.read_bytes().find(b"torn/")
    for _ in range(12):
        restore()
        where = dice.randrange(first, max(first + 1, end - 1500))
        with open(path, "r+b") as segment:
            segment.seek(where)
            byte = segment.read(1)[0]
            segment.seek(where)
            segment.write(bytes([byte ^ (1 << dice.randrange(8))]))
        log_size = len(node.log())
        node.start()

        def outcome():
            if not node.alive():
                return "refused"
            return node.client.get(b"\0", timeout=1) and "serves"

        if wait_until("the node serves or refuses", outcome, 20) == "refused":
            said = node.log()[log_size:]
            assert node.process.returncode > 0, f"crashed with {node.process.returncode}: {said}"
            assert path.name in said, f"the message does not name {path.name}: {said}"
        else:
            found = {pair.key: pair.mod_revision for pair in node.client.prefix(b"torn/")}
            assert found == acknowledged, f"a flipped bit at {where} silently lost writes"


def test_every_kill_point_keeps_the_acknowledged(make_cluster):
    """Kills at random moments of a busy single node, with the log and the engine both at work."""
    cluster = make_cluster(1)
    node = cluster.one
    dice = random.Random(13)
    for round_number in range(6):
        writers = loadgen.Writers([node], f"busy/{round_number}", rate=4000)
        target = node.client.revision() + dice.randrange(200, 3000)
        wait_until("some writes", lambda: node.client.revision() > target, interval=0.002)
        node.kill()
        acknowledged = writers.stop()
        node.start().wait_ready()
        loadgen.verify(node.client.prefix(b"busy/%d/" % round_number), acknowledged)


@pytest.mark.parametrize("new_term", [False, True], ids=["same-term", "older-term"])
def test_log_of_an_earlier_time_than_the_store_is_refused(make_cluster, kind, new_term):
    """An old copy of the log, for instance: votes and entries of the right one are lost."""
    if kind == "etcd":
        pytest.skip("etcd's files are laid out otherwise")
    node = make_cluster(1).one
    node.client.put(b"k", b"1")
    assert node.stop() == 0
    shutil.copytree(node.data_dir / "log", node.directory / "old-log")
    node.start().wait_ready()
    for index in range(50):
        node.client.put(b"k%d" % index, b"2")
    assert node.stop() == 0
    if new_term:
        node.start().wait_ready()
        node.client.put(b"k", b"3")
        assert node.stop() == 0
    shutil.rmtree(node.data_dir / "log")
    shutil.copytree(node.directory / "old-log", node.data_dir / "log")
    node.start()
    assert node.wait_exit() == 1
    assert re.search(r"node_failed reason=.*(not of the same time|of an earlier time)", node.log())
