"""How long a client that was refused is listened to, and that nobody else is."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from web import lingering

OWN_TIMEOUT_S = 30.0


class Connection:
    timeout = OWN_TIMEOUT_S

    def gettimeout(self) -> float:
        return self.timeout

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def shutdown(self, how: int) -> None:
        """As the kernel has it: who reads gets the end of the stream."""
        self.shut.set()

    def __init__(self) -> None:
        self.shut = threading.Event()


class Dripping:
    """A body of which a byte comes again and again: a read for many returns when the connection is shut."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.reads = connection, 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        assert self.connection.shut.wait(30)
        return b""


class Body:
    """So many bytes; knows how often it was read, and how long the connection would have waited for it."""

    def __init__(self, connection: Connection, size: int) -> None:
        self.connection, self.left = connection, size
        self.timeouts: list[float] = []
        self.fault: Exception | None = None
        self.takes_s = 0.0
        self.now = 100.0

    def read(self, size: int) -> bytes:
        self.timeouts.append(self.connection.timeout)
        self.now += self.takes_s
        if self.fault is not None:
            raise self.fault
        piece = min(size, self.left)
        self.left -= piece
        return bytes(piece)


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch) -> Body:
    made = Body(Connection(), 1_000_000)
    monkeypatch.setattr(lingering, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def answer(body: Any, status: int, **environ: str) -> int:
    """The status of an answer that reads nothing itself; the connection waits as long as before for what comes next."""
    app = Flask(__name__)
    lingering.register(app)
    app.add_url_rule("/", view_func=lambda: ("", status), methods=["POST"])
    given: dict[str, Any] = {"wsgi.input": body, "gunicorn.socket": body.connection, **environ}
    found = app.test_client().post("/", environ_overrides=given).status_code
    assert body.connection.timeout == OWN_TIMEOUT_S
    return found


ANNOUNCED = {"CONTENT_LENGTH": "1000000"}


@pytest.mark.parametrize("announced", [ANNOUNCED, {"HTTP_TRANSFER_ENCODING": "chunked"}])
def test_what_is_left_of_a_refused_body_is_read(body: Body, announced: dict[str, str]) -> None:
    assert answer(body, 413, **announced) == 413
    assert body.left == 0
    assert max(body.timeouts) < OWN_TIMEOUT_S, "one that falls silent is not waited for as long"


def test_a_body_without_end_is_read_for_so_long_and_no_longer(body: Body) -> None:
    body.left, body.takes_s = 10**12, 1.0
    assert answer(body, 413, **ANNOUNCED) == 413
    assert len(body.timeouts) == 10


def test_a_body_without_end_is_read_so_far_and_no_further(
    body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "_MAX_BYTES", 2_000_000)
    body.left = 10**12
    assert answer(body, 413, **ANNOUNCED) == 413
    assert 2_000_000 <= 10**12 - body.left < 3_000_000


@pytest.mark.parametrize("fault", [TimeoutError(), ConnectionResetError(), ValueError("no chunk")])
def test_a_client_that_falls_silent_or_goes_takes_no_answer_back(body: Body, fault: Exception) -> None:
    body.fault = fault
    assert answer(body, 401, **ANNOUNCED) == 401
    assert len(body.timeouts) == 1


def test_nobody_waits_for_a_body_that_was_taken_or_is_not_there(body: Body) -> None:
    assert answer(body, 202, **ANNOUNCED) == 202
    assert answer(body, 404, CONTENT_LENGTH="") == 404
    assert body.timeouts == []


def test_a_body_that_drips_in_holds_the_thread_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "_MAX_S", 0.05)
    dripping = Dripping(Connection())
    assert answer(dripping, 401, **ANNOUNCED) == 401
    assert dripping.reads == 1


def test_only_so_many_are_listened_to_at_once(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "_AT_ONCE", 0)
    assert answer(body, 413, **ANNOUNCED) == 413
    assert body.left == 1_000_000


def test_a_request_that_is_wrong_in_itself_is_listened_to_as_well(body: Body) -> None:
    assert answer(body, 400, **ANNOUNCED) == 400
    assert body.left == 0


@pytest.mark.parametrize("fault", [None, TimeoutError()])
def test_who_was_listened_to_makes_place_for_the_next(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    monkeypatch.setattr(lingering, "_AT_ONCE", 1)
    app = Flask(__name__)
    lingering.register(app)
    app.add_url_rule("/", view_func=lambda: ("", 413), methods=["POST"])
    for _ in range(2):
        body = Body(Connection(), 1000)
        body.fault = fault
        given: dict[str, Any] = {"wsgi.input": body, "gunicorn.socket": body.connection, **ANNOUNCED}
        app.test_client().post("/", environ_overrides=given)
        assert body.timeouts
