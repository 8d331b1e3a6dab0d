"""Values for cells that nobody filled, from a teacher that is sure of them (Lee 2013, "Pseudo-Label").

The teacher is any checkpoint. Its confidences are calibrated, so a threshold means what it says. What it filled is kept
in `pseudo_labels.jsonl`: a person can read it, and a resumed run need not ask again.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.checkpoint import load, version
from models.product import Tag
from models.tagger import Tagger
from models.taxonomy import Attribute, Taxonomy
from training.data import Collator, Products
from training.device import device_of
from training.frame import read_frame
from training.readable import require_readable
from training.recipe import PseudoLabelsSection, SplitSection
from training.split import part_of
from training.table import Row, read_rows

BATCH = 64
Filled = dict[int, dict[str, tuple[str, ...]]]  # the values of each attribute, by the row's place


def with_pseudo_labels(
    rows: Sequence[Row],
    taxonomy: Taxonomy,
    section: PseudoLabelsSection,
    split: SplitSection,
    kept: Path,
    workers: int,
) -> list[Row]:
    """The training rows and those of the section's own table, with the cells filled that the teacher is sure of.

    Without a table the rows' own empty cells are filled. A product of another table whose group the split keeps for
    measuring is left out, and so is one that no cell could be filled of. The taxonomy gets no new values.
    """
    asked = list(rows)
    if section.table:
        asked = [row for row in others(Path(section.table), taxonomy) if part_of(row.group, split) == "train"]
        require_readable(asked)  # also those that nothing is asked of are trained on
    if not kept.is_file():
        write(kept, asked, ask(asked, taxonomy, section, workers))
    found = read(kept)
    print(
        f"pseudo-labels: {sum(map(len, found.values()))} cells of {len(found)} of {len(asked)} products",
        file=sys.stderr,
    )
    filled = [replace(row, values={**row.values, **found.get(place, {})}) for place, row in enumerate(asked)]
    return [*rows, *(row for row in filled if any(row.values.values()))] if section.table else filled


def others(path: Path, taxonomy: Taxonomy) -> tuple[Row, ...]:
    """The products of a second table, which need not have a column of any attribute."""
    frame = read_frame(path)
    there = [attribute for attribute in taxonomy if attribute.name in frame.columns]
    multiple = {attribute.name for attribute in there if attribute.multiple}
    return read_rows(path, frame, [attribute.name for attribute in there], multiple)


def ask(rows: Sequence[Row], taxonomy: Taxonomy, section: PseudoLabelsSection, workers: int) -> Filled:
    """What the teacher is sure of, for the empty cells of attributes and values that both know."""
    # A resumed run does not ask again, and building a network draws random numbers.
    with torch.random.fork_rng():
        teacher = teacher_at(section.teacher)
    known = {attribute.name: attribute for attribute in teacher.taxonomy}
    shared = [a for a in taxonomy if a.name in known and answers(known[a.name], a)]
    places = [n for n, row in enumerate(rows) if any(not row.values.get(a.name) for a in shared)]
    wanted = [rows[place] for place in places]
    products = Products(wanted, teacher.checkpoint.preprocessor)
    # Its own random numbers, for the same reason.
    loader = DataLoader(
        products, BATCH, collate_fn=Collator(()), num_workers=workers, generator=torch.Generator()
    )
    bar = tqdm(loader, desc="asking the teacher", file=sys.stderr)
    taggings = [tagging for labelled in bar for tagging in teacher.run(labelled.batch)]
    filled: Filled = {}
    for place, row, tagging in zip(places, wanted, taggings, strict=True):
        for attribute in shared:
            if not row.values.get(attribute.name):
                tags = [tag for tag in tagging.tags if tag.attribute == attribute.name]
                if values := sure(attribute, tags, section.confidence):
                    filled.setdefault(place, {})[attribute.name] = values
    return filled


def answers(teacher: Attribute, attribute: Attribute) -> bool:
    """Whether what a teacher says of its own attribute can stand in a cell of this one. Of several values it must know
    them all: those that a filled cell does not name are learned as absent.
    """
    if teacher.multiple != attribute.multiple:
        return False
    return not attribute.multiple or set(attribute.values) <= set(teacher.values)


def teacher_at(path: str) -> Tagger:
    checkpoint = load(path)
    return Tagger(checkpoint, version(path), device_of(checkpoint.model))


def sure(attribute: Attribute, tags: Sequence[Tag], confidence: float) -> tuple[str, ...]:
    """The offered values when all of them are sure enough, and for several values the others are as surely not.

    Nothing where one of the values is none of the attribute's.
    """
    values = tuple(tag.value for tag in tags if tag.value is not None)
    if len(values) < len(tags) or any(tag.confidence < confidence for tag in tags):
        return ()
    if attribute.multiple and any(
        other.confidence > 1 - confidence for tag in tags for other in tag.alternatives
    ):
        return ()
    return values if set(values) <= set(attribute.values) else ()


def write(path: Path, rows: Sequence[Row], filled: Filled) -> None:
    """Beside and renamed: a kill leaves no half of it."""
    beside = path.with_suffix(".new")
    with beside.open("w", encoding="utf-8") as stream:
        for place, values in sorted(filled.items()):
            entry = {"row": place, "id": rows[place].id, "values": values}
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
    beside.replace(path)


def read(path: Path) -> Filled:
    with path.open(encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    return {line["row"]: {name: tuple(values) for name, values in line["values"].items()} for line in lines}
