"""Messages and services described in code.

The usual way is to generate modules from a proto file. Small interfaces can be described
here instead: no compiler at build time, and reflection works just the same, because the
descriptors end up in the same pool.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "string": _Field.TYPE_STRING,
}


class File:
    """One proto file in the making."""

    def __init__(self, package, name, depends=()):
        self._package = package
        self._file = descriptor_pb2.FileDescriptorProto(
            package=package, name=name, syntax="proto3", dependency=depends
        )

    def message(self, name, **fields):
        """Adds a message. Fields are numbered from 1 in the order given."""
        message = self._file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            message.field.add(
                name=field, number=number, type=_TYPES[kind], label=_Field.LABEL_OPTIONAL
            )

    def service(self, name, **methods):
        """Adds a service. A method is (request, response) or (request, response, "stream")
        with full message names; the third item makes the response a stream."""
        service = self._file.service.add(name=name)
        for method, (request, response, *stream) in methods.items():
            service.method.add(
                name=method,
                input_type=f".{request}",
                output_type=f".{response}",
                server_streaming=bool(stream),
            )

    def build(self, *names):
        """Registers the file and returns the classes of the named messages."""
        pool = descriptor_pool.Default()
        pool.AddSerializedFile(self._file.SerializeToString())
        return [
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{self._package}.{name}"))
            for name in names
        ]
