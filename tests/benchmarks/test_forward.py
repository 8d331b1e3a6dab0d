"""Shares of a peak: the operations that are counted, the peaks, and the document from a tiny checkpoint."""

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks import forward, peaks, towers
from benchmarks.__main__ import main
from benchmarks.forward import GOALS, Inputs, Way, counted, headlines, share, summary
from benchmarks.headline import headline
from models.checkpoint import load, save
from models.fusion import FusionTagger
from tests.tiny_tagger import PHOTO_CONFIG, text_config, tiny_checkpoint


def test_the_operations_are_those_of_the_textbook():
    """A layer of a BERT of width D over T tokens: 24 T D^2 + 4 T^2 D."""
    checkpoint = tiny_checkpoint()
    width, tokens, batch = text_config()["hidden_size"], 8, 3
    found = counted(checkpoint, Inputs.drawn(checkpoint, "cpu", batch, tokens))
    # The tiny one's inner layer is twice as wide as it is, not four times: 16 T D^2.
    assert found["text"] == batch * (16 * tokens * width**2 + 4 * tokens**2 * width)
    assert found["photo"] > 0


def test_a_share_is_operations_over_time_over_the_peak(monkeypatch):
    took = iter([0.5] * forward.TIMES + [0.25] * forward.TIMES)
    monkeypatch.setattr(forward, "seconds", lambda _: next(took))
    checkpoint = tiny_checkpoint()
    way = Way("float32, torch", "float32", checkpoint.model.text_tower, checkpoint.model.photo_tower)
    inputs = Inputs.drawn(checkpoint, "cpu", 2, 4)
    found = share(way, inputs, {"text": 100.0, "photo": 50.0}, peak=400.0)
    assert found == {"text": 0.5, "photo": 0.5, "both": 0.5}


def test_the_summary_holds_medians_and_only_base_towers_have_a_goal():
    rounds = [{"text": 0.1, "photo": 0.4, "both": both} for both in (0.7, 0.9, 0.8)]
    of = summary("bf16", rounds)
    assert of == {"type": "bf16", "text": 0.1, "photo": 0.4, "both": 0.8, "range": [0.7, 0.9]}
    (line,) = headlines("base", {"bf16, torch": of}, goals=True)
    assert line == headline("base, share of the peak: bf16, torch", 0.8, each=[0.7, 0.9], goal=GOALS["bf16"])
    assert headlines("starter", {"bf16, torch": of}, goals=False)[0]["goal"] is None


def test_a_peak_is_the_fastest_of_all_that_was_tried(monkeypatch):
    times = iter([9, 3, 4, 5, 6, 9, 2, 9, 9, 9])
    monkeypatch.setattr(peaks, "seconds", lambda _: next(times))
    assert peaks.peaks({"bf16": [(lambda: None, 30.0), (lambda: None, 40.0)]}) == {"bf16": 20.0}


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_network_of_multiplications_runs(kind):
    run, operations = peaks.network(64, kind)
    assert operations == 2 * 64**3 * peaks.LAYERS
    (answer,) = run().values()
    assert answer.shape == (64, 64)


def test_base_towers_are_a_checkpoint_like_any_other(tmp_path):
    towers.write_base(tmp_path / "base", text_config() | {"vocab_size": 28538}, PHOTO_CONFIG)
    made = load(tmp_path / "base")
    assert isinstance(made.model, FusionTagger)
    assert made.name == "base-random" and made.preprocessor.config.photo_size == 16
    assert made.model.text_tower.width == 16


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_document_of_a_tiny_checkpoint(tmp_path, monkeypatch):
    save(tiny_checkpoint(), tmp_path / "checkpoint")
    monkeypatch.setenv("TAGSMITH_CHECKPOINT", str(tmp_path / "checkpoint"))
    monkeypatch.setenv("TAGSMITH_DEVICE", "cpu")
    monkeypatch.setattr(peaks, "SIDES", {"cpu": (64,)})
    monkeypatch.setattr(peaks, "TOKENS", 64)
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(main, ["forward", "--rounds", "1", "--json"])
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document["shares"]) == {"float32, torch", "bf16, torch", "bf16, OpenVINO", "int8, OpenVINO"}
    assert all(0 <= of["both"] < 1 for of in document["shares"].values())  # so small a model is all overhead
    assert set(document["peak_gflop_per_s"]) == {"float32", "bf16", "int8"}
    assert "share of the peak of its type" in forward.table(document)
