# SPDX-License-Identifier: Apache-2.0
"""Deliberately broken plugins (tests/mutants/plugins) in a real node at [check] level full.

Each is put under the same script: start, load, stop. The node must end by itself, or refuse to start,
and name the plugin, the function and the rule. The mutants without a defect pass the same script.
"""

import concurrent.futures
import dataclasses
import re

import grpc
import pytest

from harness import paths
from harness.client import rpc
from harness.cluster import Cluster, KeywayNode, wait_until

MUTANTS = paths.BUILD / "tests" / "mutants"
FIXTURES = paths.BUILD / "tests" / "fixtures"
REAL = paths.BUILD / "lib" / "keyway" / "plugins"
BROKEN = 3  # The exit code of a verdict.


@dataclasses.dataclass
class Case:
    plugin: str
    defect: str
    verdict: str  # What follows "plugin mutant-X broke the contract: ".
    keys: int = 60
    value_bytes: int = 100
    exit_code: int = BROKEN
    is_pair: bool = False  # The member of a cluster of two whose other member never starts.
    reads: bool = False  # All keys, after a restart.

    def __str__(self):
        return f"{self.plugin}-{self.defect}"


def rule(text, name):
    return re.escape(text) + rf".*\(rule {name}\)"


CASES = [
    Case("storage", "writes-part-of-a-batch", rule("kv-store.write does not show", "reads-see-writes")),
    Case("storage", "reorders-writes", rule("kv-store.write", "reads-see-writes")),
    Case("storage", "corrupts-a-value",
         rule("kv-store.write shows another value", "reads-see-writes")),
    Case("storage", "keeps-a-call-slice",
         rule("kv-store.write used an argument", "argument-lifetime")),
    Case("storage", "changes-a-result", rule("kv-store.cursor_next changed a result", "results-keep"),
         keys=600, reads=True),
    Case("storage", "gives-a-garbage-count",
         rule("kv-store.cursor_next gave", "count-within-capacity")),
    Case("storage", "answers-a-garbage-code", rule("kv-store.sync answered 77", "code-of-the-enum")),
    Case("storage", "leaves-the-error-empty", rule("kv-store.sync", "error-filled")),
    Case("storage", "throws-in-write", rule("kv-store.write threw: a mutant's write", "no-exception")),
    Case("storage", "throws-in-get", rule("kv-store.get threw", "no-exception")),
    Case("storage", "throws-in-stop", rule("kw_plugin.stop", "no-exception")),
    Case("storage", "crashes-in-write", rule("kv-store.write crashed with SIGSEGV", "no-crash"),
         exit_code=-11),
    Case("storage", "hangs-in-write",
         rule("kv-store.write has not returned for", "within-the-deadline")),
    Case("log", "acknowledges-before-sync", rule("log-store.read", "acknowledged-is-readable")),
    Case("log", "completes-twice", rule("log-store.append called done() twice", "done-fires-once")),
    Case("log", "completes-never",
         rule("log-store.append has not called done() for", "within-the-deadline")),
    Case("log", "completes-out-of-order",
         rule("log-store.append completed submission", "completions-in-order")),
    Case("log", "completes-and-returns",
         rule("log-store.append completed and returned", "done-or-final-code")),
    Case("log", "corrupts-an-entry", rule("log-store.read gave entry", "entry-unchanged")),
    Case("log", "truncates-one-too-many", rule("log-store.read", "acknowledged-is-readable"), keys=1500),
    Case("log", "gives-garbage-bounds", rule("log-store.recover gave the bounds", "sound-bounds")),
    Case("transport", "calls-the-sink-after-stop",
         rule("transport-sink.peer_state", "no-call-after-stop")),
    Case("transport", "calls-the-sink-twice-at-once",
         rule("transport-sink.peer_state", "serial-for-one-peer")),
    Case("transport", "gives-a-garbage-state", rule("transport-sink.peer_state", "sound-frames")),
    Case("transport", "takes-more-than-given", rule("transport.send took", "taken-within-given"),
         is_pair=True),
    Case("transport", "keeps-a-call-slice",
         rule("transport.send used an argument", "argument-lifetime"), is_pair=True),
    Case("auth", "gives-an-overlong-principal",
         rule("authenticator.authenticate gave", "principal-within-bounds")),
    Case("auth", "completes-twice", rule("authenticator.authenticate called", "done-fires-once")),
    Case("auth", "gives-a-chain-without-a-key", rule("authenticator.tls gave", "sound-material")),
    Case("api", "uses-a-reply-after-release",
         rule("reply.release used an argument", "argument-lifetime")),
    Case("api", "submits-after-stop", rule("kernel.submit", "no-call-after-stop")),
    Case("api", "submits-twice", rule("kernel.submit", "request-owned-by-kernel")),
    Case("api", "submits-garbage", rule("kernel.submit was given", "sound-request")),
    Case("api", "stops-before-done", rule("kw_plugin.stop returned", "done-before-stop")),
    Case("api", "leaks-a-reply", rule("kw_plugin.stop returned", "released-before-stop")),
    Case("api", "leaks-tls-material", rule("kw_plugin.stop returned", "released-before-stop")),
    Case("api", "releases-twice", rule("tls.release was called twice", "released-once")),
    Case("api", "throws-in-done", rule("request.done threw", "no-exception")),
    Case("api", "makes-a-histogram-on-its-own-thread",
         rule("metrics.histogram was called", "called-on-its-thread")),
]  # fmt: skip


class MutantNode(KeywayNode):
    """All plugins but the observer are mutants; one of them has a defect."""

    case = None
    level = "full"

    def section(self, kind, real):
        defect = self.case.defect if self.case and self.case.plugin == kind else "none"
        lines = [f'plugin = "{MUTANTS}/mutant-{kind}.so"', f'mutant = "{defect}"']
        return lines + ([f'real = "{REAL}/{real}.so"'] if real else [])

    def config(self):
        peers = {self.name: self.peer_url}
        if self.case and self.case.is_pair:
            peers["absent"] = "http://127.0.0.1:1"
        members = [f'{name} = "{url}"' for name, url in peers.items()]
        lines = ["[node]", f'name = "{self.name}"', f'data_dir = "{self.data_dir}"']
        lines += ["[cluster.members]", *members]
        lines += ["[raft]", "log_entries_kept = 10", "[cache]", 'bytes = "1MiB"']
        lines += ["[check]", f'level = "{self.level}"', 'deadline_stop = "2s"', 'deadline_warn = "500ms"']
        lines += ["[auth]", *self.section("auth", None)]
        lines += ["[storage]", *self.section("storage", "storage-lmdb")]
        lines += ["[log]", *self.section("log", "log-segmented")]
        lines += ["[transport]", *self.section("transport", "transport-tcp")]
        lines += ["[[api]]", *self.section("api", "api-etcd"), f'listen = ["http://{self.endpoint}"]']
        return "\n".join(lines) + "\n"


class MutantCluster(Cluster):
    KINDS = {"keyway": MutantNode}
    BAD_LOG = re.compile(r"Sanitizer|CHECK failed")


@pytest.fixture
def make_node(kind, label):
    if kind != "keyway":
        pytest.skip("mutants are plugins of Keyway")
    made = []

    def make(case=None, level="full"):
        cluster = MutantCluster("keyway", 1, label)
        made.append(cluster)
        node = cluster.one
        node.case = case
        node.level = level
        return node.start()

    yield make
    for cluster in made:
        cluster.close()


def load(node, case):
    """Puts, and at the end a read of all keys; ends early when the node does."""
    keys = case.keys if case else 300
    value = b"v" * (case.value_bytes if case else 100)
    try:
        wait_until("the node answers or ends",
                   lambda: not node.alive() or node.client.get(b"\0", timeout=0.5), 20)  # fmt: skip
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            for begin in range(0, keys, 20):
                if not node.alive():
                    return
                numbers = range(begin, min(begin + 20, keys))
                names = [f"key-{number:06d}".encode() for number in numbers]
                list(pool.map(lambda name: node.client.put(name, value, timeout=4), names))
                node.client.hash_kv(0)  # A hash makes the node write its engine first.
        if case is None or case.reads:
            node.stop()  # The records are in no cache then.
            node.start().wait_ready()
            node.client.KV.Range(rpc.RangeRequest(key=b"key-", range_end=b"key."), timeout=4)
    except grpc.RpcError:
        pass  # The node is about to end, or holds its answers back.


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mutant_is_named(make_node, case):
    node = make_node(case)
    if not case.is_pair:
        load(node, case)
    if case.defect in {"throws-in-stop", "calls-the-sink-after-stop", "submits-after-stop", "leaks-a-reply",
                       "stops-before-done", "leaks-tls-material"}:  # fmt: skip
        node.process.terminate()

    assert node.wait_exit(20) == case.exit_code, node.log()[-3000:]
    assert re.search(
        rf"plugin mutant-{case.plugin} broke the contract: {case.verdict}", node.log()
    ), node.log()[-3000:]


def test_mutants_without_a_defect_pass(make_node):
    node = make_node()
    load(node, None)
    assert node.client.get(b"key-000299").kvs[0].value == b"v" * 100
    assert node.stop() == 0, node.log()[-3000:]
    assert "broke the contract" not in node.log()


@pytest.mark.parametrize("plugin, defect", [("api", "throws-on-its-own-thread"),
                                            ("storage", "throws-in-write")])  # fmt: skip
def test_an_exception_names_the_library_at_level_off(make_node, plugin, defect):
    case = Case(plugin, defect, "")
    node = make_node(case, level="off")
    load(node, case)

    assert node.wait_exit() == BROKEN
    assert re.search(rf"std::terminate: a mutant's \w+; the plugin library \S*mutant-{plugin}\.so is on "
                     r"the stack \(rule no-exception\)", node.log()), node.log()[-3000:]  # fmt: skip


@pytest.mark.parametrize("defect", ["throws-in-create", "throws-in-start"])
def test_a_throwing_plugin_is_refused(make_node, defect):
    node = make_node(Case("storage", defect, ""))

    assert node.wait_exit() == 1
    assert re.search(r"plugin /\S*/mutant-storage\.so \(\[storage\].*it threw an exception.*"
                     r"\(rule no-exception\): a mutant's (create|start)", node.log())  # fmt: skip


@pytest.mark.parametrize(
    "fixture, reason",
    [
        ("fixture-major", "needs ABI 2"),
        ("fixture-minor", "needs ABI 1.4"),
        ("fixture-mismatch", "manifest"),
        ("fixture-noteless", "manifest"),
    ],
)
def test_a_wrong_abi_is_refused(make_node, fixture, reason, monkeypatch):
    config = MutantNode.config

    def with_fixture(self):
        return config(self) + f'[[metrics]]\nplugin = "{FIXTURES}/{fixture}.so"\n'

    monkeypatch.setattr(MutantNode, "config", with_fixture)
    node = make_node()

    assert node.wait_exit() == 2
    assert fixture in node.log() and reason in node.log(), node.log()[-2000:]


def test_every_mutant_is_tested():
    tested = {(case.plugin, case.defect) for case in CASES}
    tested |= {("storage", "throws-in-start"), ("api", "throws-on-its-own-thread")}
    for kind in ("storage", "log", "transport", "auth", "api"):
        source = (paths.ROOT / "tests" / "mutants" / "plugins" / f"{kind}.cc").read_text()
        for defect in set(re.findall(r'me\.is\("([^"]+)"\)', source)):
            assert (kind, defect) in tested, f"mutant-{kind} {defect} stands in no case"
