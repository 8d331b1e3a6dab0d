"""A PostgreSQL that is there and says nothing: how long whom keeps waiting."""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text

from catalog import database
from catalog.database import make_engine, ping, transaction, without_time_limits
from catalog.errors import DatabaseBusy, DatabaseUnavailable
from catalog.settings import Settings
from tests.faults.blackhole import Blackhole


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ANSWER_TIMEOUT_S", 0.5)
    monkeypatch.setattr(database, "PING_TIMEOUT_S", 0.5)
    monkeypatch.setattr(database, "CONNECT_TIMEOUT_S", 2)  # psycopg knows no shorter one


@pytest.fixture
def impatient(engine: Engine, settings: Settings) -> Iterator[Callable[..., Engine]]:
    """Makes engines with the short times: to the servers of the tests, or through a port."""
    with ExitStack() as made:

        def make(port: int | None = None) -> Engine:
            url = make_url(settings.resolved_database_url())
            if port is not None:
                url = url.set(host="127.0.0.1", port=port, query={})
            shown = SecretStr(url.render_as_string(hide_password=False))
            one = make_engine(settings.model_copy(update={"database_url": shown}))
            made.callback(one.dispose)
            return one

        yield make


def test_a_statement_that_is_not_answered_ends_and_the_next_one_has_a_new_connection(
    impatient: Callable[..., Engine],
) -> None:
    engine = impatient()
    with pytest.raises(DatabaseUnavailable, match="timeout"), transaction(engine) as session:
        session.execute(text("SELECT pg_sleep(2)"))
    ping(engine)


def test_an_error_of_the_database_is_no_silence(impatient: Callable[..., Engine]) -> None:
    engine = impatient()
    hurried = text("SET LOCAL statement_timeout = 50; SELECT pg_sleep(2)")
    with pytest.raises(DatabaseBusy, match="statement timeout"), transaction(engine) as session:
        session.execute(hurried)
    assert engine.pool.checkedin() == 1, "its connection was kept"  # type: ignore[attr-defined]


def test_without_time_limits_an_answer_is_waited_for(impatient: Callable[..., Engine]) -> None:
    with impatient().connect() as connection:
        without_time_limits(connection)
        connection.execute(text("SELECT pg_sleep(0.7)"))


def test_idle_connections_that_fell_silent_are_replaced(
    impatient: Callable[..., Engine], settings: Settings
) -> None:
    query = make_url(settings.resolved_database_url()).query
    with Blackhole(f"{query['host']}/.s.PGSQL.{query.get('port', 5432)}") as proxy:
        engine = impatient(proxy.port)
        ping(engine)
        assert proxy.swallow() == 1
        ping(engine)
        engine.dispose()


def test_while_the_database_is_silent_one_thread_asks_and_the_others_are_refused(
    impatient: Callable[..., Engine],
) -> None:
    def reason(engine: Engine) -> str:
        with pytest.raises(DatabaseUnavailable) as refusal:
            ping(engine)
        return "refused at once" if "somebody else is asking" in str(refusal.value) else "asked"

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        engine = impatient(silent.getsockname()[1])
        assert reason(engine) == "asked"
        with ThreadPoolExecutor(8) as threads:
            reasons = Counter(threads.map(reason, [engine] * 8))
        assert reasons["asked"] >= 1
        assert reasons["refused at once"] >= 4


def test_a_server_that_only_reads_is_one_that_is_away(engine: Engine, tenant: str) -> None:
    """As after a failover; a job is put back then, and a request answered 503."""
    write = text("SET TRANSACTION READ ONLY; UPDATE tenants SET name = name")
    with pytest.raises(DatabaseUnavailable, match="read-only"), transaction(engine) as session:
        session.execute(write)
