"""One run in several processes, as `torchrun` and `accelerate launch` start them, on the processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.checkpoint import load
from training.__main__ import main

CURVE = Path(__file__).with_name("curve_in_processes.py")
ROOT = Path(__file__).parents[2]
# Each way that torch's DistributedDataParallel refuses, and every stage.
WAYS = (
    "photos.epochs=1", "language.epochs=1", "adversarial.epsilon=0.1", "adapters.method=adalora", "train.epochs=1",
    "words.epochs=1",
)  # fmt: skip


def in_two_processes(*command):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    found = {
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    ended = subprocess.run(
        [*launcher, *map(str, command)], env=os.environ | found, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(tmp_path):
    for processes in ("one", "two"):
        (tmp_path / processes).mkdir()
    in_two_processes(CURVE, tmp_path / "two", 4)
    subprocess.run(
        [sys.executable, str(CURVE), str(tmp_path / "one"), "8"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=300,
    )  # fmt: skip
    alone = json.loads((tmp_path / "one" / "0.json").read_text())
    first, second = (json.loads((tmp_path / "two" / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (alone["processes"], first["processes"]) == (1, 2)
    assert first == second
    assert first["best"] == pytest.approx(alone["best"], abs=1e-6)
    assert first["weights"] == {
        name: pytest.approx(weight, abs=1e-5) for name, weight in alone["weights"].items()
    }


def test_a_run_of_two_processes_leaves_one_checkpoint_and_speaks_once(recipe_file, catalogue, tmp_path):
    changes = [part for way in WAYS for part in ("--set", way)]
    ended = in_two_processes(
        "-m", "training", "fit", recipe_file, "--data", catalogue, "--out", tmp_path / "run", *changes
    )
    assert ended.stdout == f"{tmp_path / 'run' / 'checkpoint'}\n"
    for stage in ("language", "contrastive", "photos", "tagging", "words"):
        assert ended.stderr.count(f"\n{stage}: best ") == 1
    checkpoint = load(tmp_path / "run" / "checkpoint")
    assert checkpoint.metrics["test"]["rows"] > 0


def test_processes_that_do_not_find_each_other_are_refused(recipe_file, catalogue, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(
        main, ["fit", str(recipe_file), "--data", str(catalogue), "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 1
    assert "2 processes were started" in result.output and "ACCELERATE_USE_CPU=true" in result.output
    assert not (tmp_path / "run").exists()
