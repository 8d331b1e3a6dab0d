"""The loop apart from tags and photos: a line fitted to points."""

import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training.early_stopping import EarlyStopping
from training.loop import Stage, moving_average, run
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


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))


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
