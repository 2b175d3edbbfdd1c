# SPDX-License-Identifier: Apache-2.0
"""One day of an operator of three nodes with mutual TLS on both ports, under load.

Authority, server, peer and client certificates are rotated without a failed request; a certificate is
revoked; bad certificates of clients and members are refused with the reason; half-open handshakes do
not slow down others.
"""

import contextlib
import os
import re
import selectors
import socket
import ssl
import statistics
import subprocess
import threading
import time

import pytest

from harness import paths, pki
from harness.client import Client, grpc
from harness.cluster import wait_until
from harness.loadgen import Load

RATE = 100  # Requests a second to each node.
REVOCATION_BOUND_S = 5
HALF_OPEN = 1000
WINDOWS = 5
WARMUP_S = 0.5
WINDOW_S = 3


@pytest.fixture
def cluster(make_cluster, kind, label):
    if kind != "keyway":
        pytest.skip("about Keyway's plugins")
    return make_cluster(3, pki=pki.Pki(paths.WORK / f"{label}-pki"))


class Day:
    """The cluster, its authorities, and what is done to files of all nodes at once."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.old = cluster.pki.authority
        self.new = pki.Authority(cluster.pki.directory, "second-authority")
        self.loads = []

    def install(self, contents):
        """name -> text or function of the node, into every node's folder; waits until it is in use."""
        before = {node.name: self.generations(node) for node in self.cluster}
        for name, text in contents.items():
            for node in self.cluster:
                pki.replace_file(node.tls_dir / name, text(node) if callable(text) else text)
        ports = {"peer" if name.startswith("peer") else "client" for name in contents}
        for node in self.cluster:
            for port in ports:
                wait_until(
                    f"{node.name} uses the new files of the {port} port",
                    lambda: self.generations(node)[port] > before[node.name][port],  # noqa: B023
                )

    def wait_until_all_accept(self, files):
        """Until every node shows a certificate that these files trust, and trusts theirs."""
        for node in self.cluster:
            wait_until(f"{node.name} accepts", lambda: put(node, files) or True)  # noqa: B023

    @staticmethod
    def generations(node):
        """The newest generation of each port, as the node's log tells."""
        newest = {"client": 0, "peer": 0}
        for line in node.log().splitlines():
            if "tls_material_loaded" in line:
                port = re.search(r'port"?[=:]"?(client|peer)', line)[1]
                newest[port] = int(re.search(r'generation"?[=:]"?(\d+)', line)[1])
        return newest

    def start_load(self, name, files):
        for node in self.cluster:
            self.loads.append(
                Load(
                    node.endpoint,
                    *["--order", "sequential", "--prefix", f"day/{name}/{node.name}/", "-c", "2"],
                    *["--rate", RATE, "--value-size", "64", "--tolerate-errors", "--duration", "300"],
                    tls=files,
                )
            )
        for node in self.cluster:
            first = f"day/{name}/{node.name}/{0:010}".encode()
            with Client(node.endpoint, files) as client:
                wait_until(f"the load on {node.name}", lambda: client.get(first).kvs)  # noqa: B023

    def stop_load(self):
        """Ends all load: nothing may have failed."""
        loads, self.loads = self.loads, []
        for load in loads:
            report = load.stop()
            assert report["operations_total"] > 0, report
            assert report["errors"] == 0, f"requests failed: {report['error_texts']}"


def put(node, files, key=b"k"):
    with Client(node.endpoint, files) as client:
        client.put(key, b"v", timeout=5)


def ctl(node, files, *arguments):
    """The exit code and what keywayctl says."""
    command = [paths.KEYWAYCTL, f"--endpoints={node.endpoint}", "--dial-timeout=3s"]
    command += [*files.ctl_arguments(), *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


class HeldOpen:
    """A client's connection, watched for its end."""

    def __init__(self, node, files):
        self.socket = files.context().wrap_socket(
            socket.create_connection(("127.0.0.1", node.client_port), timeout=10),
            server_hostname="127.0.0.1",
        )
        self.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in self.socket.recv(65536)

    def seconds_until_closed(self, since):
        self.socket.settimeout(REVOCATION_BOUND_S * 2)
        with contextlib.suppress(OSError), self.socket:
            while self.socket.recv(65536):
                pass
            return time.monotonic() - since
        return time.monotonic() - since


def refused_lines(node, reason, size=0):
    pattern = re.compile(rf'(client_refused|connection_rejected).*reason"?[=:]"?{reason}\b')
    return [line for line in node.log()[size:].splitlines() if pattern.search(line)]


class HalfOpen:
    """Holds HALF_OPEN connections that never finish their handshake, and opens ended ones again."""

    def __init__(self, port, host="127.0.0.1"):
        self.address = (host, port)
        self.hello = self.client_hello()
        self.ending = threading.Event()
        self.is_full = threading.Event()
        self.thread = threading.Thread(target=self.run)

    @staticmethod
    def client_hello():
        out = ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname = False
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
        return out.read()

    def __enter__(self):
        self.thread.start()
        assert self.is_full.wait(30)
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def run(self):
        # It is on a machine of its own in life: what it computes must not be what the others wait for.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        selector = selectors.DefaultSelector()
        open_count = opened = 0
        while not self.ending.is_set():
            for _ in range(50):
                if open_count == HALF_OPEN:
                    break
                held = socket.create_connection(self.address, timeout=10)
                # Every second one makes the server do its part of the work first.
                held.send(self.hello if opened % 2 else self.hello[: len(self.hello) // 2])
                held.setblocking(False)
                selector.register(held, selectors.EVENT_READ)
                open_count += 1
                opened += 1
            if opened >= HALF_OPEN:
                self.is_full.set()
                # As a patient attacker: the ended ones come back, 200 a second.
                self.ending.wait(0.25)
            for key, _ in selector.select(0):
                with contextlib.suppress(BlockingIOError):
                    try:
                        if key.fileobj.recv(65536):
                            continue
                    except ConnectionError:
                        pass
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    open_count -= 1
        for key in list(selector.get_map().values()):
            key.fileobj.close()


def p99_us(node, files, attack=None):
    """Of clients that are connected before the attack begins."""
    before = node.client.revision()
    load = Load(
        node.endpoint,
        *["--order", "random", "--prefix", "quiet/", "-c", "4", "--rate", 400],
        *["--value-size", "64", "--warmup", WARMUP_S, "--duration", WINDOW_S],
        tls=files,
    )
    wait_until(
        "the load is under way",
        lambda: node.client.revision() > before + 50 or load.process.poll() is not None,
    )
    with attack or contextlib.nullcontext():
        report = load.wait(60)
    assert report["exit_code"] == 0 and report["errors"] == 0, report
    return report["latency_us"]["p99"]


def slowdown_by_half_open_handshakes(day):
    node = day.cluster.leader()
    files = day.cluster.client_files
    alone, attacked = [], []
    p99_us(node, files)  # Warm.
    for _ in range(WINDOWS):
        alone.append(p99_us(node, files))
        attacked.append(p99_us(node, files, HalfOpen(node.client_port)))
    print(f"p99 in us: alone {sorted(alone)}, with half-open handshakes {sorted(attacked)}")
    return statistics.median(attacked) / statistics.median(alone)


def new_clients_get_in_beside_half_open_handshakes(day):
    """And the members' port has the same protection."""
    node = day.cluster.leader()
    files = day.cluster.client_files
    with HalfOpen(node.client_port), HalfOpen(node.peer_port, node.peer_host):
        wait_until("a new client gets in", lambda: put(node, files) or True)
    wait_until("the queue of the listener is empty again", lambda: put(node, files) or True)


def rotate_everything(day):
    """Authority, servers, members and clients; every step leaves the old and the new one valid."""
    old, new = day.old, day.new
    both = old.cert.read_text() + new.cert.read_text()
    lists = old.list_text() + new.list_text()
    bundle = day.cluster.pki.directory / "bundle.pem"
    bundle.write_text(both)
    day.start_load("old", pki.ClientFiles(bundle, day.cluster.client_files.own))

    # 1. Everybody trusts both authorities.
    day.install({"ca.pem": both, "peer-ca.pem": both, "crl.pem": lists, "peer-crl.pem": lists})
    # 2. Servers and members get certificates of the new one.
    server = new.issue("server")
    peers = {
        node.name: new.issue(f"member-{node.name}", (f"IP:{node.peer_host}",)) for node in day.cluster
    }
    day.install(
        {
            "server.pem": server.cert.read_text(),
            "server-key.pem": server.key.read_text(),
            "peer.pem": lambda node: peers[node.name].cert.read_text(),
            "peer-key.pem": lambda node: peers[node.name].key.read_text(),
        }
    )
    renewed = pki.ClientFiles(bundle, new.issue("root"))
    day.wait_until_all_accept(pki.ClientFiles(new.cert, renewed.own))
    # 3. So do clients; those with the old certificate end their work.
    day.start_load("new", renewed)
    for node in day.cluster:
        put(node, renewed)
    day.stop_load()
    # 4. The old authority goes. Connections that stand on it end, those between members too: what was on
    # its way there is sent again.
    retired = pki.ClientFiles(bundle, day.cluster.client_files.own)
    for node in day.cluster:
        node.close_client()
    held = HeldOpen(day.cluster.one, retired)
    day.cluster.client_files = pki.ClientFiles(new.cert, renewed.own)
    day.start_load("only", day.cluster.client_files)
    since = time.monotonic()
    day.install({"ca.pem": new.cert.read_text()})
    took = held.seconds_until_closed(since)
    assert took < REVOCATION_BOUND_S, f"a connection of the old authority lived on for {took:.1f} s"
    day.install({"peer-ca.pem": new.cert.read_text()})
    for node in day.cluster:
        put(node, day.cluster.client_files)
    wait_until("members have connected anew", lambda: any("peer_lost" in n.log() for n in day.cluster))
    for node in day.cluster:
        put(node, day.cluster.client_files)
    day.stop_load()
    for node in day.cluster:
        node.close_client()
    return new


def revoke_a_client(day, authority):
    node = day.cluster.one
    mallory = pki.ClientFiles(authority.cert, authority.issue("mallory"))
    put(node, mallory)
    held = HeldOpen(node, mallory)
    day.start_load("revocation", day.cluster.client_files)
    authority.revoke(mallory.own)
    since = time.monotonic()
    day.install({"crl.pem": authority.list_text()})
    took = held.seconds_until_closed(since)
    print(f"the connection of the revoked certificate ended after {took:.2f} s")
    assert took < REVOCATION_BOUND_S
    for each in day.cluster:
        with pytest.raises(grpc.RpcError):
            put(each, mallory)
        wait_until(f"the log of {each.name} says revoked", lambda: refused_lines(each, "revoked"))  # noqa: B023
    day.stop_load()


def bad_clients_are_told(day, authority):
    node = day.cluster.one
    stranger = pki.Authority(day.cluster.pki.directory, "stranger")
    expired = authority.issue("late", starts_s=-7200, ends_s=-60)
    for reason, own in (
        ("expired", expired),
        ("unknown_ca", stranger.issue("stranger")),
        ("no_certificate", None),
    ):
        size = len(node.log())
        code, said = ctl(node, pki.ClientFiles(authority.cert, own), "put", "k", "v")
        assert code != 0, f"{reason}: accepted"
        wait_until(f"the log says {reason}", lambda: refused_lines(node, reason, size))  # noqa: B023
        assert "certificate" in said, f"{reason}: keywayctl only says: {said}"
    # A name that the server cannot use as a user is told to the client in words.
    code, said = ctl(node, pki.ClientFiles(authority.cert, authority.issue("", ())), "get", "k")
    assert code != 0 and "no_identity" in said, said
    # The client refuses a server of another authority, and one that has another name.
    code, said = ctl(node, pki.ClientFiles(stranger.cert, day.cluster.client_files.own), "get", "k")
    assert code != 0 and "certificate" in said, said
    good = {name: (node.tls_dir / name).read_text() for name in ("server.pem", "server-key.pem")}
    wrong = authority.issue("server", ("DNS:elsewhere.example",))
    day.install({"server.pem": wrong.cert.read_text(), "server-key.pem": wrong.key.read_text()})
    wait_until(
        "the server shows its new certificate",
        lambda: ctl(node, day.cluster.client_files, "get", "k")[0] != 0,
    )
    code, said = ctl(node, day.cluster.client_files, "get", "k")
    assert code != 0 and "certificate" in said.lower() and "name" in said.lower(), said
    code, said = ctl(node, day.cluster.client_files, "--insecure-skip-tls-verify", "put", "k", "v")
    assert code == 0, said
    day.install(good)
    wait_until(
        "the server is itself again", lambda: ctl(node, day.cluster.client_files, "get", "k")[0] == 0
    )


def bad_members_are_told(day, authority):
    """A member with a bad certificate does not get in; the log of the others says why."""
    leader = day.cluster.leader()
    member = day.cluster.followers()[0]
    others = [node for node in day.cluster if node is not member]
    stranger = pki.Authority(day.cluster.pki.directory, "other-cluster")
    names = (f"IP:{member.peer_host}",)
    good = {name: (member.tls_dir / name).read_text() for name in ("peer.pem", "peer-key.pem")}
    for reason, own in (
        ("expired", authority.issue("late", names, starts_s=-7200, ends_s=-60)),
        ("unknown_ca", stranger.issue("stranger", names)),
        ("name_mismatch", authority.issue("wrong", ("IP:127.0.0.9",))),
    ):
        member.kill()
        sizes = {node.name: len(node.log()) for node in others}
        pki.replace_file(member.tls_dir / "peer.pem", own.cert.read_text())
        pki.replace_file(member.tls_dir / "peer-key.pem", own.key.read_text())
        member.start()
        for node in others:
            wait_until(
                f"{node.name} refuses the member: {reason}",
                lambda: refused_lines(node, reason, sizes[node.name]),  # noqa: B023
            )
        put(leader, day.cluster.client_files)
    member.kill()
    for name, text in good.items():
        pki.replace_file(member.tls_dir / name, text)
    member.start().wait_ready()


def test_half_open_handshakes_do_not_slow_others_down(cluster):
    assert slowdown_by_half_open_handshakes(Day(cluster)) <= 2


def test_operators_day(cluster):
    day = Day(cluster)
    try:
        new_clients_get_in_beside_half_open_handshakes(day)
        authority = rotate_everything(day)
        revoke_a_client(day, authority)
        bad_clients_are_told(day, authority)
        bad_members_are_told(day, authority)
        cluster.hashes_agree()
    finally:
        for load in day.loads:
            load.process.kill()
