"""The worker's sign of life: a small file it keeps writing, and the check that reads it.

A file, because the check must be cheap, must not depend on the broker (a broker that is away is no reason to
restart a worker) and must fit a container's health check. The file is written only while the worker could tag:
its batcher lives and no forward hangs.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from workers.identity import is_alive, is_dead

INTERVAL_S = 2.0
FRESH_S = 15.0  # several intervals: a machine under full load writes late
# Of a container that is gone nobody knows whether it is dead; a worker that lives writes its file again.
FORGOTTEN_S = 86_400.0

log = structlog.get_logger(__name__)


def heartbeat_folder(var: Path) -> Path:
    return var / "workers"


class Heartbeat:
    """A thread that writes the file while `healthy()` says so."""

    def __init__(
        self, var: Path, worker: str, healthy: Callable[[], bool], interval_s: float = INTERVAL_S
    ) -> None:
        self._path = heartbeat_folder(var) / f"{socket.gethostname()}-{os.getpid()}.json"
        self._worker = worker
        self._healthy = healthy
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._forget_the_dead()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=5)
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            if self._healthy():
                self._beat()
            if self._over.wait(self._interval_s):
                return

    def _beat(self) -> None:
        beside = self._path.with_suffix(".new")
        try:
            beside.write_text(json.dumps({"worker": self._worker, "at": time.time()}))
            beside.replace(self._path)
        except OSError as error:
            # A full disk makes the check fail, which is what it is for; it must not end the thread.
            log.warning("heartbeat not written", path=str(self._path), reason=str(error))

    def _forget_the_dead(self) -> None:
        for path in self._path.parent.iterdir():
            with suppress(FileNotFoundError):  # another worker clears away as well
                old = time.time() - path.stat().st_mtime > FORGOTTEN_S
                if old or is_dead(str(_read(path).get("worker", ""))):
                    path.unlink()


def living_workers(var: Path, now: float) -> list[str]:
    """The workers of this machine that gave a sign of life lately and have not died since. A container that was
    started again has the name of the one before, whose workers are none of its own.
    """
    living = []
    for path in sorted(heartbeat_folder(var).glob(f"{socket.gethostname()}-*.json")):
        beat = _read(path)
        worker, at = str(beat.get("worker", "")), beat.get("at")
        if isinstance(at, float) and abs(now - at) <= FRESH_S and is_alive(worker):
            living.append(worker)
    return living


def _read(path: Path) -> dict[str, object]:
    """The content of a heartbeat file; empty when it is unreadable or went away meanwhile."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
