# The server for CPUs:
#   docker build -t unface .
#   docker run --rm --read-only -p 127.0.0.1:50051:50051 -p 127.0.0.1:8080:8080 \
#     -e UNFACE_SERVE_INSECURE=true unface
# It listens on all addresses of the container, so it starts only with TLS and tokens, or told to be
# insecure, where only this machine or a proxy reaches it. docs/deploy.md has the rest.

# A version, not a digest: see what you get with `docker buildx imagetools inspect`, and pin that.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
# For the compiled core; without a compiler unface installs too and runs on LiteRT, slower.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
# Without pip: nothing is installed into what this makes once it runs.
RUN python -m venv --without-pip /opt/unface
COPY . .
RUN pip --python /opt/unface/bin/python install --no-cache-dir -c deploy/constraints.txt '.[server]'

FROM ${PYTHON}
LABEL org.opencontainers.image.title="unface" \
      org.opencontainers.image.description="Finds faces in pictures and removes them; gRPC, REST, a page" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/unface /opt/unface
ENV PATH=/opt/unface/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    UNFACE_SERVE_HOST=0.0.0.0 \
    UNFACE_SERVE_PORT=50051 \
    UNFACE_SERVE_HTTP_HOST=0.0.0.0 \
    UNFACE_SERVE_HTTP_PORT=8080 \
    UNFACE_SERVE_METRICS_HOST=0.0.0.0 \
    UNFACE_SERVE_METRICS_PORT=9464
# A number, so that Kubernetes sees that it is not root. It owns no file and needs no home.
USER 65532:65532
WORKDIR /
EXPOSE 50051 8080 9464
STOPSIGNAL SIGTERM
# Ready: warm and not about to end. A bare socket: no library is loaded for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-ISc", "import socket, sys; s = socket.create_connection(('127.0.0.1', 9464), 2); s.sendall(b'GET /readyz HTTP/1.0\\r\\n\\r\\n'); sys.exit(b' 200 ' not in s.recv(64))"]
ENTRYPOINT ["unface"]
CMD ["serve"]
