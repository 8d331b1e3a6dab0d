"""An installation to measure: one that runs already, or one of its own that a benchmark starts and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from samples.client import Client

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 300  # of a machine that is busy with something else; seconds on an idle one
STOPPED_WITHIN_S = 120
NOT_OUR_OWN = ("TAGSMITH_DATABASE_URL", "TAGSMITH_BROKER_URL", "TAGSMITH_PHOTO_STORE_URL")


class NotRunningError(Exception):
    """Says which installation was looked for and where to look."""


@dataclass(frozen=True)
class Installation:
    base_url: str
    var: Path

    @property
    def key(self) -> str:
        return (self.var / "api-key").read_text(encoding="utf-8").strip()

    def memory_mb(self) -> dict[str, dict[str, float]]:
        """Of each process of ours: resident memory, and the share that is its own (PSS), its parts summed."""
        supervisord = psutil.Process(int((self.var / "supervisord.pid").read_text(encoding="utf-8")))
        memory: dict[str, dict[str, float]] = {}
        for process in supervisord.children(recursive=True):
            try:
                name, full = role(process.cmdline()), process.memory_full_info()
            except psutil.NoSuchProcess:  # it ended meanwhile
                continue
            if name is not None:
                entry = memory.setdefault(name, {"rss": 0.0, "pss": 0.0})
                entry["rss"] = round(entry["rss"] + full.rss / 1e6, 1)
                entry["pss"] = round(entry["pss"] + full.pss / 1e6, 1)
        return memory


def role(command: list[str]) -> str | None:
    """Which process of the installation a command line is; None for the servers, which are not ours."""
    words = {Path(word).name for word in command}
    if "gunicorn" in words:
        return "web"
    if "celery" in words:
        return "beat" if "beat" in words else "worker"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(base_url: str, process: subprocess.Popen[bytes], logs: Path) -> None:
    """Raises NotRunningError where it takes too long, or the process has ended."""
    deadline, reason = time.monotonic() + READY_WITHIN_S, "not ready"
    with Client(base_url) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                reason = f"it ended with status {process.returncode}"
                break
            try:
                if client.request("GET", "/readyz")[0] == 200:
                    return
            except OSError as error:
                reason = str(error)
            else:
                reason = "not ready"
            time.sleep(0.2)
    raise NotRunningError(f"no installation became ready on {base_url} ({reason}): see {logs}")


@contextmanager
def running(base_url: str, var: Path) -> Iterator[Installation]:
    """The one that somebody started; fails at once when it is not ready."""
    try:
        with Client(base_url) as client:
            status = client.request("GET", "/readyz")[0]
    except OSError as error:
        raise NotRunningError(f"nothing answers on {base_url} ({error}): start it with make run") from error
    if status != 200:
        raise NotRunningError(f"{base_url} is not ready: see {var}/log")
    yield Installation(base_url, var)


@contextmanager
def own(checkpoint: Path | None = None) -> Iterator[Installation]:
    """A fresh one on a free port, with state in a temporary folder; stopped at the end, with nothing left. Serves the
    checkpoint of the settings, or this one. Raises NotRunningError where the environment names servers that are not its
    own.
    """
    for name in NOT_OUR_OWN:
        if os.environ.get(name):
            raise NotRunningError(
                f"unset {name}: a benchmark starts servers of its own, and leaves others alone"
            )
    with tempfile.TemporaryDirectory(prefix="tagsmith-bench-") as folder:
        var = Path(folder) / "var"
        port = free_port()
        env = os.environ | {"TAGSMITH_VAR": os.fspath(var), "TAGSMITH_PORT": str(port)}
        if checkpoint is not None:
            env["TAGSMITH_CHECKPOINT"] = os.fspath(checkpoint)
        process = subprocess.Popen(
            [sys.executable, os.fspath(ROOT / "launch.py"), "--without-samples"], env=env, cwd=ROOT
        )
        try:
            base_url = f"http://127.0.0.1:{port}"
            wait_until_ready(base_url, process, var / "log")
            yield Installation(base_url, var)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=STOPPED_WITHIN_S)
