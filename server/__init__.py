"""The server, gRPC and HTTP: `python -m unface.server`, or `unface.server.app.run(load_config())`.

    config     what an operator may choose: a file, the environment, flags
    app        wires everything: workers, services, health, signals
    listening  addresses, bound before anything is started

  the way of a request
    access     who may call what, before a request is read
    tokens     JWTs and their keys
    tls        certificates; what may be served to other machines
    rotation   files that are read again when they change
    service    the RPCs, and the boundary where errors become statuses
    wire       finds the picture in a request without copying it
    streams    one answer for each frame, in order, reading little ahead
    pipeline   from a request to a job, from an answer to a record
    admission  how much is let in, of all clients and of each
    scheduler  from waiting jobs to batches, from batches to workers
    fairness   whose turn it is
    jobs       one picture to be worked on
    crew       the worker processes: started, watched, replaced, exchanged
    background coroutines that nobody waits for
    status     the one table from errors to the status codes of gRPC and HTTP

  the way of an HTTP request, which then goes through the pipeline
    http       uvicorn's life: TLS, connections, their end
    guard      whose page asks, by which name; what every answer carries
    rest       the routes
    exchange   one request: what it asks for, and how the pipeline is asked
    batches    many pictures: ZIPs

  what it tells
    record     what is known of a request once it is over
    health     the standard health service
    metrics    Prometheus; `cards` adds GPUs
    probes     /metrics, /healthz and /readyz
    logs       lines of text or JSON
    tracing    OpenTelemetry spans

  the opt-in quality loop
    quality    beside the traffic
    reports    what `Report` does
    trial      another profile for part of the requests

No pixel is decoded in this process but for crops of reports, where they are asked for: that is
`unface.worker`'s. Importing this package imports nothing.
"""
