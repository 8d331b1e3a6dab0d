"""Fits a curve with the training loop, in as many processes as it is started with; each writes what it ended with.
Goes on as `python -m training`: to start processes takes longer than all that they learn here.

Usage: curve_in_processes.py FOLDER PRODUCTS_IN_A_BATCH COMMAND ...
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training.__main__ import main
from training.device import process_state
from training.early_stopping import EarlyStopping
from training.loop import Stage, run
from training.recipe import OptimizerSection


class Curve(nn.Module):
    """A line, and another one that only batches with a point right of zero use. `scale` is used beside the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.right, self.nobodys = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        positive = x > 0
        line = self.line(x)
        return line + self.right(x) * positive if positive.any() else line


def fitted(folder: Path, batch_size: int) -> dict[str, object]:
    rank = int(os.environ.get("RANK", "0"))
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    torch.manual_seed(rank)  # each would start elsewhere
    curve = Curve()
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    y = 2 * x + x.relu() + 1

    def loss(network, batch):
        once, again = network(batch[0]), network(batch[0])
        return (network.scale * (once + again) - batch[1]).square().mean(), {}

    def validate(network):
        with torch.no_grad():
            return {"loss": loss(network, (x, y))[0].item() + rank}  # as if each had rounded otherwise

    stage = Stage(
        name="curve",
        network=curve,
        groups=[{"params": list(curve.parameters()), "lr": 0.05}],
        loader=DataLoader(TensorDataset(x, y), batch_size=batch_size, generator=torch.Generator()),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=OptimizerSection(epochs=6, ema_decay=0.9, max_grad_norm=0.5),
        stopping=EarlyStopping(patience=2, min_delta=0, higher_is_better=False),
    )
    best = run(stage, accelerator, folder / "stage", save_every_steps=3)
    weights = {name: tensor.flatten().tolist() for name, tensor in curve.state_dict().items()}
    return {"processes": accelerator.num_processes, "best": best, "weights": weights}


if __name__ == "__main__":
    process_state()  # as `fit` finds the others
    out = Path(sys.argv[1])
    ended = fitted(out, int(sys.argv[2]))
    (out / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(ended))
    main(sys.argv[3:])
