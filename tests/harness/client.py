# SPDX-License-Identifier: Apache-2.0
"""A thin gRPC client of etcd's v3 API: the messages of sdk/proto/etcd, one call per method.

    client = Client("127.0.0.1:2379")
    client.KV.Put(rpc.PutRequest(key=b"k", value=b"v"))
"""

import subprocess
import sys

import grpc

from harness import paths, pki


def _stubs():
    """Generates the Python messages with protoc when they are missing or older than the sources."""
    root = paths.ROOT / "sdk" / "proto"
    sources = sorted((root / "etcd").glob("*.proto"))
    newest = max(source.stat().st_mtime for source in sources)
    marker = paths.STUBS / "etcd" / "rpc_pb2.py"
    if not marker.exists() or marker.stat().st_mtime < newest:
        paths.STUBS.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["protoc", f"--proto_path={root}", f"--python_out={paths.STUBS}"]
            + [str(source) for source in sources],
            check=True,
        )
    sys.path.insert(0, str(paths.STUBS))


_stubs()
from etcd import health_pb2 as health  # noqa: E402
from etcd import kv_pb2 as kv  # noqa: E402
from etcd import rpc_pb2 as rpc  # noqa: E402

__all__ = ["Client", "grpc", "health", "kv", "open_channel", "prefix_end", "rpc"]

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]
CALL_TIMEOUT_S = 10


def prefix_end(prefix):
    """The end of the range of all keys with this prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def open_channel(endpoint, tls):
    """A gRPC channel, encrypted with these ClientFiles, or plain for None."""
    if tls is None:
        return grpc.insecure_channel(endpoint, options=_OPTIONS)
    own = (tls.own.key.read_bytes(), tls.own.cert.read_bytes()) if tls.own else (None, None)
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), *own)
    # This option is also how long one attempt may take; a handshake on a busy machine needs more.
    options = [("grpc.min_reconnect_backoff_ms", 3000) if name.startswith("grpc.min_rec") else (name, value)
               for name, value in _OPTIONS]  # fmt: skip
    return grpc.secure_channel(endpoint, credentials, options=options)


class _Service:
    def __init__(self, channel, descriptor, message_module):
        for method in descriptor.methods:
            path = f"/{descriptor.full_name}/{method.name}"
            kinds = {
                (False, False): channel.unary_unary,
                (False, True): channel.unary_stream,
                (True, False): channel.stream_unary,
                (True, True): channel.stream_stream,
            }
            streams = (_is_stream(method, "client"), _is_stream(method, "server"))
            call = kinds[streams](
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(
                    message_module, method.output_type.name
                ).FromString,
            )
            setattr(self, method.name, _with_timeout(call) if streams == (False, False) else call)


def _is_stream(method, side):
    from google.protobuf import descriptor_pb2

    proto = descriptor_pb2.MethodDescriptorProto()
    method.CopyToProto(proto)
    return proto.client_streaming if side == "client" else proto.server_streaming


def _with_timeout(call):
    def invoke(request, timeout=CALL_TIMEOUT_S, **options):
        return call(request, timeout=timeout, **options)

    return invoke


class Client:
    """All services of one endpoint. Close it, or use it as a context manager."""

    def __init__(self, endpoint, tls=None):
        """`tls`: ClientFiles; without them what KEYWAY_TLS says."""
        self.endpoint = endpoint
        self.channel = open_channel(endpoint, tls or pki.from_environment())
        for name, descriptor in rpc.DESCRIPTOR.services_by_name.items():
            setattr(self, name, _Service(self.channel, descriptor, rpc))
        self.Health = _Service(self.channel, health.DESCRIPTOR.services_by_name["Health"], health)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.channel.close()

    # Shorthands for what the tests do most.
    def put(self, key, value, timeout=CALL_TIMEOUT_S):
        return self.KV.Put(rpc.PutRequest(key=key, value=value), timeout=timeout)

    def get(self, key, serializable=False, timeout=CALL_TIMEOUT_S):
        return self.KV.Range(rpc.RangeRequest(key=key, serializable=serializable), timeout=timeout)

    def revision(self, timeout=CALL_TIMEOUT_S):
        return self.get(b"\0", timeout=timeout).header.revision

    def prefix(self, prefix, page=10000):
        """All pairs with the prefix, at one revision, read in pages."""
        key, end, revision, pairs = prefix, prefix_end(prefix), 0, []
        while True:
            reply = self.KV.Range(
                rpc.RangeRequest(key=key, range_end=end, limit=page, revision=revision)
            )
            revision = revision or reply.header.revision
            pairs.extend(reply.kvs)
            if not reply.more:
                return pairs
            key = reply.kvs[-1].key + b"\0"

    def status(self, timeout=CALL_TIMEOUT_S):
        return self.Maintenance.Status(rpc.StatusRequest(), timeout=timeout)

    def hash_kv(self, revision=0):
        return self.Maintenance.HashKV(rpc.HashKVRequest(revision=revision))
