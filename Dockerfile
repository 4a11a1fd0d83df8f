# docker build -t unface . && docker run --rm -p 127.0.0.1:50051:50051 --read-only unface
FROM python:3.11-slim AS build
WORKDIR /src
# For the compiled core; without a compiler unface installs too and runs on LiteRT, slower.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY . .
RUN python -m venv /opt/unface \
    && /opt/unface/bin/pip install --no-cache-dir -c deploy/constraints.txt .

FROM python:3.11-slim
COPY --from=build /opt/unface /opt/unface
# Nothing is written: pictures live in memory only.
RUN useradd --system --no-create-home --shell /usr/sbin/nologin unface
USER unface
ENV PATH=/opt/unface/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["unface", "info", "--server", "localhost:50051"]
ENTRYPOINT ["unface"]
CMD ["serve", "--host", "0.0.0.0", "--port", "50051"]
