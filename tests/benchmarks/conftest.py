"""A benchmark as it is run by hand, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.settings import PREFIX
from models.checkpoint import save
from tests.tiny_tagger import tiny_checkpoint

REPOSITORY = Path(__file__).parent.parent.parent
PATIENCE_S = 500


@pytest.fixture
def run_benchmark(tmp_path):
    """Gives the document of `python -m benchmarks` with these arguments, which it printed and wrote; with a tiny model
    where it needs one.
    """

    def run(*arguments):
        save(tiny_checkpoint(), tmp_path / "checkpoint")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        out = tmp_path / "document.json"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *arguments, "--json", "--out", str(out)],
            cwd=REPOSITORY,
            env={**clean, "TAGSMITH_CHECKPOINT": str(tmp_path / "checkpoint"), "TAGSMITH_DEVICE": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE_S)
        finally:
            process.terminate()  # it stops its installation, which a kill would leave behind
            process.wait()
        assert process.returncode == 0, stderr
        document = json.loads(stdout)
        assert document == json.loads(out.read_text())
        return document

    return run
