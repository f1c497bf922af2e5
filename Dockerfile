# syntax=docker/dockerfile:1

FROM python:3.11-slim AS build
WORKDIR /src
# The hot modules are compiled here; the image that runs needs no compiler.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/tiergate
ENV TIERGATE_COMPILE=1
COPY pyproject.toml setup.py README.md LICENSE ./
COPY proxy ./proxy
RUN /opt/tiergate/bin/pip install --no-cache-dir --no-compile . \
    && /opt/tiergate/bin/python -m compileall -q /opt/tiergate/lib

FROM python:3.11-slim
LABEL org.opencontainers.image.title="tiergate" \
      org.opencontainers.image.description="A tenant-aware PostgreSQL connection pooler" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 tiergate \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin tiergate
COPY --from=build /opt/tiergate /opt/tiergate
# In a container, loopback reaches nobody.
ENV PATH=/opt/tiergate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIERGATE_LISTEN_ADDR=* \
    TIERGATE_HTTP_ADDR=0.0.0.0:9187 \
    TIERGATE_HTTP_INSECURE=true \
    TIERGATE_LOG_FORMAT=json
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 6432 9187
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['TIERGATE_HTTP_ADDR'].rpartition(':')[2] + '/healthz', timeout=2)"]
ENTRYPOINT ["tiergate"]
CMD ["serve", "--config", "/etc/tiergate/tiergate.toml"]
