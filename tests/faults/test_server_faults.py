"""What happens to accepted products when Redis, PostgreSQL or beat dies, freezes or falls silent."""

from __future__ import annotations

import json
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest
from sqlalchemy import make_url, text

from samples.client import Client, read_samples
from tests.faults.blackhole import Blackhole
from tests.faults.fault import Fault
from tests.faults.installation import Installation, end, wait_for
from tests.faults.load import Load, intake, through_web

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # a loaded machine starts processes slowly

# Longer than a worker waits for an answer of the broker (socket_timeout), so that it notices.
SILENT_S = 15.0
BEAT_DEAD_S = 60.0
# Longer than web waits for a statement; and so short that workers wait, but their leases lapse meanwhile.
SILENT_DATABASE_S = 40.0
LEASE_LAPSES_S = 8.0
# A statement's time-out, connecting anew, and room for a loaded machine.
ANSWERED_WITHIN_S = 30.0


@dataclass(frozen=True)
class Answer:
    path: str
    status: int
    problem: str | None
    seconds: float


@contextmanager
def frozen_postgres(installation: Installation) -> Iterator[None]:
    assert installation.postgres is not None
    family = psutil.Process(installation.postgres.pid).children(recursive=True)
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def ask_while_frozen(client: Client, seconds: float) -> list[Answer]:
    """What web answered to a seller and to a probe, one after the other, at least once each."""
    answers: list[Answer] = []
    over = time.monotonic() + seconds
    while not answers or time.monotonic() < over:
        for path in ("/v1/products?limit=1", "/healthz", "/v1/jobs/job_01"):
            began = time.monotonic()
            status, body = client.request("GET", path)
            document = json.loads(body)
            answers.append(Answer(path, status, document.get("type"), time.monotonic() - began))
    return answers


@contextmanager
def refused_role(installation: Installation) -> Iterator[str]:
    """A role that may do what ours may, and that PostgreSQL lets in no more."""
    role = "one_too_many"
    installation.query(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    for kind in ("TABLES", "SEQUENCES"):
        installation.query(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}")
    try:
        yield role
    finally:
        installation.query(f"DROP OWNED BY {role}")
        installation.query(f"DROP ROLE {role}")


def database_url_of(installation: Installation, role: str) -> str:
    url = make_url(installation.settings.resolved_database_url())
    return url.set(username=role).render_as_string(hide_password=False)


def kill_redis(installation: Installation) -> None:
    assert installation.redis is not None
    end(installation.redis, signal.SIGKILL)


def test_a_redis_that_comes_back_empty_costs_a_resend_and_no_product(
    installation: Installation, fault: Fault
) -> None:
    installation.start_worker(batch_seconds=0.2)
    installation.start_beat()
    with Load(intake(installation), per_s=30) as load:
        load.wait_until(60)
        installation.wait_until_running(load.told)
        strike = fault.strikes()
        kill_redis(installation)
        installation.forget_the_append_only_file()
        unsent = installation.accept(["accepted without a broker"], message=False)
        installation.start_redis()
        fault.recovers(strike)
    count = fault.ends("Redis killed, comes back empty", load.told + unsent)
    assert count.succeeded == count.accepted


@pytest.mark.long
def test_a_redis_that_is_killed_goes_on_with_its_append_only_file(
    installation: Installation, fault: Fault
) -> None:
    installation.start_worker(batch_seconds=0.2)
    installation.start_beat()
    with Load(intake(installation), per_s=30) as load:
        for _ in range(5):
            load.wait_until(len(load.told) + 60)
            installation.wait_until_running(load.told)
            strike = fault.strikes()
            kill_redis(installation)
            installation.start_redis()
            fault.recovers(strike)
    count = fault.ends("Redis killed, append-only file kept", load.told)
    assert count.succeeded == count.accepted


@pytest.mark.long
def test_a_redis_that_freezes_is_waited_for(installation: Installation, fault: Fault) -> None:
    installation.start_worker(batch_seconds=0.2)
    installation.start_beat()
    assert installation.redis is not None
    with Load(intake(installation), per_s=30) as load:
        load.wait_until(60)
        installation.wait_until_running(load.told)
        strike = fault.strikes()
        installation.redis.send_signal(signal.SIGSTOP)
        try:
            time.sleep(SILENT_S)
        finally:
            installation.redis.send_signal(signal.SIGCONT)
        fault.recovers(strike)
    count = fault.ends(f"Redis frozen for {SILENT_S:.0f} s", load.told)
    assert count.succeeded == count.accepted


@pytest.mark.long
def test_a_broker_connection_that_falls_silent_is_noticed_and_made_again(
    installation: Installation, fault: Fault
) -> None:
    """The old connections stay open and say nothing for ever; new ones work."""
    with closing(installation.broker()) as client:
        socket = client.connection_pool.connection_kwargs["path"]
    with Blackhole(socket) as proxy:
        installation.start_worker(0.2, TAGSMITH_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
        installation.start_beat()
        with Load(intake(installation), per_s=30) as load:
            load.wait_until(60)
            installation.wait_until_running(load.told)
            strike = fault.strikes()
            assert proxy.swallow() > 0, "the worker came through the proxy"
            fault.recovers(strike)
        count = fault.ends("broker connections half-open", load.told)
        # The proxy must outlive its client, or the client would see its connections end.
        installation.kill_workers()
    assert count.succeeded == count.accepted


@pytest.mark.long
def test_while_postgres_is_frozen_web_refuses_within_a_bound_and_afterwards_nothing_is_missing(
    installation: Installation, fault: Fault
) -> None:
    """Each of its processes is stopped, in turn for so long that ours give up and for so short that they only wait."""
    installation.start_worker(batch_seconds=0.2)
    installation.start_beat()
    with installation.web() as (client, _):
        load_client = Client(client.base_url, installation.new_key())
        with load_client, Load(through_web(load_client, read_samples()[0].photo), per_s=10) as load:
            for frozen_s in (SILENT_DATABASE_S, LEASE_LAPSES_S):
                load.wait_until(len(load.told) + 20)
                installation.wait_until_running(load.told)
                strike = fault.strikes()
                with frozen_postgres(installation):
                    answers = ask_while_frozen(client, frozen_s)
                fault.recovers(strike)
                assert max(answer.seconds for answer in answers) < ANSWERED_WITHIN_S, answers
                assert {answer.status for answer in answers if answer.path == "/healthz"} == {200}
                refused = [answer for answer in answers if answer.path != "/healthz"]
                assert {(answer.status, answer.problem) for answer in refused} == {
                    (503, "/problems/service-unavailable")
                }
                # Only the first wait is for a server that nobody knows to be silent.
                assert statistics.median(answer.seconds for answer in refused[1:]) < 6
        count = fault.ends("PostgreSQL frozen", load.told)
    assert count.succeeded == count.accepted


def test_a_postgres_restarted_under_load_loses_and_doubles_nothing(
    installation: Installation, fault: Fault
) -> None:
    installation.start_worker(batch_seconds=0.2)
    installation.start_beat()
    assert installation.postgres is not None
    with Load(intake(installation), per_s=30) as load:
        load.wait_until(60)
        installation.wait_until_running(load.told)
        strike = fault.strikes()
        end(installation.postgres, signal.SIGTERM)
        installation.start_postgres()
        fault.recovers(strike)
    count = fault.ends("PostgreSQL restarted", load.told)
    assert count.succeeded == count.accepted


def test_a_worker_that_postgres_refuses_leaves_the_messages_to_one_that_it_serves(
    installation: Installation, fault: Fault
) -> None:
    """Without beat: whatever the refused one took and dropped would be missing at the end."""
    before = len(installation.log())
    with refused_role(installation) as role:
        installation.start_worker(TAGSMITH_DATABASE_URL=database_url_of(installation, role))
        strike = fault.strikes()
        first = installation.accept([f"for nobody yet {number}" for number in range(8)], "interactive")
        wait_for(
            lambda: b"no message is taken until" in installation.log()[before:], "the worker to be refused"
        )
        served = installation.start_worker(batch_seconds=0.05)
        with Load(intake(installation), per_s=30) as load:
            load.wait_until(200)
        installation.wait_until_ended(first + load.told)
        end(served, signal.SIGTERM)
        installation.query(f"ALTER ROLE {role} CONNECTION LIMIT 100")
        late = installation.accept(["once the other is served"])
        fault.recovers(strike)
        count = fault.ends("PostgreSQL refuses one of two workers", first + load.told + late)
        installation.kill_workers()
    assert count.succeeded == count.accepted


def test_a_connection_cut_in_the_middle_of_a_finish_is_made_again_and_finishes_once(
    installation: Installation, fault: Fault
) -> None:
    """The finish has written statuses and tags and waits, for a lock of ours, to write the embeddings."""
    installation.start_worker()
    with installation.engine.connect() as ours:
        ours.execute(text("LOCK TABLE embeddings IN SHARE MODE"))
        jobs = installation.accept([f"product {number}" for number in range(8)])
        installation.wait_until_running(jobs, at_least=8)
        strike = fault.strikes()
        wait_for(
            lambda: bool(
                installation.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tagsmith'"
                    " AND wait_event_type = 'Lock' AND query LIKE '%embeddings%' AND pid <> pg_backend_pid()"
                )
            ),
            "the finish to wait for the lock",
        )
        ours.rollback()
    late = installation.accept(["accepted after the cut"])
    fault.recovers(strike)
    assert fault.ends("database connection cut in a finish", jobs + late).succeeded == 9
    assert {outcome.attempts for outcome in installation.outcomes(jobs)} == {1}


@pytest.mark.long
def test_without_beat_the_work_goes_on_and_what_was_not_sent_waits_for_it(
    installation: Installation, fault: Fault
) -> None:
    installation.start_worker(batch_seconds=0.1)
    beat = installation.start_beat()
    with Load(intake(installation), per_s=30) as load:
        load.wait_until(60)
        # A worker sends the oldest jobs once, when it starts.
        installation.wait_until_ended(load.told[:60])
        strike = fault.strikes()
        end(beat, signal.SIGKILL)
        unsent = installation.accept(
            [f"not sent {number}" for number in range(50)], "interactive", message=False
        )
        time.sleep(BEAT_DEAD_S)
        assert installation.count(load.told, "succeeded") > 60, "the others went on"
        # Others' messages bring them, and then as many of the others wait.
        everything = load.told + unsent
        assert installation.count(everything, "queued") >= 50, "nobody else sends for them"
        installation.start_beat()
        installation.wait_until_ended(everything)
        fault.recovers(strike)
    count = fault.ends(f"beat dead for {BEAT_DEAD_S:.0f} s (included)", load.told + unsent)
    assert count.succeeded == count.accepted
