# SPDX-License-Identifier: Apache-2.0
"""The tour with the etcd3 client of PyPI, as its users use it."""

import os
import sys

import etcd3

host, port = sys.argv[1].split(":")
certificates = {}
if "KEYWAY_TEST_CACERT" in os.environ:
    for option, name in (("ca_cert", "CACERT"), ("cert_cert", "CERT"), ("cert_key", "KEY")):
        certificates[option] = os.environ[f"KEYWAY_TEST_{name}"]
client = etcd3.client(host=host, port=int(port), timeout=15, **certificates)


def pair(value, meta):
    if meta is None:
        return None
    return (meta.key, value, meta.create_revision, meta.mod_revision, meta.version, bool(meta.lease_id))


def attempt(step, action):
    try:
        print(f"{step}:", action())
    except Exception as error:  # The names and texts of the errors are part of the transcript.
        text = f"{error.code().name} {error.details()}" if hasattr(error, "details") else error
        print(f"{step}: {type(error).__name__} {text}")


for name in "abcd":
    print("put:", client.put(f"k/{name}", f"1{name}").header.revision)
print("put prev:", client.put("k/b", "2b", prev_kv=True).prev_kv.value)
print("get:", pair(*client.get("k/b")))
print("get missing:", client.get("none"))
print("prefix:", [pair(*item) for item in client.get_prefix("k/")])
print("prefix sorted:", [pair(*i) for i in client.get_prefix("k/", sort_order="descend", sort_target="mod")])
print("range:", [pair(*item) for item in client.get_range("k/b", "k/d")])
print("all:", [pair(*item) for item in client.get_all()])
print("keys only:", [pair(*item) for item in client.get_prefix("k/", keys_only=True)])
print("if not exists:", client.put_if_not_exists("once", "1"), client.put_if_not_exists("once", "2"))
print("replace:", client.replace("once", "1", "3"), client.replace("once", "1", "4"))
print("delete:", client.delete("k/a"), client.delete("k/a"), client.delete("k/c", prev_kv=True))
print("delete prefix:", client.delete_prefix("on").deleted)
transactions = client.transactions
print("txn:", client.transaction(
    compare=[transactions.value("k/b") == "2b", transactions.version("k/b") > 1],
    success=[transactions.put("t", "1"), transactions.get("k/b")],
    failure=[transactions.put("t", "0")])[0])
ok, replies = client.transaction(
    compare=[transactions.create("t") == 0],
    success=[transactions.put("t", "2")],
    failure=[transactions.get("t"), transactions.delete("t")])
print("txn:", ok, [pair(*item) for item in replies[0]])

events, cancel = client.watch_prefix("k/", start_revision=2, prev_kv=True)
for _ in range(7):
    event = next(events)
    print("watch:", type(event).__name__, event.key, event.value, event.prev_value)
cancel()

lease = client.lease(200)
client.put("l/a", "1", lease=lease)
print("lease:", lease.granted_ttl, lease.remaining_ttl > 190, lease.keys)
print("refresh:", [reply.TTL for reply in lease.refresh()])
lease.revoke()
print("after revoke:", client.get("l/a"))
attempt("revoke again", lambda: client.revoke_lease(12345))
short = client.lease(1)
client.put("s/a", "1", lease=short)
events, cancel = client.watch_prefix("s/", start_revision=1)
print("expiry:", [type(next(events)).__name__ for _ in range(2)])
cancel()
print("lock:", client.lock("one", ttl=20).acquire(timeout=5))
attempt("put empty key", lambda: client.put("", "x"))
attempt("compact", lambda: client.compact(5))
attempt("compact again", lambda: client.compact(5))


def watch_compacted():
    iterator, stop = client.watch_prefix("k/", start_revision=2)
    try:
        return next(iterator)
    finally:
        stop()


attempt("watch compacted", watch_compacted)
print("members:", [(m.name != "", len(m.peer_urls), len(m.client_urls)) for m in client.members][:1])
status = client.status()
print("status:", status.leader is not None, status.raft_index > 0, status.db_size > 0)
client.close()
