"""Where a checkpoint is measured, on a machine whose accelerator is `meta`: it holds no numbers."""

from types import SimpleNamespace

import pytest
import torch

from models.checkpoint import save
from models.compiled import Network
from models.export import assembled
from models.networks import traced
from tests.tiny_tagger import tiny_checkpoint
from training import device
from training.device import device_of, process_state
from training.evaluation import evaluate_rows
from training.pseudo_labels import teacher_at
from training.table import Row


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(device, "process_state", lambda: SimpleNamespace(device=torch.device("meta")))


def test_a_model_is_measured_on_the_device_that_is_there(accelerator):
    checkpoint = tiny_checkpoint()
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        evaluate_rows(
            checkpoint.model, [Row("1", "red shirt", "", (), "1", {})], checkpoint.preprocessor, workers=0
        )
    assert {parameter.device.type for parameter in checkpoint.model.parameters()} == {"meta"}


def test_an_exported_one_has_none_but_the_processor(accelerator, tmp_path):
    source = tiny_checkpoint()
    networks = traced(source.model, source.preprocessor.config.photo_size)
    exported = assembled(source, {name: Network(network, "float32") for name, network in networks.items()})
    assert device_of(exported.model).type == "cpu"
    save(exported, tmp_path / "exported")
    assert teacher_at(str(tmp_path / "exported")).device.type == "cpu"


def test_a_process_can_be_kept_on_the_processor(monkeypatch):
    asked = []
    monkeypatch.setattr(device, "PartialState", lambda cpu: asked.append(cpu))
    process_state()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    process_state()
    assert asked == [False, True]
