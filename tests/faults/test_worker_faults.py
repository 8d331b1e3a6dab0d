"""What happens to accepted products when a worker dies, hangs or is told to stop, or when a product is at fault."""

from __future__ import annotations

import hashlib
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Installation

PATIENCE_S = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # a loaded machine starts processes slowly
EXIT_DEVICE_FAILED = 70


def names(count: int, prefix: str = "product") -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


def test_a_worker_killed_in_the_middle_of_its_work_loses_and_doubles_nothing(
    installation: Installation,
) -> None:
    bulk, interactive = names(90, "bulk"), names(10, "interactive")
    worker = installation.start_worker(batch_seconds=0.2)
    bulk_jobs = installation.accept(bulk, "bulk")
    interactive_jobs = [*installation.accept(interactive, "interactive")]
    jobs = bulk_jobs + interactive_jobs
    installation.wait_until_running(jobs)
    worker.kill()
    worker.wait(PATIENCE_S)
    assert installation.count(jobs, "running") > 0, "it was killed with jobs in its hands"

    installation.start_worker()
    installation.wait_until_ended(jobs)
    installation.assert_all_tagged_once(jobs, bulk + interactive)
    assert max(outcome.attempts for outcome in installation.outcomes(jobs)) == 2


def test_a_worker_told_to_stop_finishes_what_it_holds_and_leaves_the_rest(installation: Installation) -> None:
    titles = names(150)
    worker = installation.start_worker(batch_seconds=0.3)
    jobs = installation.accept(titles)
    installation.wait_until_running(jobs)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert installation.count(jobs, "running") == 0
    assert {outcome.attempts for outcome in installation.outcomes(jobs)} <= {0, 1}

    installation.start_worker()
    installation.wait_until_ended(jobs)
    installation.assert_all_tagged_once(jobs, titles)
    assert {outcome.attempts for outcome in installation.outcomes(jobs)} == {1}


def test_a_forward_that_hangs_ends_the_process_and_the_next_one_does_its_work(
    installation: Installation,
) -> None:
    worker = installation.start_worker()
    jobs = installation.accept(["hang", "bystander"])
    assert worker.wait(PATIENCE_S) == EXIT_DEVICE_FAILED

    installation.start_worker()
    installation.wait_until_ended(jobs)
    installation.assert_all_tagged_once(jobs, ["hang", "bystander"])


def test_faults_of_products_and_messages_touch_nobody_else(installation: Installation) -> None:
    """In one worker: a poisoned product in a full batch, an unreadable photo, one message ten times."""
    titles = [*names(7), "poison", *names(8, "more")]
    jobs = installation.accept(titles, message=False)
    for _ in range(10):
        installation.resend(jobs)
    broken = b"broken photo"
    photo_job = installation.accept_with_photo("unreadable", broken, hashlib.sha256(broken).hexdigest())
    installation.start_worker(batch_seconds=0.1)
    installation.wait_until_ended([*jobs, photo_job])

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
