"""What happens to accepted products when Redis comes back empty, and when PostgreSQL is restarted under load."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Installation

PATIENCE_S = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # a loaded machine starts processes slowly


def test_a_redis_that_comes_back_empty_costs_a_resend_and_no_product(installation: Installation) -> None:
    titles = [f"product {number}" for number in range(80)]
    installation.start_worker(batch_seconds=0.2)
    jobs = installation.accept(titles)
    installation.wait_until_running(jobs)

    assert installation.redis is not None
    installation.redis.kill()
    installation.redis.wait(PATIENCE_S)
    installation.forget_the_append_only_file()
    unsent = installation.accept(["accepted without a broker"], message=False)
    installation.start_redis()
    installation.start_beat()

    installation.wait_until_ended(jobs + unsent)
    installation.assert_all_tagged_once(jobs + unsent, [*titles, "accepted without a broker"])


def test_a_postgres_restarted_under_load_loses_and_doubles_nothing(installation: Installation) -> None:
    titles = [f"product {number}" for number in range(80)]
    installation.start_worker(batch_seconds=0.2)
    jobs = installation.accept(titles)
    installation.wait_until_running(jobs)

    assert installation.postgres is not None
    installation.postgres.send_signal(signal.SIGTERM)
    installation.postgres.wait(PATIENCE_S)
    installation.start_postgres()

    installation.wait_until_ended(jobs)
    installation.assert_all_tagged_once(jobs, titles)
