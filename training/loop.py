"""The training loop: one readable loop for every stage, on Hugging Face Accelerate.

A stage brings a network, a loss and a validation; the loop brings the optimizer, the schedule, the moving average
of the weights, early stopping, the best weights, logs, and resuming after a kill. It knows nothing of tags or photos.
"""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.checkpoint import one_kind_of_error
from training.early_stopping import EarlyStopping
from training.processes import as_the_first_has_it, share_gradients, start_alike
from training.recipe import OptimizerSection

Report = dict[str, float]
KEEP_LOGGING_EVERY = 10  # steps


class AfterStep(Protocol):
    """What a way of training does after each step of the optimizer, while the gradients are still there; its state is
    saved and resumed with the stage's.
    """

    def __call__(self, step: int) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Stage:
    """What one stage trains. `loss(network, batch)` is a mean over the batch; `validate()` returns the
    figures by name.
    """

    name: str
    network: nn.Module
    groups: list[dict[str, Any]]  # AdamW's parameter groups, each with its learning rate
    loader: DataLoader[Any]
    loss: Callable[[nn.Module, Any], tuple[Tensor, Report]]
    validate: Callable[[nn.Module], Report]
    metric: str
    settings: OptimizerSection
    stopping: EarlyStopping
    after_step: AfterStep | None = None


def run(stage: Stage, accelerator: Accelerator, out: Path, save_every_steps: int) -> Report:
    """Trains until the epochs are over or the metric stands still, and leaves the best weights in
    `stage.network`.

    `out` keeps the stage's state: called again after a kill it goes on where it was. Returns the best
    validation's figures.
    """
    # On its device and in its precision; as if to evaluate, so that nothing is wrapped: see `share_gradients`.
    network = accelerator.prepare_model(stage.network, evaluation_mode=True)
    start_alike(network)
    # Fused: on a CPU a step over the starter's 29 million weights takes a quarter of the time.
    optimizer = torch.optim.AdamW(stage.groups, weight_decay=stage.settings.weight_decay, fused=True)
    steps_per_epoch = math.ceil(len(stage.loader) / accelerator.num_processes)
    schedule = warmup_then_cosine(optimizer, stage.settings, stage.settings.epochs * steps_per_epoch)
    average = moving_average(stage.network, stage.settings.ema_decay, accelerator.device)
    optimizer, loader = accelerator.prepare(optimizer, stage.loader)
    accelerator.register_for_checkpointing(schedule)
    shown = accelerator.unwrap_model(network)  # what is validated and kept
    if average is not None:
        accelerator.register_for_checkpointing(average)
        shown = average.module
    if stage.after_step is not None:
        accelerator.register_for_checkpointing(stage.after_step)
    progress = Progress(out, stage.stopping)
    progress.resume(accelerator)
    if progress.total_steps == 0:  # what the stage starts from is the best until a validation beats it
        progress.history = [as_the_first_has_it(stage.validate(shown.eval()))]
        stage.stopping.update(progress.history[0][stage.metric], epoch=0)
        if accelerator.is_main_process:
            write_weights(shown, out / "best.safetensors")

    while progress.epoch < stage.settings.epochs and not stage.stopping.stop:
        loader.set_epoch(progress.epoch)
        # Where there are several processes, Accelerate tells its sampler alone.
        if hasattr(stage.loader.dataset, "set_epoch"):
            stage.loader.dataset.set_epoch(progress.epoch)
        freeze_statistics(network.train())
        batches = accelerator.skip_first_batches(loader, progress.step) if progress.step else loader
        bar = tqdm(
            batches,
            desc=f"{stage.name} epoch {progress.epoch + 1}/{stage.settings.epochs}",
            initial=progress.step,
            total=len(loader),
            disable=not accelerator.is_main_process,
        )
        for batch in bar:
            with attention(accelerator):
                loss, report = stage.loss(network, batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"{stage.name}: the loss is {loss.item()} at step {progress.total_steps}: lower the rates"
                )
            accelerator.backward(loss)
            share_gradients(network, accelerator)
            accelerator.clip_grad_norm_(network.parameters(), stage.settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            if stage.after_step is not None:
                stage.after_step(progress.total_steps + 1)
            optimizer.zero_grad()
            if average is not None:
                average.update_parameters(accelerator.unwrap_model(network))
            progress.step += 1
            progress.total_steps += 1
            if progress.total_steps % KEEP_LOGGING_EVERY == 0:
                step = {"loss": loss.item(), **report, "lr": float(schedule.get_last_lr()[-1])}
                accelerator.log(prefixed(f"{stage.name}/train", step), step=progress.total_steps)
                bar.set_postfix(loss=f"{step['loss']:.3f}")
            if progress.total_steps % save_every_steps == 0:
                progress.save(accelerator)

        figures = as_the_first_has_it(stage.validate(shown.eval()))
        accelerator.log(prefixed(f"{stage.name}/validation", figures), step=progress.total_steps)
        progress.finish_epoch(figures)
        if stage.stopping.update(figures[stage.metric], progress.epoch) and accelerator.is_main_process:
            write_weights(shown, out / "best.safetensors")
        progress.save(accelerator)
        if accelerator.is_main_process:
            tqdm.write(
                f"{stage.name} epoch {progress.epoch}: "
                + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()),
                file=bar.fp,
            )

    accelerator.wait_for_everyone()
    stage.network.load_state_dict(load_file(out / "best.safetensors"), strict=True)
    # In mixed precision its forward was another; what comes after, as calibrating it, is about what will be served.
    accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    accelerator.free_memory()
    return progress.history[stage.stopping.best_epoch]


def attention(accelerator: Accelerator) -> AbstractContextManager[None]:
    """By plain products on a CPU in bf16, where the backward of torch's own kernel takes half of a step."""
    plain = accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def prefixed(prefix: str, figures: Report) -> Report:
    return {f"{prefix}/{name}": value for name, value in figures.items()}


class Progress:
    """Where a stage stands; kept in `progress.json` beside Accelerate's state and renamed into place."""

    def __init__(self, out: Path, stopping: EarlyStopping) -> None:
        self.out = out
        self.stopping = stopping
        self.epoch = 0  # epochs finished
        self.step = 0  # steps done in the current epoch
        self.total_steps = 0
        self.history: list[Report] = []  # the validations, before the first epoch and after each
        out.mkdir(parents=True, exist_ok=True)

    def finish_epoch(self, figures: Report) -> None:
        self.history.append(figures)
        self.epoch += 1
        self.step = 0

    def save(self, accelerator: Accelerator) -> None:
        """A folder of its own each time: a kill while writing leaves the earlier state whole."""
        folder = self.out / f"state-{self.epoch}-{self.total_steps}"
        with one_kind_of_error(folder):
            accelerator.save_state(str(folder))
        accelerator.wait_for_everyone()  # each process has written its random numbers
        if accelerator.is_main_process:
            written = self.out / "progress.json.new"
            written.write_text(
                json.dumps(
                    {
                        "state": folder.name,
                        "epoch": self.epoch,
                        "step": self.step,
                        "total_steps": self.total_steps,
                        "history": self.history,
                        "early_stopping": self.stopping.state_dict(),
                    },
                    indent=2,
                )
            )
            written.replace(self.out / "progress.json")
            for old in self.out.glob("state-*"):
                if old != folder:
                    shutil.rmtree(old)
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Accelerator) -> None:
        path = self.out / "progress.json"
        if not path.is_file():
            return
        state = json.loads(path.read_text())
        accelerator.load_state(str(self.out / state["state"]))
        self.epoch, self.step, self.total_steps = state["epoch"], state["step"], state["total_steps"]
        self.history = state["history"]
        self.stopping.load_state_dict(state["early_stopping"])


def warmup_then_cosine(optimizer: torch.optim.Optimizer, settings: OptimizerSection, steps: int) -> LambdaLR:
    """Linear warm-up over `settings.warmup` of the steps, then a half cosine to zero."""
    warmup = max(1, round(settings.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return LambdaLR(optimizer, factor)


def moving_average(network: nn.Module, decay: float, device: torch.device) -> AveragedModel | None:
    """An exponential moving average of the network's weights (Polyak & Juditsky 1992); None with a decay of 0.

    The first steps are forgotten faster, by (1 + n) / (10 + n) until that passes `decay`: in a short run an average
    of 0.999 would still hold the untrained heads. Buffers are taken over as they are.
    """
    if not decay:
        return None

    def update(averaged: Any, current: Any, steps: Any) -> None:
        get_ema_multi_avg_fn(min(decay, float((1 + steps) / (10 + steps))))(averaged, current, steps)

    return AveragedModel(network, device, multi_avg_fn=update)


def freeze_statistics(network: nn.Module) -> None:
    """Batch norms keep their pretrained statistics: those of small, skewed batches would be worse."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def write_weights(network: nn.Module, path: Path) -> None:
    """Written beside and renamed: a kill leaves the earlier best whole."""
    beside = path.with_suffix(".new")
    with one_kind_of_error(beside):
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, beside)
    beside.replace(path)
