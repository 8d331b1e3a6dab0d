"""Each peer as the contest sees it: products go in, the seconds until their tags are stored or answered come out."""

from __future__ import annotations

import json
import os
import queue
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from celery import Celery
from redis import Redis
from redis.exceptions import ConnectionError as NoRedis

from benchmarks.installation import free_port
from benchmarks.peers import tagging
from benchmarks.peers.environment import HERE, python_of
from benchmarks.peers.processes import LOOK_S, Group, started
from catalog.embedded.redis import server_program
from samples.client import Client

Payload = dict[str, Any]  # title, description, and the paths of the photos
STUCK_S = 300.0  # without a single product ending: the first round also loads the model
IN_FLIGHT = 64  # requests for each process of an HTTP peer: two batches, so that the next has gathered
TASK = "tag"


class PeerFailedError(Exception):
    """A peer did not tag what it was given, so there is nothing to compare."""


class Peer(Protocol):
    def tag(self, products: Sequence[Payload]) -> float:
        """Seconds from the first product begun to the last stored. Raises PeerFailedError."""


@dataclass(frozen=True)
class Setting:
    """How a peer computes. On a GPU one process drives it; on processors each core has its own."""

    checkpoint: Path
    device: str
    precision: str  # as torch names it
    processes: int
    threads: int  # of torch, in each process

    @property
    def env(self) -> dict[str, str]:
        return {
            tagging.CHECKPOINT: os.fspath(self.checkpoint.resolve()),
            tagging.DEVICE: self.device,
            tagging.PRECISION: self.precision,
            tagging.THREADS: str(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
        }


class QueuePeer:
    """A Celery worker: its lane is filled while it is stopped, then emptied."""

    def __init__(self, group: Group, broker: str) -> None:
        self._group = group
        self._celery = Celery(broker=broker, backend=broker)
        self._redis = Redis.from_url(broker)

    def tag(self, products: Sequence[Payload]) -> float:
        ids = [self._celery.send_task(TASK, args=[product]).id for product in products]
        keys = [self._celery.backend.get_key_for_task(task_id) for task_id in ids]
        with self._group.running():
            self._wait(keys)
        answers = [json.loads(answer) for answer in self._redis.mget(keys) if answer is not None]
        self._redis.delete(*keys)
        return span(answers)

    def _wait(self, keys: Sequence[Any]) -> None:
        done, changed_at = 0, time.monotonic()
        while done < len(keys):
            time.sleep(LOOK_S)
            now = self._redis.exists(*keys)
            if now != done:
                done, changed_at = now, time.monotonic()
            self._group.check()
            if time.monotonic() - changed_at > STUCK_S:
                raise PeerFailedError(
                    f"{done} of {len(keys)} done and none for {STUCK_S:.0f} s: {self._group.log_end()}"
                )


def span(answers: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the first task's beginning to the last result's storing. Raises PeerFailedError."""
    for answer in answers:
        if answer["status"] != "SUCCESS" or not answer["result"]["tags"]:
            raise PeerFailedError(f"a product ended {answer['status']}: {answer['result']}")
    began = min(answer["result"]["began"] for answer in answers)
    return max(stored_at(answer["date_done"]) for answer in answers) - began


def stored_at(date_done: str) -> float:
    """Seconds of the epoch; Celery writes UTC, with or without saying so."""
    at = datetime.fromisoformat(date_done)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class HttpPeer:
    """A server that answers with the tags: as many requests at once as keep its batches full."""

    def __init__(self, group: Group, base_url: str, in_flight: int) -> None:
        self._group = group
        self._base_url = base_url
        self._in_flight = in_flight

    def tag(self, products: Sequence[Payload]) -> float:
        waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for product in products:
            waiting.put(json.dumps(product).encode())
        with self._group.running():
            began = time.perf_counter()
            with ThreadPoolExecutor(self._in_flight) as pool:
                answers = [pool.submit(self._send, waiting) for _ in range(self._in_flight)]
                answered = sum(answer.result() for answer in answers)
            took = time.perf_counter() - began
        if answered != len(products):
            raise PeerFailedError(f"{answered} of {len(products)} answers had tags: {self._group.log_end()}")
        return took

    def _send(self, waiting: queue.SimpleQueue[bytes]) -> int:
        """How many of those that this connection sent were answered with tags."""
        tagged = 0
        with Client(self._base_url, timeout_s=STUCK_S) as client:
            while True:
                try:
                    body = waiting.get_nowait()
                except queue.Empty:
                    return tagged
                status, answer = client.request(
                    "POST", "/predict", body, {"Content-Type": "application/json"}
                )
                if status != 200:
                    raise PeerFailedError(f"HTTP {status}: {answer[:500].decode(errors='replace')}")
                tagged += bool(json.loads(answer)["tags"])


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of a broker that writes nothing to disk."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [
        os.fspath(server_program()),
        *("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"),
        *("--dir", os.fspath(folder)),
    ]
    with started(command, {}, folder / f"redis-{port}.log") as group:
        group.until(lambda: answers(url))
        yield url


def answers(url: str) -> bool:
    try:
        with Redis.from_url(url) as client:
            return bool(client.ping())
    except NoRedis:
        return False


@contextmanager
def celery_peer(module: str, python: Path, setting: Setting, folder: Path) -> Iterator[Peer]:
    """Paused until it is its turn."""
    with redis_server(folder) as broker:
        command = [
            *(os.fspath(python), "-m", "celery", "-A", f"benchmarks.peers.{module}"),
            *("-b", broker, "--result-backend", broker, "worker", "--pool", "prefork"),
            *("--concurrency", str(setting.processes), "--loglevel", "warning"),
        ]
        with started(command, setting.env, folder / f"{module}-{setting.precision}.log") as group:
            group.pause()
            yield QueuePeer(group, broker)


@contextmanager
def naive_celery(setting: Setting, folder: Path) -> Iterator[Peer]:
    with celery_peer("naive_celery", Path(sys.executable), setting, folder) as peer:
        yield peer


@contextmanager
def celery_batches(setting: Setting, folder: Path) -> Iterator[Peer]:
    python = python_of("celery-batches", HERE / "celery-batches.lock", "celery")
    with celery_peer("batches", python, setting, folder) as peer:
        yield peer


@contextmanager
def litserve(setting: Setting, folder: Path) -> Iterator[Peer]:
    python = python_of("litserve", HERE / "litserve.lock", "litserve")
    port = free_port()
    command = [
        *(os.fspath(python), "-m", "benchmarks.peers.litserve_server"),
        *(str(port), str(setting.processes)),
    ]
    base_url = f"http://127.0.0.1:{port}"
    with started(command, setting.env, folder / f"litserve-{setting.precision}.log") as group:
        group.until(lambda: healthy(base_url))
        group.pause()
        yield HttpPeer(group, base_url, IN_FLIGHT * setting.processes)


def healthy(base_url: str) -> bool:
    try:
        with Client(base_url, timeout_s=5) as client:
            return client.request("GET", "/health")[0] == 200
    except OSError:
        return False
