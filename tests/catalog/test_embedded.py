"""The embedded servers as a supervisor and an operator meet them: real processes, real signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from catalog.embedded import places, postgres
from catalog.embedded.__main__ import main
from catalog.embedded.foreground import (
    EmbeddedError,
    become,
    hold_lock,
    own_account,
    private_folder,
    socket_folder,
    unprivileged_account,
)
from catalog.embedded.postgres import _is_child, _processes, program_folder

PATIENCE_S = 60


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One installation for the tests of this file, whose first start was interrupted while making the database."""
    folder = tmp_path_factory.mktemp("installation")
    (folder / "postgres.new").mkdir()
    (folder / "postgres.new" / "PG_VERSION").write_text("18\n")
    return folder


@pytest.fixture
def installation(var: Path, embedded_servers: Callable[[Path], Any]) -> Any:
    return embedded_servers(var)


@pytest.fixture(autouse=True)
def nothing_is_left_running(var: Path) -> Iterator[None]:
    yield
    until(lambda: not postgres_processes(var))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def postgres_processes(var: Path) -> list[int]:
    return _processes(f"tagsmith-{places.identity(var)}")


def started(installation: Any) -> Any:
    process = installation.start("postgres")
    installation.wait_until_ready("postgres")
    return process


def kill(installation: Any) -> None:
    process = installation.processes.pop("postgres")
    process.kill()
    process.wait()


def remember(installation: Any, word: str) -> None:
    with installation.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])


def remembered(installation: Any) -> set[object]:
    with installation.connect() as connection:
        return {word for (word,) in connection.execute("SELECT word FROM words").fetchall()}


def test_postgres_stops_cleanly_on_sigterm_with_clients_connected_and_keeps_its_data(
    installation: Any,
) -> None:
    started(installation)
    remember(installation, "before the stop")
    with installation.connect() as client:
        assert installation.stop("postgres") == 0
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert "database system is shut down" in installation.log("postgres")
    started(installation)
    assert "before the stop" in remembered(installation)


def test_a_server_that_forgets_the_stop_is_stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PostgreSQL 18 does where the stop comes while it recovers from the crash of one of its processes."""
    monkeypatch.setattr(postgres, "STOP_S", 0.1)
    # Both set: whoever is started in the background of a shell inherits both as ignored.
    program = """if True:
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        print(1, flush=True)
        time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"1\n"
        assert postgres._stop(server) == 1
        assert server.returncode == -signal.SIGQUIT


def test_postgres_has_pgvector_and_listens_on_no_port(installation: Any) -> None:
    started(installation)
    with installation.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        row = connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone()
        assert row == (2.0,)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_a_killed_supervisee_takes_postgres_along_and_the_next_start_has_its_data(
    installation: Any, var: Path
) -> None:
    started(installation)
    remember(installation, "before the kill")
    kill(installation)
    # At once, as a supervisor does: the old server may still be writing its last checkpoint.
    started(installation)
    assert "before the kill" in remembered(installation)
    servers = [pid for pid in postgres_processes(var) if not _is_child(pid)]
    assert len(servers) == 1


def test_postgres_killed_itself_ends_the_process_and_recovers_at_the_next_start(
    installation: Any, var: Path
) -> None:
    process = started(installation)
    remember(installation, "before the crash")
    for pid in postgres_processes(var):
        if not _is_child(pid):
            os.kill(pid, signal.SIGKILL)
    assert process.wait(PATIENCE_S) != 0
    started(installation)
    assert "before the crash" in remembered(installation)


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(installation: Any, var: Path) -> None:
    """As after the restart of a container, where the old number belongs to another process of the same user."""
    started(installation)
    for pid in postgres_processes(var):
        os.kill(pid, signal.SIGKILL)
    kill(installation)
    socket_lock = places.postgres_socket_folder(var) / f"{places.POSTGRES_SOCKET}.lock"
    # Of the server's own user: of another's PostgreSQL itself knows that it cannot be meant.
    account = unprivileged_account(var)
    with subprocess.Popen(
        ["sleep", "600"], preexec_fn=become(account, dies_with_parent=signal.SIGKILL)
    ) as living:
        for pid_file in (places.postgres_data(var) / "postmaster.pid", socket_lock):
            lines = pid_file.read_text().splitlines()
            pid_file.write_text("\n".join([str(living.pid), *lines[1:]]) + "\n")
        try:
            started(installation)
        finally:
            living.kill()


def test_a_start_interrupted_while_making_the_database_is_made_again(installation: Any, var: Path) -> None:
    started(installation)
    assert not (var / "postgres.new").exists()
    assert (places.postgres_data(var) / "PG_VERSION").exists()


def test_data_of_a_version_that_is_not_installed_is_named() -> None:
    with pytest.raises(EmbeddedError, match=r"PostgreSQL 12.*TAGSMITH_DATABASE_URL"):
        program_folder(12)


def test_redis_stops_cleanly_keeps_its_messages_and_survives_a_kill(
    tmp_path: Path, embedded_servers: Callable[[Path], Any]
) -> None:
    own = embedded_servers(tmp_path)
    for end in ("stop", "kill"):
        own.start("redis")
        own.wait_until_ready("redis")
        with closing(own.redis()) as client:
            client.rpush("messages", end)
        if end == "stop":
            assert own.stop("redis") == 0
        else:
            own.processes["redis"].kill()
            own.processes.pop("redis").wait()
            assert places.redis_socket(tmp_path).exists()
    own.start("redis")
    own.wait_until_ready("redis")
    with closing(own.redis()) as client:
        assert client.lrange("messages", 0, -1) in (["stop", "kill"], [b"stop", b"kill"])


def test_an_installation_in_a_deep_folder_finds_a_short_place_for_its_sockets(
    tmp_path: Path, embedded_servers: Callable[[Path], Any]
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    assert len(os.fsencode(places.redis_socket(deep))) <= places.MAX_SOCKET_PATH_BYTES
    own = embedded_servers(deep)
    own.start("redis")
    own.wait_until_ready("redis")
    assert own.stop("redis") == 0
    folder = places.runtime_folder(deep)
    assert folder.parent == Path("/tmp")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_an_installation_with_a_comma_in_its_path_finds_another_place_for_its_sockets(tmp_path: Path) -> None:
    """PostgreSQL takes a list there."""
    assert places.runtime_folder(tmp_path / "a b") == (tmp_path / "a b").resolve() / "run"
    assert places.runtime_folder(tmp_path / "a, b").parent == Path("/tmp")


def test_every_process_of_an_installation_finds_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert (
        places.redis_url(Path("var"))
        == places.redis_url(tmp_path / "var")
        == places.redis_url(Path("link/var"))
    )
    assert places.postgres_url(tmp_path / "a b%") != places.postgres_url(tmp_path / "other")


@pytest.mark.parametrize(
    ("server", "variable", "url"),
    [
        ("postgres", "TAGSMITH_DATABASE_URL", "postgresql://db/tags"),
        ("redis", "TAGSMITH_BROKER_URL", "redis://broker/0"),
    ],
)
def test_a_server_that_the_operator_brings_is_not_started(server: str, variable: str, url: str) -> None:
    result = CliRunner().invoke(main, [server], env={variable: url})
    assert (result.exit_code, f"{variable} is set" in result.stderr) == (0, True)


def test_a_second_starter_is_refused_while_the_first_lives_and_not_after_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = hold_lock(lock, wait_s=0)
    with pytest.raises(EmbeddedError, match="runs this server already"):
        hold_lock(lock, wait_s=0)
    os.close(first)
    os.close(hold_lock(lock, wait_s=0))


def test_a_folder_that_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EmbeddedError, match="somebody else"):
        private_folder(tmp_path / "run", own_account())


@pytest.fixture
def everybodys(tmp_path: Path) -> Path:
    """A folder like /tmp."""
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_sockets_are_in_no_folder_to_which_others_may_write(everybodys: Path, mode: int) -> None:
    outer = everybodys / "tagsmith"
    outer.mkdir()
    outer.chmod(mode)
    with pytest.raises(EmbeddedError, match=r"others than its owner may write to .*tagsmith; remove it"):
        socket_folder(outer / "redis", own_account())
    assert list(outer.iterdir()) == []


@pytest.mark.parametrize("link", [False, True])
def test_sockets_are_in_no_folder_that_somebody_else_made_first(
    everybodys: Path, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = everybodys / "tagsmith"
    if link:
        (everybodys / "elsewhere").mkdir()
        outer.symlink_to(everybodys / "elsewhere")
    else:
        outer.mkdir()
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(EmbeddedError, match="tagsmith belongs to somebody else"):
        socket_folder(outer / "redis", own_account())


def test_the_folder_of_an_installation_is_its_owners_affair(tmp_path: Path) -> None:
    """Its group may be allowed to write there: nobody else could have made what is inside."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o775)
    socket_folder(tmp_path / "run" / "redis", own_account())


def test_a_socket_folder_is_for_its_owner_alone(tmp_path: Path, everybodys: Path) -> None:
    for folder in (tmp_path / "run", everybodys / "tagsmith"):
        socket_folder(folder / "redis", own_account())
        assert (folder / "redis").stat().st_mode & 0o077 == 0
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / "run" / "redis" / "s"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account to change from")
def test_a_server_that_is_not_root_runs_its_programs_in_a_folder_that_only_root_may_enter(
    tmp_path: Path,
) -> None:
    """As /root is. initdb asks access(2), which looks at less than an open or an exec does."""
    folder = tmp_path / "own" / "bin"
    folder.mkdir(parents=True)
    program = folder / "postgres"
    program.touch(mode=0o755)
    program.chmod(0o755)
    folder.parent.chmod(0o700)
    asked = (
        "import os, sys; status = open('/proc/self/status').read();"
        "print(os.getuid(), os.access(sys.argv[1], os.X_OK), status.split('CapPrm:')[1].split()[0])"
    )
    account = unprivileged_account(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", asked, str(program)],
        preexec_fn=become(account, dies_with_parent=None),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    uid, may_run, capabilities = answer.stdout.split()
    assert (int(uid), may_run) == (account.uid, "True")
    assert account.uid != 0
    assert int(capabilities, 16).bit_count() == 1, "the right to read, and no other"
