"""Which lanes the broker is asked for, and that an import never holds all threads of a process."""

from __future__ import annotations

from contextlib import ExitStack

from catalog.settings import Settings
from workers.app import create_app
from workers.lane_order import LaneOrder, wants_bulk
from workers.room import Room

SETTINGS = Settings(max_batch=32, max_ready=256)


def bulk_wanted(settings: Settings, jobs: int = 64) -> int:
    """How many bulk messages a process takes before it wants no more."""
    room = Room(settings.max_ready)
    with ExitStack() as messages:
        taken = 0
        while wants_bulk(room, settings):
            messages.enter_context(room.for_jobs(jobs, "bulk", timeout=0))
            taken += 1
        return taken


def test_interactive_comes_first_and_bulk_only_while_it_is_wanted() -> None:
    wanted = [True]
    order = LaneOrder(lambda: wanted[0])
    order.update(["interactive", "bulk"])
    assert order.consume(2) == ["interactive", "bulk"]
    wanted[0] = False
    assert order.consume(2) == ["interactive"]


def test_bulk_messages_hold_a_few_threads_and_leave_the_others() -> None:
    assert bulk_wanted(SETTINGS) == 12, "what there is room for, and some that wait for it"


def test_small_bulk_messages_hold_three_quarters_of_the_threads_at_most_and_always_get_one() -> None:
    for max_batch, most in ((1, 1), (2, 3), (32, 48)):
        assert bulk_wanted(SETTINGS.model_copy(update={"max_batch": max_batch}), jobs=1) == most


def test_a_worker_asks_the_broker_in_this_order(settings: Settings) -> None:
    celery = create_app(settings, lambda settings: None)
    order = celery.connection_for_read().transport_options["queue_order_strategy"]()
    order.update(["interactive", "bulk"])
    assert isinstance(order, LaneOrder)
    assert order.consume(2) == ["interactive", "bulk"]
