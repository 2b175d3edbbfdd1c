# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all Python suites. KEYWAY_TEST_KIND=etcd runs them against etcd instead of Keyway."""

import os
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import peers  # noqa: E402
from harness.cluster import Cluster  # noqa: E402


@pytest.fixture(scope="session")
def kind():
    """What the suites test: keyway, or etcd to see that the suites themselves are right."""
    return os.environ.get("KEYWAY_TEST_KIND", "keyway")


@pytest.fixture
def label(request):
    """A name for the directories of this test."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name)


@pytest.fixture
def make_cluster(kind, label):
    """make_cluster(size, **options) starts a cluster of the tested kind, ready to serve."""
    made = []

    def make(size, start=True, name=None, of=None, **options):
        cluster = Cluster(of or kind, size, name or label, **options)
        made.append(cluster)
        return cluster.start() if start else cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def need():
    """need(peers.etcd): the peer, or a skip that names the reason."""

    def get(provider):
        try:
            return provider()
        except peers.Unavailable as reason:
            pytest.skip(f"peer not available: {reason}")

    return get
