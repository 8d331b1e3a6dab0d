import errno
import fcntl
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

import launch
from benchmarks.installation import role
from benchmarks.latency import milliseconds
from catalog.settings import Settings
from web.__main__ import command as gunicorn_command


def run_launch(root: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TAGSMITH_")}
    return subprocess.run(
        [sys.executable, "launch.py"],
        cwd=root,
        env=clean | env,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


# What is started here starts in a second or two; this is for a machine that does much else.
EVENTUALLY_S = 60


def test_a_port_in_use_is_said_before_anything_starts(root: Path, tmp_path: Path, taken_port: int) -> None:
    ended = run_launch(root, {"TAGSMITH_PORT": str(taken_port), "TAGSMITH_VAR": str(tmp_path / "var")})
    assert ended.returncode == 1
    assert f"127.0.0.1:{taken_port}" in ended.stderr
    assert "TAGSMITH_PORT" in ended.stderr
    assert not (tmp_path / "var").exists()


def test_a_misspelt_setting_is_said_before_anything_starts(root: Path, tmp_path: Path) -> None:
    ended = run_launch(root, {"TAGSMITH_PROT": "9000", "TAGSMITH_VAR": str(tmp_path / "var")})
    assert ended.returncode == 1
    assert "TAGSMITH_PROT" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_state_path_through_a_file_is_said_in_one_line(
    root: Path, tmp_path: Path, unused_port: int
) -> None:
    (tmp_path / "file").touch()
    env = {"TAGSMITH_PORT": str(unused_port), "TAGSMITH_VAR": str(tmp_path / "file" / "var")}
    ended = run_launch(root, env)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "Not a directory" in line
    assert "TAGSMITH_VAR" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["not to write", "not to enter"])
def test_the_state_of_somebody_else_is_refused(tmp_path: Path, unused_port: int, mode: int) -> None:
    var = tmp_path / "var"
    (var / "log").mkdir(parents=True)
    (var / "log").chmod(0o500)
    var.chmod(mode)
    said = launch.obstacle(Settings(port=unused_port), var, launch.supervisor_socket(var))
    var.chmod(0o700)
    assert said is not None
    assert "Permission denied" in said
    assert "TAGSMITH_VAR" in said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_disk_that_takes_nothing_is_said_in_one_line(
    tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(launch.tempfile, "TemporaryFile", refuse)
    said = launch.obstacle(Settings(port=unused_port), tmp_path, tmp_path / "supervisor.sock")
    assert said is not None
    assert os.strerror(number) in said
    assert "TAGSMITH_VAR" in said


def test_a_control_socket_that_may_not_be_asked_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(launch, "is_listening", refuse)
    said = launch.obstacle(Settings(), tmp_path, tmp_path / "supervisor.sock")
    assert said is not None
    assert "Permission denied" in said


def test_a_running_installation_is_refused_with_the_command_that_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "is_listening", lambda path: True)
    said = launch.obstacle(Settings(), tmp_path, tmp_path / "supervisor.sock")
    assert said is not None
    assert f"supervisorctl -s unix://{tmp_path}/supervisor.sock shutdown" in said


@pytest.mark.parametrize("lock", launch.LOCKS)
def test_a_server_that_an_earlier_start_left_is_named(tmp_path: Path, unused_port: int, lock: str) -> None:
    path = tmp_path / lock
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = launch.obstacle(Settings(port=unused_port), tmp_path, tmp_path / "supervisor.sock")
    assert said is not None
    assert f"kill {os.getpid()}," in said
    assert launch.obstacle(Settings(port=unused_port), tmp_path, tmp_path / "supervisor.sock") is None


def test_a_process_that_an_earlier_start_left_is_named_before_its_port(
    tmp_path: Path, taken_port: int
) -> None:
    control = tmp_path / "supervisor.sock"
    left = subprocess.Popen(["sleep", "1000"], env=launch.environment(Settings(), tmp_path, control))
    try:
        said = launch.obstacle(Settings(port=taken_port), tmp_path, control)
    finally:
        left.kill()
        left.wait()
    assert said is not None
    assert f"kill {left.pid}," in said


def test_a_state_folder_that_supervisord_cannot_read_is_said_in_one_line(
    root: Path, tmp_path: Path, unused_port: int
) -> None:
    ended = run_launch(
        root, {"TAGSMITH_PORT": str(unused_port), "TAGSMITH_VAR": str(tmp_path / "100%" / "var")}
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "TAGSMITH_VAR" in line


def test_ctrl_c_while_it_is_still_being_imported_prints_no_traceback(root: Path, tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(1000)\n")
    starting = subprocess.Popen(
        [sys.executable, "launch.py"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert starting.stdout is not None
    assert starting.stdout.readline() == "importing\n"
    starting.send_signal(signal.SIGINT)
    assert starting.communicate(timeout=EVENTUALLY_S)[1] == ""
    assert starting.returncode == -signal.SIGINT


@dataclass(frozen=True)
class Started:
    """`launch.serve` over a supervisord with one program, which has a child."""

    launcher: subprocess.Popen[bytes]
    supervisord: psutil.Process
    rest: list[psutil.Process]


@pytest.fixture
def started(root: Path, tmp_path: Path) -> Iterator[Started]:
    (tmp_path / "supervisord.conf").write_text(
        "[supervisord]\nnodaemon = true\nsilent = true\n"
        "pidfile = %(here)s/supervisord.pid\nlogfile = %(here)s/supervisord.log\n"
        "[unix_http_server]\nfile = %(ENV_SUPERVISOR_SOCKET)s\n"
        "[program:two]\ncommand = sh -c 'sleep 1000 & sleep 1000'\nstopasgroup = true\n"
    )
    serve = (
        "import launch, os, pathlib, sys; launch.HERE = pathlib.Path(sys.argv[1]);"
        "env = {'TAGSMITH_VAR': sys.argv[1], 'SUPERVISOR_SOCKET': sys.argv[1] + '/supervisor.sock'};"
        "sys.exit(launch.serve(os.environ | env, False))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", serve, str(tmp_path)], cwd=root)
    try:
        whole = psutil.Process(launcher.pid)
        deadline = time.monotonic() + EVENTUALLY_S
        while len(found := whole.children(recursive=True)) < 4 or found[-1].name() != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Started(launcher, found[0], found[1:])
    finally:
        launcher.kill()
        launcher.wait()


def test_what_a_killed_supervisord_leaves_is_stopped(started: Started) -> None:
    started.supervisord.kill()
    assert started.launcher.wait(EVENTUALLY_S) != 0
    assert psutil.wait_procs(started.rest, timeout=EVENTUALLY_S)[1] == []


def test_of_what_is_left_the_servers_are_stopped_last(root: Path, tmp_path: Path) -> None:
    program = (
        "import fcntl, os, signal, sys, time; name, lock = sys.argv[1:];"
        "held = open(lock, 'w'); fcntl.flock(held, fcntl.LOCK_EX);"
        # In one write: a line that is printed may come in two, and the other's between them.
        "tell = lambda word: os.write(1, f'{word}\\n'.encode());"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(.3), tell(name), sys.exit()));"
        "tell('ready'); signal.pause()"
    )
    stop = (
        "import launch, pathlib, subprocess, sys; var = pathlib.Path(sys.argv[1]);"
        "run = lambda name, lock: subprocess.Popen([sys.executable, '-c', sys.argv[2], name, str(var / lock)]);"
        "left = [run('server', 'postgres.lock'), run('worker', 'other.lock')];"
        "sys.stdin.readline(); launch.stop_orphans(var)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", stop, str(tmp_path), program],
        cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as stopping:  # fmt: skip
        assert stopping.stdout is not None
        assert [stopping.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        assert stopping.communicate("go\n", timeout=EVENTUALLY_S)[0] == "worker\nserver\n"
    assert stopping.returncode == 0


def test_a_killed_launcher_takes_all_along(started: Started) -> None:
    started.launcher.kill()
    assert psutil.wait_procs([started.supervisord, *started.rest], timeout=EVENTUALLY_S)[1] == []


@dataclass(frozen=True)
class OnTerminal:
    """A program whose parent leads the session of a terminal, and does nothing but wait for it, as make does."""

    leader: subprocess.Popen[bytes]
    said: IO[str]
    terminal: int

    @classmethod
    def run(cls, root: Path, program: str) -> "OnTerminal":
        """`program` may print to `said`, which is no terminal."""
        ours, theirs = pty.openpty()
        told, tell = os.pipe()
        leads = (
            "import fcntl, signal, subprocess, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            "signal.signal(signal.SIGHUP, lambda *_: None);"
            "sys.exit(abs(subprocess.call([sys.executable, '-c', sys.argv[1]], stdout=int(sys.argv[2]))))"
        )
        leader = subprocess.Popen(
            [sys.executable, "-c", leads, program, str(tell)],
            cwd=root, stdin=theirs, start_new_session=True, pass_fds=[tell],
        )  # fmt: skip
        os.close(theirs)
        os.close(tell)
        return cls(leader, os.fdopen(told), ours)

    def close_once_it_waits(self) -> tuple[str, int]:
        """What it says after that, and how it ends."""
        with self.said:
            assert self.said.readline() == "waits\n"
            os.close(self.terminal)
            return self.said.read(), self.leader.wait(EVENTUALLY_S)


def test_it_ends_with_its_terminal_where_make_waits_for_it(root: Path) -> None:
    """The kernel sends the hang-up to the session's leader alone."""
    waits = (
        "import launch, signal; launch.stop_with_the_terminal(); print('waits', flush=True); signal.pause()"
    )
    assert OnTerminal.run(root, waits).close_once_it_waits() == ("", signal.SIGHUP)


@pytest.mark.parametrize(
    "before",
    [
        "os.setpgid(0, 0)",  # in the background
        "os.setsid()",  # with a session of its own, of which the terminal is none
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",  # as nohup has it
    ],
)
def test_it_outlives_a_terminal_that_it_does_not_belong_to(root: Path, before: str) -> None:
    lives = (
        f"import launch, os, signal, threading; {before}; launch.stop_with_the_terminal();"
        "[watch] = [one for one in threading.enumerate() if one.name == 'terminal'];"
        "print('waits', flush=True); watch.join(); print('lives')"
    )
    assert OnTerminal.run(root, lives).close_once_it_waits() == ("lives\n", 0)


def test_a_start_beside_another_is_told_to_wait(tmp_path: Path, unused_port: int) -> None:
    """And not to kill what that one has started."""
    with (tmp_path / launch.OWN_LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = launch.obstacle(Settings(port=unused_port), tmp_path, tmp_path / "supervisor.sock")
    assert said is not None
    assert f"is being started or stopped: wait for that, end it with kill {os.getpid()}," in said


def test_supervisord_is_spoken_to_once_it_listens(tmp_path: Path) -> None:
    control = tmp_path / "supervisor.sock"
    listen = (
        "import socket, sys; server = socket.create_server(sys.argv[1], family=socket.AF_UNIX);"
        f"server.settimeout({EVENTUALLY_S}); server.accept()"
    )
    with subprocess.Popen([sys.executable, "-c", listen, str(control)]) as listening:
        launch.speak_to(control, listening)
        assert launch.wait_for(listening) == 0  # it was: it ends when somebody has connected


def test_nobody_waits_to_speak_to_a_supervisord_that_has_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as ended:
        launch.speak_to(tmp_path / "supervisor.sock", ended)
        assert launch.wait_for(ended) == 3


def test_where_nothing_is_in_the_way_the_folders_are_made(tmp_path: Path, unused_port: int) -> None:
    assert launch.obstacle(Settings(port=unused_port), tmp_path / "var", tmp_path / "supervisor.sock") is None
    assert list((tmp_path / "var" / "log").iterdir()) == []


def test_the_control_socket_lies_under_the_state(tmp_path: Path) -> None:
    assert launch.supervisor_socket(Path("/srv/tagsmith")) == Path("/srv/tagsmith/supervisor.sock")


def test_the_control_socket_moves_where_its_path_would_be_too_long(tmp_path: Path) -> None:
    deep, other = tmp_path / ("d" * 120), tmp_path / ("e" * 120)
    moved = launch.supervisor_socket(deep)
    assert len(os.fsencode(moved)) < 90
    assert moved == launch.supervisor_socket(deep)
    assert moved != launch.supervisor_socket(other)


def environment(tmp_path: Path, **given: object) -> dict[str, str]:
    return launch.environment(Settings(**given), tmp_path, tmp_path / "supervisor.sock")  # type: ignore[arg-type]


def test_the_embedded_servers_are_left_out_where_others_are_named(tmp_path: Path) -> None:
    own = environment(tmp_path)
    assert (own["RUN_POSTGRES"], own["RUN_REDIS"]) == ("true", "true")
    given = environment(tmp_path, database_url="postgresql://db/x", broker_url="redis://queue/0")
    assert (given["RUN_POSTGRES"], given["RUN_REDIS"]) == ("false", "false")


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({}, "9464"),
        ({"port": 8100}, "9564"),
        ({"port": 65000}, "63536"),
        ({"port": 8100, "metrics_port": 9000}, "9000"),
    ],
)
def test_the_metrics_port_follows_the_port_unless_it_is_given(
    tmp_path: Path, given: dict[str, int], port: str
) -> None:
    assert environment(tmp_path, **given)["TAGSMITH_METRICS_PORT"] == port


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (gunicorn_command(Settings()), "web"),
        (["python", "-m", "celery", "-A", "workers.app", "worker", "--pool", "threads"], "worker"),
        (["python", "-m", "celery", "-A", "workers.app", "beat"], "beat"),
        (["python", "-m", "catalog.embedded", "redis"], None),
    ],
)
def test_the_benchmark_tells_our_processes_apart(command: list[str], name: str | None) -> None:
    assert role(command) == name


def test_percentiles_are_in_milliseconds() -> None:
    assert milliseconds([0.001 * step for step in range(1, 102)]) == {"p50": 51.0, "p90": 91.0, "p99": 100.0}
