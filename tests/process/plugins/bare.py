"""A plugin for tests: grpcio and one service of its own; no health, controller, stdio or broker."""

import os
from concurrent import futures

import grpc


def same(request, _context):
    return request


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
handler = grpc.unary_unary_rpc_method_handler(same)
server.add_generic_rpc_handlers(
    (grpc.method_handlers_generic_handler("bare.Bare", {"Same": handler}),)
)
path = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "bare.sock")
server.add_insecure_port(f"unix:{path}")
server.start()
print(f"1|1|unix|{path}|grpc", flush=True)
server.wait_for_termination()
