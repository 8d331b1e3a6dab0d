"""The broker as a request sees it: something that may be away without anybody having to wait for it.

A job is safe once its row is committed; the message only makes it start sooner. So a send that fails is
noted and forgotten (the sweep sends it), and while the broker is away nobody tries again for a moment. Nor is anything
sent into a lane in which messages wait for as many jobs as it may have: those of jobs that were cancelled or changed
stay there until a worker takes them, and with no worker they would become more and more. Bulk jobs share messages (see
`web.envelopes`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from celery import Celery

from catalog import queue
from catalog.errors import BrokerUnavailable
from catalog.settings import Settings
from catalog.views import LANES, Lane
from web.envelopes import Envelopes

log = structlog.get_logger(__name__)

# After a failed send: long enough that a dead broker costs one request in many, shorter than the sweep.
_REST_S = 3.0
_PING_TIMEOUT_S = 1.0
# A worker whose machine is busy takes its time to answer. The first answer is enough, so one that is quick costs none.
_WORKER_ANSWERS_S = 3.0
# Orchestrators ask every second or so; each ping of the workers is a broadcast.
_PROBE_KEPT_S = 2.0
# Who waits for a worker to come up should hear of it. Without one the ping itself takes three seconds.
_BAD_PROBE_KEPT_S = 0.1
# How often the messages of a lane are counted: what is sent in between is little beside what a lane may hold.
_COUNT_EVERY_S = 1.0


class Broker:
    def __init__(
        self,
        settings: Settings,
        unsent: Callable[[int], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unsent` is told how many jobs the broker did not take, each time."""
        self.celery: Celery = queue.make_celery(settings)
        self._unsent = unsent
        self._envelopes = Envelopes(lambda job_ids: self._send(job_ids, "bulk"), queue.MAX_IDS["bulk"])
        self._clock = clock
        self._resting_until = 0.0
        self._max_messages = {
            lane: max(1, settings.max_queued(lane) // queue.MAX_IDS[lane]) for lane in LANES
        }
        self._has_room = dict.fromkeys(LANES, True)
        self._count_at = dict.fromkeys(LANES, 0.0)
        self._probe_lock = threading.Lock()
        self._probed = (False, False)
        self._probe_kept_until = 0.0

    def send(self, job_id: str, lane: Lane) -> None:
        """Sends the job, or leaves it to the next message of its lane; never raises for a broker that is away."""
        if lane == "bulk":
            self._envelopes.add(job_id)
        else:
            self._send([job_id], lane)

    def close(self) -> None:
        """Sends what still waits for its message."""
        self._envelopes.flush()
        self.celery.close()

    def _send(self, job_ids: list[str], lane: Lane) -> None:
        if self._clock() < self._resting_until:
            self._unsent(len(job_ids))
            return
        try:
            if not self._room_for_messages(lane):
                self._unsent(len(job_ids))
                return
            queue.send(self.celery, job_ids, lane)
        except BrokerUnavailable as error:
            self._resting_until = self._clock() + _REST_S
            self._unsent(len(job_ids))
            log.warning("message not sent, the sweep will", job_ids=job_ids, reason=str(error))

    def _room_for_messages(self, lane: Lane) -> bool:
        if self._clock() >= self._count_at[lane]:
            waiting = queue.waiting(self.celery, lane)
            self._has_room[lane] = waiting <= self._max_messages[lane]
            self._count_at[lane] = self._clock() + _COUNT_EVERY_S
            if not self._has_room[lane]:
                log.warning(
                    "lane has as many messages as it may, the sweep sends", lane=lane, messages=waiting
                )
        return self._has_room[lane]

    def probe(self) -> tuple[bool, bool]:
        """Whether the broker answers, and whether at least one worker does; at most two seconds old."""
        with self._probe_lock:
            if self._clock() >= self._probe_kept_until:
                self._probed = self._ask()
                self._probe_kept_until = self._clock() + (
                    _PROBE_KEPT_S if all(self._probed) else _BAD_PROBE_KEPT_S
                )
            return self._probed

    def _ask(self) -> tuple[bool, bool]:
        connection = self.celery.connection_for_write(
            transport_options={
                "socket_timeout": _PING_TIMEOUT_S,
                "socket_connect_timeout": _PING_TIMEOUT_S,
                "max_retries": 0,
            }
        )
        away: tuple[type[Exception], ...] = (BrokerUnavailable, *queue.faults(connection))
        try:
            queue.ping(self.celery)
            with connection:
                workers = self.celery.control.ping(timeout=_WORKER_ANSWERS_S, connection=connection, limit=1)
        except away as error:
            log.warning("broker not reachable", reason=repr(error))
            return False, False
        return True, bool(workers)
