"""What a benchmark says of an installation that does not come up."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.installation import NotRunningError, free_port, wait_until_ready


def test_an_installation_that_ended_before_it_was_ready_is_said_with_its_status() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    ended.wait()
    with pytest.raises(NotRunningError, match="it ended with status 3"):
        wait_until_ready(f"http://127.0.0.1:{free_port()}", ended, Path("log"))
