"""How many jobs a process lets in."""

from __future__ import annotations

import threading
import time

from workers.room import Room

PATIENCE = 10.0


def test_there_is_room_up_to_the_limit_and_not_beyond() -> None:
    room = Room(3)
    with room.for_jobs(2, "bulk", timeout=0) as first, room.for_jobs(2, "bulk", timeout=0) as second:
        assert (first, second) == (True, False)
        assert room.on_hand("bulk") == (2, 4)


def test_room_is_given_back_at_the_end() -> None:
    room = Room(1)
    for _ in range(3):
        with room.for_jobs(1, "bulk", timeout=0) as admitted:
            assert admitted
    assert room.on_hand("bulk") == (0, 0)


def test_room_is_given_back_after_an_error() -> None:
    room = Room(1)
    try:
        with room.for_jobs(1, "bulk", timeout=0):
            raise ValueError
    except ValueError:
        pass
    assert room.on_hand("bulk") == (0, 0)


def test_a_full_bulk_lane_leaves_the_interactive_one_open() -> None:
    room = Room(1)
    with room.for_jobs(1, "bulk", timeout=0), room.for_jobs(1, "interactive", timeout=0) as admitted:
        assert admitted


def test_a_message_larger_than_the_room_enters_when_the_lane_is_empty() -> None:
    room = Room(4)
    with room.for_jobs(64, "bulk", timeout=0) as large, room.for_jobs(1, "bulk", timeout=0) as next_one:
        assert (large, next_one) == (True, False)


def test_who_waits_gets_in_when_somebody_leaves() -> None:
    room = Room(1)
    entered: list[bool] = []

    def enter() -> None:
        with room.for_jobs(1, "bulk", timeout=PATIENCE) as admitted:
            entered.append(admitted)

    waiting = threading.Thread(target=enter)
    with room.for_jobs(1, "bulk", timeout=0):
        waiting.start()
    waiting.join(PATIENCE)
    assert entered == [True]


def test_nobody_overtakes_who_came_before() -> None:
    room = Room(4)
    entered: list[int] = []

    def enter(count: int) -> None:
        with room.for_jobs(count, "bulk", timeout=PATIENCE):
            entered.append(count)

    with room.for_jobs(3, "bulk", timeout=0):
        threads = []
        for count in (4, 1, 2):  # the second would fit at once
            threads.append(threading.Thread(target=enter, args=(count,)))
            threads[-1].start()
            while room.on_hand("bulk")[0] < len(threads) + 1:
                time.sleep(0.001)
        with room.for_jobs(1, "bulk", timeout=0) as admitted:
            assert not admitted
        assert entered == []
    for thread in threads:
        thread.join(PATIENCE)
    assert entered[0] == 4
    assert sorted(entered) == [1, 2, 4]


def test_who_gives_up_keeps_nobody_waiting() -> None:
    room = Room(2)
    with room.for_jobs(1, "bulk", timeout=0):
        with room.for_jobs(2, "bulk", timeout=0) as too_large:
            assert not too_large
        with room.for_jobs(1, "bulk", timeout=0) as admitted:
            assert admitted


def test_who_waited_behind_one_that_gives_up_is_let_in_at_once() -> None:
    room, entered = Room(2), threading.Event()

    def give_up() -> None:
        with room.for_jobs(2, "bulk", timeout=0.05) as admitted:
            assert not admitted

    def enter() -> None:
        with room.for_jobs(1, "bulk", timeout=3600):
            entered.set()

    with room.for_jobs(1, "bulk", timeout=0):
        first = threading.Thread(target=give_up)
        first.start()
        while first.is_alive() and room.on_hand("bulk")[0] < 2:
            time.sleep(0.001)
        threading.Thread(target=enter, daemon=True).start()
        assert entered.wait(PATIENCE)


def test_who_waits_is_sent_away_when_the_room_is_closed() -> None:
    room, answers = Room(1), []

    def enter() -> None:
        with room.for_jobs(1, "bulk", timeout=3600) as admitted:
            answers.append(admitted)

    with room.for_jobs(1, "bulk", timeout=0):
        waiting = threading.Thread(target=enter, daemon=True)
        waiting.start()
        while room.on_hand("bulk")[0] < 2:
            time.sleep(0.001)
        room.close()
        waiting.join(PATIENCE)
        assert answers == [False]


def test_a_room_is_waited_for_until_the_last_one_has_left() -> None:
    room, entered, leave = Room(1), threading.Event(), threading.Event()

    def stay() -> None:
        with room.for_jobs(1, "bulk", timeout=0):
            entered.set()
            assert leave.wait(PATIENCE)

    threading.Thread(target=stay).start()
    assert entered.wait(PATIENCE)
    threading.Timer(0.05, leave.set).start()
    assert room.wait_until_empty(timeout=PATIENCE)


def test_a_closed_room_lets_nobody_in_and_knows_when_it_is_empty() -> None:
    room = Room(2)
    with room.for_jobs(1, "bulk", timeout=0):
        room.close()
        with room.for_jobs(1, "bulk", timeout=PATIENCE) as admitted:
            assert not admitted
        assert not room.wait_until_empty(timeout=0)
    assert room.wait_until_empty(timeout=0)


def test_messages_and_their_jobs_count_also_while_they_wait_for_room() -> None:
    room = Room(1)
    with room.for_jobs(1, "bulk", timeout=0), room.for_jobs(5, "bulk", timeout=0) as second:
        assert not second
        assert (room.on_hand("bulk"), room.on_hand("interactive")) == ((2, 6), (0, 0))
    assert room.on_hand("bulk") == (0, 0)
