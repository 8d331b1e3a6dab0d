"""The way to PostgreSQL: engine, transaction, migrations. Knows no table.

Every wait has an end: a database that hangs must turn into an error that puts the job back or answers 503, never
into a thread that is gone for good.
"""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from catalog.errors import DatabaseBusy, DatabaseUnavailable, NotMigrated, SchemaOutdated
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
# What is read at random is in memory or on a disk without a head. PostgreSQL's own 4 is that of one with, for which it
# would rather read and sort a lane whole than follow its index.
RANDOM_PAGE_COST = 1.1
# Half-open connections: sent bytes that nobody acknowledges end the connection after this.
TCP_USER_TIMEOUT_MS = 10_000
# The same while we wait for an answer and send nothing: Linux would ask only after two hours.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
# They go before what an operator has set for all, with ALTER DATABASE or ALTER ROLE.
SESSION = {
    "statement_timeout": STATEMENT_TIMEOUT_MS,
    "lock_timeout": LOCK_TIMEOUT_MS,
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    "random_page_cost": RANDOM_PAGE_COST,
    # Our statements are written for it: in any other one they end where another transaction changed a row meanwhile.
    "default_transaction_isolation": r"read\ committed",
    # The driver reads and writes no others.
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    # Else a confidence may come with a single digit.
    "extra_float_digits": 1,
}
# PostgreSQL, appendix A.
READ_ONLY_SQL_TRANSACTION = "25006"
UNDEFINED = {"42P01", "42703"}  # table, column
GIVEN_UP = {"55P03", "57014"}  # lock_timeout, statement_timeout
# Of CREATE EXTENSION: who asks may not, or the server has none of that name.
INSUFFICIENT_PRIVILEGE, NOT_SUPPORTED, UNDEFINED_FILE = "42501", "0A000", "58P01"
MIGRATIONS = Path(__file__).parent / "migrations"
# Any constant of our own: the name of the lock that lets one process migrate at a time.
MIGRATION_LOCK = 7_246_311_905_518
MIGRATION_LOCK_PAUSE_S = 0.1


def make_engine(settings: Settings) -> Engine:
    """A pooled engine; connects on first use. Dispose of it (`engine.dispose()`) after a fork."""
    url = make_url(settings.resolved_database_url())
    # Ours go before those of the URL, of which a `search_path` says where the tables lie.
    options = [
        *url.normalized_query.get("options", ()),
        *(f"-c {name}={value}" for name, value in SESSION.items()),
    ]
    engine = create_engine(
        url,
        pool_size=settings.database_pool,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            **KEEPALIVES,
            "application_name": "tagsmith",
            # Otherwise the driver takes the database's, and of SQL_ASCII gives bytes for text.
            "client_encoding": "utf8",
            "options": " ".join(options),
        },
    )
    Silence(ANSWER_TIMEOUT_S, PING_TIMEOUT_S).watch(engine)
    return engine


# By what there is: PostgreSQL has the last one from version 17 on. It is never ours, but may be set for all.
_WITHOUT_TIME_LIMITS = text(
    """
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN
        ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
    """
)


def without_time_limits(connection: Connection) -> None:
    """For the connection's life, which should be short: it waits for what takes minutes."""
    connection.execute(_WITHOUT_TIME_LIMITS)
    cast(AnsweredConnection, connection.connection.dbapi_connection).answer_within_s = None


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction: committed at the end of the block, rolled back on any error.

    Raises DatabaseUnavailable where PostgreSQL is away, too slow or gives up a deadlock: nothing was written,
    unless the connection was lost during the commit itself, in which case nobody knows. Every change of a job
    is guarded by its state, so repeating the block is safe either way. Raises SchemaOutdated, which is one as well,
    where a table or a column is not there yet.
    """
    with _faults_of_the_world(), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def _faults_of_the_world() -> Iterator[None]:
    """Turns them into DatabaseUnavailable."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(_without_statement(error)) from error
    except DBAPIError as error:
        # Any other class, such as a violated constraint, is a mistake of ours, unless it cost us the connection or the
        # server is one that only reads, as after a failover.
        state = getattr(error.orig, "sqlstate", None)
        if state in UNDEFINED:
            raise SchemaOutdated(_reason(error)) from error
        if state in GIVEN_UP:
            raise DatabaseBusy(_without_statement(error)) from error
        read_only = state == READ_ONLY_SQL_TRANSACTION
        if isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated or read_only:
            raise DatabaseUnavailable(_without_statement(error)) from error
        raise


def ping(engine: Engine) -> None:
    """Asks PostgreSQL for an answer; raises DatabaseUnavailable when there is none."""
    with transaction(engine) as session:
        session.execute(text("SELECT 1"))


def check(engine: Engine) -> None:
    """Asks PostgreSQL whether it is ready for this version and takes what is written to it. Raises DatabaseUnavailable,
    or its kin SchemaOutdated.

    A schema that is ahead is fine: while a new version takes over, the one before it goes on.
    """
    with transaction(engine) as session:
        revision = session.execute(text("SELECT version_num FROM alembic_version")).scalar()
        only_reads = session.execute(text("SHOW transaction_read_only")).scalar_one() == "on"
    if only_reads:
        raise DatabaseUnavailable("the database only reads, as a standby does")
    newest = newest_revision()
    if revision is None or revision < newest:
        raise SchemaOutdated(f"its schema is of revision {revision}, not {newest}")


@functools.cache
def newest_revision() -> str:
    """Of this code's migrations, by their files: Alembic, which would know, is large, and web does without it."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest revision. Two processes that start together do it one after the other.

    Raises NotMigrated where the schema is of a newer version, the database's encoding is not UTF-8, or pgvector cannot
    be had; DatabaseUnavailable.
    """
    from alembic import command  # only the process that migrates pays for it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with _faults_of_the_world(), engine.connect() as connection:
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
            _refuse_other_encodings(connection)
            _refuse_a_newer_schema(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        except DBAPIError as error:
            if (reason := _not_permitted(error)) is not None:
                raise NotMigrated(reason) from error
            raise
        finally:
            # Closing the connection, instead of returning it to the pool, also drops the lock and the SETs.
            connection.invalidate()


def _refuse_other_encodings(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    connection.commit()
    if encoding != "UTF8":
        raise NotMigrated(
            f"the database's encoding is {encoding}, which does not hold the letters of every title: create one with "
            "ENCODING 'UTF8' TEMPLATE template0, and name it in TAGSMITH_DATABASE_URL"
        )


def _refuse_a_newer_schema(connection: Connection) -> None:
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is not None:
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if revision is not None and revision > newest_revision():
            raise NotMigrated(
                f"the schema is of a newer version (revision {revision}, and this one knows {newest_revision()}): "
                "start that one, or restore a backup of before"
            )
    connection.commit()


def _not_permitted(error: DBAPIError) -> str | None:
    """What the operator has to allow or to install first; None for any other error."""
    state = getattr(error.orig, "sqlstate", None)
    extension = "CREATE EXTENSION" in (error.statement or "")
    if extension and state in (NOT_SUPPORTED, UNDEFINED_FILE):
        return f"{_reason(error)} Install pgvector where the database runs, or name another database."
    if state != INSUFFICIENT_PRIVILEGE:
        return None
    if extension:
        return (
            f"{_reason(error)} Have a superuser run CREATE EXTENSION vector in this database, then try again."
        )
    return f"{_reason(error)}: make the user of TAGSMITH_DATABASE_URL the owner of the database"


def _without_statement(error: Exception) -> str:
    return f"the database does not answer: {_reason(error)}"


def _reason(error: Exception) -> str:
    """The driver's words only, on one line: SQLAlchemy's own message repeats the statement with its parameters."""
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return " ".join(reason.partition("\nLINE ")[0].split())
