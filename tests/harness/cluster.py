# SPDX-License-Identifier: Apache-2.0
"""Starts, kills and restarts nodes: Keyway's, or etcd's where a test wants the expected answers.

Every process dies with the test run and readiness is polled, never slept for.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

from harness import paths, peers, pki
from harness.client import Client, grpc, rpc

# Before every command: it dies with the test run. (A preexec_fn would fork, which gRPC cannot stand.)
DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]
BAD_LOG = re.compile(
    r"(Address|Thread|Leak|UndefinedBehavior)Sanitizer|runtime error:|CHECK failed|DCHECK failed"
    r"|broke the contract"
)
_used_ports = set()


def free_port():
    """A port below the ephemeral range, so that no client's own port can take it meanwhile."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(20000, 32000)
        if port in _used_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _used_ports.add(port)
        return port
    raise RuntimeError("no free port between 20000 and 32000")


def wait_until(what, condition, timeout=30.0, interval=0.01):
    """Polls `condition` until it returns something true, and returns that."""
    timeout *= paths.SLOWNESS
    deadline = time.monotonic() + timeout
    last_error = None
    while time.monotonic() < deadline:
        try:
            result = condition()
            if result:
                return result
        except (grpc.RpcError, OSError, ValueError) as error:
            last_error = error
        time.sleep(interval)
    raise TimeoutError(f"{what}: not within {timeout} s (last error: {last_error})")


class Node:
    """One server process and its data directory."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.number = len(cluster.nodes) + 1
        self.client_port = free_port()
        self.peer_port = free_port()
        self.directory = cluster.directory / name
        self.data_dir = self.directory / "data"
        self.log_path = cluster.log_directory / f"{name}.log"
        self.state = "new"
        self.tls_dir = self.directory / "tls"
        self.initial_members = None  # name -> Node; None: all members of the cluster
        self.wrapper = []  # e.g. strace and its options
        self.process = None
        self._client = None

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_url(self):
        return f"{self.scheme}://{self.peer_host}:{self.peer_port}"

    @property
    def client_url(self):
        return f"{self.scheme}://{self.endpoint}"

    @property
    def scheme(self):
        return "https" if self.cluster.pki else "http"

    @property
    def peer_host(self):
        return "127.0.0.1"

    def host_of(self, port):
        return self.peer_host if port == self.peer_port else "127.0.0.1"

    def write_certificates(self):
        """The files of this node, each its own, so that a test can replace them."""
        if self.cluster.pki is None or self.tls_dir.exists():
            return
        self.tls_dir.mkdir(parents=True)
        authority = self.cluster.pki.authority
        server = self.cluster.pki.issue("server")
        peer = self.cluster.pki.issue(f"member-{self.peer_host}", (f"IP:{self.peer_host}",))
        for name, source in {
            "server.pem": server.cert,
            "server-key.pem": server.key,
            "peer.pem": peer.cert,
            "peer-key.pem": peer.key,
            "ca.pem": authority.cert,
            "peer-ca.pem": authority.cert,
        }.items():
            pki.replace_file(self.tls_dir / name, source.read_text())
        for name in ("crl.pem", "peer-crl.pem"):
            pki.replace_file(self.tls_dir / name, authority.list_text())

    def connect(self, port=None, timeout=10):
        """A socket to this node, encrypted if the cluster is; `port`: not the clients' one."""
        port = port or self.client_port
        raw = socket.create_connection((self.host_of(port), port), timeout)
        if self.cluster.pki is None:
            return raw
        context = self.cluster.client_files.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context.wrap_socket(raw, server_hostname=raw.getpeername()[0])

    @property
    def pid(self):
        return self.process.pid

    @property
    def client(self):
        if self._client is None:
            self._client = Client(self.endpoint, self.cluster.client_files)
        return self._client

    def command(self):
        raise NotImplementedError

    def start(self):
        assert not self.alive(), f"{self.name} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.write_certificates()
        command = self.wrapper + self.command()
        with open(self.log_path, "ab") as log:
            log.write(f"--- {' '.join(map(str, command))}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                DIE_WITH_PARENT + command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
            )
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9, and the wait for the end of the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout=20):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def wait_exit(self, timeout=20):
        return self.process.wait(timeout)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_ready(self, timeout=30.0):
        """Until a linearizable read on this member answers."""

        def answers():
            if not self.alive():
                raise RuntimeError(
                    f"{self.name} ended with {self.process.returncode}:\n{self.log()[-3000:]}"
                )
            return self.client.get(b"\0", timeout=paths.SLOWNESS)

        return wait_until(f"{self.name} answers a linearizable read", answers, timeout)

    def wait_serving(self, timeout=30.0):
        """Until a serializable read answers; enough for a learner."""
        return wait_until(
            f"{self.name} answers a serializable read",
            lambda: self.client.get(b"\0", serializable=True, timeout=1),
            timeout,
        )

    def close(self):
        self.kill()
        self.close_client()

    def close_client(self):
        """The next use of `client` makes a new one, with the cluster's present files."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def members_at_start(self):
        return self.initial_members or self.cluster.nodes


class EtcdNode(Node):
    def command(self):
        members = self.members_at_start()
        cluster = ",".join(f"{name}={node.peer_url}" for name, node in members.items())
        command = [
            str(peers.etcd()),
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            "--log-level=error",
            "--quota-backend-bytes=8589934592",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={cluster}",
            f"--initial-cluster-state={self.state}",
            f"--initial-cluster-token={self.cluster.token}",
        ]
        if self.cluster.pki:
            for prefix, stem in (("", "server"), ("peer-", "peer")):
                ca = self.tls_dir / ("peer-ca.pem" if prefix else "ca.pem")
                command += [
                    f"--{prefix}cert-file={self.tls_dir / stem}.pem",
                    f"--{prefix}key-file={self.tls_dir / stem}-key.pem",
                    f"--{prefix}trusted-ca-file={ca}",
                    f"--{prefix}client-cert-auth",
                ]
        if "snapshot_entries" in self.cluster.options:
            count = self.cluster.options["snapshot_entries"]
            command += [f"--snapshot-count={count}"]
        return command


class KeywayNode(Node):
    """The variant comes from the cluster's options, else from the environment: `storage` is lmdb,
    rocksdb or mixed (KEYWAY_STORAGE), `transport` tcp or grpc (KEYWAY_TRANSPORT), `tls` on if set
    (KEYWAY_TLS=1)."""

    def __init__(self, cluster, name):
        super().__init__(cluster, name)
        self.storage = cluster.option("storage", "lmdb")
        if self.storage == "mixed":  # The first member on one engine, the others on the other.
            self.storage = "rocksdb" if cluster.nodes else "lmdb"
        self.storage_options = []  # Lines of [storage] beside the plugin.
        self.transport = cluster.option("transport", "tcp")
        self.peer_listen_port = self.peer_port  # Another one if a proxy stands before it.

    @property
    def peer_host(self):
        """With TLS each member has an address of its own, so that a certificate fits one only."""
        return f"127.0.0.{self.number}" if self.cluster.pki else "127.0.0.1"

    def auth_section(self):
        if self.cluster.pki is None:
            return []
        files = {
            "cert_file": "server.pem",
            "key_file": "server-key.pem",
            "ca_file": "ca.pem",
            "crl_file": "crl.pem",
            "peer_cert_file": "peer.pem",
            "peer_key_file": "peer-key.pem",
            "peer_ca_file": "peer-ca.pem",
            "peer_crl_file": "peer-crl.pem",
        }
        lines = [f'{option} = "{self.tls_dir / name}"' for option, name in files.items()]
        return ["[auth]", 'plugin = "auth-mtls"', *lines, ""]

    @property
    def config_path(self):
        return self.directory / "keyway.toml"

    def config(self):
        members = self.members_at_start()
        lines = [
            "[node]",
            f'name = "{self.name}"',
            f'data_dir = "{self.data_dir}"',
            f'advertise_client_urls = ["{self.client_url}"]',
            "",
            "[cluster]",
            f'token = "{self.cluster.token}"',
            f'state = "{self.state}"',
            "",
            "[cluster.members]",
        ]
        lines += [f'{name} = ["{node.peer_url}"]' for name, node in members.items()]
        lines += [
            "",
            "[raft]",
            'heartbeat_interval = "100ms"',
            'election_timeout = "1000ms"',
            f"log_entries_kept = {self.cluster.options.get('snapshot_entries', 5000)}",
            "",
            *self.auth_section(),
            "[storage]",
            f'plugin = "storage-{self.storage}"',
            *self.storage_options,
            "",
            "[log]",
            'plugin = "log-segmented"',
            *self.cluster.options.get("log_options", paths.LOG_OPTIONS),
            "",
            "[transport]",
            f'plugin = "transport-{self.transport}"',
            f'listen_urls = ["{self.peer_url.rpartition(":")[0]}:{self.peer_listen_port}"]',
            "",
            "[[api]]",
            'plugin = "api-etcd"',
            f'listen = ["{self.client_url}"]',
            "",
            "[[metrics]]",
            'plugin = "metrics-prometheus"',
            "",
            "[check]",
            f'level = "{self.cluster.option("check", "full")}"',
            *self.cluster.options.get("check_options", []),
            "",
            *self.cluster.options.get("limits", []),
        ]
        return "\n".join(lines) + "\n"

    def command(self):
        self.config_path.write_text(self.config())
        return [str(paths.KEYWAYD), "--config", str(self.config_path)]


class Cluster:
    """`size` members with names a, b, c ... Use as a context manager."""

    BAD_LOG = BAD_LOG

    KINDS = {"keyway": KeywayNode, "etcd": EtcdNode}

    def __init__(self, kind, size, label, **options):
        self.kind = kind
        self.options = options
        self.token = f"{label}-{os.getpid()}"
        self.directory = paths.WORK / label
        self.log_directory = paths.LOGS / label
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.log_directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        # With TLS: the authority of all members, and what this harness shows as a client.
        self.pki = self.client_files = None
        if "pki" in options or self.option("tls", "0") not in ("0", False):
            self.pki = options.get("pki") or pki.session()
            self.client_files = self.pki.client_files()
        self.nodes = {}
        for index in range(size):
            self.new_node("abcdefghij"[index])

    def option(self, name, default):
        return self.options.get(name) or os.environ.get(f"KEYWAY_{name.upper()}") or default

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def new_node(self, name):
        """A node object that is not started; it counts as a member from now on."""
        node = self.KINDS[self.kind](self, name)
        self.nodes[name] = node
        return node

    def start(self):
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            node.wait_ready()
        return self

    def close(self):
        for node in self.nodes.values():
            node.close()
        self.check_logs()
        if not os.environ.get("KEYWAY_KEEP_DATA"):
            shutil.rmtree(self.directory, ignore_errors=True)

    def check_logs(self):
        """A report of a sanitizer, or a crash, fails the test even if no client noticed."""
        for log in self.log_directory.glob("*.log"):
            found = self.BAD_LOG.search(log.read_text(errors="replace"))
            assert found is None, f"{log} holds '{found[0]}'"

    def __iter__(self):
        return iter(self.nodes.values())

    @property
    def one(self):
        return next(iter(self.nodes.values()))

    @property
    def endpoints(self):
        return ",".join(node.endpoint for node in self)

    @property
    def pids(self):
        return [node.pid for node in self if node.alive()]

    def leader(self, timeout=10.0):
        """The running member that leads, as a majority of the running members sees it."""

        def find():
            votes = {}
            ids = {}
            running = [node for node in self if node.alive()]
            for node in running:
                status = node.client.status(timeout=1)
                ids[status.header.member_id] = node
                votes[status.leader] = votes.get(status.leader, 0) + 1
            best = max(votes, key=votes.get)
            return ids.get(best) if votes[best] > len(running) // 2 else None

        return wait_until("a leader", find, timeout)

    def followers(self):
        leader = self.leader()
        return [node for node in self if node is not leader and node.alive()]

    def member_id(self, node):
        return node.client.status().header.member_id

    def hashes_agree(self, timeout=20.0):
        """Until HashKV at one revision is the same on all running members; returns the hash."""
        running = [node for node in self if node.alive()]
        revision = running[0].client.revision()

        def agree():
            hashes = {node.name: node.client.hash_kv(revision).hash for node in running}
            if len(set(hashes.values())) == 1:
                return (hashes[running[0].name], revision)
            raise AssertionError(f"HashKV at revision {revision} differs: {hashes}")

        # A member that is behind answers "future revision" until it has caught up.
        return wait_until(f"HashKV at revision {revision}", agree, timeout)


def add_member(cluster, name, learner=True, via=None):
    """MemberAdd for a new node, which is returned ready to start. etcd may ask for patience."""
    members = dict(cluster.nodes)
    node = cluster.new_node(name)
    node.state = "existing"
    node.initial_members = {**members, name: node}
    request = rpc.MemberAddRequest(peerURLs=[node.peer_url], isLearner=learner)
    client = (via or next(iter(members.values()))).client
    reply = wait_until(f"MemberAdd of {name}", lambda: client.Cluster.MemberAdd(request), 30)
    node.member_id = reply.member.ID
    return node
