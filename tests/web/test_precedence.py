"""Who lets whom pass: imports let people, one after the other while there are some, and never for long."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
from flask import Flask

from tests.web.seller import Seller
from web.precedence import QUIET_S, Precedence

PATIENCE_S = 30.0
A_LOOK_S = 0.05  # for something that must not happen


class Upload:
    """An upload of an import on a thread of its own, which stays inside until it is told to end."""

    def __init__(self, pool: ThreadPoolExecutor, enter: Callable[[], AbstractContextManager[None]]) -> None:
        self.inside, self._end = threading.Event(), threading.Event()
        self._enter = enter
        self._done: Future[None] = pool.submit(self._run)

    def _run(self) -> None:
        with self._enter():
            self.inside.set()
            assert self._end.wait(PATIENCE_S)

    def end(self) -> None:
        self._end.set()
        self._done.result(PATIENCE_S)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def patient(**changes: float) -> Precedence:
    """One that waits longer than the test does."""
    return Precedence(give_way_s=2 * PATIENCE_S, turn_s=2 * PATIENCE_S, **changes)  # type: ignore[arg-type]


def test_without_people_uploads_are_taken_in_as_they_come(pool: ThreadPoolExecutor) -> None:
    precedence = patient()
    uploads = [Upload(pool, precedence.import_) for _ in range(3)]
    assert all(upload.inside.wait(PATIENCE_S) for upload in uploads)
    for upload in uploads:
        upload.end()


def test_an_upload_waits_until_nobody_does(pool: ThreadPoolExecutor) -> None:
    precedence = patient()
    with precedence.person():
        with precedence.person():
            upload = Upload(pool, precedence.import_)
            assert not upload.inside.wait(A_LOOK_S)
        assert not upload.inside.wait(A_LOOK_S), "one person still waits"
    assert upload.inside.wait(PATIENCE_S)
    upload.end()


def test_people_wait_for_nobody(pool: ThreadPoolExecutor) -> None:
    precedence = patient()
    upload = Upload(pool, precedence.import_)
    assert upload.inside.wait(PATIENCE_S)
    people = [Upload(pool, precedence.person) for _ in range(2)]
    assert all(person.inside.wait(PATIENCE_S) for person in people)
    for one in (upload, *people):
        one.end()


def test_while_there_are_people_uploads_are_taken_in_one_after_the_other(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    precedence = patient(clock=clock)  # type: ignore[arg-type]
    with precedence.person():
        pass
    clock.now += QUIET_S
    first = Upload(pool, precedence.import_)
    assert first.inside.wait(PATIENCE_S)
    second = Upload(pool, precedence.import_)
    assert not second.inside.wait(A_LOOK_S)
    first.end()
    assert second.inside.wait(PATIENCE_S)
    clock.now += 1
    third = Upload(pool, precedence.import_)
    assert third.inside.wait(PATIENCE_S), "the last person left long ago"
    second.end()
    third.end()


def test_an_upload_that_fails_makes_room_for_the_next(pool: ThreadPoolExecutor) -> None:
    precedence = patient()
    with pytest.raises(ValueError, match="refused"), precedence.person():
        raise ValueError("refused")
    for _ in range(2):
        with pytest.raises(ValueError, match="refused"), precedence.import_():
            raise ValueError("refused")


def test_an_import_goes_on_however_many_people_there_are() -> None:
    precedence = Precedence(give_way_s=A_LOOK_S)
    with precedence.person():
        began = time.monotonic()
        for _ in range(2):
            with precedence.import_():
                pass
        assert time.monotonic() - began >= 2 * A_LOOK_S


def test_an_upload_waits_so_long_and_no_longer_for_those_before_it(pool: ThreadPoolExecutor) -> None:
    precedence = Precedence(turn_s=A_LOOK_S)
    with precedence.person():
        pass
    first = Upload(pool, precedence.import_)
    assert first.inside.wait(PATIENCE_S)
    second = Upload(pool, precedence.import_)
    assert second.inside.wait(PATIENCE_S)
    second.end()
    third = Upload(pool, precedence.import_)  # the turn is still the first one's
    assert not third.inside.wait(A_LOOK_S / 2)
    first.end()
    third.end()


def test_those_who_find_a_long_line_do_not_join_it(pool: ThreadPoolExecutor) -> None:
    precedence = patient(most_in_line=1)
    with precedence.person():
        waiting = Upload(pool, precedence.import_)
        assert not waiting.inside.wait(A_LOOK_S)
        passing = Upload(pool, precedence.import_)
        assert passing.inside.wait(PATIENCE_S)
        assert not waiting.inside.is_set()
        passing.end()
    waiting.end()


def test_an_upload_that_was_let_in_makes_room_in_the_line() -> None:
    precedence = Precedence(most_in_line=1, give_way_s=0)
    with precedence.person(), precedence.import_():
        assert precedence._in_line == 0
        assert precedence._joins_the_line(), "the next one lets people pass as well"


class Observed(Precedence):
    """Notes who was let in."""

    def __init__(self) -> None:
        super().__init__(give_way_s=0)
        self.seen: list[str] = []

    @contextmanager
    def person(self) -> Iterator[None]:
        self.seen.append("person")
        with super().person():
            yield

    @contextmanager
    def import_(self) -> Iterator[None]:
        self.seen.append("import")
        with super().import_():
            yield


@pytest.mark.parametrize(("lane", "seen"), [("interactive", "person"), ("bulk", "import")])
def test_each_call_is_held_for_what_its_lane_says(
    app: Flask, seller: Seller, jpeg: bytes, lane: str, seen: str
) -> None:
    observed = Observed()
    app.extensions["tagsmith"] = replace(app.extensions["tagsmith"], precedence=observed)
    sent = seller.send(jpeg, title="Red shoe", lane=lane).get_json()
    assert observed.seen == [seen]
    product = f"/v1/products/{sent['product']['id']}"
    changed = seller.call("PATCH", product, json={"title": "Blue shoe", "lane": lane}).get_json()
    assert observed.seen == [seen, seen]
    seller.get(f"/v1/jobs/{changed['job']['id']}?wait=0.01")
    assert observed.seen == [seen, seen, *(["person"] if lane == "interactive" else [])]
