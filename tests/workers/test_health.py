"""The worker's sign of life and the check that reads it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from workers.__main__ import main
from workers.health import FORGOTTEN_S, FRESH_S, Heartbeat, heartbeat_folder, living_workers
from workers.identity import is_dead, worker_identity

PATIENCE_S = 10.0
INTERVAL_S = 0.01  # the test waits for two of them


def write_beat(var: Path, *, at: float, worker: str | None = None) -> Path:
    folder = heartbeat_folder(var)
    folder.mkdir(exist_ok=True)
    path = folder / f"{socket.gethostname()}-1.json"
    path.write_text(json.dumps({"worker": worker or worker_identity(), "at": at}))
    return path


def dead_identity() -> str:
    """This process, as it would be named had it started at another time."""
    host, pid, started = worker_identity().rsplit(":", 2)
    return f"{host}:{pid}:{int(started) - 1}"


def test_a_process_knows_itself_to_be_alive() -> None:
    assert not is_dead(worker_identity())


def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    assert is_dead(dead_identity())


def test_nothing_is_known_of_the_processes_of_another_machine() -> None:
    assert not is_dead("elsewhere.example:1:1")


def test_nothing_is_known_of_the_processes_of_a_container_with_the_same_host_name() -> None:
    host, boot, namespace, pid, started = worker_identity().rsplit(":", 4)
    assert is_dead(f"{host}:{boot}:{namespace}:{pid}:{int(started) - 1}")
    assert not is_dead(f"{host}:{boot}:{int(namespace) + 1}:{pid}:{int(started) - 1}")
    assert not is_dead(f"{host}:another-boot:{namespace}:{pid}:{int(started) - 1}")


@pytest.mark.parametrize("identity", ["", "nonsense", f"{socket.gethostname()}:x:1"])
def test_an_identity_that_says_nothing_is_not_declared_dead(identity: str) -> None:
    assert not is_dead(identity)


def test_a_fresh_beat_is_a_living_worker(tmp_path: Path) -> None:
    write_beat(tmp_path, at=100.0)
    assert living_workers(tmp_path, now=100.0 + FRESH_S) == [worker_identity()]


def test_an_old_beat_is_no_living_worker(tmp_path: Path) -> None:
    write_beat(tmp_path, at=100.0)
    assert living_workers(tmp_path, now=101.0 + FRESH_S) == []


def test_a_beat_of_the_future_is_one_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    write_beat(tmp_path, at=101.0 + FRESH_S)
    assert living_workers(tmp_path, now=100.0) == []


def test_a_worker_of_another_machine_says_nothing_of_this_one(tmp_path: Path) -> None:
    beat = write_beat(tmp_path, at=100.0, worker="elsewhere:boot:1:1:1")
    beat.rename(beat.with_name("elsewhere-1.json"))
    assert living_workers(tmp_path, now=100.0) == []


def test_a_worker_of_the_container_before_says_nothing_of_this_one(tmp_path: Path) -> None:
    host, boot, namespace, process = worker_identity().split(":", 3)
    write_beat(tmp_path, at=100.0, worker=f"{host}:{boot}:{int(namespace) + 1}:{process}")
    assert living_workers(tmp_path, now=100.0) == []


def test_a_killed_worker_is_not_alive_however_fresh_its_beat(tmp_path: Path) -> None:
    write_beat(tmp_path, at=100.0, worker=dead_identity())
    assert living_workers(tmp_path, now=100.0) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"worker": "w"}', '{"worker": "w", "at": "100.0"}'])
def test_an_unreadable_beat_is_no_living_worker(tmp_path: Path, content: str) -> None:
    write_beat(tmp_path, at=100.0).write_text(content)
    assert living_workers(tmp_path, now=100.0) == []


def test_a_beat_that_another_worker_clears_away_meanwhile_is_passed_over(tmp_path: Path) -> None:
    gone = write_beat(tmp_path, at=100.0)
    gone.unlink()
    gone.symlink_to("gone")  # in the listing, and not there
    assert living_workers(tmp_path, now=100.0) == []
    heartbeat = Heartbeat(tmp_path, worker_identity(), lambda: False)
    heartbeat.start()
    heartbeat.stop()


class Health:
    """Always the same answer; knows when it was asked a second time, so that the first answer has had its effect."""

    def __init__(self, answer: bool) -> None:
        self._answer = answer
        self._times = 0
        self.asked_twice = threading.Event()

    def __call__(self) -> bool:
        self._times += 1
        if self._times == 2:
            self.asked_twice.set()
        return self._answer


def test_a_worker_beats_while_it_is_healthy_and_clears_up_behind_itself(tmp_path: Path) -> None:
    health = Health(True)
    heartbeat = Heartbeat(tmp_path, worker_identity(), health, INTERVAL_S)
    heartbeat.start()
    assert health.asked_twice.wait(PATIENCE_S)
    assert living_workers(tmp_path, time.time()) == [worker_identity()]
    heartbeat.stop()
    assert list(heartbeat_folder(tmp_path).iterdir()) == []


def test_a_beat_that_cannot_be_written_is_not_the_last(tmp_path: Path) -> None:
    folder, asked, beaten = heartbeat_folder(tmp_path), [], threading.Event()

    def healthy() -> bool:
        asked.append(True)
        if len(asked) == 1:
            folder.rmdir()  # as a full disk
        elif len(asked) == 2:
            folder.mkdir()
        else:
            beaten.set()
        return True

    heartbeat = Heartbeat(tmp_path, worker_identity(), healthy, INTERVAL_S)
    heartbeat.start()
    assert beaten.wait(PATIENCE_S)
    assert living_workers(tmp_path, time.time()) == [worker_identity()]
    heartbeat.stop()


def test_an_unhealthy_worker_does_not_beat(tmp_path: Path) -> None:
    health = Health(False)
    heartbeat = Heartbeat(tmp_path, worker_identity(), health, INTERVAL_S)
    heartbeat.start()
    assert health.asked_twice.wait(PATIENCE_S)
    assert list(heartbeat_folder(tmp_path).iterdir()) == []
    heartbeat.stop()


def test_a_starting_worker_clears_away_what_the_dead_left(tmp_path: Path) -> None:
    left = write_beat(tmp_path, at=100.0, worker=dead_identity())
    heartbeat = Heartbeat(tmp_path, worker_identity(), lambda: False)
    heartbeat.start()
    heartbeat.stop()
    assert not left.exists()


def test_a_starting_worker_clears_away_what_containers_left_that_are_long_gone(tmp_path: Path) -> None:
    gone = write_beat(tmp_path, at=100.0, worker="elsewhere:boot:1:1:1")
    half_written = gone.with_name("elsewhere-1.new")
    recent = gone.with_name("elsewhere-2.json")
    for path in (half_written, recent):
        path.write_text(gone.read_text())
    for path in (gone, half_written):
        os.utime(path, (0, time.time() - FORGOTTEN_S - 60))
    heartbeat = Heartbeat(tmp_path, worker_identity(), lambda: False)
    heartbeat.start()
    heartbeat.stop()
    assert list(heartbeat_folder(tmp_path).iterdir()) == [recent]


def test_health_exits_0_with_a_living_worker(tmp_path: Path) -> None:
    write_beat(tmp_path, at=time.time())
    result = CliRunner().invoke(main, ["health", "--var", str(tmp_path)])
    assert result.exit_code == 0
    assert f"{os.getpid()}" in result.output


def test_health_exits_1_without_one_and_says_how_to_start_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["health", "--var", str(tmp_path)])
    assert result.exit_code == 1
    assert "celery -A workers.app worker" in result.stderr


def test_health_refuses_an_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_VAAR", "x")
    result = CliRunner().invoke(main, ["health"])
    assert result.exit_code == 1
    assert "TAGSMITH_VAAR" in result.stderr


def test_help_ends_with_an_example() -> None:
    result = CliRunner().invoke(main, ["health", "--help"])
    assert result.exit_code == 0
    assert "Example: python -m workers health" in result.output.replace("\n", " ")
