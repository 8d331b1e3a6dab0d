"""A candidate checkpoint B beside the one that serves, A: the same products, the same draws, attribute by attribute.

The rule, for an operator who promotes B unless this says otherwise:

- *worse*: a figure (accuracy or macro-F1, of an attribute or of the mean over the attributes, under a condition) falls
  by more than the margin, and its interval lies below zero as a whole. The intervals hold all together with 95 %
  probability, so luck alone seldom blocks a good candidate however many differences are looked at.
- *unsure*: it falls by more than the margin, but the interval reaches zero. In an attribute this is only shown: with
  few rows of rare values some macro-F1 always does. In the mean accuracy over the attributes, the steadiest figure,
  it keeps B from being promoted: B looks worse and the rows are too few to say that it is not. More rows decide, or a
  wider margin where more may be lost.
- *no worse*: everything else.

Simulated as in `training.promotion`, of candidates exactly as good as A at most 1 % are called worse. How many are
unsure hangs on the rows and on how alike both answer: of 3,300 rows with 95 % of the groups answered by both alike
0.5 %, of 300 rows with 70 % alike 18 %, answered independently 49 %.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.checkpoint import Checkpoint, load, version
from models.taxonomy import Attribute
from training.answers import answered, owners, values_of, wanted
from training.bootstrap import FIGURES, Difference, Figure, count, differences, mean, resamples
from training.conditions import CONDITIONS, IN_WORDS, Condition, shown
from training.errors import DataError
from training.evaluation import Logits, evaluate_rows
from training.model_card import row
from training.promotion import in_words
from training.readable import require_readable
from training.renderings import Rendering, Shown, by_glossary
from training.scope import say, within_scope
from training.split import Part, rows_of, split_of
from training.table import Row, read_table

Verdict = Literal["no worse", "unsure", "worse"]
Differences = dict[Figure, Difference]
COLUMNS = ("attribute", "rows", "accuracy", "difference", "macro-F1", "difference", "verdict")
MEAN = "mean over the attributes"
FIGURE_IN_WORDS: dict[Figure, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class Settings:
    """`conditions` empty: all that the table allows. `part` "all": every row, else those that both checkpoints'
    split rules put there. With a `glossary` all texts are rendered by it first, alike for both.
    """

    conditions: tuple[Condition, ...] = ()
    part: Part | Literal["all"] = "all"
    glossary: Path | None = None
    style: Shown = "whole"
    unseen: bool = False
    margin: float = 0.01
    resamples: int = 1000
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Under:
    """What was found under one condition: rows labelled and differences of each shared attribute."""

    rows: int
    labelled: dict[str, int]
    attributes: dict[str, Differences]

    @property
    def mean(self) -> Differences:
        return {figure: mean([found[figure] for found in self.attributes.values()]) for figure in FIGURES}


def compare(a: Path, b: Path, metadata: Path, settings: Settings) -> dict[str, Any]:
    """The document of `compare --json`. Raises DataError where nothing can be compared, and CheckpointError."""
    paths = (a, b)
    checkpoints = (load(a), load(b))
    shared, unlike = pair_up(checkpoints)
    rows = read_rows(metadata, checkpoints, settings.part)
    shared = {name: pair for name, pair in shared.items() if any(one.values.get(name) for one in rows)}
    if not shared:
        raise DataError(f"{metadata} labels no attribute that both {a} and {b} tag in these rows")
    rows, wordings = by_glossary(rows, settings.glossary, settings.style, settings.unseen)
    found: dict[Condition, Under] = {}
    for condition, seen in views(rows, checkpoints, settings.conditions, wordings).items():
        logits = []
        for path, checkpoint in zip(paths, checkpoints, strict=True):
            print(f"{path}, {len(seen)} products {IN_WORDS[condition]}", file=sys.stderr)
            logits.append(
                evaluate_rows(checkpoint.model, seen, checkpoint.preprocessor, settings.workers, quiet=False)
            )
        told = under(seen, checkpoints, logits, shared, settings)
        if told.attributes:
            found[condition] = told
    names = [[attribute.name for attribute in checkpoint.taxonomy] for checkpoint in checkpoints]
    return {
        **{
            key: {
                "checkpoint": str(path),
                "version": version(path),
                "promotable": checkpoint.metrics.get("promotable"),
            }
            for key, path, checkpoint in zip(("a", "b"), paths, checkpoints, strict=True)
        },
        "rows": len(rows),
        "titles": None if settings.glossary is None else titles(settings),
        "only_in_a": [name for name in names[0] if name not in names[1]],
        "only_in_b": [name for name in names[1] if name not in names[0]],
        "unlike": unlike,
        "margin": settings.margin,
        "resamples": settings.resamples,
        "seed": settings.seed,
        **judged(found, settings.margin),
    }


def titles(settings: Settings) -> dict[str, Any]:
    return {"glossary": str(settings.glossary), "style": settings.style, "unseen": settings.unseen}


def pair_up(
    checkpoints: tuple[Checkpoint, Checkpoint],
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Positions in A and in B of each attribute of both; and the names of those that take one value in the one and
    several in the other, which no figure measures alike.
    """
    taxonomies = [list(checkpoint.taxonomy) for checkpoint in checkpoints]
    place = {attribute.name: position for position, attribute in enumerate(taxonomies[1])}
    shared, unlike = {}, []
    for position, attribute in enumerate(taxonomies[0]):
        if attribute.name in place:
            other = place[attribute.name]
            if taxonomies[1][other].multiple == attribute.multiple:
                shared[attribute.name] = (position, other)
            else:
                unlike.append(attribute.name)
    return shared, unlike


def read_rows(metadata: Path, checkpoints: Sequence[Checkpoint], part: Part | Literal["all"]) -> list[Row]:
    """The rows that all the checkpoints' split rules put into the part, without cells outside of their scopes.

    Raises DataError where there are none.
    """
    attributes = [attribute for checkpoint in checkpoints for attribute in checkpoint.taxonomy]
    names = list(dict.fromkeys(attribute.name for attribute in attributes))
    multiple = {attribute.name for attribute in attributes if attribute.multiple}
    rows = list(read_table(metadata, names, sorted(multiple), optional=True).rows)
    for checkpoint in checkpoints:
        rows, emptied = within_scope(rows, checkpoint.taxonomy.scopes)
        say(emptied, checkpoint.taxonomy.scopes)
    if part != "all":
        for checkpoint in checkpoints:
            rows = rows_of(rows, part, split_of(checkpoint))
        if not rows:
            raise DataError(f"{metadata}: no row falls into the {part} part of the split")
    require_readable(rows)
    return rows


def views(
    rows: Sequence[Row],
    checkpoints: tuple[Checkpoint, Checkpoint],
    asked: Sequence[Condition],
    wordings: Sequence[str] = (),
) -> dict[Condition, list[Row]]:
    """The rows under each condition that changes them, without those that would show nothing.

    The telling words of both taxonomies and the wordings are masked, so that both checkpoints see the same titles.
    """
    found: dict[Condition, list[Row]] = {}
    for condition in asked or CONDITIONS:
        seen = list(rows)
        for checkpoint in checkpoints:
            seen = shown(seen, condition, checkpoint.taxonomy, wordings)
        showing = [one for one in seen if one.title or one.description or one.photos]
        if showing and (condition == "as_is" or showing != rows):
            found[condition] = showing
        elif asked:
            raise DataError(f"the table has nothing to measure {IN_WORDS[condition]}")
    return found


def under(
    seen: Sequence[Row],
    checkpoints: tuple[Checkpoint, Checkpoint],
    logits: Sequence[Logits],
    shared: Mapping[str, tuple[int, int]],
    settings: Settings,
) -> Under:
    owner, groups = owners(seen)
    resampled = resamples(groups, settings.resamples, settings.seed)
    labelled, found = {}, {}
    for name, places in shared.items():
        pair: list[Attribute] = [
            checkpoint.taxonomy.attributes[place]
            for checkpoint, place in zip(checkpoints, places, strict=True)
        ]
        values = values_of(seen, pair)
        true = wanted(seen, pair[0], values)
        there = true.any(axis=1)
        if there.any():
            a, b = (
                count(
                    true[there],
                    by_the_fused_head(checkpoint, run, place, values)[there],
                    owner[there],
                    groups,
                )
                for checkpoint, run, place in zip(checkpoints, logits, places, strict=True)
            )
            labelled[name], found[name] = int(np.count_nonzero(there)), differences(a, b, resampled)
    return Under(len(seen), labelled, found)


def by_the_fused_head(
    checkpoint: Checkpoint, run: Logits, place: int, values: Sequence[str]
) -> NDArray[np.bool_]:
    """(N, V): its answers of the attribute at this place of the checkpoint's taxonomy."""
    attribute, calibration = checkpoint.taxonomy.attributes[place], checkpoint.calibration.attributes[place]
    return answered(run.fused[place], run.served, attribute, calibration, values)


def judged(found: Mapping[Condition, Under], margin: float) -> dict[str, Any]:
    """`conditions` with a verdict on every difference, and the verdict on B with the sentences it rests on."""
    together = sum(len(FIGURES) * (len(under.attributes) + 1) for under in found.values())
    conditions: dict[str, Any] = {}
    because: dict[Verdict, list[str]] = {"no worse": [], "unsure": [], "worse": []}
    for condition, under in found.items():
        entries = {}
        for name, difference_of in {**under.attributes, MEAN: under.mean}.items():
            entries[name] = {figure: entry(difference_of[figure], margin, together) for figure in FIGURES}
            for figure in FIGURES:
                told = entries[name][figure]
                if told["verdict"] == "worse" or (name == MEAN and figure == "accuracy"):
                    because[told["verdict"]].append(sentence(name, condition, figure, told))
        overall = entries.pop(MEAN)
        attributes = {name: {"rows": under.labelled[name], **entries[name]} for name in entries}
        conditions[condition] = {"rows": under.rows, "attributes": attributes, "mean": overall}
    verdict: Verdict = "worse" if because["worse"] else "unsure" if because["unsure"] else "no worse"
    reasons = [] if verdict == "no worse" else because["worse"] + because["unsure"]
    return {"conditions": conditions, "verdict": verdict, "because": reasons}


def entry(difference: Difference, margin: float, together: int) -> dict[str, Any]:
    low, high = difference.interval(together)
    verdict: Verdict = "no worse"
    if difference.value < -margin:
        verdict = "worse" if high < 0 else "unsure"
    figures = {"a": difference.a, "b": difference.b, "difference": difference.value}
    return {**figures, "low": low, "high": high, "verdict": verdict}


def sentence(name: str, condition: Condition, figure: Figure, told: Mapping[str, Any]) -> str:
    return (
        f"{name} {IN_WORDS[condition]}: {FIGURE_IN_WORDS[figure]} {told['b']:.3f} after {told['a']:.3f} "
        f"({told['difference']:+.3f}, interval {told['low']:+.3f} to {told['high']:+.3f})"
    )


def text(document: Mapping[str, Any]) -> str:
    """The document as Markdown tables, a line for each attribute: B after A, their difference and its interval."""
    lines = []
    for key in ("a", "b"):
        told = document[key]
        lines.append(f"{key.upper()}: {told['checkpoint']} {told['version'][:12]}")
        lines.append(in_words(told["promotable"]) if told["promotable"] else "Never judged for promotion.")
    for key, name in (("only_in_a", "only in A"), ("only_in_b", "only in B"), ("unlike", "not comparable")):
        if document[key]:
            lines.append(f"{name}: {', '.join(document[key])}")
    if document["titles"]:
        told = document["titles"]
        way = Rendering(told["style"], told["unseen"], "as_is").in_words
        lines.append(f"Rendered by {told['glossary']}: {way}")
    for condition, under in document["conditions"].items():
        lines += ["", f"{under['rows']} products {IN_WORDS[condition]}", "", row(COLUMNS)]
        lines.append(row(["---"] * len(COLUMNS)))
        entries = {**under["attributes"], MEAN: under["mean"]}
        lines += [row(cells(name, entry)) for name, entry in entries.items()]
    closing: dict[Verdict, str] = {
        "no worse": f"B is nowhere worse than A by more than {document['margin']}",
        "unsure": "B looks worse than A, and the rows are too few to be sure: give more, or a wider --margin",
        "worse": f"B is worse than A by more than {document['margin']}:",
    }
    reasons = [f"- {reason}" for reason in document["because"]]
    return "\n".join([*lines, "", closing[document["verdict"]], *reasons])


def cells(name: str, entry: Mapping[str, Any]) -> list[str]:
    found = [name, str(entry.get("rows", ""))]
    for figure in FIGURES:
        told = entry[figure]
        found.append(f"{told['a']:.3f} → {told['b']:.3f}")
        found.append(f"{told['difference']:+.3f} ({told['low']:+.3f} to {told['high']:+.3f})")
    verdicts = [entry[figure]["verdict"] for figure in FIGURES]
    return [*found, next((verdict for verdict in ("worse", "unsure") if verdict in verdicts), "")]
