"""The way to PostgreSQL: engine, transaction, migrations. Knows no table.

Every wait has an end: a database that hangs must turn into an error that puts the job back or answers 503, never
into a thread that is gone for good.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from catalog.errors import DatabaseUnavailable
from catalog.settings import Settings
from catalog.silence import AnsweredConnection, Silence

CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 5
# Our slowest statement writes the tags of one batch, tens of milliseconds; a lock is held for one such statement.
STATEMENT_TIMEOUT_MS = 15_000
# PostgreSQL may be silent instead: we wait for it to end a statement, and a little longer.
ANSWER_TIMEOUT_S = 18
PING_TIMEOUT_S = 5
LOCK_TIMEOUT_MS = 5_000
# A client that stops between two statements holds row locks: PostgreSQL ends its transaction after this.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
# Half-open connections: sent bytes that nobody acknowledges end the connection after this.
TCP_USER_TIMEOUT_MS = 10_000
# The same while we wait for an answer and send nothing: Linux would ask only after two hours.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
READ_ONLY_SQL_TRANSACTION = "25006"  # PostgreSQL, appendix A
# Any constant of our own: the name of the lock that lets one process migrate at a time.
MIGRATION_LOCK = 7_246_311_905_518
MIGRATION_LOCK_PAUSE_S = 0.1


def make_engine(settings: Settings) -> Engine:
    """A pooled engine; connects on first use. Dispose of it (`engine.dispose()`) after a fork."""
    engine = create_engine(
        settings.resolved_database_url(),
        pool_size=settings.database_pool,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            **KEEPALIVES,
            "application_name": "tagsmith",
            "options": (
                f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS} "
                f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c timezone=UTC"
            ),
        },
    )
    Silence(ANSWER_TIMEOUT_S, PING_TIMEOUT_S).watch(engine)
    return engine


def without_time_limits(connection: Connection) -> None:
    """For the connection's life, which should be short: it waits for what takes minutes."""
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET {limit} = 0"))
    cast(AnsweredConnection, connection.connection.dbapi_connection).answer_within_s = None


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction: committed at the end of the block, rolled back on any error.

    Raises DatabaseUnavailable where PostgreSQL is away, too slow or gives up a deadlock: nothing was written,
    unless the connection was lost during the commit itself, in which case nobody knows. Every change of a job
    is guarded by its state, so repeating the block is safe either way.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except PoolTimeout as error:
        raise DatabaseUnavailable(_without_statement(error)) from error
    except DBAPIError as error:
        # Any other class, such as a violated constraint, is a mistake of ours, unless it cost us the connection or the
        # server is one that only reads, as after a failover.
        read_only = getattr(error.orig, "sqlstate", None) == READ_ONLY_SQL_TRANSACTION
        if isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated or read_only:
            raise DatabaseUnavailable(_without_statement(error)) from error
        raise


def ping(engine: Engine) -> None:
    """Asks PostgreSQL for an answer; raises DatabaseUnavailable when there is none."""
    with transaction(engine) as session:
        session.execute(text("SELECT 1"))


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest revision. Two processes that start together do it one after the other."""
    from alembic import command  # only the process that migrates pays for it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        # A migration may rewrite a large table, and may wait for another process that does.
        without_time_limits(connection)
        while not connection.execute(
            text("SELECT pg_try_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK}
        ).scalar_one():
            # Asking again instead of waiting inside a transaction, for whose end an index that is built without
            # blocking writes would wait in turn.
            connection.commit()
            time.sleep(MIGRATION_LOCK_PAUSE_S)
        connection.commit()
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            # Closing the connection, instead of returning it to the pool, also drops the lock and the SETs.
            connection.invalidate()


def _without_statement(error: Exception) -> str:
    """The driver's words only: SQLAlchemy's own message repeats the statement with its parameters."""
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return f"the database does not answer: {' '.join(reason.split())}"
