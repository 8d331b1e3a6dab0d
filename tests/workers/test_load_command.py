"""`python -m workers load` where it cannot even ask, or hears no more; asking real workers is a test of the faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

from workers import control
from workers.__main__ import main


@pytest.mark.parametrize("kind", [OperationalError, ConnectionError, ResponseError])
def test_a_broker_that_is_not_there_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """What kombu raises once it has tried for some seconds, what its transport does, and a Redis that refuses."""
    monkeypatch.setenv("TAGSMITH_VAR", str(tmp_path))
    monkeypatch.setattr("workers.control.ask_to_load", Mock(side_effect=kind("no server")))
    asked = CliRunner().invoke(main, ["load", str(tmp_path)])
    assert asked.exit_code == 1
    assert asked.output == "Error: the broker does not answer: no server\n"


class Workers:
    """Stands in for Celery, the time and the workers: each has so many reports to give, and then falls silent."""

    def __init__(self, **reports: list[dict[str, Any]]) -> None:
        self.reports = {name: iter(own) for name, own in reports.items()}
        self.control = self
        self.now = 100.0

    def broadcast(
        self, command: str, *, timeout: float, destination: list[str] | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        asked = self.reports if destination is None else destination
        replies = [{name: report} for name in asked if (report := next(self.reports[name], None))]
        self.sleep(timeout if len(replies) < len(asked) else 0)
        return replies

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def report(status: str) -> dict[str, Any]:
    change = {"checkpoint": "new", "status": status, "seconds": 1.0, "reason": ""}
    return {"name": "starter", "version": "1", "change": change}


def load(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> tuple[control.Reports, list[str]]:
    monkeypatch.setattr(control, "time", workers)
    reports = control.ask_to_load(workers, Path("new"), answer_s=5, load_s=300)  # type: ignore[arg-type]
    warned: list[str] = []
    assert control.tell(reports, Path("new"), lambda line: None, warned.append) == (not warned)
    return reports, warned


def test_a_worker_that_died_while_it_loaded_is_given_up_long_before_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = [report("loading")] * 20 + [report("serving")]
    workers = Workers(dead=[report("loading")] * 3, slow=slow)
    _, warned = load(monkeypatch, workers)
    assert len(warned) == 1
    assert warned[0].startswith("dead has not answered for 30 s while it loaded new")
    assert next(workers.reports["slow"], None) is None, "who answers is waited for"
    assert workers.now - 100 < 60


def test_a_worker_that_answers_again_within_half_a_minute_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = [report("loading"), *[{}] * 5, report("loading"), *[{}] * 5, report("serving")]
    _, warned = load(monkeypatch, Workers(busy=busy))
    assert not warned


def test_a_worker_that_loads_for_too_long_and_says_so_still_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(slow=[report("loading")] * 10_000)
    _, warned = load(monkeypatch, workers)
    assert len(warned) == 1
    assert "still loads new" in warned[0]
    assert workers.now - 100 == pytest.approx(300, abs=1)
