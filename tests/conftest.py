"""A real PostgreSQL and a real Redis for the whole suite, started once, emptied between tests."""

import os

# Before torch is imported: tests compute on tensors so small that cores which share them only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import Engine, make_url, text

from catalog import tenants
from catalog.database import make_engine, migrate, transaction
from catalog.embedded.places import DATABASE, postgres_socket_folder, redis_socket
from catalog.photo_store import PhotoStore
from catalog.settings import PREFIX, Settings
from catalog.tables import Base
from tests.faults.report import Report

REPOSITORY = Path(__file__).parent.parent
START_S = 60
STOP_S = 30
# Durability is of no use to a database that lives for one test run; the tests of the servers do not use these.
FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "max_connections=200",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the fault tests that take minutes as well")
    parser.addoption("--faults-json", type=Path, metavar="FILE", help="write what each fault came to")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What each fault came to, where some were tested: also where several processes ran the tests."""
    # Fixtures write down what a test found, so that it is in the report of the teardown.
    ended = [
        test
        for tests in terminalreporter.stats.values()
        for test in tests
        if getattr(test, "when", "") == "teardown"
    ]
    found = Report.of(ended)
    if not found.lines:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(found.table())
    path = config.getoption("--faults-json")
    if path is not None:
        found.write(path)


class EmbeddedServers:
    """Starts and stops embedded servers by their command, as a supervisor would."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts the server without waiting for it; its log is `<var>/<name>.log`."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        with (self.var / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "catalog.embedded", name, *arguments],
                cwd=REPOSITORY,
                env={**environment, "TAGSMITH_VAR": str(self.var)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes[name] = process
        return process

    def wait_until_ready(self, name: str) -> None:
        ready = {"postgres": self.postgres_answers, "redis": self.redis_answers}[name]
        deadline = time.monotonic() + START_S
        while not ready():
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} did not start:\n{self.log(name)}")
            time.sleep(0.02)

    def log(self, name: str) -> str:
        return (self.var / f"{name}.log").read_text()

    def postgres_answers(self) -> bool:
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(postgres_socket_folder(self.var)), user=DATABASE, dbname=DATABASE, autocommit=True
        )

    def redis_answers(self) -> bool:
        try:
            with closing(self.redis()) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def redis(self) -> "redis.Redis":
        return redis.Redis(unix_socket_path=str(redis_socket(self.var)))

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def stop_all(self) -> None:
        for name in list(self.processes):
            self.stop(name)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """The suite's own PostgreSQL (migrated) and Redis."""
    running = EmbeddedServers(tmp_path_factory.mktemp("servers"))
    try:
        running.start("postgres", *(part for option in FAST for part in ("-c", option)))
        running.start("redis")
        running.wait_until_ready("postgres")
        running.wait_until_ready("redis")
        with pytest.MonkeyPatch.context() as environment:
            _forget_environment(environment)
            engine = make_engine(Settings(var=running.var))
        migrate(engine)
        engine.dispose()
        yield running
    finally:
        running.stop_all()


@pytest.fixture
def embedded_servers() -> Iterator[Callable[[Path], EmbeddedServers]]:
    """Makes servers of the test's own in a folder; those still running are stopped at its end."""
    made: list[EmbeddedServers] = []

    def make(var: Path) -> EmbeddedServers:
        made.append(EmbeddedServers(var))
        return made[-1]

    yield make
    for servers in made:
        servers.stop_all()


@pytest.fixture
def settings(servers: EmbeddedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of the suite's servers, with a photo store of the test's own; the environment is not asked."""
    _forget_environment(monkeypatch)
    return Settings(
        var=servers.var, photo_store_url=(tmp_path / "photos").as_uri(), checkpoint=tmp_path / "checkpoint"
    )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine on the suite's PostgreSQL, all tables empty."""
    made = make_engine(settings)
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with made.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables}"))
    yield made
    made.dispose()


@contextmanager
def another_database(engine: Engine, settings: Settings, made: str = "") -> Iterator[Settings]:
    """The settings of an empty database beside the suite's; `made` are options of its creation."""
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS empty"))
        connection.execute(text(f"CREATE DATABASE empty {made}"))
    url = make_url(settings.resolved_database_url()).set(database="empty")
    try:
        yield settings.model_validate(
            {**settings.model_dump(), "database_url": url.render_as_string(hide_password=False)}
        )
    finally:
        with autocommit.connect() as connection:
            connection.execute(text("DROP DATABASE empty WITH (FORCE)"))


@pytest.fixture
def redis_url(servers: EmbeddedServers, settings: Settings) -> str:
    """The broker URL of the suite's Redis, emptied."""
    with closing(servers.redis()) as client:
        client.flushall()
    return settings.resolved_broker_url()


@pytest.fixture
def photo_store(settings: Settings) -> PhotoStore:
    """The photo store of this test."""
    return PhotoStore.open(settings.resolved_photo_store_url())


@pytest.fixture
def make_tenant(engine: Engine) -> Callable[[str], str]:
    """Makes a tenant of that name and returns its id."""

    def make(name: str) -> str:
        with transaction(engine) as session:
            return tenants.create_tenant(session, name).id

    return make


@pytest.fixture
def tenant(make_tenant: Callable[[str], str]) -> str:
    """The id of a tenant."""
    return make_tenant("a tenant")


@pytest.fixture
def api_key(engine: Engine, tenant: str) -> str:
    """An API key of `tenant`."""
    with transaction(engine) as session:
        return tenants.create_api_key(session, tenant, "for a test")


def _forget_environment(environment: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            environment.delenv(name)
