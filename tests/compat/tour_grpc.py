# SPDX-License-Identifier: Apache-2.0
"""The tour on the wire, with grpcio and our own messages: fields that no other client shows."""

import pathlib
import queue
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from google.protobuf import text_format  # noqa: E402

from harness.client import Client, grpc, health, prefix_end, rpc  # noqa: E402

HIDDEN = {"cluster_id", "member_id", "raft_term"}


def show(step, message):
    """Prints a message as text, without the header fields that differ between clusters."""
    copy = type(message)()
    copy.CopyFrom(message)
    hide(copy)
    print(f"{step}: {text_format.MessageToString(copy, as_one_line=True)}")


def hide(message):
    for field, value in message.ListFields():
        if field.name in HIDDEN or field.name in ("lease", "ID") and field.type == field.TYPE_INT64:
            setattr(message, field.name, 1 if value else 0)
        elif field.type == field.TYPE_MESSAGE:
            for item in value if field.label == field.LABEL_REPEATED else [value]:
                hide(item)


def call(step, method, request):
    try:
        reply = method(request)
        show(step, reply)
        return reply
    except grpc.RpcError as error:
        print(f"{step}: {error.code().name} {error.details()}")
        return None


class Stream:
    """A bidirectional stream that is fed by hand."""

    def __init__(self, method):
        self._requests = queue.Queue()
        self._replies = method(iter(self._requests.get, None), timeout=30)

    def send(self, request):
        self._requests.put(request)

    def next(self):
        return next(self._replies)

    def close(self):
        self._requests.put(None)
        self._replies.cancel()


def create(stream, step, **options):
    stream.send(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(**options)))
    reply = stream.next()
    show(step, reply)
    return reply


def events(stream, step, count):
    """Events may come in one reply or in several, and those of one change to any watcher first."""
    seen = []
    while len(seen) < count:
        reply = stream.next()
        if reply.canceled:
            show(step, reply)
            return
        seen += [(reply.watch_id, event) for event in reply.events]
    for watch_id, event in sorted(seen, key=lambda item: item[0]):
        show(f"{step} watch {watch_id}", event)


def tour_kv(client):
    for name in (b"a", b"b", b"c", b"d"):
        call("put", client.KV.Put, rpc.PutRequest(key=b"k/" + name, value=b"1" + name))
    call("put prev", client.KV.Put, rpc.PutRequest(key=b"k/a", value=b"2a", prev_kv=True))
    call("put prev of none", client.KV.Put, rpc.PutRequest(key=b"n", value=b"", prev_kv=True))
    call("put empty key", client.KV.Put, rpc.PutRequest(value=b"x"))
    call("put ignore value with value", client.KV.Put,
         rpc.PutRequest(key=b"k/a", value=b"x", ignore_value=True))
    call("put ignore lease with lease", client.KV.Put,
         rpc.PutRequest(key=b"k/a", lease=5, ignore_lease=True))
    call("put ignore value of none", client.KV.Put, rpc.PutRequest(key=b"x", ignore_value=True))
    call("put unknown lease", client.KV.Put, rpc.PutRequest(key=b"x", lease=99))
    everything = dict(key=b"\0", range_end=b"\0")
    call("range all", client.KV.Range, rpc.RangeRequest(**everything))
    call("range empty key", client.KV.Range, rpc.RangeRequest())
    call("range end below key", client.KV.Range, rpc.RangeRequest(key=b"k/c", range_end=b"k/a"))
    call("range end equals key", client.KV.Range, rpc.RangeRequest(key=b"k/c", range_end=b"k/c"))
    call("range limit 1", client.KV.Range, rpc.RangeRequest(**everything, limit=1))
    call("range limit all", client.KV.Range, rpc.RangeRequest(**everything, limit=5))
    call("range negative limit", client.KV.Range, rpc.RangeRequest(**everything, limit=-1))
    call("range revision 1", client.KV.Range, rpc.RangeRequest(**everything, revision=1))
    call("range revision 3", client.KV.Range, rpc.RangeRequest(**everything, revision=3))
    call("range negative revision", client.KV.Range, rpc.RangeRequest(**everything, revision=-1))
    call("range future", client.KV.Range, rpc.RangeRequest(**everything, revision=99))
    call("range count only", client.KV.Range, rpc.RangeRequest(**everything, count_only=True))
    call("range count only limit", client.KV.Range,
         rpc.RangeRequest(**everything, count_only=True, limit=2))
    call("range keys only", client.KV.Range, rpc.RangeRequest(**everything, keys_only=True))
    for order in (0, 1, 2):
        for target in range(5):
            call(f"range sort {order} {target}", client.KV.Range,
                 rpc.RangeRequest(**everything, sort_order=order, sort_target=target, limit=3))
    call("range bad sort order", client.KV.Range, rpc.RangeRequest(**everything, sort_order=7))
    call("range bad sort target", client.KV.Range, rpc.RangeRequest(**everything, sort_target=7))
    call("range mod window", client.KV.Range,
         rpc.RangeRequest(**everything, min_mod_revision=3, max_mod_revision=5, limit=2))
    call("range create window", client.KV.Range,
         rpc.RangeRequest(**everything, min_create_revision=3, max_create_revision=4))
    call("delete empty key", client.KV.DeleteRange, rpc.DeleteRangeRequest())
    call("delete none", client.KV.DeleteRange, rpc.DeleteRangeRequest(key=b"none", prev_kv=True))
    call("delete prev", client.KV.DeleteRange, rpc.DeleteRangeRequest(key=b"k/b", prev_kv=True))
    call("delete range", client.KV.DeleteRange,
         rpc.DeleteRangeRequest(key=b"k/c", range_end=prefix_end(b"k/"), prev_kv=True))


def put_op(key, value=b"x"):
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))


def delete_op(key, end=b""):
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key, range_end=end))


def range_op(key, **options):
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key, **options))


def tour_txn(client):
    def txn(step, **fields):
        call(f"txn {step}", client.KV.Txn, rpc.TxnRequest(**fields))

    def compare(key, result, target, **value):
        return rpc.Compare(key=key, result=result, target=target, **value)

    equal, greater, less, unequal = 0, 1, 2, 3
    version, created, modified, value, lease = range(5)
    txn("empty")
    txn("reads own write", success=[put_op(b"t/a"), range_op(b"t/a"), delete_op(b"t/a"), range_op(b"t/a")])
    txn("two writes one revision", success=[put_op(b"t/b"), put_op(b"t/c")])
    call("range after txn", client.KV.Range, rpc.RangeRequest(key=b"t/", range_end=b"t0"))
    for result in (equal, greater, less, unequal):
        txn(f"compare value {result}", compare=[compare(b"t/b", result, value, value=b"x")])
        txn(f"compare version {result}", compare=[compare(b"t/b", result, version, version=1)])
        txn(f"compare create {result}", compare=[compare(b"t/b", result, created, create_revision=3)])
        txn(f"compare mod {result}", compare=[compare(b"t/b", result, modified, mod_revision=999)])
        txn(f"compare lease {result}", compare=[compare(b"t/b", result, lease, lease=0)])
        txn(f"compare none {result}", compare=[compare(b"none", result, version, version=0)])
        txn(f"compare value of none {result}", compare=[compare(b"none", result, value, value=b"")])
    txn("compare range", compare=[compare(b"t/", equal, version, version=1, range_end=b"t0")])
    txn("compare empty range", compare=[compare(b"u/", equal, version, version=1, range_end=b"u0")])
    txn("compare empty key", compare=[compare(b"", equal, version, version=1)])
    nested = rpc.TxnRequest(success=[put_op(b"t/n1")], failure=[put_op(b"t/n2")],
                            compare=[compare(b"t/b", greater, version, version=5)])
    txn("nested", success=[rpc.RequestOp(request_txn=nested), range_op(b"t/", range_end=b"t0")])
    txn("nested duplicate", success=[rpc.RequestOp(request_txn=nested), put_op(b"t/n2")])
    txn("nested duplicate in both arms",
        success=[rpc.RequestOp(request_txn=rpc.TxnRequest(success=[put_op(b"q")], failure=[put_op(b"q")]))])
    txn("duplicate put", success=[put_op(b"d"), put_op(b"d")])
    txn("duplicate put in both arms", success=[put_op(b"d")], failure=[put_op(b"d")])
    txn("put and delete", success=[put_op(b"d"), delete_op(b"d")])
    txn("delete twice", success=[delete_op(b"d"), delete_op(b"d")])
    txn("put in deleted range", success=[delete_op(b"a", b"z"), put_op(b"d")])
    txn("empty key", success=[put_op(b"")])
    txn("failing arm is checked too", failure=[put_op(b"")])
    txn("future read", success=[put_op(b"t/f"), range_op(b"t/f", revision=1 << 40)])
    call("range after failed txn", client.KV.Range, rpc.RangeRequest(key=b"t/f"))
    txn("unknown lease", success=[rpc.RequestOp(request_put=rpc.PutRequest(key=b"t/l", lease=77))])
    txn("128 operations", success=[put_op(b"m/%03d" % i) for i in range(128)])
    txn("129 operations", success=[put_op(b"m/%03d" % i) for i in range(129)])
    txn("129 compares", compare=[compare(b"t/b", equal, version, version=1)] * 129)
    call("delete many", client.KV.DeleteRange, rpc.DeleteRangeRequest(key=b"m/", range_end=b"m0"))


def tour_watch(client):
    stream = Stream(client.Watch.Watch)
    create(stream, "create history", key=b"k/", range_end=b"k0", start_revision=2, prev_kv=True)
    events(stream, "history", 8)
    create(stream, "create filtered", key=b"k/", range_end=b"k0", start_revision=2, filters=[0])
    events(stream, "deletes only", 3)
    create(stream, "create own id", key=b"w", watch_id=42)
    create(stream, "create id again", key=b"w", watch_id=42)
    create(stream, "create empty key", key=b"")
    create(stream, "create end below key", key=b"z", range_end=b"a")
    create(stream, "create negative revision", key=b"w", start_revision=-5)
    create(stream, "create next id", key=b"v", range_end=b"\0", prev_kv=True)
    client.put(b"w", b"1")
    events(stream, "live", 2)
    stream.send(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=42)))
    show("cancel", stream.next())
    client.put(b"w", b"2")
    events(stream, "after cancel", 1)
    stream.send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
    progress = stream.next()
    print("progress:", progress.watch_id, len(progress.events),
          progress.header.revision == client.revision())
    stream.close()

    stream = Stream(client.Watch.Watch)
    create(stream, "create future", key=b"future", start_revision=client.revision() + 2)
    client.put(b"future", b"too early")
    client.put(b"future", b"in time")
    events(stream, "future", 1)
    stream.close()


def tour_lease(client):
    call("grant", client.Lease.LeaseGrant, rpc.LeaseGrantRequest(ID=7001, TTL=100))
    call("grant again", client.Lease.LeaseGrant, rpc.LeaseGrantRequest(ID=7001, TTL=100))
    call("grant too long", client.Lease.LeaseGrant, rpc.LeaseGrantRequest(TTL=9_000_000_001))
    call("grant zero", client.Lease.LeaseGrant, rpc.LeaseGrantRequest(ID=7002, TTL=0))
    call("grant negative", client.Lease.LeaseGrant, rpc.LeaseGrantRequest(ID=7003, TTL=-4))
    call("put", client.KV.Put, rpc.PutRequest(key=b"l/a", value=b"1", lease=7001))
    call("put", client.KV.Put, rpc.PutRequest(key=b"l/b", value=b"1", lease=7001))
    call("put elsewhere", client.KV.Put, rpc.PutRequest(key=b"l/b", value=b"2"))
    left = client.Lease.LeaseTimeToLive(rpc.LeaseTimeToLiveRequest(ID=7001, keys=True))
    print("left:", left.grantedTTL, 95 < left.TTL <= 100, list(left.keys))
    call("left of none", client.Lease.LeaseTimeToLive, rpc.LeaseTimeToLiveRequest(ID=1, keys=True))
    stream = Stream(client.Lease.LeaseKeepAlive)
    for lease in (7001, 7002, 1, 7001):
        stream.send(rpc.LeaseKeepAliveRequest(ID=lease))
        reply = stream.next()
        print("keep alive:", lease, reply.ID, reply.TTL)
    stream.close()
    print("leases:", sorted(lease.ID for lease in client.Lease.LeaseLeases(rpc.LeaseLeasesRequest()).leases
                            if lease.ID == 7001))
    call("revoke", client.Lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=7001))
    call("revoke again", client.Lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=7001))
    call("range", client.KV.Range, rpc.RangeRequest(key=b"l/", range_end=b"l0"))


def tour_maintenance(client):
    revision = client.revision()
    call("compact", client.KV.Compact, rpc.CompactionRequest(revision=revision - 2))
    call("compact again", client.KV.Compact, rpc.CompactionRequest(revision=revision - 2))
    call("compact future", client.KV.Compact, rpc.CompactionRequest(revision=revision + 2))
    call("range compacted", client.KV.Range, rpc.RangeRequest(key=b"k/a", revision=revision - 3))
    call("range at compaction", client.KV.Range, rpc.RangeRequest(key=b"k/a", revision=revision - 2))
    call("txn compacted", client.KV.Txn,
         rpc.TxnRequest(success=[put_op(b"t/z"), range_op(b"t/f", revision=2)]))
    call("range after", client.KV.Range, rpc.RangeRequest(key=b"t/z"))
    stream = Stream(client.Watch.Watch)
    create(stream, "watch compacted", key=b"k/", range_end=b"k0", start_revision=2)
    show("watch compacted end", stream.next())
    stream.close()
    hash_kv = client.hash_kv()
    print("hash:", hash_kv.hash != 0, hash_kv.compact_revision, hash_kv.hash_revision)
    call("hash of the future", client.Maintenance.HashKV, rpc.HashKVRequest(revision=revision + 99))
    call("hash compacted", client.Maintenance.HashKV, rpc.HashKVRequest(revision=2))
    members = client.Cluster.MemberList(rpc.MemberListRequest(linearizable=True))
    member = members.members[0]
    print("member:", member.ID != 0, member.name != "", len(member.peerURLs), len(member.clientURLs),
          member.isLearner)
    call("member add bad url", client.Cluster.MemberAdd, rpc.MemberAddRequest(peerURLs=["no url"]))
    call("member add no url", client.Cluster.MemberAdd, rpc.MemberAddRequest())
    call("member remove none", client.Cluster.MemberRemove, rpc.MemberRemoveRequest(ID=5))
    status = client.status()
    print("status:", status.leader != 0, status.raftTerm > 0, status.raftIndex > 0, status.isLearner,
          status.dbSize > 0, list(status.errors), status.version.split(".")[:2])
    call("health", client.Health.Check, health.HealthCheckRequest())
    call("health unknown", client.Health.Check, health.HealthCheckRequest(service="no.such"))


def main():
    with Client(sys.argv[1]) as client:
        for part in (tour_kv, tour_txn, tour_watch, tour_lease, tour_maintenance):
            print(f"== {part.__name__}")
            part(client)


main()
