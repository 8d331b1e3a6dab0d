"""Nobody waits longer than a while for what may never answer."""

import subprocess
import sys
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from catalog.patience import Patience

LONG, SHORT = 60.0, 0.05


def test_an_answer_is_given_on() -> None:
    assert Patience(1, LONG)(lambda: 7) == 7


def test_what_a_call_raises_is_given_on() -> None:
    def refuse() -> None:
        raise PermissionError("read-only")

    with pytest.raises(PermissionError, match="read-only"):
        Patience(1, LONG)(refuse)


def test_a_call_that_says_itself_that_it_took_too_long_is_believed() -> None:
    def give_up() -> None:
        raise TimeoutError("the client's own")

    with pytest.raises(TimeoutError, match="the client's own"):
        Patience(1, LONG)(give_up)


def test_a_call_that_does_not_answer_is_given_up_and_keeps_its_thread_until_it_ends() -> None:
    over, calls = threading.Event(), []
    patience = Patience(1, SHORT)

    def hang() -> bool:
        calls.append(1)
        return over.wait(LONG)

    try:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            patience(hang)
        for _ in range(3):  # the only thread is taken, and nothing is left in line for it
            with pytest.raises(TimeoutError, match="any of the last calls"):
                patience(hang)
    finally:
        over.set()
    patience._patience_s = LONG
    assert patience(lambda: "free again") == "free again"
    assert calls == [1]


def test_a_process_ends_while_a_call_never_does() -> None:
    gives_up = """
import threading
from catalog.patience import Patience
try:
    Patience(1, 0.05)(threading.Event().wait)
except TimeoutError:
    print("given up")
"""
    command = [sys.executable, "-c", gives_up]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG / 2, check=True)
    assert ended.stdout == "given up\n"


def test_what_was_waited_for_a_thread_is_not_waited_again_for_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, LONG])
    monkeypatch.setattr("catalog.patience.time", SimpleNamespace(monotonic=lambda: next(times)))
    over = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="no answer within"):
            Patience(1, LONG)(lambda: over.wait(1))
    finally:
        over.set()


def test_a_thread_that_could_not_be_started_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience(1, LONG)
    with monkeypatch.context() as without_threads:
        without_threads.setattr(
            threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread"))
        )
        with pytest.raises(RuntimeError, match="can't start"):
            patience(lambda: 1)
    assert patience(lambda: 2) == 2
