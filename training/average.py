"""One checkpoint from several runs: their weights averaged, which serves as fast as one of them and is often better
than the best (model soups, Wortsman et al. 2022).

Only runs that started from the same towers lie in one basin and can be averaged; whether it paid is measured. The
result is calibrated anew: an average is surer or less sure than its members.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.checkpoint import Checkpoint, load_to_train, version
from models.errors import CheckpointError
from models.room import make_room
from training.calibrate import certainty_of
from training.catalogue import rows_for
from training.data import targets_of
from training.errors import DataError
from training.evaluation import evaluate_rows, summary
from training.fit import finish
from training.readable import require_readable
from training.recipe import BackbonesSection, CalibrationSection, DataSection, Recipe
from training.split import MEASURED_ON, PARTS, rows_of, split_of
from training.table import Row
from training.unseen import unseen_in

Method = Literal["uniform", "greedy"]
Weights = dict[str, Tensor]


def average(paths: Sequence[Path], data: Path, out: Path, method: Method, workers: int) -> Path:
    """Leaves the averaged checkpoint in `out/checkpoint`; `metrics.json` says what it is made of.

    `uniform` takes every run; `greedy` starts with the best on the validation part and takes another only where the
    average does not get worse (recipe 1 of the paper). Raises CheckpointError for runs that do not belong together, and
    DataError where that checkpoint is there already, or a part of the table has no rows to measure on.
    """
    if (out / "checkpoint").exists():
        raise DataError(f"{out / 'checkpoint'} is there already: name a new folder")
    make_room(out)  # now, and not after minutes of work
    members = {str(path): load_to_train(path) for path in paths}
    for path, member in members.items():
        check(members[str(paths[0])], member, str(paths[0]), path)
    first = members[str(paths[0])]
    split = split_of(first)
    rows = rows_for(first.taxonomy, data)
    parts = {part: rows_of(rows, part, split) for part in PARTS}
    for part in MEASURED_ON:
        if not parts[part]:
            raise DataError(f"{data}: none of {len(rows)} rows falls into the {part} part")
    require_readable([row for part in MEASURED_ON for row in parts[part]])
    # Copies: the network of the first is what every average is measured in.
    weights = {
        path: {name: tensor.clone() for name, tensor in member.model.state_dict().items()}
        for path, member in members.items()
    }
    validation = {path: value(first, one, parts["validation"], workers) for path, one in weights.items()}
    taken = list(weights)
    if method == "greedy":
        taken = greedy(
            validation,
            lambda some: value(first, mean([weights[path] for path in some]), parts["validation"], workers),
        )
    averaged = mean([weights[path] for path in taken])
    of_average = value(
        first, averaged, parts["validation"], workers
    )  # leaves the average in the first's network
    print(f"{method} average of {len(taken)}: macro-F1 {of_average:.4f} on validation", file=sys.stderr)
    recipe = Recipe(
        name=f"{first.name}-average",
        description=f"The {method} average of the weights of {len(taken)} runs.",
        backbones=BackbonesSection(checkpoint=taken[0]),
        data=DataSection(workers=workers),
        split=split,
        calibration=CalibrationSection(
            certainty=certainty_of(first.metrics), targets=first.calibration.targets(first.taxonomy)
        ),
    )
    made_of = {
        "method": method,
        "validation_macro_f1": of_average,
        "members": [
            {"version": version(path), "validation_macro_f1": validation[path], "taken": path in taken}
            for path in weights
        ],
    }
    finish(
        recipe,
        out,
        first.model,
        first.preprocessor,
        first.taxonomy,
        parts,
        extra={
            "average": made_of,
            "words": first.metrics.get("words"),
            **{name: first.metrics[name] for name in ("unseen",) if name in first.metrics},
        },
    )
    return out / "checkpoint"


def check(first: Checkpoint, other: Checkpoint, its_path: str, other_path: str) -> None:
    """Raises CheckpointError, naming what the two do not share."""
    shared: dict[str, tuple[Any, Any]] = {
        "taxonomy": (first.taxonomy, other.taxonomy),
        "table of exact words": (first.metrics.get("words"), other.metrics.get("words")),
        "kind of products learned from": (unseen_in(first.metrics), unseen_in(other.metrics)),
        "towers": (first.model.config, other.model.config),
        "preprocessing": (first.preprocessor.config, other.preprocessor.config),
        "vocabulary": (first.preprocessor.tokenizer.to_str(), other.preprocessor.tokenizer.to_str()),
        "list of names to look for": (names_in(first), names_in(other)),
        "split": (split_of(first), split_of(other)),
    }
    for name, (one, another) in shared.items():
        if one != another:
            raise CheckpointError(
                f"{other_path} has another {name} than {its_path}: "
                "only runs of one table, split and starting point can be averaged"
            )


def names_in(checkpoint: Checkpoint) -> list[tuple[int, int]]:
    """With the value of each: the weights of two names have no mean."""
    names = checkpoint.model.names
    return [] if names is None else list(zip(names.keys.tolist(), names.values.tolist(), strict=True))


def greedy(validation: dict[str, float], of: Callable[[list[str]], float]) -> list[str]:
    """The runs that the greedy soup takes, best first; `of` gives the validation figure of some of them together."""
    order = sorted(validation, key=lambda path: -validation[path])
    taken, best = order[:1], validation[order[0]]
    for path in order[1:]:
        together = of([*taken, path])
        if together >= best:
            taken, best = [*taken, path], together
    return taken


def mean(weights: Sequence[Weights]) -> Weights:
    """Whole numbers, such as a count of batches, are those of the first."""
    return {
        name: torch.stack([one[name] for one in weights]).mean(dim=0) if first.is_floating_point() else first
        for name, first in weights[0].items()
    }


def value(checkpoint: Checkpoint, weights: Weights, rows: Sequence[Row], workers: int) -> float:
    """Macro-F1 of the fused head, the mean over the attributes; the weights stay in the checkpoint's network."""
    checkpoint.model.load_state_dict(weights, strict=True)
    logits = evaluate_rows(checkpoint.model, rows, checkpoint.preprocessor, workers)
    return summary(logits, targets_of(rows, checkpoint.taxonomy), checkpoint.taxonomy)["macro_f1"]
