"""One run in several processes, as `torchrun` and `accelerate launch` start them, on the processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.installation import free_port
from models.checkpoint import load
from tests.training import curve_in_processes
from tests.training.conftest import write_recipe
from training.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Each way that torch's DistributedDataParallel refuses, and every stage.
WAYS = (
    "photos.epochs=1", "language.epochs=1", "adversarial.epsilon=0.1", "adapters.method=adalora", "train.epochs=1",
    "words.epochs=1",
)  # fmt: skip


def in_two_processes(*command):
    """As the launchers do it, without the launcher. Returns what each wrote on stdout and stderr."""
    shared = {
        "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.fixture(scope="module")
def two_processes(catalogue, backbones, tmp_path_factory):
    """The folder in which two processes fitted a curve and then a checkpoint, and what each said."""
    folder = tmp_path_factory.mktemp("two processes")
    changes = [part for way in WAYS for part in ("--set", way)]
    fit = ("fit", write_recipe(folder, backbones), "--data", catalogue, "--out", folder / "run", *changes)
    return folder, in_two_processes(curve_in_processes.__file__, folder, 4, *fit)


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(two_processes, tmp_path):
    folder, _ = two_processes
    alone = curve_in_processes.fitted(tmp_path / "alone", 8)
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (alone["processes"], first["processes"]) == (1, 2)
    assert first == second
    assert first["best"] == pytest.approx(alone["best"], abs=1e-6)
    assert first["weights"] == {
        name: pytest.approx(weight, abs=1e-5) for name, weight in alone["weights"].items()
    }


def test_a_run_of_two_processes_leaves_one_checkpoint_and_speaks_once(two_processes):
    folder, (first, second) = two_processes
    assert (first[0], second[0]) == (f"{folder / 'run' / 'checkpoint'}\n", "")
    for stage in ("language", "contrastive", "photos", "tagging", "words"):
        assert (first[1].count(f"\n{stage}: best "), second[1].count(f"{stage}: best ")) == (1, 0)
    checkpoint = load(folder / "run" / "checkpoint")
    assert checkpoint.metrics["test"]["rows"] > 0


def test_processes_that_do_not_find_each_other_are_refused(recipe_file, catalogue, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(
        main, ["fit", str(recipe_file), "--data", str(catalogue), "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 1
    assert "2 processes were started" in result.output and "ACCELERATE_USE_CPU=true" in result.output
    assert not (tmp_path / "run").exists()
