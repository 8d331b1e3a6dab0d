"""What the processes of one run (`accelerate launch`, `torchrun`) share, and what they leave to the first of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from torch import nn

from training.device import process_state
from training.errors import TooManyProcesses


@contextmanager
def one_voice() -> Iterator[None]:
    """Only the first process writes on stdout and stderr; what is raised passes through from every one.

    Raises TooManyProcesses where they would not find each other.
    """
    state = process_state()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > state.num_processes:
        # Accelerate lets each of them train by itself, into the same folder.
        raise TooManyProcesses(
            f"{started} processes were started and this machine has no GPU for them: start one,"
            " or set ACCELERATE_USE_CPU=true"
        )
    if state.is_main_process:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def as_the_first_has_it(figures: dict[str, float]) -> dict[str, float]:
    """Those of the first process, for all. Every process has the same weights, but rounds in an order of its own: two
    that disagree whether to stop would wait for each other for ever.
    """
    shared = [figures]
    broadcast_object_list(shared)
    return shared[0]


def start_alike(network: nn.Module) -> None:
    """In place: with the weights of the first process."""
    for tensor in network.state_dict().values():
        tensor.copy_(broadcast(tensor.contiguous()))


def share_gradients(network: nn.Module, accelerator: Accelerator) -> None:
    """In place, after a backward: the mean over the processes, each of which saw as many products.

    torch's DistributedDataParallel does so while the backward runs, but only for what one forward of the network has
    used once: a temperature beside it, the regularizer of adapters, a second, adversarial forward and a batch without
    any text are each too much for it.
    """
    if accelerator.num_processes == 1:
        return
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    has = torch.tensor([parameter.grad is not None for parameter in learning], device=accelerator.device)
    had = accelerator.reduce(has.int(), "sum").tolist()
    # What no process has used, the optimizer leaves as it is.
    used = [parameter for parameter, times in zip(learning, had, strict=True) if times]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    flat = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for parameter, mean in zip(used, flat.split([p.numel() for p in used]), strict=True):
        parameter.grad = mean.view_as(parameter)
