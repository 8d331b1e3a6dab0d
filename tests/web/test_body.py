"""A body that breaks off, falls silent or drips in, and how long it may take."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]
from werkzeug.datastructures import Headers

from catalog.settings import Settings
from web import problems
from web.gunicorn import BoundedWorker
from web.intake import Intake
from web.photo_urls import PhotoUrlFetcher
from web.problems import ProblemError, ProblemKind
from web.schemas import ProductIn

SETTINGS = Settings()
DOCUMENT = b'{"title": "Shoes"}'


class Clock:
    """Stands for `threading.Timer`: goes off when the test says so, where it was started and not cancelled."""

    def __init__(self, seconds: float, call: Callable[..., None], arguments: Sequence[Any] = ()) -> None:
        self.seconds, self.call, self.runs = seconds, partial(call, *arguments), False

    def start(self) -> None:
        self.runs = True

    def cancel(self) -> None:
        self.runs = False

    def go_off(self) -> None:
        if self.runs:
            self.call()


class Line:
    """A connection with a body on it. `before_read` is called when somebody comes to read it."""

    def __init__(self, made: list[Clock]) -> None:
        self.server, self.client = socket.socketpair()
        self.server.settimeout(10)
        self.client.settimeout(10)
        self.made = made
        self.before_read: Callable[[], None] = lambda: None

    @property
    def clock(self) -> Clock:
        (clock,) = self.made
        return clock

    def read(self, size: int) -> bytes:
        self.before_read()
        return self.server.recv(size)

    def take(self, size: int = len(DOCUMENT)) -> str | None:
        """The title in the body, which is announced to have this size."""
        request: Any = SimpleNamespace(
            content_length=size, mimetype="application/json", headers=Headers(), stream=self,
            environ={"gunicorn.socket": self.server},
        )  # fmt: skip
        return Intake(SETTINGS, PhotoUrlFetcher(SETTINGS)).read(request, ProductIn, "one").content.title


def out_of_threads(clock: Clock) -> None:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    made: list[Clock] = []

    def make(*arguments: Any) -> Clock:
        made.append(Clock(*arguments))
        return made[-1]

    monkeypatch.setattr("threading.Timer", make)
    line = Line(made)
    yield line
    line.server.close()
    line.client.close()


def refused(line: Line) -> ProblemKind:
    with pytest.raises(ProblemError) as refusal:
        line.take()
    return refusal.value.kind


def test_a_body_that_drips_in_for_too_long_is_read_no_more_and_its_answer_still_goes_out(line: Line) -> None:
    line.client.sendall(DOCUMENT[:5])
    line.before_read = lambda: line.clock.go_off()
    assert refused(line) is problems.REQUEST_TIMEOUT
    line.server.sendall(b"answer")
    assert line.client.recv(100) == b"answer"


def test_a_client_that_has_gone_when_its_time_is_over_is_no_defect(line: Line) -> None:
    def go() -> None:
        line.server.close()
        line.clock.go_off()

    line.before_read = go
    assert refused(line) is problems.REQUEST_TIMEOUT


def test_a_connection_whose_body_has_come_stays_open_for_the_next_request(line: Line) -> None:
    line.client.sendall(DOCUMENT)
    assert line.take() == "Shoes"
    line.clock.go_off()
    line.client.sendall(b"GET / HTTP/1.1")
    assert line.server.recv(100) == b"GET / HTTP/1.1"


@pytest.mark.parametrize(("size", "least_s", "most_s"), [(len(DOCUMENT), 30, 31), (60_000_000, 600, 700)])
def test_a_large_body_may_take_longer(line: Line, size: int, least_s: float, most_s: float) -> None:
    line.client.sendall(DOCUMENT)
    assert line.take(size) == "Shoes"
    assert least_s <= line.clock.seconds <= most_s


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(TimeoutError(), problems.REQUEST_TIMEOUT), (ConnectionResetError(), problems.BAD_REQUEST)],
)
def test_what_goes_wrong_while_a_body_is_read_is_no_defect_of_ours(
    line: Line, fault: Exception, kind: ProblemKind
) -> None:
    def fail() -> None:
        raise fault

    line.before_read = fail
    assert refused(line) is kind


@pytest.fixture
def worker() -> BoundedWorker:
    return BoundedWorker.__new__(BoundedWorker)


def test_headers_that_do_not_come_are_waited_for_no_longer(
    line: Line, worker: BoundedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_headers(worker: BoundedWorker, connection: Any) -> bytes:
        line.clock.go_off()
        received: bytes = connection.sock.recv(1)
        return received

    monkeypatch.setattr(ThreadWorker, "handle", wait_for_headers)
    assert worker.handle(SimpleNamespace(sock=line.server, close=lambda graceful=False: None)) == b""
    assert not line.clock.runs, "the next request of the connection has a clock of its own"


def test_a_body_has_its_own_time_once_the_headers_are_there(
    line: Line, worker: BoundedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_a_late_body(worker: BoundedWorker, request: None, connection: Any) -> tuple[bytes, float]:
        line.clock.go_off()
        line.client.sendall(b"x")
        return connection.sock.recv(1), connection.sock.gettimeout()

    monkeypatch.setattr(
        ThreadWorker, "handle", lambda worker, connection: worker.handle_request(None, connection)
    )
    monkeypatch.setattr(ThreadWorker, "handle_request", read_a_late_body)
    assert worker.handle(SimpleNamespace(sock=line.server)) == (b"x", 30), (
        "and no piece of it is waited for for ever"
    )


def test_a_request_for_whose_clock_there_is_no_thread_is_answered_all_the_same(
    line: Line, worker: BoundedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "start", out_of_threads)
    monkeypatch.setattr(ThreadWorker, "handle", lambda worker, connection: "answered")
    assert worker.handle(SimpleNamespace(sock=line.server)) == "answered"


def test_a_body_for_whose_clock_there_is_no_thread_is_to_be_sent_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "start", out_of_threads)
    with pytest.raises(ProblemError) as refusal:
        line.take()
    assert (refusal.value.kind.status, refusal.value.headers) == (503, {"Retry-After": "5"})
