"""What a PostgreSQL that falls silent costs: each open wait an end, and everybody after that next to nothing.

Its own time-outs end no wait of ours while its processes are stopped or starve, and over a local socket no packet is
missed either. So each connection gives up by its own clock, and once one has, connections are tried by one thread at a
time: the others are refused within a moment instead of waiting in turn, and web keeps its threads for what it can do.
Knows psycopg and nothing of SQLAlchemy but where it asks for a connection and gives one back.
"""

import threading
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

# For the others to learn that it speaks again, which takes whoever asks some milliseconds.
MOMENT_S = 0.5
POLL_S = 0.1  # psycopg's own

Result = TypeVar("Result")


class AnsweredConnection(psycopg.Connection[Any]):
    """Waits `answer_within_s` for the end of a statement, then closes itself and says so; None waits without end."""

    answer_within_s: float | None = None
    silence: "Silence"

    def wait(self, gen: PQGen[Result], interval: float = POLL_S, timeout: float | None = None) -> Result:
        """As psycopg's; a time-out of ours raises OperationalError as well."""
        try:
            return super().wait(gen, interval, self.answer_within_s if timeout is None else timeout)
        except psycopg.OperationalError:
            # An answer, be it an error, would have ended that state.
            if timeout is None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
                self.silence.begins()
            raise


class Silence:
    """Whether the server has fallen silent, for all threads that use one engine."""

    def __init__(self, answer_within_s: float, ping_within_s: float) -> None:
        """`answer_within_s` is the longest wait for a statement, `ping_within_s` for a connection that was idle."""
        self._answer_within_s = answer_within_s
        self._ping_within_s = ping_within_s
        self._silent = False
        self._asking = threading.Lock()

    def watch(self, engine: Engine) -> None:
        """From now on the engine's connections are ours. The pool pings before it hands one out."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "checkout", self._busy)
        event.listen(engine, "checkin", self._idle)

    def begins(self) -> None:
        self._silent = True

    def _connect(self, dialect: Any, record: Any, arguments: Any, parameters: Any) -> AnsweredConnection:
        if not self._silent:
            return self._open(arguments, parameters)
        if not self._asking.acquire(timeout=MOMENT_S):
            raise psycopg.OperationalError("it was silent a moment ago, and somebody else is asking it")
        try:
            return self._open(arguments, parameters)
        finally:
            self._asking.release()

    def _open(self, arguments: Any, parameters: Any) -> AnsweredConnection:
        try:
            connection = AnsweredConnection.connect(*arguments, **parameters)
        except psycopg.errors.ConnectionTimeout:
            self.begins()
            raise
        self._silent = False
        connection.silence = self
        connection.answer_within_s = self._answer_within_s
        return connection

    def _busy(self, connection: AnsweredConnection, record: Any, proxy: Any) -> None:
        connection.answer_within_s = self._answer_within_s

    def _idle(self, connection: AnsweredConnection | None, record: Any) -> None:
        if connection is not None:  # None: it was lost
            connection.answer_within_s = self._ping_within_s
