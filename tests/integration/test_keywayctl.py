# SPDX-License-Identifier: Apache-2.0
"""keywayctl against a running node; its JSON has the shapes of etcdctl's."""

import json
import re
import subprocess
import threading

import pytest

from harness import paths, peers
from harness.cluster import DIE_WITH_PARENT


@pytest.fixture
def node(make_cluster):
    return make_cluster(1).one


def run(tool, node, *arguments, stdin=None, code=0):
    command = [str(tool), f"--endpoints={node.endpoint}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20)
    assert done.returncode == code, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def ctl(node, *arguments, **options):
    return run(paths.KEYWAYCTL, node, *arguments, **options)


def shape(value):
    """The names and kinds in a JSON document, without its values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_keys_are_written_read_and_deleted(node):
    assert ctl(node, "put", "k/a", "1") == "OK\n"
    assert ctl(node, "put", "k/b", "2") == "OK\n"
    assert ctl(node, "get", "k/a") == "k/a\n1\n"
    assert ctl(node, "get", "--prefix", "k/") == "k/a\n1\nk/b\n2\n"
    assert ctl(node, "get", "--prefix", "k/", "--limit", "1") == "k/a\n1\n"
    assert ctl(node, "get", "k/a", "--print-value-only") == "1\n"
    assert ctl(node, "del", "--prefix", "k/") == "2\n"
    assert ctl(node, "get", "k/a", "--rev", "2") == "k/a\n1\n"


def test_transaction_is_read_from_standard_input(node):
    ctl(node, "put", "k", "1")
    text = 'value("k") = "1"\n\nput k 2\n\nput k 3\n\n'
    assert ctl(node, "txn", stdin=text).startswith("SUCCESS")
    assert ctl(node, "txn", stdin=text).startswith("FAILURE")
    assert ctl(node, "get", "k", "--print-value-only") == "3\n"


def test_leases_are_granted_kept_and_revoked(node):
    lease = ctl(node, "lease", "grant", "100").split()[1]
    ctl(node, "put", "k", "1", f"--lease={lease}")
    assert "100" in ctl(node, "lease", "timetolive", lease)
    assert lease in ctl(node, "lease", "list")
    ctl(node, "lease", "revoke", lease)
    assert ctl(node, "get", "k") == ""


def test_watch_prints_events_as_they_come(node):
    ctl(node, "put", "k", "1")
    command = [paths.KEYWAYCTL, f"--endpoints={node.endpoint}", "watch", "k", "--rev", "2"]
    with subprocess.Popen(
        DIE_WITH_PARENT + list(map(str, command)), stdout=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(20, process.kill)
        timer.start()
        lines = [process.stdout.readline() for _ in range(3)]
        ctl(node, "del", "k")
        lines += [process.stdout.readline() for _ in range(2)]
        process.kill()
        timer.cancel()
    assert lines == ["PUT\n", "k\n", "1\n", "DELETE\n", "k\n"]


def test_members_endpoints_and_plugins_are_told_in_tables(node):
    assert node.endpoint in ctl(node, "member", "list")
    assert node.endpoint in ctl(node, "endpoint", "status")
    assert "true" in ctl(node, "endpoint", "health")
    listed = ctl(node, "plugin", "list")
    for name in ("api-etcd", "log-segmented", "metrics-prometheus", "storage-lmdb",
                 "storage-rocksdb", "transport-tcp"):
        assert name in listed
    library = paths.BUILD / "lib" / "keyway" / "plugins" / "storage-lmdb.so"
    assert "keyway.kv-store/1" in ctl(node, "plugin", "inspect", str(library))


def test_plugins_of_a_running_node_are_told_with_their_options(node):
    listed = ctl(node, "plugin", "list", "--running")
    for section in ("storage", "log", "transport", "metrics", "api"):
        assert re.search(rf"\b{section}\b", listed), listed
    shown = ctl(node, "plugin", "inspect", "--running", "storage")
    assert "keyway.kv-store/1" in shown and str(node.data_dir) in shown and "default" in shown
    document = json.loads(ctl(node, "-w", "json", "plugin", "list", "--running"))
    assert document["check"] == "full"
    api = next(each for each in document["plugins"] if each["section"].startswith("api"))
    assert api["abi"] == "1.0" and "keyway.kernel/1" in api["needs"]
    listen = next(each for each in api["options"] if each["key"] == "listen")
    assert listen["value"] == [f"http://{node.endpoint}"] and listen["line"] > 0
    error = ctl(node, "plugin", "inspect", "--running", "nonsense", code=1)
    assert 'runs no plugin "nonsense"' in error and "storage-" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "k"],
        ["get", "none"],
        ["put", "k", "2", "--prev-kv"],
        ["del", "other", "--prev-kv"],
        ["member", "list"],
        ["endpoint", "status"],
        ["lease", "grant", "50"],
    ],
    ids=" ".join,
)
def test_json_has_the_shape_of_etcdctl(node, need, arguments):
    etcdctl = need(peers.etcdctl)
    for key in ("k", "other"):
        ctl(node, "put", key, "1")
    ours = json.loads(ctl(node, *arguments, "-w", "json"))
    ctl(node, "put", "other", "1")
    theirs = json.loads(run(etcdctl, node, *arguments, "-w", "json"))
    assert shape(ours) == shape(theirs)


def test_errors_have_codes_and_words(node):
    assert "key is empty" in ctl(node, "put", "", "x", code=3)
    assert "lease not found" in ctl(node, "lease", "revoke", "1234", code=1)
    ctl(node, "get", code=128)
    node.kill()
    assert node.endpoint in ctl(node, "--dial-timeout=1s", "get", "k", code=2)
