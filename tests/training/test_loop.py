"""The loop apart from tags and photos: a line fitted to points."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training.early_stopping import EarlyStopping
from training.loop import Stage, attention, moving_average, run
from training.recipe import OptimizerSection


def line_stage(seen, **settings):
    """Fits y = 3x; `seen` takes the weight of every training step, as the step found it."""
    torch.manual_seed(0)
    points = torch.linspace(-1, 1, 16).unsqueeze(1)
    line = nn.Linear(1, 1, bias=False)

    def loss(network, batch):
        if network.training:
            seen.append(network.weight.item())
        return (network(batch[0]) - batch[1]).square().mean(), {}

    def validate(network):
        with torch.no_grad():
            return {"loss": loss(network, (points, 3 * points))[0].item()}

    return Stage(
        name="line",
        network=line,
        groups=[{"params": list(line.parameters()), "lr": 0.1, "weight_decay": 0.0}],
        loader=DataLoader(TensorDataset(points, 3 * points), batch_size=4, generator=torch.Generator()),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=OptimizerSection(**settings),
        stopping=EarlyStopping(patience=9, min_delta=0, higher_is_better=False),
    )


def make_accelerator():
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))


@pytest.fixture
def accelerator():
    return make_accelerator()


def test_the_kept_weights_are_the_moving_average_that_was_validated(accelerator, tmp_path):
    seen: list[float] = []
    stage = line_stage(seen, epochs=1, ema_decay=0.99)
    best = run(stage, accelerator, tmp_path, save_every_steps=100)
    again: list[float] = []
    raw = line_stage(again, epochs=1)
    run(raw, accelerator, tmp_path / "raw", save_every_steps=100)
    weights = [*again[1:], raw.network.weight.item()]  # after each of the four steps
    expected = weights[0]
    for steps, weight in enumerate(weights[1:], start=1):
        decay = (1 + steps) / (10 + steps)
        expected = decay * expected + (1 - decay) * weight
    assert seen == again
    assert stage.network.weight.item() == pytest.approx(expected, abs=1e-5)
    assert stage.validate(stage.network) == pytest.approx(best)


@pytest.fixture
def in_bf16():
    """An accelerator of another precision: there is one for the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_mixed_precision_ends_with_the_stage(in_bf16, tmp_path):
    stage = line_stage([], epochs=1)
    run(stage, in_bf16, tmp_path, save_every_steps=100)
    with torch.no_grad():
        stage.network.weight.fill_(1.001)  # no number of bf16
        assert stage.network(torch.ones(1, 1)).item() == stage.network.weight.item()


def test_attention_is_by_plain_products_on_a_cpu_in_bf16_alone(in_bf16):
    with attention(in_bf16):
        assert torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_attention_is_torchs_own_in_float32(accelerator):
    with attention(accelerator):
        assert torch.backends.cuda.flash_sdp_enabled()


def test_without_a_decay_there_is_no_average():
    assert moving_average(nn.Linear(1, 1), 0.0, torch.device("cpu")) is None


def test_an_average_takes_whole_numbers_over_as_they_are():
    """A buffer of positions, averaged as numbers, would be rounded down."""
    network = nn.BatchNorm1d(2)
    average = moving_average(network, 0.999, torch.device("cpu"))
    assert average is not None
    for count in range(1, 60):
        network.num_batches_tracked.fill_(count)
        average.update_parameters(network)
        assert average.module.num_batches_tracked.item() == count


class Killed(BaseException):
    pass


def test_a_kill_while_the_end_of_an_epoch_is_saved_leaves_the_state_before_it_whole(tmp_path, monkeypatch):
    """The last step of an epoch is saved too, so that both states are of the same step."""

    def trained(out, accelerator):
        stage = line_stage([], epochs=2)
        return run(stage, accelerator, out, save_every_steps=4), stage.network.weight.item()

    dying, saved = make_accelerator(), []
    save_state = dying.save_state

    def die_while_saving_again(folder):
        save_state(folder)
        saved.append(folder)
        if len(saved) == 2:
            for file in Path(folder).iterdir():
                file.write_bytes(b"")
            raise Killed

    monkeypatch.setattr(dying, "save_state", die_while_saving_again)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", dying)
    whole = trained(tmp_path / "whole", make_accelerator())
    assert trained(tmp_path / "killed", make_accelerator()) == whole


class Told(TensorDataset):
    """Remembers the epochs that it is told of."""

    def __init__(self, *tensors):
        super().__init__(*tensors)
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def test_a_dataset_is_told_of_every_epoch_also_where_there_are_several_processes(
    accelerator, tmp_path, monkeypatch
):
    stage = line_stage([], epochs=3)
    told = Told(*stage.loader.dataset.tensors)
    loader = DataLoader(told, batch_size=4, shuffle=True, generator=torch.Generator())

    def shared_by_two(loader, **_):
        return prepare_data_loader(loader, num_processes=2, process_index=0, use_seedable_sampler=True)

    monkeypatch.setattr(accelerator, "prepare_data_loader", shared_by_two)
    run(replace(stage, loader=loader), accelerator, tmp_path, save_every_steps=100)
    assert list(dict.fromkeys(told.epochs)) == [0, 1, 2]
