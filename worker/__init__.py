"""The process that owns engines and touches pixels: `python -m unface.worker`, started by a server.

    process    its life: messages in, answers out
    batch      what it does with the pictures: decode each, detect together, mask, encode
    pipeline   those steps, as plain functions
    packets    messages over a UNIX socket, long ones through shared memory
    settings   what it is told when it starts
    facts      what it says of itself: the answer to GetServerInfo
    warmup     the first detection, before which nothing is served
    messages   between protobuf messages and plain values; the client uses it too
    memory     gives large buffers back to the system

A picture that crashes a decoder or an engine ends this process and not the server. Knows nothing
of gRPC. Importing this package imports nothing.
"""
