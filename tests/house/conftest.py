"""The repository as files, and one installation that runs exactly as `make run` starts it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.installation import STOPPED_WITHIN_S, free_port, wait_until_ready

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@dataclass(frozen=True)
class Launched:
    """An installation under launch.py, and what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    var: Path
    output: Path
    env: dict[str, str]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def started_processes(self) -> list[psutil.Process]:
        """The launcher and everything that descends from it."""
        launcher = psutil.Process(self.process.pid)
        return [launcher, *launcher.children(recursive=True)]


def launch_environment(port: int, var: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TAGSMITH_")}
    return env | {"TAGSMITH_PORT": str(port), "TAGSMITH_VAR": os.fspath(var)}


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Ready, with the samples on their way."""
    folder = tmp_path_factory.mktemp("installation")
    port, var, output = free_port(), folder / "var", folder / "output"
    env = launch_environment(port, var)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "launch.py"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    launched = Launched(process, port, var, output, env)
    try:
        wait_until_ready(launched.base_url, process, var / "log")
        yield launched
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOPPED_WITHIN_S)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def unused_port() -> int:
    return free_port()
