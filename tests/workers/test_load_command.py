"""`python -m workers load` where it cannot even ask; asking real workers is a test of the faults."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from workers import __main__ as command


@pytest.mark.parametrize("error", [OperationalError("no server"), ConnectionError("no server")])
def test_a_broker_that_is_not_there_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What kombu raises once it has tried for some seconds, and what its transport does."""
    monkeypatch.setenv("TAGSMITH_VAR", str(tmp_path))
    monkeypatch.setattr(command, "ask_to_load", Mock(side_effect=error))
    asked = CliRunner().invoke(command.main, ["load", str(tmp_path)])
    assert asked.exit_code == 1
    assert asked.output == "Error: the broker does not answer: no server\n"
