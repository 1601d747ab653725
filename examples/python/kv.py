"""The key-value example in Python: the interface of ../proto/kv.proto, kept in memory."""

import logging
import sys
import threading

import grpc

import goplugin
import wire

log = logging.getLogger("python-kv")

_KV = wire.File("proto", "kv.proto")
_KV.message("GetRequest", key="string")
_KV.message("GetResponse", value="bytes")
_KV.message("PutRequest", key="string", value="bytes")
_KV.message("Empty")
_KV.service(
    "KV",
    Get=("proto.GetRequest", "proto.GetResponse"),
    Put=("proto.PutRequest", "proto.Empty"),
)
GetRequest, GetResponse, PutRequest, Empty = _KV.build(
    "GetRequest", "GetResponse", "PutRequest", "Empty"
)

# More keys than this are refused, so that a client cannot fill the memory.
MOST_KEYS = 10_000


class KV:
    def __init__(self):
        self._values = {}
        self._lock = threading.Lock()

    def get(self, request, context):
        with self._lock:
            value = self._values.get(request.key)
        if value is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no value for key {request.key!r}")
        return GetResponse(value=value)

    def put(self, request, context):
        with self._lock:
            if len(self._values) >= MOST_KEYS and request.key not in self._values:
                context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_KEYS} keys are stored already"
                )
            self._values[request.key] = request.value + b"\n\nWritten from python-kv"
        log.info("put", extra={"fields": {"key": request.key}})
        return Empty()


def register(server, _version):
    kv = KV()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "proto.KV",
                {
                    "Get": grpc.unary_unary_rpc_method_handler(
                        kv.get, GetRequest.FromString, GetResponse.SerializeToString
                    ),
                    "Put": grpc.unary_unary_rpc_method_handler(
                        kv.put, PutRequest.FromString, Empty.SerializeToString
                    ),
                },
            ),
        )
    )
    return ["proto.KV"]


if __name__ == "__main__":
    sys.exit(goplugin.serve(("BASIC_PLUGIN", "hello"), {1}, register))
