"""What becomes of claimed jobs, written to their rows: a failure, another attempt, or tags.

Knows no device: `workers.tasks` says what happened. Every write is guarded by the job's lease, and tried again while
the database is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from catalog.clock import RETRY_DOUBLINGS
from catalog.database import transaction
from catalog.errors import DatabaseBusy, Unavailable
from catalog.jobs import ClaimedJob, Finished, fail, finish, put_back
from catalog.settings import Settings
from catalog.views import Problem, problem
from workers.batch_runner import BatcherClosed, BatcherError
from workers.breaker import Breaker
from workers.metrics import Outcome, WorkerMetrics
from workers.together import Together

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Outcomes:
    """Of any jobs, from any threads."""

    # A database that is away for a restart is waited for; one that is away for longer leaves the jobs to the
    # sweep. Well under the queue's visibility timeout, so that a waiting message is not delivered twice.
    PATIENCE_S = 30.0

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: WorkerMetrics,
        breaker: Breaker,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._breaker = breaker
        self._clock = clock
        self._sleep = sleep
        # As for their claims, see `workers.tasks`.
        self._finish_named = Together(self._finish_together)

    def finish(self, finished: Sequence[Finished]) -> None:
        """Write all outcomes of a message in one transaction.

        A connection lost during the commit leaves open whether it happened, so it is simply done again: the
        second time writes nothing for a job that has ended already. Which is why, after a repetition, a job
        that was not written may well have succeeded.

        Where it cannot be written at all, each is by itself: the one that is at fault is tried again alone.
        """
        write = self._write if finished[0].job.lane == "bulk" else self._write_beside_others
        try:
            written = write(finished)
        except Exception:  # logged below, of the one that raises it alone
            if len(finished) == 1:
                self._put_back_unwritten(finished[0].job)
                return
            for entry in finished:
                self.finish([entry])
            return
        if written is None:
            return  # The leases lapse and the sweep sends the jobs again.
        for entry in finished:
            outcome: Outcome = "succeeded" if entry.job.id in written else "lease_lost"
            self._metrics.job_left(entry.job.lane, outcome, entry.job.attempts)

    def _put_back_unwritten(self, job: ClaimedJob) -> None:
        log.exception("the tags of a job could not be written", job=job.id)
        self.put_back(job, problem("unwritten", "The tags could not be stored", "the log says why"))

    def _write_beside_others(self, finished: Sequence[Finished]) -> set[str] | None:
        try:
            return self._finish_named(finished)
        except DatabaseBusy:
            # It waits by itself for a row that somebody holds: those that came along, and come after, do not.
            return self._write(finished)

    def _finish_together(self, messages: Sequence[Sequence[Finished]]) -> list[set[str] | None]:
        """Writes the outcomes of several messages in one transaction. Raises DatabaseBusy."""
        entries = [entry for message in messages for entry in message]
        if len({entry.job.id for entry in entries}) < len(entries):
            # A job that was taken a second time after its lease had lapsed: only one of the two may be written.
            return [self._write(message) for message in messages]
        return [self._write(entries, patient=False)] * len(messages)

    def _write(self, finished: Sequence[Finished], *, patient: bool = True) -> set[str] | None:
        def finish_them(session: Session) -> set[str]:
            return finish(session, finished)

        return self.persistently("finish", finish_them, patient=patient)

    def fail(self, job: ClaimedJob, reason: Problem) -> None:
        self._settle(job, lambda session: "failed" if fail(session, job, reason) else None)

    def put_back(self, job: ClaimedJob, reason: Problem) -> None:
        delay = self._settings.retry_delay_s * 2 ** min(job.attempts - 1, RETRY_DOUBLINGS)
        self._settle(job, lambda session: put_back(session, job, reason, delay))

    def put_back_unrun(self, job: ClaimedJob, error: BatcherError) -> None:
        if isinstance(error, BatcherClosed):
            # Another worker can take it at once, and however often workers are stopped, that never makes it fail.
            reason = problem("worker-stopped", "The worker was stopped", str(error))
            self._settle(job, lambda session: put_back(session, job, reason, 0, tried=False))
        else:
            self.put_back(job, problem("device-failed", "The device could not run the product", str(error)))

    def _settle(
        self, job: ClaimedJob, write: Callable[[Session], Literal["queued", "failed", "cancelled"] | None]
    ) -> None:
        """`write` says what the job is afterwards, None where its lease was lost."""

        def outcome_of(session: Session) -> Outcome:
            status = write(session)
            return "lease_lost" if status is None else "put_back" if status == "queued" else status

        try:
            outcome = self.persistently("settle", outcome_of)
        except Exception:
            # The database refuses what is written: the lease lapses, and the others of the message have their turn.
            log.exception("the outcome of a job could not be written", job=job.id)
            return
        if outcome is not None:
            self._metrics.job_left(job.lane, outcome, job.attempts)

    def persistently(
        self,
        what: str,
        write: Callable[[Session], Answer],
        patience_s: float = PATIENCE_S,
        *,
        patient: bool = True,
    ) -> Answer | None:
        """Run a transaction, again while the database is away; None when it stays away.

        One that is not `patient` raises DatabaseBusy instead of trying that again.
        """
        deadline = self._clock() + patience_s
        pause, tries = 0.1, 0
        with self._breaker.trying():
            while True:
                try:
                    with transaction(self._engine) as session:
                        answer = write(session)
                    self._breaker.succeeded()
                    return answer
                except Unavailable as error:
                    if isinstance(error, DatabaseBusy) and not patient:
                        raise
                    tries += 1
                    # A first failure may be a lost connection or a deadlock, which is no reason to take no messages.
                    # Nor is a row that somebody else holds, which delays this job alone.
                    if tries > 1 and not isinstance(error, DatabaseBusy):
                        self._breaker.failed()
                    # Twice at least: the time may have passed because this process stood still, and the database not.
                    if tries > 1 and self._clock() + pause > deadline:
                        log.error("the database stays away; it is left to others or to later", stage=what)
                        return None
                    log.warning("the database does not answer; trying again", stage=what, reason=str(error))
                    self._sleep(pause)
                    pause = min(2.0, pause * 2)
