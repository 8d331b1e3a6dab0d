"""Start one installation on this machine and stay until it is told to stop.

Checks what would otherwise fail later and unreadably (settings, port, a second start over the same state, a state
folder that takes nothing), gives supervisord.conf its variables, keeps supervisord in the foreground and lets
`samples.welcome` report on the terminal. Nothing outlives it: killed, it takes supervisord along, and where supervisord
dies it ends what that one has left. Knows no process of the installation: supervisord.conf names them.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Ctrl-C while the rest is imported: an end, and no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import ctypes
import fcntl
import hashlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from catalog.embedded.foreground import become, own_account
from catalog.embedded.processes import (
    environment_of,
    holders,
    is_held,
    processes,
    stop_children,
    wait_for,
)
from catalog.errors import SettingsError
from catalog.settings import Settings

HERE = Path(__file__).resolve().parent

# The kernel takes 107 bytes for a socket's path, and supervisor first binds PATH.<pid> beside it.
MAX_SOCKET_PATH_BYTES = 107 - len(".4194304")

# The worker's metrics port follows the web port, so that two installations differ in one setting only.
METRICS_PORT_OFFSET = 9464 - 8000

# Of an earlier start, held by the servers that write the state: catalog/embedded.
LOCKS = ("postgres.lock", "redis/lock")

# Held by this program for as long as it runs.
OWN_LOCK = "launch.lock"

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# What supervisord left is given as long as supervisord.conf gives the slowest of them.
ORPHANS_STOP_S = 60.0


def supervisor_socket(var: Path) -> Path:
    """Where supervisorctl finds this installation: under its state, or in the temp folder if that is deep."""
    path = var / "supervisor.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tagsmith-{os.getuid()}-{name}.sock"


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def prepare_state(var: Path) -> None:
    """Make the folders that supervisord writes to, and the lock. Raises OSError where nothing can be written there."""
    log = var / "log"
    log.mkdir(parents=True, exist_ok=True)
    (var / OWN_LOCK).open("a").close()
    # A folder that is there already may be another user's, or on a disk that is full or read-only.
    with tempfile.TemporaryFile(dir=log, buffering=0) as probe:
        probe.write(b"\0")


def port_problem(host: str, port: int) -> str | None:
    """Why the address cannot be listened on, or None when it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def of_an_earlier_start(var: Path, control: Path) -> list[int]:
    """The processes that still run over this state: all that such a start has started, and whoever holds a lock."""
    mark = b"SUPERVISOR_SOCKET=" + os.fsencode(control)
    started = {pid for pid in processes() if mark in environment_of(pid)}
    return sorted(started.union(*map(holders, held_locks(var))))


def held_locks(var: Path) -> list[Path]:
    """Those of LOCKS that somebody holds."""
    return [lock for lock in (var / name for name in LOCKS) if is_held(lock)]


def obstacle(settings: Settings, var: Path, control: Path) -> str | None:
    """Why an installation cannot start here, and what to do; None when it can, and then its folders are made."""
    if "%" in str(var):
        return (
            f"supervisord takes no % in the folder of the state, {var}: choose another one with TAGSMITH_VAR."
        )
    try:
        if is_listening(control):
            return (
                f"An installation is already running on {var}: stop it with "
                f"{Path(sys.executable).parent}/supervisorctl -s unix://{control} shutdown, "
                "or give this one a TAGSMITH_VAR of its own."
            )
        if is_held(var / OWN_LOCK):
            return being_started(var)
        if pids := of_an_earlier_start(var, control):
            return (
                f"Processes of an earlier start still run over {var}, and nothing supervises them: end them with "
                f"kill {' '.join(map(str, pids))}, or give this one a TAGSMITH_VAR of its own."
            )
        if problem := port_problem(settings.host, settings.port):
            return (
                f"Cannot listen on {settings.host}:{settings.port} ({problem}): "
                "stop what uses it, or choose another port with TAGSMITH_PORT."
            )
        prepare_state(var)
    except OSError as error:
        return (
            f"Cannot keep the state in {var} ({error.strerror or error}): make room for it there, as a folder "
            "that this user may write to, or choose another folder with TAGSMITH_VAR."
        )
    return None


def being_started(var: Path) -> str:
    pids = " ".join(map(str, sorted(holders(var / OWN_LOCK))))
    return (
        f"An installation on {var} is being started or stopped: wait for that, end it with kill {pids}, or give this "
        "one a TAGSMITH_VAR of its own."
    )


def environment(settings: Settings, var: Path, control: Path) -> dict[str, str]:
    """The variables that supervisord.conf reads, over those of the caller."""
    metrics_port = settings.metrics_port
    if "metrics_port" not in settings.model_fields_set:
        metrics_port = settings.port + METRICS_PORT_OFFSET
        if metrics_port > 65535:
            metrics_port = settings.port - METRICS_PORT_OFFSET
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.fspath(HERE),
        "PYTHONUNBUFFERED": "1",
        "TAGSMITH_VAR": os.fspath(var),
        "TAGSMITH_HOST": settings.host,
        "TAGSMITH_PORT": str(settings.port),
        "TAGSMITH_METRICS_PORT": str(metrics_port),
        "SUPERVISOR_SOCKET": os.fspath(control),
        "RUN_POSTGRES": "true" if settings.database_url is None else "false",
        "RUN_REDIS": "true" if settings.broker_url is None else "false",
    }


def serve(env: dict[str, str], with_samples: bool) -> int:
    """Run supervisord and, beside it, the welcome, until one signal or supervisord's own end. Exit status."""
    stopping = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        # A hang-up reaches supervisord as well and there means "restart"; a termination after it wins.
        with suppress(ProcessLookupError):
            os.kill(supervisord.pid, signal.SIGTERM)

    # Whoever loses its parent becomes a child of this process, instead of one that nobody here knows.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", os.fspath(HERE / "supervisord.conf")]
    follow = become(own_account(), dies_with_parent=signal.SIGTERM)
    supervisord = subprocess.Popen(command, env=env, cwd=HERE, preexec_fn=follow)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # of nohup
        signal.signal(signal.SIGHUP, stop)
    stop_with_the_terminal()

    welcome = None
    if with_samples:
        # A group of its own: Ctrl-C is ours to pass on, and it need not show where the welcome stood.
        command = [sys.executable, "-m", "samples.welcome"]
        welcome = subprocess.Popen(command, env=env, cwd=HERE, process_group=0)
    speak_to(Path(env["SUPERVISOR_SOCKET"]), supervisord)
    status = wait_for(supervisord)
    if welcome is not None:
        welcome.terminate()
        welcome.wait()
    if not stopping:
        log = Path(env["TAGSMITH_VAR"]) / "log" / "supervisord.log"
        where = f": see {log}" if log.exists() else ""
        print(f"supervisord ended by itself ({status}){where}", file=sys.stderr)
    stop_orphans(Path(env["TAGSMITH_VAR"]))  # of a supervisord that was killed, perhaps while it stopped
    return 0 if stopping else status or 1


def stop_with_the_terminal() -> None:
    """Where this runs in the foreground of one as it closes: the kernel tells its session's leader alone, and where
    that is `make` it waits for this program.
    """
    terminal = next(filter(os.isatty, range(3)), None)
    if terminal is None:
        return

    def foreground(before: bool) -> bool:
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:  # the terminal is another session's, or about to close
            return before

    in_front = foreground(before=False)

    def wait() -> None:
        nonlocal in_front
        closing = select.poll()
        closing.register(terminal, 0)  # what is told of any
        while not closing.poll(1000):
            in_front = foreground(before=in_front)
        if in_front:
            os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=wait, name="terminal", daemon=True).start()


def speak_to(control: Path, supervisord: subprocess.Popen[bytes]) -> None:
    """As soon as it listens: it starts nothing before its first second is over, or somebody speaks to it."""
    while supervisord.poll() is None and not is_listening(control):
        time.sleep(0.02)


def stop_orphans(var: Path) -> None:
    """What supervisord has left. The servers go last: a worker needs them to write down what it has done."""
    stop_children(set[int]().union(*map(holders, held_locks(var))), ORPHANS_STOP_S)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Start one installation here and stay until told to stop.",
        epilog="Example: TAGSMITH_PORT=8001 TAGSMITH_VAR=/srv/tagsmith python launch.py --without-samples",
    )
    parser.add_argument(
        "--without-samples", action="store_true", help="tag no sample products, print nothing"
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    var = settings.var.resolve()
    control = supervisor_socket(var)
    if problem := obstacle(settings, var, control):
        print(problem, file=sys.stderr)
        return 1
    with (var / OWN_LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another start that found no obstacle either
            print(being_started(var), file=sys.stderr)
            return 1
        return serve(environment(settings, var, control), not arguments.without_samples)


if __name__ == "__main__":
    sys.exit(main())
