"""Groups of processes, stopped while it is not their turn: only one service at a time uses the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.installation import ROOT
from benchmarks.peers.environment import PeerUnavailableError

STOPPED_WITHIN_S = 5  # nothing of a peer needs saving
READY_WITHIN_S = 300
LOOK_S = 0.1
SHOWN = 1500  # characters of a log's end


class Group:
    """A process and all it started. Its output is in `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def pause(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Stopped before and after the block."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def check(self) -> None:
        """Raises PeerUnavailableError where it has ended."""
        if self._process.poll() is not None:
            raise PeerUnavailableError(f"it ended by itself ({self._process.returncode}): {self.log_end()}")

    def log_end(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-SHOWN:]

    def until(self, ready: Callable[[], bool]) -> None:
        """Raises PeerUnavailableError where that takes too long."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise PeerUnavailableError(f"not ready in {READY_WITHIN_S} s: {self.log_end()}")
            time.sleep(LOOK_S)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.resume()
            os.killpg(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOPPED_WITHIN_S)
        with suppress(ProcessLookupError):  # what it left behind, and itself if it did not listen
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def started(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[Group]:
    """Runs in the repository, in a group and a session of its own; gone at the end of the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **env},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    group = Group(process, log)
    try:
        yield group
    finally:
        group.end()
