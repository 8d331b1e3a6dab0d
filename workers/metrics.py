"""The worker's Prometheus metrics.

Knows the reports of batcher and sweep and the outcomes of jobs, nothing of how they come about. The registry is this
object's own, so that a test or a second worker in one process starts from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.process_collector import ProcessCollector

from catalog.sweep import SweepResult
from workers.batch_runner import BatchReport
from workers.scrapes import serve
from workers.served import Runtime

Outcome = Literal["succeeded", "failed", "cancelled", "put_back", "lease_lost"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ATTEMPTS = (1, 2, 3, 4, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

log = structlog.get_logger(__name__)


class WorkerMetrics:
    def __init__(self) -> None:
        disable_created_metrics()  # a third of all lines, and nobody draws them
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.jobs = Counter(
            "tagsmith_worker_jobs", "Jobs that left this worker", ["lane", "outcome"], registry=self.registry
        )
        self.attempts = Histogram(
            "tagsmith_worker_job_attempts",
            "Attempts that a job had had when it ended here",
            ["lane"],
            buckets=ATTEMPTS,
            registry=self.registry,
        )
        self.messages = Counter(
            "tagsmith_worker_messages", "Queue messages taken", ["lane", "outcome"], registry=self.registry
        )
        self.stage_seconds = Histogram(
            "tagsmith_worker_stage_seconds",
            "Time of one message in one stage of its life",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.model = Info(
            "tagsmith_worker_model", "The model that prepares the next job", registry=self.registry
        )
        self.photos = Counter(
            "tagsmith_worker_photos",
            "Photos of products, by whether their embedding was remembered or the photo tower had to run",
            ["embedding"],
            registry=self.registry,
        )
        self.texts = Counter(
            "tagsmith_worker_texts",
            "Texts of products, by whether their embedding was remembered or the text tower had to run",
            ["embedding"],
            registry=self.registry,
        )
        self.photo_read_seconds = Histogram(
            "tagsmith_worker_photo_read_seconds",
            "Time to read the new photos of one product from the photo store",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.decode_seconds = Histogram(
            "tagsmith_worker_decode_seconds",
            "Time to decode and resize the new photos of one product and to tokenize its text",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "tagsmith_worker_batch_size", "Jobs in one forward", buckets=SIZES, registry=self.registry
        )
        self.batch_tokens = Counter(
            "tagsmith_worker_batch_tokens",
            "Text tokens put through the device",
            ["kind"],
            registry=self.registry,
        )
        self.batch_wait_seconds = Histogram(
            "tagsmith_worker_batch_wait_seconds",
            "Time a prepared job waited for the device",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.forward_seconds = Histogram(
            "tagsmith_worker_forward_seconds", "Time of one forward", buckets=SECONDS, registry=self.registry
        )
        self.device_busy_seconds = Counter(
            "tagsmith_worker_device_busy_seconds",
            "Time the device spent in one or more forwards; its rate is the share of time that the device is busy",
            registry=self.registry,
        )
        self.forward_errors = Counter(
            "tagsmith_worker_forward_errors", "Forwards that raised", ["error"], registry=self.registry
        )
        self.max_batch = Gauge(
            "tagsmith_worker_max_batch",
            "Batch limit in force (drops on out of memory)",
            registry=self.registry,
        )
        self.ready = Gauge("tagsmith_worker_ready_jobs", "Prepared jobs waiting", registry=self.registry)
        self.sweeps = Counter(
            "tagsmith_worker_sweeps",
            "Sweeps that ended here; where no worker's rises nothing that was lost is sent again",
            registry=self.registry,
        )
        self.swept_jobs = Counter(
            "tagsmith_worker_swept_jobs",
            "Jobs that sweeps sent, could not send, failed or cancelled",
            ["outcome"],
            registry=self.registry,
        )
        self.held = Gauge("tagsmith_worker_held_jobs", "Jobs whose lease is held", registry=self.registry)

    def batch_done(self, report: BatchReport) -> None:
        self.batch_size.observe(report.size)
        self.batch_tokens.labels("text").inc(report.tokens)
        self.batch_tokens.labels("padding").inc(report.padded_tokens - report.tokens)
        for waited in report.waited_s:
            self.batch_wait_seconds.observe(waited)
        self.forward_seconds.observe(report.forward_s)
        self.device_busy_seconds.inc(report.busy_s)
        if report.error:
            self.forward_errors.labels(report.error).inc()

    def job_left(self, lane: str, outcome: Outcome, attempts: int) -> None:
        self.jobs.labels(lane, outcome).inc()
        if outcome in ("succeeded", "failed"):
            self.attempts.labels(lane).observe(attempts)

    def swept(self, result: SweepResult) -> None:
        self.sweeps.inc()
        for outcome in ("sent", "unsent", "failed", "cancelled"):
            self.swept_jobs.labels(outcome).inc(getattr(result, outcome))

    def model_served(self, runtime: Runtime) -> None:
        self.model.info({"name": runtime.name, "version": runtime.version})

    def photos_seen(self, *, remembered: int, new: int) -> None:
        self.photos.labels("remembered").inc(remembered)
        self.photos.labels("new").inc(new)

    def text_seen(self, *, remembered: bool) -> None:
        self.texts.labels("remembered" if remembered else "new").inc()

    def watch(
        self, *, ready: Callable[[], int], held: Callable[[], int], max_batch: Callable[[], int]
    ) -> None:
        """Read these gauges when they are scraped."""
        self.ready.set_function(ready)
        self.max_batch.set_function(max_batch)
        self.held.set_function(held)

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve until the returned function is called. A port in use costs the metrics only."""
        try:
            return serve(self.registry, host, port)
        except OSError as error:
            log.warning(
                "metrics are not served: set TAGSMITH_METRICS_PORT to a free port",
                port=port,
                reason=str(error),
            )
            return lambda: None
