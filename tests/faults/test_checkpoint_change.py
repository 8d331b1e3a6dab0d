"""`python -m workers load` against a real worker under load: nothing is lost, and each job says what tagged it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.installation import PATIENCE_S, ROOT, Installation, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # a loaded machine starts processes slowly


def checkpoint(folder: Path, version: str) -> Path:
    folder.mkdir()
    (folder / "version").write_text(version)
    return folder


def load(installation: Installation, path: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TAGSMITH_")}
    return subprocess.run(
        [sys.executable, "-m", "workers", "load", str(path)],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), "TAGSMITH_VAR": str(installation.settings.var)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def versions(installation: Installation, job_ids: Sequence[str]) -> Counter[str]:
    """Of the jobs that succeeded, by what tagged them."""
    rows = installation.query(
        "SELECT model_version FROM jobs WHERE status = 'succeeded' AND id = ANY(:ids)", ids=list(job_ids)
    )
    return Counter(row[0] for row in rows)


def assert_all_tagged_once(installation: Installation, job_ids: Sequence[str], titles: Sequence[str]) -> None:
    found = [(outcome.status, outcome.tags) for outcome in installation.outcomes(job_ids)]
    assert found == [("succeeded", (title,)) for title in titles]


def test_a_checkpoint_is_changed_and_changed_back_under_load_and_a_broken_one_is_refused(
    installation: Installation, tmp_path: Path
) -> None:
    new, broken = checkpoint(tmp_path / "new", "new"), checkpoint(tmp_path / "broken", "")
    installation.start_worker(batch_seconds=0.2)
    before = [f"before {number}" for number in range(600)]
    jobs = installation.accept(before)
    wait_for(lambda: versions(installation, jobs)["0"] > 0, "the first checkpoint to tag")
    changed = load(installation, new)
    assert changed.returncode == 0, changed.stderr
    assert "serves stand-in new" in changed.stdout
    assert "TAGSMITH_CHECKPOINT" in changed.stderr, "the setting names another"
    after = [f"after {number}" for number in range(200)]
    jobs += installation.accept(after)
    refused = load(installation, broken)
    assert refused.returncode == 1
    assert "serves stand-in new as before" in refused.stderr
    assert f"{broken} has no weights" in refused.stderr
    installation.wait_until_ended(jobs)
    assert_all_tagged_once(installation, jobs, before + after)
    tagged_by = versions(installation, jobs)
    assert set(tagged_by) == {"0", "new"}
    assert tagged_by["new"] >= len(after)
    back = load(installation, ROOT / "models" / "starter")
    assert back.returncode == 0
    assert back.stderr == ""
    last = installation.accept(["once more"], "interactive")
    installation.wait_until_ended(last)
    assert_all_tagged_once(installation, last, ["once more"])
    assert versions(installation, last) == {"0": 1}


def test_each_worker_of_a_machine_answers_for_itself(installation: Installation, tmp_path: Path) -> None:
    new = checkpoint(tmp_path / "new", "new")
    for _ in range(2):
        installation.start_worker()
    wait_for(
        lambda: load(installation, new).stdout.count("serves stand-in new") == 2, "both workers to answer"
    )


def test_without_a_worker_the_command_says_so(installation: Installation, tmp_path: Path) -> None:
    asked = load(installation, checkpoint(tmp_path / "new", "new"))
    assert asked.returncode == 1
    assert "no worker answered within 5 s" in asked.stderr
