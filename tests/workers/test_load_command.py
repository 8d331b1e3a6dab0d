"""`python -m workers load` where it cannot even ask; asking real workers is a test of the faults."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

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
