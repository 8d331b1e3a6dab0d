"""When a process takes messages, and when it leaves them to others."""

from __future__ import annotations

from workers.breaker import Breaker


def test_it_is_open_from_a_failure_until_a_success() -> None:
    breaker = Breaker(lambda: 0.0)
    assert not breaker.open
    breaker.failed()
    assert breaker.open
    breaker.succeeded()
    assert not breaker.open


def test_after_a_while_without_a_trial_the_next_message_is_one() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    breaker.failed()
    now[0] = Breaker.OPEN_S - 0.1
    breaker.failed()
    now[0] = Breaker.OPEN_S + 0.1
    assert breaker.open, "counted from the last failure"
    now[0] = 2 * Breaker.OPEN_S
    assert not breaker.open
    breaker.failed()
    assert breaker.open


def test_while_a_try_is_under_way_nothing_comes_beside_it() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    with breaker.trying():
        assert not breaker.open, "nothing is known against the database"
        breaker.failed()
        now[0] = 10 * Breaker.OPEN_S
        assert breaker.open, "it may hang: a second one would too"
    assert not breaker.open
    assert breaker.tripped, "what comes next is a trial"
    breaker.succeeded()
    assert not breaker.tripped
