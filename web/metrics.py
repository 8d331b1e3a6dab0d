"""Prometheus metrics of the web process.

The process is the only one of its service (`web/gunicorn.py` runs one worker with threads), so the counters
live in its memory. The depth of the queue and the rate at which it is worked off are read from the database at
the moment of a scrape, because they are facts of the installation and not of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from flask import Flask, Response, g, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from catalog.errors import Unavailable
from catalog.lanes import LaneCount

log = structlog.get_logger(__name__)

# From an answer out of memory (1 ms) to the longest `wait` (30 s).
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class WebMetrics:
    def __init__(self) -> None:
        disable_created_metrics()  # a third of all lines, and nobody draws them
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tagsmith_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "tagsmith_http_request_duration_seconds",
            "Time from the headers of a request to its answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.accepted = Counter(
            "tagsmith_products_accepted", "Products accepted for tagging.", ["lane"], registry=self.registry
        )
        self.photo_seconds = Histogram(
            "tagsmith_photo_intake_seconds",
            "Time to check one photo and make its model view.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.unsent = Counter(
            "tagsmith_messages_unsent",
            "Jobs whose message the broker did not take; the sweep sends them.",
            registry=self.registry,
        )
        self.waiters = Gauge(
            "tagsmith_waiting_requests", "Requests that hold a `wait` open.", registry=self.registry
        )

    def render(self) -> Response:
        return Response(generate_latest(self.registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class QueueCollector(Collector):
    """Depth, age and rate of each lane, measured at the scrape."""

    def __init__(self, counts: Callable[[], Mapping[str, LaneCount]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("tagsmith_database_up", "1 when the database answered the scrape.")
        try:
            counts = self._counts()
        except Unavailable as error:
            log.warning("queue depth unknown", reason=str(error))
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        queued = GaugeMetricFamily("tagsmith_queue_jobs", "Queued jobs.", labels=["lane"])
        oldest = GaugeMetricFamily(
            "tagsmith_queue_oldest_age_seconds", "Age of the oldest queued job.", labels=["lane"]
        )
        running = GaugeMetricFamily("tagsmith_running_jobs", "Jobs that workers hold.", labels=["lane"])
        rate = GaugeMetricFamily(
            "tagsmith_queue_finish_rate",
            "Jobs ended per second in the part of the last five minutes in which there was work; "
            "absent when none ended.",
            labels=["lane"],
        )
        for lane, count in counts.items():
            queued.add_metric([lane], count.queued)
            oldest.add_metric([lane], count.oldest_queued_s or 0)
            running.add_metric([lane], count.running)
            if count.jobs_per_s is not None:
                rate.add_metric([lane], count.jobs_per_s)
        yield from (queued, oldest, running, rate)


def register(app: Flask, metrics: WebMetrics) -> None:
    def start() -> None:
        g.started = time.perf_counter()

    def count(response: Response) -> Response:
        # The rule and not the path: paths carry ids, and each would become a series of its own.
        route = request.url_rule.rule if request.url_rule else "unmatched"
        method = request.method if request.method in _METHODS else "other"
        metrics.requests.labels(method, route, str(response.status_code)).inc()
        if "started" in g:
            metrics.request_seconds.labels(method, route).observe(time.perf_counter() - g.started)
        return response

    app.before_request(start)
    app.after_request(count)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
