"""What other checkpoints say of the products to train on, learned beside their labels (Hinton et al. 2015).

A label is one value, right or wrong; teachers that learned apart say how likely each value is, and often doubt a wrong
label. They see each product as it is, also where the student is shown a poorer title or no photo of it. What they said
is kept in `taught.safetensors`, so that a resumed run need not ask again.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.checkpoint import Checkpoint, load, one_kind_of_error
from models.taxonomy import Attribute, Taxonomy
from training.errors import RecipeError
from training.evaluation import evaluate_rows
from training.recipe import DistillationSection
from training.table import Row


def with_teachers(
    rows: Sequence[Row], taxonomy: Taxonomy, section: DistillationSection, kept: Path, workers: int
) -> list[Row]:
    """The rows with what the teachers say of each. Raises RecipeError where they can teach nothing."""
    if not kept.is_file():
        beside = kept.with_suffix(".new")
        said = ask(rows, taxonomy, section, workers)
        with one_kind_of_error(beside):
            save_file({"probabilities": said.half()}, beside)
        beside.replace(kept)
    said = load_file(kept)["probabilities"].float()
    return [replace(row, taught=of_one) for row, of_one in zip(rows, said, strict=True)]


def ask(rows: Sequence[Row], taxonomy: Taxonomy, section: DistillationSection, workers: int) -> Tensor:
    """Float32 (N, W): the mean over the teachers that know an attribute; NaN in the columns of one that none knows."""
    # A resumed run does not ask again, and building a network draws random numbers.
    with torch.random.fork_rng():
        teachers = [load(path) for path in section.teachers]
    known = [a.name for a in taxonomy if any(counterpart(teacher, a) for teacher in teachers)]
    if not known:
        raise RecipeError(
            f"[distillation]: none of {', '.join(section.teachers)} knows all values of an attribute of this table"
        )
    print(f"the teachers teach {', '.join(known)}", file=sys.stderr)
    return torch.stack([answers(teacher, rows, taxonomy, workers) for teacher in teachers]).nanmean(dim=0)


def answers(teacher: Checkpoint, rows: Sequence[Row], taxonomy: Taxonomy, workers: int) -> Tensor:
    """Float32 (N, W) of one teacher, its fused answers, with NaN for what it does not know."""
    logits = evaluate_rows(teacher.model, rows, teacher.preprocessor, workers, quiet=False)
    of = dict(zip((attribute.name for attribute in teacher.taxonomy), logits.fused, strict=True))
    columns = []
    for attribute in taxonomy:
        theirs = counterpart(teacher, attribute)
        if theirs is None:
            columns.append(torch.full((len(rows), len(attribute.values)), float("nan")))
        else:
            places = [theirs.values.index(value) for value in attribute.values]
            asked = of[attribute.name][:, places]
            columns.append(asked.sigmoid() if attribute.multiple else asked.softmax(dim=1))
    return torch.cat(columns, dim=1)


def counterpart(teacher: Checkpoint, attribute: Attribute) -> Attribute | None:
    """A teacher's own attribute, where it knows every value: one that it does not know it would teach to be absent."""
    for theirs in teacher.taxonomy:
        if theirs.name == attribute.name and theirs.multiple == attribute.multiple:
            return theirs if set(attribute.values) <= set(theirs.values) else None
    return None
