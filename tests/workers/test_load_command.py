"""`python -m workers load` where it cannot even ask; asking real workers is a test of the faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from workers.__main__ import main


def test_a_broker_that_is_not_there_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAGSMITH_VAR", str(tmp_path))
    asked = CliRunner().invoke(main, ["load", str(tmp_path)])
    assert asked.exit_code == 1
    assert asked.output.startswith("Error: the broker does not answer: ")
    assert asked.output.count("\n") == 1
