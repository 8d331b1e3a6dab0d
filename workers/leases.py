"""Keeps the leases of the jobs this process holds, and frees those of processes that died on this machine.

A lease is short so that the jobs of a lost machine come back soon, and is renewed while the work goes on, so
that a slow batch is not taken by a second worker. Where only the process died and the machine lives, there is
no need to wait at all: its successor sees that the process is gone and frees its jobs at once. (Not where it runs in
another container: that one cannot see it, and the jobs wait for their leases.)
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

import structlog
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from catalog.database import transaction
from catalog.errors import Unavailable
from catalog.jobs import ClaimedJob
from catalog.queue import MAX_IDS
from catalog.settings import Settings
from catalog.tables import Job, queued_in
from catalog.views import LANES, Lane
from workers.identity import is_dead

RETRY_S = 1.0

log = structlog.get_logger(__name__)


def renew(session: Session, tokens: Sequence[str], lease_s: float) -> set[str]:
    """Extend the leases; returns the tokens that still hold one.

    A row that somebody else has locked is left for the next time: to wait for it could cost all other leases.
    """
    until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s)
    mine = Job.lease_token.in_(tokens), Job.status == "running"
    held = session.scalars(select(Job.lease_token).where(*mine)).all()
    ids = session.scalars(select(Job.id).where(*mine).with_for_update(skip_locked=True)).all()
    session.execute(update(Job).where(Job.id.in_(ids), *mine).values(lease_until=until, resend_at=until))
    return {token for token in held if token is not None}


def release_leases_of_the_dead(session: Session) -> dict[Lane, list[str]]:
    """Make the jobs of dead workers of this machine due at once; returns their ids by lane.

    `attempts` stays as it is: a job that kills every worker that takes it must end as failed.
    """
    holders = session.scalars(select(Job.worker).where(Job.status == "running").distinct())
    dead = [holder for holder in holders if holder is not None and is_dead(holder)]
    released: dict[Lane, list[str]] = defaultdict(list)
    if dead:
        theirs = Job.status == "running", Job.worker.in_(dead)
        # In the order of ids, as whoever else waits for rows of jobs: an UPDATE alone locks them as it finds them.
        ids = session.scalars(select(Job.id).where(*theirs).order_by(Job.id).with_for_update()).all()
        rows = session.execute(
            update(Job)
            .where(Job.id.in_(ids))
            .values(
                status="queued", lease_token=None, lease_until=None, worker=None,
                not_before=func.now(), resend_at=func.now(),
            )
            .returning(Job.id, Job.lane)
        )  # fmt: skip
        for job_id, lane in rows:
            released[cast(Lane, lane)].append(job_id)
    return dict(released)


def oldest_queued(session: Session, lane: Lane, limit: int) -> list[str]:
    """The ids of the due jobs that have been queued longest."""
    return list(
        session.scalars(
            select(Job.id)
            .where(text(queued_in(lane)), Job.not_before <= func.now())
            .order_by(Job.submitted_at)
            .limit(limit)
        )
    )


class LeaseKeeper:
    """A thread that first brings back what the dead left, and then renews what this process holds."""

    def __init__(
        self, engine: Engine, settings: Settings, send: Callable[[Sequence[str], Lane], None]
    ) -> None:
        self._engine = engine
        self._lease_s = settings.lease_s
        self._messages_at_once = 2 * settings.max_batch  # the worker's concurrency, see catalog.queue
        self._send = send
        self._held: dict[str, ClaimedJob] = {}
        self._lock = threading.Lock()
        self._recovered = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def hold(self, jobs: Sequence[ClaimedJob]) -> None:
        with self._lock:
            self._held.update((job.lease_token, job) for job in jobs)

    def let_go(self, jobs: Sequence[ClaimedJob]) -> None:
        with self._lock:
            for job in jobs:
                self._held.pop(job.lease_token, None)

    def held(self) -> int:
        with self._lock:
            return len(self._held)

    def not_held(self, job_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that this process does not run right now: it must not take its own once more, when their
        leases have lapsed while the database was away or the machine slept. The next renewal brings those back.
        """
        with self._lock:
            mine = {job.id for job in self._held.values()}
        return [job_id for job_id in job_ids if job_id not in mine]

    def _run(self) -> None:
        while not self._over.wait(self._round()):
            pass

    def _round(self) -> float:
        """Returns the seconds until the next one."""
        interval = self._lease_s / 3
        try:
            self._renew()
            if not self._recovered:
                self._recover()
        except Unavailable as error:
            # Also while the schema is still being made. Tried again soon, while the leases still last: one that lapses
            # costs a second attempt at most.
            log.warning("leases not renewed", reason=str(error))
            return min(RETRY_S, interval)
        except Exception:
            # Whatever it is, without this thread every later job would be run twice.
            log.exception("leases not renewed")
            return min(RETRY_S, interval)
        return interval

    def _recover(self) -> None:
        """Send again what died with an earlier process, without waiting for the sweep.

        That is what it had claimed, and the messages that it had taken off the queue and claimed nothing for yet:
        nobody knows how many those were, but no more than a worker takes at once. Sending a job too often is harmless.
        """
        with transaction(self._engine) as session:
            due = release_leases_of_the_dead(session)
            for lane, job_ids in due.items():
                log.info("jobs of a dead worker released", lane=lane, jobs=len(job_ids))
            for lane in LANES:
                oldest = oldest_queued(session, lane, self._messages_at_once * MAX_IDS[lane])
                due[lane] = list(dict.fromkeys([*due.get(lane, []), *oldest]))
        for lane, job_ids in due.items():
            if job_ids:
                self._send(job_ids, lane)
        self._recovered = True

    def _renew(self) -> None:
        with self._lock:
            tokens = list(self._held)
        if not tokens:
            return
        with transaction(self._engine) as session:
            renewed = renew(session, tokens, self._lease_s)
        with self._lock:
            # One that ended while the statement ran is not lost.
            lost = [self._held[token].id for token in tokens if token in self._held and token not in renewed]
        if lost:
            log.warning("leases lost: another worker may run these jobs as well", jobs=lost)
