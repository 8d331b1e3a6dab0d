"""Who may hold how much of a body in memory, and who is not kept waiting by it."""

import threading
import time
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from werkzeug.datastructures import Headers

from catalog.settings import Settings
from web import intake
from web.budget import Budget
from web.intake import Intake
from web.photo_urls import PhotoUrlFetcher
from web.problems import ProblemError
from web.schemas import ProductIn

SETTINGS = Settings()
LARGEST = SETTINGS.max_request_bytes


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Intake:
    monkeypatch.setattr(intake, "_BODY_WAIT_S", 0.01)
    return Intake(SETTINGS, PhotoUrlFetcher(SETTINGS))


def body(size: int | None, kind: str = "multipart/form-data") -> Any:
    return SimpleNamespace(content_length=size, mimetype=kind)


def test_one_account_cannot_take_the_room_of_all(room: Intake) -> None:
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(room.room_for(body(LARGEST), "one"))
        with pytest.raises(ProblemError, match="Too many uploads"), room.room_for(body(LARGEST), "one"):
            pass
        held.enter_context(room.room_for(body(LARGEST), "another"))
        with pytest.raises(ProblemError), room.room_for(body(LARGEST), "a third"):
            pass


@pytest.mark.parametrize("small", [body(1000), body(100_000), body(None, "application/json")])
def test_a_small_body_passes_however_many_large_ones_drip_in(room: Intake, small: Any) -> None:
    with ExitStack() as held:
        for account in ("one", "two", "three"):
            held.enter_context(room.room_for(body(None), account))
        with room.room_for(small, "one"):
            pass


def test_what_was_held_is_free_again(room: Intake) -> None:
    for _ in range(5):
        with (
            pytest.raises(ZeroDivisionError),
            room.room_for(body(LARGEST), "one"),
            room.room_for(body(LARGEST), "one"),
        ):
            raise ZeroDivisionError
    assert not room._large._held


def test_who_waits_for_room_gets_it_as_soon_as_there_is_some() -> None:
    budget, got_it = Budget(1, 1), threading.Event()

    def wait_and_take() -> None:
        with budget.take(1, "another", "busy", wait_s=60):
            got_it.set()

    waiting = threading.Thread(target=wait_and_take, daemon=True)
    with budget.take(1, "one", "busy"):
        waiting.start()
        assert not got_it.wait(0.1)
    assert got_it.wait(30)


def test_nobody_waits_for_what_the_account_itself_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(2, 1)
    monkeypatch.setattr(budget._changed, "wait_for", lambda *_, **__: pytest.fail("it waits"))
    with budget.take(1, "one", "busy"), pytest.raises(ProblemError), budget.take(1, "one", "busy", wait_s=60):
        pass


def test_only_so_many_wait_and_of_one_account_fewer() -> None:
    budget, over = Budget(1, 1), threading.Event()

    def wait(account: str) -> None:
        with suppress(ProblemError), budget.take(1, account, "busy", wait_s=60):
            over.wait(30)

    accounts = [f"account {number // 2}" for number in range(8)]
    threads = [threading.Thread(target=wait, args=(account,), daemon=True) for account in accounts]
    with budget.take(1, "one", "busy"):
        for thread in threads[:2]:
            thread.start()
        while budget._waiting.total() < 2:
            time.sleep(0.01)
        with pytest.raises(ProblemError), budget.take(1, "account 0", "busy", wait_s=60):
            pass
        for thread in threads[2:]:
            thread.start()
        while budget._waiting.total() < 8:
            time.sleep(0.01)
        with pytest.raises(ProblemError), budget.take(1, "another", "busy", wait_s=60):
            pass
    over.set()
    for thread in threads:
        thread.join(30)
    assert not budget._waiting
    assert not budget._held


def test_a_body_over_the_limit_is_refused_by_its_size(room: Intake) -> None:
    with pytest.raises(ProblemError, match="at most"), room.room_for(body(LARGEST + 1), "one"):
        pass


def test_a_chunked_json_body_passes_also_where_little_is_allowed() -> None:
    settings = Settings(max_request_bytes=1000)
    with Intake(settings, PhotoUrlFetcher(settings)).room_for(body(None, "application/json"), "one"):
        pass


class Dripping:
    """A body that arrives when it is told to, and says that it is waited for."""

    content_length, mimetype, headers = 1000, "application/json", Headers()
    environ: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.awaited, self.rest = threading.Event(), threading.Event()
        self.stream = self

    def read(self, size: int) -> bytes:
        self.awaited.set()
        assert self.rest.wait(30)
        return b'{"title": "Shoes"}'


def test_one_account_cannot_take_all_threads_with_small_bodies_that_drip_in(
    room: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_small", Budget(2, 1))
    slow, whole = Dripping(), Dripping()
    whole.rest.set()
    read: list[Any] = []
    thread = threading.Thread(target=lambda: read.append(room.read(slow, ProductIn, "one")))  # type: ignore[arg-type]
    thread.start()
    assert slow.awaited.wait(30)
    began = time.monotonic()
    with pytest.raises(ProblemError, match="Too many uploads"):
        room.read(whole, ProductIn, "one")  # type: ignore[arg-type]
    assert not whole.awaited.is_set()
    assert time.monotonic() - began < 5, "refused at once: one that waits holds its thread all the same"
    assert room.read(whole, ProductIn, "another").content.title == "Shoes"  # type: ignore[arg-type]
    slow.rest.set()
    thread.join(30)
    assert read[0].content.title == "Shoes"
    assert room.read(whole, ProductIn, "one").content.title == "Shoes"  # type: ignore[arg-type]


def test_a_form_that_does_not_say_its_size_takes_the_room_of_the_largest(room: Intake) -> None:
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(room.room_for(body(None), "one"))
        with pytest.raises(ProblemError, match="Too many uploads"), room.room_for(body(None), "one"):
            pass


def test_who_has_waited_takes_no_more_than_the_part_of_one_account() -> None:
    budget, over, inside = Budget(2, 1), threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        with budget.take(1, "three", "busy", wait_s=60):
            inside.release()
            over.wait(30)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
    with budget.take(1, "one", "busy"), budget.take(1, "two", "busy"):
        for thread in threads:
            thread.start()
        while budget._waiting.total() < 2:
            time.sleep(0.01)
    assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.05), "there is a place, and it is another account's"
    over.set()
    for thread in threads:
        thread.join(30)
