"""Web, Redis, PostgreSQL and two workers, each on a machine of its own, and the link of one worker cut and healed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from catalog.embedded.places import DATABASE, postgres_data, postgres_socket_folder, redis_data
from catalog.embedded.redis import server_program
from catalog.errors import DatabaseUnavailable
from samples.client import read_samples
from tests.faults.fault import Fault
from tests.faults.installation import Installation, answers, end, wait_for
from tests.faults.load import Load, through_web
from tests.faults.namespaces import CannotIsolate, Network
from tests.faults.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

MACHINES = ("client", "web", "redis", "postgres", "worker-1", "worker-2")
POSTGRES_PORT, REDIS_PORT = 5432, 6379
# Longer than a lease and than every time-out of a connection, so that both sides give the other up.
CUT_S = 40.0
BATCH_S = 1.0  # so long that a worker always holds something


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        with Network(MACHINES) as made:
            yield made
    except CannotIsolate as reason:
        pytest.skip(str(reason))


class Distributed(Installation):
    """The same processes, each on the machine of its name, with the times that are shipped.

    Its servers listen on the addresses of their machines, which are known on this network only.
    """

    def __init__(self, var: Path, network: Network) -> None:
        self._network = network
        self._hosts = network.address
        super().__init__(
            var,
            database_url=f"postgresql://{DATABASE}@{self._hosts['postgres']}:{POSTGRES_PORT}/{DATABASE}",
            broker_url=f"redis://{self._hosts['redis']}:{REDIS_PORT}/0",
        )

    @property
    def local_database(self) -> dict[str, Any]:
        """The way past the network."""
        socket = str(postgres_socket_folder(self.settings.var))
        return {"host": socket, "user": DATABASE, "dbname": DATABASE, "autocommit": True}

    def start_postgres(self) -> None:
        listen = f"listen_addresses={self._hosts['postgres']}"
        with self._network.inside("postgres"):
            # Without a URL it is the embedded one.
            self.postgres = self.start("catalog.embedded", "postgres", "-c", listen, TAGSMITH_DATABASE_URL="")

        def let_in() -> None:
            with psycopg.connect(**self.local_database) as connection:
                with (postgres_data(self.settings.var) / "pg_hba.conf").open("a") as rules:
                    rules.write("host all all 10.77.0.0/24 trust\n")
                connection.execute("SELECT pg_reload_conf()")

        wait_for(lambda: answers(let_in, psycopg.OperationalError), "PostgreSQL to start")
        self.wait_for_postgres()

    def start_redis(self, **environment: str) -> None:
        data = redis_data(self.settings.var)
        data.mkdir(parents=True)
        with self._network.inside("redis"):
            self.redis = self.launch(
                [os.fspath(server_program()), "--bind", self._hosts["redis"], "--port", str(REDIS_PORT),
                 "--protected-mode", "no", "--dir", os.fspath(data), "--appendonly", "yes", "--save", ""],
                **environment,
            )  # fmt: skip
        self.wait_for_redis()

    def start_web(self, host: str, port: int, **environment: str) -> subprocess.Popen[bytes]:
        with self._network.inside("web"):
            return super().start_web(host, port, **environment)

    def start_worker_on(self, machine: str) -> subprocess.Popen[bytes]:
        with self._network.inside(machine):
            return self.start_worker(BATCH_S)

    def broker(self) -> redis.Redis:
        return redis.Redis(host=self._hosts["redis"], port=REDIS_PORT, socket_timeout=5)

    def held_by(self, worker: subprocess.Popen[bytes]) -> int:
        """How many jobs a worker holds, by the rows."""
        ((held,),) = self.query(
            "SELECT count(*) FROM jobs WHERE status = 'running' AND split_part(worker, ':', -2) = :pid",
            pid=str(worker.pid),
        )
        return int(held)


def test_an_answer_of_the_database_that_never_comes_is_given_up(network: Network, tmp_path: Path) -> None:
    """All that was sent has arrived, so nothing is sent again, and nothing but a question would show the cut."""
    with network.inside("client"), closing(Distributed(tmp_path, network)) as installation:
        installation.start_postgres()
        failures: list[Exception] = []

        def ask() -> None:
            try:
                installation.query("SELECT pg_sleep(3)")
            except DatabaseUnavailable as error:
                failures.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        with psycopg.connect(**installation.local_database) as local:
            wait_for(
                lambda: local.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'"
                    " AND pid <> pg_backend_pid()"
                ).fetchone() == (1,),
                "the question to arrive",
            )  # fmt: skip
        time.sleep(0.5)  # its acknowledgement comes back as well
        network.cut("client")
        asking.join(CUT_S)
        assert failures, "it still waits"


def test_a_worker_that_is_cut_off_loses_its_jobs_to_the_other_and_comes_back(
    network: Network, report: Report, tmp_path: Path
) -> None:
    photo = read_samples()[0].photo
    with network.inside("client"), closing(Distributed(tmp_path, network)) as installation:
        installation.start_postgres()
        installation.start_redis()
        installation.prepare()
        with network.inside("web"):
            installation.start_beat()
        one = installation.start_worker_on("worker-1")
        two = installation.start_worker_on("worker-2")
        fault = Fault(installation, report)
        with (
            installation.web(network.address["web"]) as (client, _),
            Load(through_web(client, photo), per_s=20) as load,
        ):
            wait_for(lambda: installation.held_by(one) > 0 and installation.held_by(two) > 0, "both to work")
            wait_for(lambda: installation.held_by(one) > 0, "the first to work")
            strike = fault.strikes()
            network.cut("worker-1")
            assert installation.held_by(one) > 0, "it was cut off with jobs in its hands"
            fault.recovers(strike)
            wait_for(lambda: time.monotonic() - strike.at > CUT_S, "the cut to last")
            assert installation.held_by(one) == 0

            network.heal("worker-1")
            strike = fault.strikes()
            assert end(two, signal.SIGTERM) == 0
            fault.recovers(strike)
            assert one.poll() is None, "the same process works again"
        count = fault.ends(f"link of one of two workers cut for {CUT_S:.0f} s", load.told)
        assert count.succeeded == count.accepted
