# SPDX-License-Identifier: Apache-2.0
"""Hides in transcripts what two correct servers may answer differently."""

import re

# Values that differ between any two clusters; their presence is still compared.
HIDDEN = {
    "cluster_id", "member_id", "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize",
    "dbSizeInUse", "dbSizeQuota", "leader", "storageVersion", "hash", "Endpoint",
    "peerURLs", "clientURLs", "name", "took", "ID",
}  # fmt: skip


def mask(line):
    line = re.sub(r"127\.0\.0\.1:\d+", "<address>", line)
    line = re.sub(r"took = \S+", "took = <time>", line)
    line = re.sub(r'("?(?:ClusterID|MemberID|RaftTerm)"? ?: ?)\d+', r"\1<number>", line)
    line = re.sub(r"remaining\(\d+s\)", "remaining(<time>)", line)
    line = re.sub(r"https?://<address>|<address>", "<address>", line)
    # etcd gives the keys of a lease in the order of a Go map: any.
    line = re.sub(
        r"attached keys\(\[([^]]*)\]\)",
        lambda found: f"attached keys([{' '.join(sorted(found[1].split()))}])",
        line,
    )
    # The logger of the client prefixes its lines with the time and its own source position.
    line = re.sub(r'"ts":"[^"]*"', '"ts":"<time>"', line)
    line = re.sub(r'"target":"[^"]*"', '"target":"<target>"', line)
    return line


def mask_json(value, leases=None):
    """The same for a decoded JSON document. `leases` maps hexadecimal lease ids to names."""
    if isinstance(value, dict):
        masked = {}
        for key, item in value.items():
            if key in HIDDEN or (key == "version" and isinstance(item, str)):
                masked[key] = "<hidden>"
            elif key == "lease" and isinstance(item, int):
                masked[key] = (leases or {}).get(f"{item:016x}", "<lease>") if item else 0
            else:
                masked[key] = mask_json(item, leases)
        return masked
    if isinstance(value, list):
        items = [mask_json(item, leases) for item in value]
        # Only the shape of the member list is compared: one or three nodes answer the same tour.
        if items and isinstance(items[0], dict) and "peerURLs" in items[0]:
            return items[:1]
        return items
    return mask(value) if isinstance(value, str) else value
