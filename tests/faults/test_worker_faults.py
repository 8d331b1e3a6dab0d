"""What happens to accepted products when a worker dies, hangs or is told to stop, or when a product is at fault."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import signal
import subprocess
import time
from contextlib import closing
from typing import Any

import pytest

from catalog.queue import TASK
from tests.faults.fault import Fault
from tests.faults.installation import PATIENCE_S, Installation, wait_for
from tests.faults.load import Load, intake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # a loaded machine starts processes slowly
EXIT_DEVICE_FAILED = 70
KILLS, PRODUCTS = 50, 20_000


def names(count: int, prefix: str = "product") -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


def test_a_worker_killed_in_the_middle_of_its_work_loses_and_doubles_nothing(
    installation: Installation, fault: Fault
) -> None:
    with Load(intake(installation), per_s=60) as load:
        worker = installation.start_worker(batch_seconds=0.2)
        load.wait_until(60)
        installation.wait_until_running(load.told)
        strike = fault.strikes()
        worker.kill()
        worker.wait(PATIENCE_S)
        assert installation.count(load.told, "running") > 0, "it was killed with jobs in its hands"
        installation.start_worker()
        fault.recovers(strike)
    count = fault.ends("worker killed", load.told)
    assert count.succeeded == count.accepted
    assert max(outcome.attempts for outcome in installation.outcomes(load.told)) == 2


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_worker_killed_again_and_again_with_the_times_that_are_shipped(
    installation: Installation, fault: Fault
) -> None:
    """The killed worker is started again at once, as supervisor does."""
    shipped = {"TAGSMITH_LEASE_S": "20", "TAGSMITH_RETRY_DELAY_S": "5", "TAGSMITH_RESEND_AFTER_S": "15",
               "TAGSMITH_SWEEP_INTERVAL_S": "5", "TAGSMITH_MAX_BATCH": "32"}  # fmt: skip
    dice = random.Random(50)
    installation.start_beat(**shipped)
    worker = installation.start_worker(0.2, **shipped)
    with Load(intake(installation), per_s=70) as load:
        for _ in range(KILLS):
            time.sleep(dice.uniform(0, 1))
            installation.wait_until_running(load.told)
            strike = fault.strikes()
            worker.kill()
            worker.wait(PATIENCE_S)
            assert installation.count(load.told, "running") > 0, "it was killed with jobs in its hands"
            worker = installation.start_worker(0.2, **shipped)
            fault.recovers(strike)
        load.wait_until(PRODUCTS)
    count = fault.ends(f"worker killed {KILLS} times", load.told)
    assert count.succeeded == count.accepted >= PRODUCTS


def test_a_worker_told_to_stop_finishes_what_it_holds_and_leaves_the_rest(
    installation: Installation, fault: Fault
) -> None:
    titles = names(150)
    worker = installation.start_worker(batch_seconds=0.3)
    jobs = installation.accept(titles)
    installation.wait_until_running(jobs)
    strike = fault.strikes()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert installation.count(jobs, "running") == 0
    assert {outcome.attempts for outcome in installation.outcomes(jobs)} <= {0, 1}

    installation.start_worker()
    late = installation.accept(["accepted after the stop"])
    fault.recovers(strike)
    assert fault.ends("worker told to stop (SIGTERM)", jobs + late).succeeded == 151
    assert {outcome.attempts for outcome in installation.outcomes(jobs)} == {1}


def test_a_forward_that_hangs_ends_the_process_and_the_next_one_does_its_work(
    installation: Installation, fault: Fault
) -> None:
    worker = installation.start_worker()
    jobs = installation.accept(["hang", "bystander"])
    installation.wait_until_running(jobs)
    strike = fault.strikes()
    assert worker.wait(PATIENCE_S) == EXIT_DEVICE_FAILED

    installation.start_worker()
    jobs += installation.accept(["accepted after the hang"])
    fault.recovers(strike)
    assert fault.ends("forward hangs", jobs).succeeded == 3


def lives_as_long_as_there_is_work(installation: Installation, worker: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: worker.poll() is not None or not installation.unfinished(), "worker or work to end")
    worker.terminate()
    worker.wait(PATIENCE_S)


def test_a_product_that_kills_every_worker_fails_alone(installation: Installation, fault: Fault) -> None:
    """It comes back with its message each time; all that was in the same hands must not fail with it."""
    jobs = installation.accept([*names(20), "kill", *names(20, "more")])
    while installation.unfinished():
        lives_as_long_as_there_is_work(installation, installation.start_worker(batch_seconds=0.05))
    count = fault.ends("a product kills its worker", jobs)
    assert (count.succeeded, count.failed) == (40, 1)
    assert installation.outcomes(jobs)[20].attempts == installation.settings.max_attempts


def test_faults_of_products_and_messages_touch_nobody_else(installation: Installation, fault: Fault) -> None:
    """In one worker: a poisoned product in a full batch, an unreadable photo, one message ten times."""
    titles = [*names(7), "poison", *names(8, "more")]
    jobs = installation.accept(titles, message=False)
    for _ in range(10):
        installation.resend(jobs)
    broken = b"broken photo"
    photo_job = installation.accept_with_photo("unreadable", broken, hashlib.sha256(broken).hexdigest())
    installation.start_worker(batch_seconds=0.1)
    count = fault.ends("poisoned product; a message ten times", [*jobs, photo_job])
    assert (count.succeeded, count.failed) == (15, 2)

    outcomes = dict(zip(titles, installation.outcomes(jobs), strict=True))
    poisoned = outcomes.pop("poison")
    assert (poisoned.status, poisoned.tags, poisoned.attempts) == ("failed", (), 1)
    assert poisoned.error is not None and "cannot tag poison" in poisoned.error["detail"]
    assert {title: outcome.tags for title, outcome in outcomes.items()} == {t: (t,) for t in outcomes}
    assert {outcome.attempts for outcome in outcomes.values()} == {1}, (
        "nine of the ten messages claimed nothing"
    )

    (unreadable,) = installation.outcomes([photo_job])
    assert (unreadable.status, unreadable.attempts) == ("failed", 1)
    assert unreadable.error is not None and unreadable.error["type"] == "unreadable-photo"


def of_another_shape() -> list[bytes]:
    """What another program, another version or a person may have put into a queue of this Redis."""
    good = {
        "body": "", "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK, "id": "x", "root_id": "x", "parent_id": None, "group": None},
        "properties": {
            "body_encoding": "base64", "delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "bulk"},
        },
    }  # fmt: skip
    bodies = [b"[1]", b"1", b"{}", b"not json", b"[[], {}]", b"[[1], {}, {}]", b"[[null], {}, null]", b"\xff"]
    changes: list[dict[str, Any]] = [
        *({"body": base64.b64encode(body).decode()} for body in bodies),
        {"body": "no base64"}, {"body": 7}, {"headers": None}, {"headers": []}, {"headers": {}}, {"properties": None},
        {"headers": {**good["headers"], "eta": "soon"}}, {"headers": {**good["headers"], "timelimit": "x"}},
        {"headers": {**good["headers"], "task": "unknown"}}, {"headers": {**good["headers"], "task": ["x"]}},
        {"properties": {}}, {"properties": {**good["properties"], "delivery_tag": ["t"]}},
        {"properties": {**good["properties"], "delivery_info": None}},
        {"properties": {**good["properties"], "delivery_info": {"exchange": [], "routing_key": {}}}},
        {"properties": {**good["properties"], "body_encoding": "rot13"}}, {"content-type": "application/x-python"},
    ]  # fmt: skip
    messages = []
    for number, change in enumerate(changes):
        message = {**good, **change}
        if isinstance(message["properties"], dict) and message["properties"].get("delivery_tag") == "t":
            message["properties"] = {**message["properties"], "delivery_tag": f"t{number}"}
        messages.append(json.dumps(message).encode())
    return [b"not json", b"\xff\xfe", b"[]", b"null", b"1", b'"x"', b"{}", *messages]


def test_what_is_no_message_of_ours_is_dropped_and_ends_no_worker(
    installation: Installation, fault: Fault
) -> None:
    """In the queues, and among those that a worker has not acknowledged, which each new one looks through first."""
    shapes = of_another_shape()
    with closing(installation.broker()) as broker:
        for place, left in enumerate(
            [b"no json", b"[]", b"1", b"[1, 2]", b'["x", "", "bulk"]', b"null", shapes[-1]]
        ):
            broker.hset("unacked", f"left {place}", left)
            broker.zadd("unacked_index", {f"left {place}": 1})
        worker = installation.start_worker(batch_seconds=0.1)
        jobs = installation.accept(names(8))
        installation.wait_until_ended(jobs)
        for queue in ("bulk", "interactive", "sweep"):
            broker.lpush(queue, *shapes)
        strike = fault.strikes()
        jobs += installation.accept(names(8, "after"))
        fault.recovers(strike)
        count = fault.ends("what is no message of ours", jobs)
        wait_for(lambda: not broker.hlen("unacked"), "every message to be acknowledged or dropped")
        assert not any(broker.llen(queue) for queue in ("bulk", "interactive", "sweep"))
    assert count.succeeded == count.accepted == 16
    assert worker.poll() is None


def test_a_device_without_memory_for_a_full_batch_runs_smaller_ones(
    installation: Installation, fault: Fault
) -> None:
    jobs = installation.accept([*names(12), *names(12, "heavy")])
    installation.start_worker(batch_seconds=0.05)
    assert fault.ends("out of memory in the forward", jobs).succeeded == 24
    assert {outcome.attempts for outcome in installation.outcomes(jobs)} == {1}
