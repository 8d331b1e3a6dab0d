"""What happens when the clocks of worker, beat, Redis and PostgreSQL are set. All times of a job are PostgreSQL's."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.fault import Fault
from tests.faults.installation import HERE, Installation, end
from tests.faults.load import Load, intake

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(400)]

HOUR_S = 3600


class Clock:
    """The environment of processes that live by it, and the means to set it."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler here to make the clock that can be set")
        library, self._step = folder / "step_clock.so", folder / "step"
        self.set(0)
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "step_clock.c"], check=True
        )
        self.environment = {"LD_PRELOAD": str(library), "STEP_CLOCK": str(self._step)}

    def set(self, seconds: int) -> None:
        """Be wrong by so much from now on."""
        if not self._step.exists():
            self._step.write_bytes(bytes(8))
        with self._step.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("=q", seconds))


def test_the_clock_that_can_be_set_is_believed(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    look = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    command = [sys.executable, "-c", look]
    seen = []
    for seconds in (0, HOUR_S):
        clock.set(seconds)
        said = subprocess.run(command, env=clock.environment, capture_output=True, text=True, check=True)
        seen.append([float(word) for word in said.stdout.split()])
    moved = [later - earlier for earlier, later in zip(*seen, strict=True)]
    assert moved[0] >= HOUR_S and moved[1] >= HOUR_S and moved[2] < HOUR_S


def test_clocks_that_are_set_an_hour_forward_and_two_back_stop_nothing(
    installation: Installation, fault: Fault, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    assert installation.redis is not None
    end(installation.redis, signal.SIGTERM)
    installation.start_redis(**clock.environment)
    installation.start_worker(0.2, **clock.environment)
    installation.start_beat(**clock.environment)
    unsent = []
    with Load(intake(installation), per_s=30) as load:
        for step in (0, HOUR_S, -HOUR_S, 0):
            load.wait_until(len(load.told) + 60)
            installation.wait_until_running(load.told)
            strike = fault.strikes()
            clock.set(step)
            # Nothing but beat and a worker that takes its message brings these.
            late = installation.accept([f"not sent {step} {number}" for number in range(5)], message=False)
            unsent += late
            installation.wait_until_ended(late)
            fault.recovers(strike)
    count = fault.ends("clocks set +1 h, -2 h, +1 h", load.told + unsent)
    assert count.succeeded == count.accepted


def test_a_worker_whose_clock_differs_from_that_of_beat_by_hours_sweeps_as_well(
    installation: Installation, fault: Fault, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    clock.set(14 * HOUR_S)
    installation.start_worker(0.1, **clock.environment)
    # It sends the oldest jobs once, when it starts: those are not the ones that need the sweep.
    first = installation.accept(["product"])
    installation.wait_until_ended(first)
    installation.start_beat()
    unsent = installation.accept([f"not sent {number}" for number in range(20)], message=False)
    assert fault.ends("worker's clock 14 h ahead of beat's", first + unsent).succeeded == 21


def test_the_clock_of_postgres_set_an_hour_forward_and_two_back_keeps_no_job_waiting(
    installation: Installation, fault: Fault, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    assert installation.postgres is not None
    end(installation.postgres, signal.SIGTERM)
    installation.start_postgres(**clock.environment)
    installation.start_worker(0.05)
    installation.start_beat()
    unsent = []
    with Load(intake(installation), per_s=30) as load:
        for step in (HOUR_S, 0, -HOUR_S, 0):
            load.wait_until(len(load.told) + 60)
            installation.wait_until_running(load.told)
            # Nothing but beat brings these, and after a step back they are due an hour later.
            late = installation.accept([f"not sent {step} {number}" for number in range(5)], message=False)
            unsent += late
            clock.set(step)
            strike = fault.strikes()  # after it, by the new clock
            installation.wait_until_ended(late)
            fault.recovers(strike)
    count = fault.ends("PostgreSQL's clock set +1 h, -2 h, +1 h", load.told + unsent)
    assert count.succeeded == count.accepted
