"""What the worker tells Prometheus."""

from __future__ import annotations

import socket
import urllib.request
from contextlib import ExitStack
from unittest.mock import Mock

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from workers.batch_runner import BatchReport
from workers.metrics import WorkerMetrics
from workers.scrapes import MOST_CONNECTIONS


def report(error: str | None = None) -> BatchReport:
    return BatchReport(
        size=3,
        tokens=20,
        padded_tokens=30,
        waited_s=(0.1, 0.2, 0.3),
        forward_s=0.5,
        busy_s=0.25,
        error=error,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tagsmith_worker_batch_size_sum", 3),
        ("tagsmith_worker_batch_wait_seconds_count", 3),
        ("tagsmith_worker_forward_seconds_sum", 0.5),
        ("tagsmith_worker_device_busy_seconds_total", 0.25),
    ],
)
def test_a_batch_is_counted(name: str, value: float) -> None:
    metrics = WorkerMetrics()
    metrics.batch_done(report())
    assert metrics.registry.get_sample_value(name) == value


def test_padding_is_counted_apart_from_text() -> None:
    metrics = WorkerMetrics()
    metrics.batch_done(report())
    assert metrics.registry.get_sample_value("tagsmith_worker_batch_tokens_total", {"kind": "text"}) == 20
    assert metrics.registry.get_sample_value("tagsmith_worker_batch_tokens_total", {"kind": "padding"}) == 10


def test_a_forward_that_raised_is_counted_by_its_error() -> None:
    metrics = WorkerMetrics()
    metrics.batch_done(report("OutOfMemory"))
    sample = metrics.registry.get_sample_value(
        "tagsmith_worker_forward_errors_total", {"error": "OutOfMemory"}
    )
    assert sample == 1


def test_gauges_are_read_when_they_are_scraped() -> None:
    metrics = WorkerMetrics()
    waiting = [1]
    metrics.watch(ready=lambda: waiting[0], held=lambda: 9, max_batch=lambda: 16)
    waiting[0] = 5
    scraped = generate_latest(metrics.registry).decode()
    assert "tagsmith_worker_ready_jobs 5.0" in scraped
    assert "tagsmith_worker_held_jobs 9.0" in scraped
    assert "tagsmith_worker_max_batch 16.0" in scraped


def test_a_series_is_told_once_and_not_also_when_it_began() -> None:
    assert "_created" not in generate_latest(WorkerMetrics().registry).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_clients_that_stay_and_say_nothing_hold_a_few_connections_and_keep_no_scrape_out() -> None:
    port = free_port()
    stop = WorkerMetrics().serve("127.0.0.1", port)
    with ExitStack() as clients:
        silent = [
            clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(MOST_CONNECTIONS + 3)
        ]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.status == 200
        # One more made room for the scrape.
        assert [client.recv(1) for client in silent[:4]] == [b""] * 4
        silent[4].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[4].recv(1)
    stop()


def test_the_metrics_of_an_address_are_served_without_asking_for_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = Mock(side_effect=AssertionError("a DNS that is silent would hold up the start"))
    monkeypatch.setattr(socket, "getfqdn", ask)
    WorkerMetrics().serve("127.0.0.1", free_port())()


def test_metrics_are_served_on_loopback_until_stopped() -> None:
    metrics = WorkerMetrics()
    for attempts in (1, 1, 1, 3):
        metrics.job_left("bulk", "succeeded", attempts)
    port = free_port()
    stop = metrics.serve("127.0.0.1", port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    stop()
    assert 'tagsmith_worker_jobs_total{lane="bulk",outcome="succeeded"} 4.0' in page
    assert 'tagsmith_worker_job_attempts_bucket{lane="bulk",le="1.0"} 3.0' in page


def test_a_port_in_use_costs_the_metrics_and_not_the_worker() -> None:
    with socket.socket() as taken, capture_logs() as logs:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stop = WorkerMetrics().serve("127.0.0.1", taken.getsockname()[1])
        stop()
    assert "TAGSMITH_METRICS_PORT" in logs[0]["event"]


def test_only_an_attempt_that_ended_the_job_is_counted_among_its_attempts() -> None:
    metrics = WorkerMetrics()
    metrics.job_left("interactive", "put_back", 1)
    metrics.job_left("interactive", "lease_lost", 2)
    metrics.job_left("interactive", "failed", 5)
    value = metrics.registry.get_sample_value
    assert value("tagsmith_worker_job_attempts_count", {"lane": "interactive"}) == 1
    assert value("tagsmith_worker_job_attempts_sum", {"lane": "interactive"}) == 5


def test_a_text_that_was_remembered_is_told_from_a_new_one() -> None:
    metrics = WorkerMetrics()
    for remembered in (True, True, False):
        metrics.text_seen(remembered=remembered)
    counted = {
        kind: metrics.registry.get_sample_value("tagsmith_worker_texts_total", {"embedding": kind})
        for kind in ("remembered", "new")
    }
    assert counted == {"remembered": 2, "new": 1}
