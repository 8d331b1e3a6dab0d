"""An installation as `make run` starts it: what the terminal shows, what the README says, what is left."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.installation import STOPPED_WITHIN_S, Installation, role, running
from samples.client import Client, read_samples
from tests.house.conftest import Launched

# A first start makes a database and loads the model, on two cores that may be busy with something else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EVENTUALLY_S = 240


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + EVENTUALLY_S
    while not holds():
        assert time.monotonic() < deadline, f"not in {EVENTUALLY_S} s: {what}"
        time.sleep(0.1)


def worker_of(installation: Launched) -> psutil.Process | None:
    for process in installation.started_processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if role(process.cmdline()) == "worker":
                return process
    return None


def test_the_terminal_shows_the_address_and_the_tags_of_the_samples(installation: Launched) -> None:
    eventually(lambda: "Ctrl-C" in installation.output.read_text(), "the samples are tagged")
    said = installation.output.read_text()
    assert f"Tagsmith is ready on {installation.base_url}\n" in said
    for sample in read_samples():
        assert sample.title in said
    assert len(re.findall(r"^  article_type +\S", said, flags=re.MULTILINE)) == 3
    assert "Traceback" not in said


def test_the_curl_example_of_the_readme_works_as_it_stands(installation: Launched, root: Path) -> None:
    example = re.findall(r"```bash\n(.*?)```", (root / "README.md").read_text(), flags=re.DOTALL)[0]
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=root,
        env=installation.env,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    job = json.loads(ran.stdout)
    assert job["status"] == "succeeded"
    assert {tag["attribute"] for tag in job["tags"]} >= {"article_type", "base_colour"}


def test_the_first_key_is_for_its_owner_only(installation: Launched) -> None:
    assert stat.S_IMODE((installation.var / "api-key").stat().st_mode) == 0o600


def test_a_second_start_over_the_same_state_is_refused(installation: Launched, root: Path) -> None:
    again = subprocess.run(
        [sys.executable, "launch.py"],
        cwd=root,
        env=installation.env,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 1
    assert "already running" in again.stderr


def test_the_benchmark_sees_web_worker_and_beat(installation: Launched) -> None:
    with running(installation.base_url, installation.var) as measured:
        assert isinstance(measured, Installation)
        memory = measured.memory_mb()
    assert memory.keys() == {"web", "worker", "beat"}
    assert all(entry["rss"] >= entry["pss"] > 10 for entry in memory.values())


def test_a_killed_worker_comes_back_and_what_it_was_sent_is_tagged(installation: Launched) -> None:
    before = worker_of(installation)
    assert before is not None
    key = (installation.var / "api-key").read_text().strip()
    with Client(installation.base_url, key) as client:
        before.send_signal(signal.SIGKILL)
        job_id = client.upload(read_samples()[0])["job"]["id"]
        eventually(lambda: client.job(job_id)["status"] == "succeeded", "the product is tagged")
    after = worker_of(installation)
    assert after is not None
    assert after.pid != before.pid


def test_ctrl_c_leaves_nothing_running(installation: Launched) -> None:
    """Last: it ends the installation."""
    processes = installation.started_processes()
    assert len(processes) >= 7  # launcher, supervisord and the five
    installation.process.send_signal(signal.SIGINT)
    assert installation.process.wait(timeout=STOPPED_WITHIN_S) == 0
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    var = os.fsencode(installation.var)
    assert [process.pid for process in psutil.process_iter() if var in environment_of(process)] == []


def environment_of(process: psutil.Process) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:  # it ended meanwhile, or belongs to somebody else
        return b""
