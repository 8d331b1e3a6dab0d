# The intake API and the pages, the migrations, and the command line for keys. No torch.
#   docker build -f docker/web.Dockerfile -t tagsmith-web .

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY installer.lock ./
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r installer.lock
COPY pyproject.toml requirements.lock ./
COPY docker/select_pins.py docker/
RUN python -m venv --without-pip /opt/tagsmith/venv \
    && python docker/select_pins.py web > pins.txt \
    && /uv/bin/uv pip sync --no-cache --require-hashes --compile-bytecode --python /opt/tagsmith/venv/bin/python pins.txt

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tagsmith \
    && install -d -o tagsmith -g tagsmith /var/lib/tagsmith
COPY --from=build /opt/tagsmith/venv /opt/tagsmith/venv
WORKDIR /opt/tagsmith
COPY catalog catalog
COPY web web
COPY models/starter models/starter
ENV PATH=/opt/tagsmith/venv/bin:$PATH \
    PYTHONPATH=/opt/tagsmith \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TAGSMITH_VAR=/var/lib/tagsmith \
    TAGSMITH_HOST=0.0.0.0 \
    TAGSMITH_PORT=8000
USER 10001
VOLUME /var/lib/tagsmith
EXPOSE 8000
# Not urllib: it would ask the proxy of an http_proxy that the engine hands to its containers.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "web", "--worker-tmp-dir", "/dev/shm"]
