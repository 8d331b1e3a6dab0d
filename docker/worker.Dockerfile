# The worker and the beat.
#   docker build -f docker/worker.Dockerfile -t tagsmith-worker .
#   docker build -f docker/worker.Dockerfile -t tagsmith-worker:cuda --build-arg DEVICE=cuda .
#   docker build -f docker/worker.Dockerfile -t tagsmith-worker:exported --build-arg EXTRAS="worker cpu" .
# The last also serves what `python -m models export` makes. All come from the same pins. The driver is the host's;
# CUDA's libraries are in the pins, and the torch of the registry links most of them, so the CPU image leaves out only
# what torch can be imported without.

FROM python:3.11-slim-bookworm AS build
ARG DEVICE=cpu
ARG EXTRAS=worker
WORKDIR /build
COPY installer.lock ./
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r installer.lock
COPY pyproject.toml requirements.lock ./
COPY docker/select_pins.py docker/
RUN python -m venv --without-pip /opt/tagsmith/venv \
    && python docker/select_pins.py --device "$DEVICE" $EXTRAS > pins.txt \
    && /uv/bin/uv pip sync --no-cache --require-hashes --compile-bytecode --python /opt/tagsmith/venv/bin/python pins.txt

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tagsmith \
    && install -d -o tagsmith -g tagsmith /var/lib/tagsmith
COPY --from=build /opt/tagsmith/venv /opt/tagsmith/venv
WORKDIR /opt/tagsmith
COPY catalog catalog
COPY models models
COPY workers workers
ENV PATH=/opt/tagsmith/venv/bin:$PATH \
    PYTHONPATH=/opt/tagsmith \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    TAGSMITH_VAR=/var/lib/tagsmith \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
VOLUME /var/lib/tagsmith
# Loading the model takes minutes where others keep the cores busy, and the check itself, a Python of its own, seconds.
HEALTHCHECK --interval=10s --timeout=30s --start-period=300s --retries=3 \
    CMD ["python", "-m", "workers", "health"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "celery", "-A", "workers.app", "worker", "--pool", "threads", "--queues", "sweep,interactive,bulk", "--without-gossip", "--without-mingle"]
