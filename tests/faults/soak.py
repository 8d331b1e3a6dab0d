"""`make soak MINUTES=30`: a steady load with random faults, then a quiet stretch; watches every process all the while.

Exits 1 where a product was lost, doubled or stuck, where products still wait long after the last fault, where a process
ended by itself, where its memory grew by more than 2 %, or where it holds more files at the end than before. Waits and
growth are judged over the quiet stretch without its first third: a fault, and what fills pools and caches after it, is
no leak. Web, Redis, PostgreSQL and beat are what is
shipped, with the times that are shipped; only the worker's model is a stand-in.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import click

from benchmarks.installation import free_port
from catalog.command_line import DAY_S, Number
from samples.client import Client, read_samples
from tests.faults import invariant, lives
from tests.faults.fault import Fault
from tests.faults.installation import Installation, answers, end, wait_for
from tests.faults.lives import Verdict, Watch
from tests.faults.load import Load, through_web
from tests.faults.report import Line, Report

# Half of what two cores take, so that the queue is empty but for what faults leave in it.
PER_S = 8.0
BATCH_S = 0.1
# The part of the time in which faults strike.
RESTLESS = 0.5
REST_S = (5.0, 20.0)
FROZEN_S = 12.0  # longer than a worker waits for an answer of the broker
ENDED_WITHIN_S = 300.0
# In the median: a few batches. What faults left behind must not be carried along by the load that follows.
WAIT_S = 1.0


class Soak:
    """The processes of one installation by name, as a supervisor would hold them, and what can be done to them."""

    def __init__(self, installation: Installation, watch: Watch) -> None:
        self.port = free_port()
        self.complaints: list[str] = []
        self._installation = installation
        self._watch = watch
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, Callable[[], subprocess.Popen[bytes] | None]] = {
            "postgres": self._start_postgres,
            "redis": self._start_redis,
            "web": lambda: installation.start_web("127.0.0.1", self.port),
            "worker": lambda: installation.start_worker(BATCH_S),
            "beat": installation.start_beat,
        }
        self.faults: dict[str, Callable[[], None]] = {
            "worker killed": lambda: self._again("worker", signal.SIGKILL),
            "worker told to stop": lambda: self._again("worker", signal.SIGTERM),
            "web killed": lambda: self._again("web", signal.SIGKILL),
            "beat killed": lambda: self._again("beat", signal.SIGKILL),
            "Redis killed": lambda: self._again("redis", signal.SIGKILL),
            "Redis frozen": self._freeze_redis,
            "PostgreSQL restarted": lambda: self._again("postgres", signal.SIGTERM),
            "database connections cut": self._cut_connections,
        }

    def start(self, name: str) -> None:
        process = self._starts[name]()
        assert process is not None
        self._processes[name] = process
        self._watch.begins(name, process.pid)

    def restart_what_died(self) -> None:
        """Nothing of ours may end by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                self.complaints.append(f"{name} ended by itself, exit code {process.returncode}")
                self.start(name)

    def judge_waits(self, since_s: float) -> None:
        """Of the products that were accepted since then, until a worker took them."""
        [(wait_s,)] = self._installation.query(
            "SELECT extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY started_at - submitted_at))"
            " FROM jobs WHERE submitted_at > now() - :since_s * interval '1 second'",
            since_s=since_s,
        )
        click.echo(f"in the quiet stretch products waited for {wait_s:.2f} s in the median")
        if wait_s > WAIT_S:
            self.complaints.append(f"products waited for more than {WAIT_S:g} s although nothing was broken")

    def unjudged(self, verdicts: Sequence[Verdict]) -> set[str]:
        """The processes that nothing is known of."""
        return set(self._processes) - {verdict.name for verdict in verdicts}

    def stop_web(self) -> None:
        end(self._processes["web"], signal.SIGTERM)

    def _again(self, name: str, number: signal.Signals) -> None:
        process = self._processes[name]
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)  # with its children: gunicorn's worker, too, dies of such a fault
        end(process, number)
        self.start(name)

    def _start_postgres(self) -> subprocess.Popen[bytes] | None:
        self._installation.start_postgres()
        return self._installation.postgres

    def _start_redis(self) -> subprocess.Popen[bytes] | None:
        self._installation.start_redis()
        return self._installation.redis

    def _freeze_redis(self) -> None:
        self._processes["redis"].send_signal(signal.SIGSTOP)
        try:
            time.sleep(FROZEN_S)
        finally:
            self._processes["redis"].send_signal(signal.SIGCONT)

    def _cut_connections(self) -> None:
        self._installation.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'tagsmith' AND pid <> pg_backend_pid()"
        )


@click.command(epilog="Example: python -m tests.faults.soak --minutes 5 --seed 1")
@click.option("--minutes", default=30.0, show_default=True, type=Number(1, DAY_S / 60))
@click.option("--seed", type=int, help="Of the faults and their moments; by default another each time.")
def main(minutes: float, seed: int | None) -> None:
    """Run one installation under load and random faults; exit 1 where anything is lost, doubled, stuck or grows."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"{minutes:g} minutes, seed {seed}")
    with (
        tempfile.TemporaryDirectory(prefix="tagsmith-soak-") as folder,
        closing(Installation(Path(folder))) as installation,
        Watch() as watch,
    ):
        soak = Soak(installation, watch)
        for name in ("postgres", "redis"):
            soak.start(name)
        installation.prepare()
        for name in ("worker", "beat", "web"):
            soak.start(name)
        report = Report()
        try:
            with Client(f"http://127.0.0.1:{soak.port}", installation.new_key()) as client:
                wait_for(lambda: answers(lambda: client.request("GET", "/healthz"), OSError), "web to answer")
                dice = random.Random(seed)
                verdicts = strain(soak, watch, installation, report, client, minutes * 60, dice)
        finally:
            soak.stop_web()
    click.echo(report.table())
    click.echo(lives.table(verdicts))
    for complaint in soak.complaints:
        click.echo(complaint)
    good = [invariant.holds(line.count) for line in report.lines] + [one.holds for one in verdicts]
    sys.exit(0 if all(good) and not soak.complaints else 1)


def strain(
    soak: Soak,
    watch: Watch,
    installation: Installation,
    report: Report,
    client: Client,
    for_s: float,
    dice: random.Random,
) -> list[Verdict]:
    """Load and faults, then load alone; the count is added to the report."""
    began = time.monotonic()
    fault = Fault(installation, report)
    with Load(through_web(client, read_samples()[0].photo), PER_S) as load:
        while time.monotonic() - began < for_s * RESTLESS:
            time.sleep(dice.uniform(*REST_S))
            soak.restart_what_died()
            name = dice.choice(list(soak.faults))
            strike = fault.strikes()
            soak.faults[name]()
            try:
                said = f"recovered in {fault.recovers(strike):.1f} s"
            except AssertionError as error:
                said = str(error)
                soak.complaints.append(f"{name}: {error}")
            click.echo(f"{strike.at - began:>6.0f} s  {name:<26} {said}")
        watch.afresh()
        while time.monotonic() - began < for_s:
            time.sleep(1)
            soak.restart_what_died()
        verdicts = watch.verdicts()
        soak.judge_waits(since_s=for_s * (1 - RESTLESS) * 2 / 3)
        for name in soak.unjudged(verdicts):
            soak.complaints.append(f"{name} was not watched for long enough to be judged")
    try:
        wait_for(lambda: not installation.unfinished(), "all jobs to end", ENDED_WITHIN_S)
    except AssertionError as error:
        soak.complaints.append(f"stuck: {error}")
    found = invariant.count(installation.engine, installation.tenant_id, load.told)
    report.lines.append(Line("soak", found, fault.recovery_s))
    return verdicts


if __name__ == "__main__":
    main()
