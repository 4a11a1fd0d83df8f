"""The gRPC server: `python -m unface.server`, or `unface.server.app.run(ServerConfig(...))`.

    config     what an operator may choose
    app        wires everything: engines, services, health, signals
    facts      what the server says of itself
    service    the RPCs, and the boundary where errors become statuses
    streams    one answer for each frame, in order, reading little ahead
    pipeline   one request's way: decode, detect, mask, encode
    admission  how much may wait, and how many decoded pictures may live
    scheduler  the one thread that owns the engines, and its bounded queue
    warmup     the first detection, before which nothing is served
    status     the one table from errors to gRPC status codes
    messages   between protobuf messages and plain values
    memory     gives large buffers back to the system

`requests` and `calls` are the other end, for `unface.Client`. Importing this package imports
nothing.
"""
