"""Which lanes the broker is asked for, and that an import never holds all threads of a process."""

from __future__ import annotations

from contextlib import ExitStack

from catalog.settings import Settings
from workers.app import create_app
from workers.lane_order import BULK_FIRST_EVERY, LaneOrder, wants_bulk
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
    order = LaneOrder(lambda: True, lambda: wanted[0])
    order.update(["bulk", "interactive", "sweep"])
    assert order.consume(3) == ["sweep", "interactive", "bulk"]
    wanted[0] = False
    assert order.consume(3) == ["sweep", "interactive"]


def test_a_worker_that_can_take_nothing_asks_for_nothing() -> None:
    wanted = [False]
    order = LaneOrder(lambda: wanted[0], lambda: True)
    order.update(["bulk", "interactive", "sweep"])
    assert order.consume(3) == []
    wanted[0] = True
    assert order.consume(3) == ["sweep", "interactive", "bulk"]


def test_answers_to_celerys_own_commands_are_always_asked_for() -> None:
    wanted, replies = [True], "6f1d.reply.celery.pidbox"
    order = LaneOrder(lambda: wanted[0], lambda: True)
    order.update(["bulk", replies, "interactive"])
    assert order.consume(3) == [replies, "interactive", "bulk"]
    wanted[0] = False
    assert order.consume(3) == [replies]


def test_a_worker_of_some_lanes_is_asked_for_no_other() -> None:
    order = LaneOrder(lambda: True, lambda: True)
    order.update(["sweep", "interactive"])
    assert order.consume(2) == ["sweep", "interactive"]


def test_bulk_has_its_turn_beside_interactive_messages_without_end() -> None:
    order = LaneOrder(lambda: True, lambda: True)
    order.update(["interactive", "bulk"])
    first = [order.consume(2)[0] for _ in range(2 * BULK_FIRST_EVERY)]
    assert first == (["interactive"] * (BULK_FIRST_EVERY - 1) + ["bulk"]) * 2


def test_bulk_messages_hold_a_few_threads_and_leave_the_others() -> None:
    assert bulk_wanted(SETTINGS) == 12, "what there is room for, and some that wait for it"


def test_small_bulk_messages_hold_three_quarters_of_the_threads_at_most_and_always_get_one() -> None:
    for max_batch, most in ((1, 1), (2, 3), (32, 48)):
        assert bulk_wanted(SETTINGS.model_copy(update={"max_batch": max_batch}), jobs=1) == most


def test_a_worker_asks_the_broker_in_this_order(settings: Settings) -> None:
    celery = create_app(settings, lambda settings: None)
    order = celery.connection_for_read().transport_options["queue_order_strategy"]()
    order.update(["interactive", "bulk", "sweep"])
    assert isinstance(order, LaneOrder)
    assert order.consume(3) == ["sweep", "interactive", "bulk"]
