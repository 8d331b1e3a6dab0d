"""What share of the measured matrix peak the towers' forward reaches, in each numeric type.

A round measures the peak of each type and then runs each way of computing over the same batch, so a slow minute of the
machine touches both. The towers run on all cores as they were trained, without what a worker makes over for speed
(folded norms, graphs) and without heads, tags and preparing. What
they multiply is counted once, by torch, over the float32 towers; all else they do (norms, softmax, activations,
converting pixels) is time without operations.

int8 here is speed alone: it is quantised by the project's own export, but on few drawn products and accepted by nobody.
Whether its tags agree is for `python -m models export` to say.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.headline import headline
from benchmarks.peaks import Type, peaks, seconds, works
from benchmarks.products import ProductMaker
from models.checkpoint import Checkpoint, load, version
from models.compiled import CompiledPhotoTower, CompiledTextTower, Network, Precision
from models.errors import CheckpointError
from models.networks import Networks, quantised, traced
from models.product import Example, Product
from models.towers import PhotoTower, TextTower
from workers.runtime import choose_device

BATCHES = {"cpu": 8, "cuda": 256}  # products; a processor runs no more at once
TOKENS = 64  # of each product
QUANTISE_ON = 32  # products; more make int8 better, not faster
TIMES = 5  # forwards of a round, whose median counts
GOALS: dict[Type, float] = {"bf16": 0.85, "int8": 0.75}  # of the base towers


@dataclass(frozen=True)
class Way:
    """Towers in one numeric type."""

    title: str
    kind: Type
    text: TextTower
    photo: PhotoTower


@dataclass(frozen=True)
class Inputs:
    """token_ids, type_ids int64 and mask bool (B, T); photos uint8 (P, 3, S, S), as many as products."""

    token_ids: Tensor
    type_ids: Tensor
    mask: Tensor
    photos: Tensor

    @classmethod
    def drawn(cls, checkpoint: Checkpoint, device: str, batch: int, tokens: int) -> Inputs:
        """Random tokens and pixels: their values change no time."""
        torch.manual_seed(0)
        side = checkpoint.preprocessor.config.photo_size
        words = checkpoint.preprocessor.tokenizer.get_vocab_size()
        return cls(
            torch.randint(words, (batch, tokens), device=device),
            torch.zeros(batch, tokens, dtype=torch.int64, device=device),
            torch.ones(batch, tokens, dtype=torch.bool, device=device),
            torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, device=device),
        )


def measure(path: Path, machine: dict[str, Any], device: str, rounds: int, *, goals: bool) -> dict[str, Any]:
    """The document. Raises CheckpointError, ExtraMissing and DeviceUnavailable."""
    device = choose_device(device)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    checkpoint = load(path)
    if checkpoint.precisions:
        raise CheckpointError(f"{path} is exported already: measure the checkpoint that it was made from")
    inputs = Inputs.drawn(checkpoint, device, BATCHES[device], min(TOKENS, max_tokens(checkpoint)))
    operations = counted(checkpoint, inputs)
    tried = works(device)
    ways = made(checkpoint, device)
    found: dict[str, list[dict[str, float]]] = {way.title: [] for way in ways}
    measured: list[dict[Type, float]] = []
    for number in range(rounds + 1):
        peak = peaks(tried)
        for way in ways:
            one = share(way, inputs, operations, peak[way.kind])
            if number:
                found[way.title].append(one)
        if number:
            measured.append(peak)
        print(f"round {number} of {rounds}{'' if number else ' (not counted)'}", file=sys.stderr)
    shares = {way.title: summary(way.kind, found[way.title]) for way in ways}
    return {
        "benchmark": "forward",
        "machine": machine,
        "model": {"name": checkpoint.name, "version": version(path)},
        "settings": {
            "device": device,
            "threads": torch.get_num_threads(),
            "products": len(inputs.photos),
            "tokens": inputs.token_ids.shape[1],
            "photo_size": inputs.photos.shape[-1],
        },
        "gflop_of_a_product": {
            tower: round(count / len(inputs.photos) / 1e9, 3) for tower, count in operations.items()
        },
        "peak_gflop_per_s": {
            kind: round(statistics.median(peak[kind] for peak in measured) / 1e9, 1) for kind in tried
        },
        "shares": shares,
        "rounds": rounds,
        "headline": headlines(checkpoint.name, shares, goals=goals),
    }


def max_tokens(checkpoint: Checkpoint) -> int:
    return checkpoint.preprocessor.config.max_tokens


def counted(checkpoint: Checkpoint, inputs: Inputs) -> dict[str, float]:
    """Operations of one forward of each tower, on the CPU: attention is counted only where gradients are wanted, as
    PyTorch's fused layer is not.
    """
    text, photo = checkpoint.model.text_tower, checkpoint.model.photo_tower
    work: dict[str, Callable[[], Tensor]] = {
        "text": lambda: text.encode(
            inputs.token_ids[:1].cpu(), inputs.type_ids[:1].cpu(), inputs.mask[:1].cpu()
        ),
        "photo": lambda: photo(inputs.photos[:1].cpu()),
    }
    found = {}
    for name, run in work.items():
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            run()
        found[name] = float(counter.get_total_flops() * len(inputs.photos))
    return found


def made(checkpoint: Checkpoint, device: str) -> list[Way]:
    """float32 and bf16 weights by torch, and on processors bf16 and int8 by OpenVINO."""
    model = checkpoint.model
    ways = []
    if device == "cpu":
        print("exporting the towers ...", file=sys.stderr)
        whole = traced(model, checkpoint.preprocessor.config.photo_size)
        in_int8 = quantised(whole, model, examples(checkpoint))
        ways = [exported(checkpoint, whole, "bf16"), exported(checkpoint, in_int8, "int8")]
    halved = copy.deepcopy(model).to(device, torch.bfloat16).eval()
    model = model.to(device).eval()
    return [
        Way("float32, torch", "float32", model.text_tower, model.photo_tower),
        Way("bf16, torch", "bf16", halved.text_tower, halved.photo_tower),
        *ways,
    ]


def exported(checkpoint: Checkpoint, networks: Networks, precision: Precision) -> Way:
    text = CompiledTextTower(Network(networks["text"], precision))
    photo = CompiledPhotoTower(Network(networks["photo"], precision))
    numbers = checkpoint.preprocessor.config
    photo.normalise_with(numbers.mean, numbers.std)
    return Way(f"{precision}, OpenVINO", precision, text, photo)


def examples(checkpoint: Checkpoint) -> list[Example]:
    """Drawn products that have a photo, for the ranges of activations."""
    maker = ProductMaker.from_samples()
    found: list[Example] = []
    number = 0
    while len(found) < QUANTISE_ON:
        product = maker.make(number)
        if product.photos:
            made = Product(product.title, product.description, product.photos[:1])
            found.append(checkpoint.preprocessor(made))
        number += 1
    return found


@torch.inference_mode()
def share(way: Way, inputs: Inputs, operations: Mapping[str, float], peak: float) -> dict[str, float]:
    """Of the peak: each tower, and both one after the other."""
    work: dict[str, Callable[[], object]] = {
        "text": lambda: way.text.encode(inputs.token_ids, inputs.type_ids, inputs.mask),
        "photo": lambda: way.photo(inputs.photos),
    }
    took = {}
    for name, run in work.items():
        once = synchronised(run, inputs.photos.device.type)
        once()
        took[name] = statistics.median(seconds(once) for _ in range(TIMES))
    alone = {name: operations[name] / took[name] / peak for name in took}
    return {**alone, "both": sum(operations.values()) / sum(took.values()) / peak}


def synchronised(run: Callable[[], object], device: str) -> Callable[[], object]:
    if device != "cuda":
        return run

    def once() -> None:
        run()
        torch.cuda.synchronize()

    return once


def summary(kind: Type, rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians of the rounds' shares, and the range of both towers together."""
    both = [one["both"] for one in rounds]
    return {
        "type": kind,
        **{name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]},
        "range": [round(min(both), 3), round(max(both), 3)],
    }


def headlines(model: str, shares: Mapping[str, Mapping[str, Any]], *, goals: bool) -> list[dict[str, Any]]:
    return [
        headline(
            f"{model}, share of the peak: {title}",
            of["both"],
            each=of["range"],
            goal=GOALS.get(of["type"]) if goals else None,
        )
        for title, of in shares.items()
    ]


def table(document: Mapping[str, Any]) -> str:
    machine, settings, flop = document["machine"], document["settings"], document["gflop_of_a_product"]
    peak = document["peak_gflop_per_s"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"model {document['model']['name']} {document['model']['version'][:12]} on {settings['device']}, "
        f"{settings['threads']} threads, {settings['products']} products of {settings['tokens']} tokens and a photo of "
        f"{settings['photo_size']} px: {flop['text']} + {flop['photo']} GFLOP each",
        f"medians of {document['rounds']} rounds",
        "measured peak, GFLOP/s: " + ", ".join(f"{kind} {value:.0f}" for kind, value in peak.items()),
        "",
        f"{'share of the peak of its type':<32}{'text':>8}{'photo':>8}{'both':>8}{'min':>8}{'max':>8}",
    ]
    for title, of in document["shares"].items():
        figures = (of["text"], of["photo"], of["both"], *of["range"])
        lines.append(f"{title:<32}" + "".join(f"{figure:>8.3f}" for figure in figures))
    return "\n".join(lines)
