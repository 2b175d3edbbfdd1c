# SPDX-License-Identifier: Apache-2.0
"""Bad requests, bytes, plugins and configurations: a precise answer, never a crash, nothing lost."""

import os
import random
import shutil
import socket
import subprocess

import pytest

from harness import paths, pki
from harness.client import Client, grpc, open_channel, rpc
from harness.cluster import wait_until

INVALID = grpc.StatusCode.INVALID_ARGUMENT
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def puts(count):
    return [
        rpc.RequestOp(request_put=rpc.PutRequest(key=b"o/%d" % i, value=b"x")) for i in range(count)
    ]


# What is asked, how, and the code and text that etcd 3.7 answers; {now} is the current revision.
REQUESTS = {
    "put of an empty key": (
        lambda c, now: c.KV.Put(rpc.PutRequest(value=b"x")),
        (INVALID, "etcdserver: key is not provided"),
    ),
    "range of an empty key": (
        lambda c, now: c.KV.Range(rpc.RangeRequest()),
        (INVALID, "etcdserver: key is not provided"),
    ),
    "delete of an empty key": (
        lambda c, now: c.KV.DeleteRange(rpc.DeleteRangeRequest()),
        (INVALID, "etcdserver: key is not provided"),
    ),
    "oversized put": (
        lambda c, now: c.KV.Put(rpc.PutRequest(key=b"k", value=b"x" * 1_600_000)),
        (INVALID, "etcdserver: request is too large"),
    ),
    "oversized message": (
        lambda c, now: c.KV.Put(rpc.PutRequest(key=b"k", value=b"x" * 3_000_000)),
        (EXHAUSTED, None),
    ),
    "too many operations": (
        lambda c, now: c.KV.Txn(rpc.TxnRequest(success=puts(129))),
        (INVALID, "etcdserver: too many operations in txn request"),
    ),
    "duplicate key": (
        lambda c, now: c.KV.Txn(rpc.TxnRequest(success=puts(1) + puts(1))),
        (INVALID, "etcdserver: duplicate key given in txn request"),
    ),
    "future revision": (
        lambda c, now: c.KV.Range(rpc.RangeRequest(key=b"k", revision=now + 1)),
        (OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    ),
    "compacted revision": (
        lambda c, now: c.KV.Range(rpc.RangeRequest(key=b"k", revision=1)),
        (OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    ),
    "compaction again": (
        lambda c, now: c.KV.Compact(rpc.CompactionRequest(revision=2)),
        (OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    ),
    "compaction of the future": (
        lambda c, now: c.KV.Compact(rpc.CompactionRequest(revision=now + 1)),
        (OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    ),
    "put with an unknown lease": (
        lambda c, now: c.KV.Put(rpc.PutRequest(key=b"k", lease=99)),
        (NOT_FOUND, "etcdserver: requested lease not found"),
    ),
    "revocation of an unknown lease": (
        lambda c, now: c.Lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=99)),
        (NOT_FOUND, "etcdserver: requested lease not found"),
    ),
    "lease that exists": (
        lambda c, now: c.Lease.LeaseGrant(rpc.LeaseGrantRequest(ID=5, TTL=100)),
        (PRECONDITION, "etcdserver: lease already exists"),
    ),
    "lease of 300 years": (
        lambda c, now: c.Lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=9_500_000_000)),
        (OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    ),
    "value and ignore_value": (
        lambda c, now: c.KV.Put(rpc.PutRequest(key=b"k", value=b"v", ignore_value=True)),
        (INVALID, "etcdserver: value is provided"),
    ),
    "lease and ignore_lease": (
        lambda c, now: c.KV.Put(rpc.PutRequest(key=b"k", lease=5, ignore_lease=True)),
        (INVALID, "etcdserver: lease is provided"),
    ),
    "ignore_value of no key": (
        lambda c, now: c.KV.Put(rpc.PutRequest(key=b"none", ignore_value=True)),
        (INVALID, "etcdserver: key not found"),
    ),
    "unknown sort order": (
        lambda c, now: c.KV.Range(rpc.RangeRequest(key=b"k", sort_order=9)),
        (INVALID, "etcdserver: invalid sort option"),
    ),
    "removal of an unknown member": (
        lambda c, now: c.Cluster.MemberRemove(rpc.MemberRemoveRequest(ID=1)),
        (NOT_FOUND, "etcdserver: member not found"),
    ),
    "promotion of an unknown member": (
        lambda c, now: c.Cluster.MemberPromote(rpc.MemberPromoteRequest(ID=1)),
        (NOT_FOUND, "etcdserver: member not found"),
    ),
}


@pytest.fixture
def node(make_cluster):
    """One node with a key, a lease and a compaction."""
    node = make_cluster(1).one
    node.client.Lease.LeaseGrant(rpc.LeaseGrantRequest(ID=5, TTL=1000))
    for value in (b"1", b"2", b"3"):
        node.client.put(b"k", value)
    node.client.KV.Compact(rpc.CompactionRequest(revision=3))
    return node


def still_serves(node):
    assert node.alive(), f"the node ended with {node.process.poll()}:\n{node.log()[-3000:]}"
    with Client(node.endpoint) as client:
        wait_until("the node serves", lambda: client.get(b"k", timeout=5).kvs[0].value == b"3", 10)


def test_requests_get_the_errors_of_etcd(node):
    before = node.client.revision()
    wrong = []
    for name, (ask, (code, text)) in REQUESTS.items():
        with pytest.raises(grpc.RpcError) as caught:
            ask(node.client, before)
        got = (caught.value.code(), caught.value.details())
        if got[0] != code or (text is not None and got[1] != text):
            wrong.append(f"{name}: expected {code} '{text}', got {got[0]} '{got[1]}'")
    assert not wrong, "\n".join(wrong)
    assert node.client.revision() == before, "a refused request changed the revision"
    still_serves(node)


def raw_call(node, path, message, content_type="application/grpc"):
    """The HTTP status or gRPC code of a call with hand-made bytes."""
    channel = open_channel(node.endpoint, pki.from_environment())
    try:
        channel.unary_unary(path, None, None)(message, timeout=5)
        return "OK"
    except grpc.RpcError as error:
        return error.code().name
    finally:
        channel.close()


def test_malformed_messages_and_unknown_methods_are_refused(node):
    assert raw_call(node, "/etcdserverpb.KV/Put", b"\xff" * 40) in ("INTERNAL", "INVALID_ARGUMENT")
    assert raw_call(node, "/etcdserverpb.KV/Put", b"\x0a\x7fshort") in ("INTERNAL", "INVALID_ARGUMENT")
    assert raw_call(node, "/etcdserverpb.KV/NoSuchMethod", b"") == "UNIMPLEMENTED"
    assert raw_call(node, "/no.such.Service/Get", b"") == "UNIMPLEMENTED"
    dice = random.Random(7)
    for _ in range(300):
        message = dice.randbytes(dice.randrange(0, 200))
        method = dice.choice(["KV/Put", "KV/Range", "KV/Txn", "KV/DeleteRange", "Lease/LeaseGrant"])
        raw_call(node, f"/etcdserverpb.{method}", message)
    still_alive = node.client.get(b"k")
    assert still_alive.header.revision >= 4


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b"", length=None):
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def hpack_literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


GET_HEADERS = b"\x82\x86\x84" + hpack_literal(b":authority", b"x")
GRPC_HEADERS = (
    b"\x83\x86"
    + hpack_literal(b":path", b"/etcdserverpb.KV/Put")
    + hpack_literal(b"content-type", b"application/grpc")
    + hpack_literal(b"te", b"trailers")
)
SETTINGS = frame(4, 0, 0)


def garbage():
    """Named byte strings, each bounded to a few MB at most."""
    dice = random.Random(11)
    yield "nothing", b""
    yield "one zero", b"\0"
    yield "random bytes", dice.randbytes(100_000)
    yield "zeros", b"\0" * 100_000
    yield "ff", b"\xff" * 100_000
    yield "a long line", b"GET /" + b"a" * 1_000_000
    yield "many header lines", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000
    yield "huge content-length", b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\nx"
    yield "negative chunk", b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabc\r\n"
    yield "TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(508)
    yield "preface cut", PREFACE[:10]
    yield "preface and garbage", PREFACE + dice.randbytes(50_000)
    yield "huge frame", PREFACE + SETTINGS + frame(0, 0, 1, b"x" * 1000, length=0xFFFFFF)
    yield "data on no stream", PREFACE + SETTINGS + frame(0, 1, 7, b"hello")
    yield "bad hpack", PREFACE + SETTINGS + frame(1, 5, 1, b"\xff" * 200)
    yield "even stream", PREFACE + SETTINGS + frame(1, 5, 2, GET_HEADERS)
    yield "window overflow", PREFACE + SETTINGS + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3
    yield "bad grpc length", (
        PREFACE + SETTINGS + frame(1, 4, 1, GRPC_HEADERS)
        + frame(0, 1, 1, b"\0\xff\xff\xff\xff" + b"x" * 100)
    )  # fmt: skip
    yield "compressed without encoding", (
        PREFACE + SETTINGS + frame(1, 4, 1, GRPC_HEADERS) + frame(0, 1, 1, b"\1\0\0\0\3abc")
    )
    yield "rapid resets", PREFACE + SETTINGS + b"".join(
        frame(1, 4, stream, GRPC_HEADERS) + frame(3, 0, stream, b"\0\0\0\x08")
        for stream in range(1, 20_001, 2)
    )
    yield "continuation flood", (
        PREFACE + SETTINGS + frame(1, 0, 1, GET_HEADERS)
        + frame(9, 0, 1, hpack_literal(b"a" * 100, b"b" * 100)) * 10_000
    )  # fmt: skip
    yield "ping flood", PREFACE + SETTINGS + frame(6, 0, 0, b"12345678") * 50_000
    yield "settings flood", PREFACE + SETTINGS * 50_000
    yield "empty data flood", (
        PREFACE + SETTINGS + frame(1, 4, 1, GRPC_HEADERS) + frame(0, 0, 1) * 50_000
    )


def throw(node, port, data):
    """Sends the bytes and reads for a moment; whatever the server does with the connection is fine."""
    send_and_read(socket.create_connection((node.host_of(port), port), timeout=5), data)
    if node.cluster.pki is not None:  # And inside of the encryption.
        send_and_read(node.connect(port, timeout=5), data)


def send_and_read(connection, data):
    with connection:
        connection.settimeout(0.3)
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            for _ in range(100):
                if not connection.recv(65536):
                    break
        except OSError:
            pass


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_garbage_on_every_port_harms_nothing(make_cluster):
    cluster = make_cluster(3)
    for node in cluster:
        node.client.put(b"k", b"3")
    leader = cluster.leader()
    memory = resident_bytes(leader.pid)

    for name, data in garbage():
        for port in (leader.client_port, leader.peer_port):
            throw(leader, port, data)
        assert leader.alive(), f"'{name}' ended the node: {leader.log()[-3000:]}"
        leader.client.get(b"k")

    for node in cluster:
        still_serves(node)
    assert cluster.leader() is leader, "garbage cost the leader its office"
    grown = resident_bytes(leader.pid) - memory
    assert grown < 200 * 2**20 * paths.SLOWNESS, f"garbage made the node grow by {grown >> 20} MiB"


def test_idle_connections_do_not_stop_others(node):
    idle = [node.connect() for _ in range(500)]
    for connection in idle[::2]:
        connection.send(PREFACE + SETTINGS)
    still_serves(node)
    for connection in idle:
        connection.close()
    still_serves(node)


# ---- Keyway's own ways to fail a start: plugins and configuration --------------------------------


@pytest.fixture
def start_expecting_failure(make_cluster, kind):
    """Starts a node whose configuration was changed; returns (exit code, output)."""
    if kind != "keyway":
        pytest.skip("about Keyway's own configuration")

    def start(change, *arguments):
        node = make_cluster(1, start=False, storage="lmdb").one
        node.directory.mkdir(parents=True, exist_ok=True)
        node.write_certificates()
        node.config_path.write_text(change(node.config()))
        command = [str(paths.KEYWAYD), "--config", str(node.config_path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return done.returncode, done.stdout + done.stderr

    return start


def replaced(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


CONFIG_ERRORS = {
    "misspelt key": (replaced("election_timeout", "electon_timeout"), "electon_timeout"),
    "misspelt section": (replaced("[raft]", "[raftt]"), "raftt"),
    "wrong type": (replaced('"100ms"', "true"), "heartbeat_interval"),
    "no unit": (replaced('"100ms"', '"100"'), "heartbeat_interval"),
    "out of range": (replaced('"100ms"', '"100000s"'), "heartbeat_interval"),
    "not toml": (lambda text: text + "\n[[[\n", "keyway.toml"),
    "unknown state": (replaced('"new"', '"newish"'), "newish"),
    "not a member": (replaced('name = "a"', 'name = "z"'), "z"),
    "bad URL": (replaced('listen = ["http', 'listen = ["nonsense'), "nonsense"),
    "unknown plugin": (replaced("storage-lmdb", "storage-none"), "storage-none"),
    "misspelt plugin option": (
        replaced('plugin = "log-segmented"', 'plugin = "log-segmented"\nsegment_byte = "1MiB"'),
        "segment_byte",
    ),
    "plugin option out of range": (
        replaced('plugin = "log-segmented"', 'plugin = "log-segmented"\nsegment_bytes = "1B"'),
        "segment_bytes",
    ),
    "relative plugin path": (replaced("storage-lmdb", "./storage-lmdb.so"), "storage-lmdb.so"),
}


@pytest.mark.parametrize("name", CONFIG_ERRORS)
def test_configuration_error_is_named(start_expecting_failure, name):
    change, named = CONFIG_ERRORS[name]
    code, output = start_expecting_failure(change)
    # What only the plugin itself can judge ends its start, with code 1.
    assert code == (1 if name == "bad URL" else 2), f"exit code {code}: {output}"
    assert named in output and "keyway.toml" in output, output
    assert "terminate called" not in output


def test_configuration_error_tells_line_and_column(start_expecting_failure):
    code, output = start_expecting_failure(replaced("[raft]\n", "[raft]\nelection_timout = 5\n"))
    assert code == 2
    assert "keyway.toml:" in output and 'did you mean "election_timeout"?' in output, output


def test_check_config_prints_the_effective_configuration(start_expecting_failure):
    code, output = start_expecting_failure(lambda text: text, "--check-config")
    assert code == 0, output
    for line in ("[raft]", "election_timeout", "[storage]", "storage-lmdb"):
        assert line in output


def test_missing_configuration_file_is_named(kind):
    if kind != "keyway":
        pytest.skip("about Keyway's own configuration")
    command = [str(paths.KEYWAYD), "--config", "/nonexistent/keyway.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "/nonexistent/keyway.toml" in done.stdout + done.stderr


def patched_plugin(directory, name, old, new):
    """A copy of a built plugin in which the text of its manifest is changed."""
    source = paths.BUILD / "lib" / "keyway" / "plugins" / f"{name}.so"
    data = source.read_bytes()
    assert old in data
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{name}.so"
    target.write_bytes(data.replace(old, new))
    return target


def test_plugin_of_another_abi_is_refused_by_name_and_version(start_expecting_failure, label):
    plugin = patched_plugin(paths.WORK / f"{label}-plugins", "storage-lmdb", b"abi=1.0", b"abi=2.0")
    code, output = start_expecting_failure(replaced('"storage-lmdb"', f'"{plugin}"'))
    assert code != 0
    assert "storage-lmdb" in output and "2.0" in output and "1.0" in output, output


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "missing"])
def test_file_that_is_no_plugin_is_refused_by_name(start_expecting_failure, label, damage):
    directory = paths.WORK / f"{label}-plugins"
    plugin = patched_plugin(directory, "storage-lmdb", b"abi=1.0", b"abi=1.0")
    match damage:
        case "empty":
            plugin.write_bytes(b"")
        case "text":
            plugin.write_text("not a library\n")
        case "cut":
            plugin.write_bytes(plugin.read_bytes()[:5000])
        case "missing":
            plugin.unlink()
    code, output = start_expecting_failure(replaced('"storage-lmdb"', f'"{plugin}"'))
    assert code != 0 and code > 0, f"exit code {code}: {output}"
    assert str(plugin) in output, output
    shutil.rmtree(directory, ignore_errors=True)


def test_failed_start_leaves_nothing_half_running(make_cluster, kind):
    if kind != "keyway":
        pytest.skip("about Keyway's own start")
    cluster = make_cluster(1)
    node = cluster.one
    # The client port is taken by the running node: a second one must end and name the port.
    second = cluster.new_node("a")
    second.client_port = node.client_port
    second.directory = cluster.directory / "second"
    second.data_dir = second.directory / "data"
    second.log_path = cluster.log_directory / "second.log"
    second.initial_members = {"a": second}
    second.start()
    try:
        assert second.wait_exit(20) not in (0, None)
    finally:
        second.close()
    assert str(node.client_port) in second.log(), second.log()
    assert node.alive()
    node.client.put(b"k", b"v")
    cluster.nodes["a"] = node


def test_http_paths_answer(node):
    def http(path, method="GET"):
        with node.connect(timeout=5) as connection:
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            reply = b""
            while chunk := connection.recv(65536):
                reply += chunk
        head, _, body = reply.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode(errors="replace")

    assert http("/health")[0] == 200 and '"health":"true"' in http("/health")[1]
    assert http("/livez")[0] == 200
    assert http("/readyz")[0] == 200
    assert http("/version")[0] == 200 and '"etcdserver":"3.7' in http("/version")[1]
    status, metrics = http("/metrics")
    assert status == 200 and "etcd_server_has_leader 1" in metrics
    assert http("/no/such/path")[0] == 404
    assert http("/health", "DELETE")[0] == 405


def test_member_id_0_is_not_found_at_once(make_cluster):
    client = make_cluster(1).one.client
    for method, request in (
        (client.Cluster.MemberRemove, rpc.MemberRemoveRequest(ID=0)),
        (client.Cluster.MemberPromote, rpc.MemberPromoteRequest(ID=0)),
        (client.Cluster.MemberUpdate, rpc.MemberUpdateRequest(ID=0, peerURLs=["http://127.0.0.1:1"])),
    ):
        with pytest.raises(grpc.RpcError) as failure:
            method(request, timeout=5)
        assert failure.value.code() == grpc.StatusCode.NOT_FOUND


def test_full_store_refuses_puts_until_compaction_makes_room(make_cluster, kind):
    if kind == "etcd":
        pytest.skip("etcd needs a defragmentation and a disarmed alarm first")
    client = make_cluster(1, limits=["[limits]", 'quota_bytes = "8MiB"', ""]).one.client

    def fill():
        for _ in range(40):
            client.put(b"big", random.randbytes(1 << 20))

    with pytest.raises(grpc.RpcError) as failure:
        fill()
    assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.value.details() == "etcdserver: mvcc: database space exceeded"
    client.KV.DeleteRange(rpc.DeleteRangeRequest(key=b"big"))
    client.KV.Compact(rpc.CompactionRequest(revision=client.revision(), physical=True), timeout=10)

    def put_again():
        client.put(b"small", b"1")
        return True

    wait_until("a put is taken again", put_again, 20)
