"""The gRPC server: `python -m unface.server`, or `unface.server.app.run(ServerConfig(...))`.

    app        wires everything: configuration, engines, health, signals
    service    the RPCs: status codes, streams
    pipeline   one request's way: decode, detect, mask, encode
    scheduler  the one thread that owns the engines, and its bounded queue
    admission  how much may wait, and how many decoded pictures may live
    messages   between protobuf messages and plain values, also for the client
    status     the one table from errors to gRPC status codes

Importing this package imports nothing.
"""
