"""How often the promise of `auto` is broken, tried on products that no training saw.

They are halved at random, by group, again and again: calibration is found on one half and `auto` is counted on the
other, as on the next sample that the promise of `training/promise.py` speaks of. Legend: N rows.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.calibration import ABSTAIN_BELOW, PATTERN_IN_WORDS, PATTERNS, Calibration, Modality, Pattern
from models.checkpoint import load, version
from models.cores import one_core
from models.taxonomy import Taxonomy
from training.applicable import known
from training.calibrate import calibrate, certainty_of
from training.catalogue import rows_for
from training.errors import DataError
from training.evaluation import at_offers, judged, labelled, offers, said, those, vouched_in
from training.readable import require_readable
from training.recipe import CalibrationSection
from training.seen import Seen, see, shows
from training.split import rows_of, split_of
from training.unseen import unseen_in, with_unseen

SELDOM = 0.2  # promises that are made in fewer of the halvings are luck, and say little of how they are kept
COLUMNS = ("attribute", "from", "target", "promised", "broken", "worst", "precision", "coverage")


@dataclass(frozen=True)
class Kept:
    """What came of one promise on the other half; `precision` is None where nothing was `auto`."""

    precision: float | None
    coverage: float

    def broken(self, target: float) -> bool:
        return self.precision is not None and self.precision < target


def contract_of(
    path: Path, data: Path, splits: int, certainty: float | None, seed: int, workers: int
) -> dict[str, Any]:
    """The document of `contract --json` for the checkpoint at `path`: by its own targets, and its own certainty where
    None is given, on the calibration and test parts of the table by its own split rule. Raises DataError and
    CheckpointError.
    """
    checkpoint = load(path)
    split = split_of(checkpoint)
    rows = rows_for(checkpoint.taxonomy, data)
    unseen = [row for part in ("calibration", "test") for row in rows_of(rows, part, split)]
    if len({row.group for row in unseen}) < 2:
        raise DataError(f"{data} has {len(unseen)} rows that no training saw: too few to halve")
    require_readable(unseen)
    section = CalibrationSection(
        certainty=certainty or certainty_of(checkpoint.metrics),
        targets=checkpoint.calibration.targets(checkpoint.taxonomy),
    )
    seen = see(checkpoint.model, unseen, checkpoint.preprocessor, checkpoint.taxonomy, workers, quiet=False)
    missing = unseen_in(checkpoint.metrics)
    found = contract(seen, checkpoint.taxonomy, section, splits, seed, unseen=missing, quiet=False)
    return {"checkpoint": str(path), "version": version(path), **found}


def contract(
    seen: Seen,
    taxonomy: Taxonomy,
    section: CalibrationSection,
    splits: int,
    seed: int = 0,
    *,
    unseen: Modality | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """For `metrics.json`. Of each attribute and pattern: in how many splits something was promised, in how many of
    them broken, and the worst and mean precision and mean coverage of those with a promise, None without any. Of what
    no training product had, which is `unseen`, nothing ever is.
    """
    random = np.random.default_rng(seed)
    kept: dict[tuple[str, Pattern], list[Kept]] = defaultdict(list)
    with one_core():
        for _ in tqdm(range(splits), desc="halving", disable=quiet, file=sys.stderr):
            here, there = halves(seen.owner, random)
            calibration = with_unseen(calibrate(seen.of(here), taxonomy, section), unseen)
            for name, pattern, one in tried(calibration, taxonomy, seen.of(there)):
                if pattern != unseen:
                    kept[name, pattern].append(one)
    attributes: dict[str, Any] = {}
    for attribute, target in zip(taxonomy, seen.targets, strict=True):
        goal = section.targets.get(attribute.name, section.target_precision)
        asked = labelled(target, attribute)
        attributes[attribute.name] = {
            pattern: {"target_precision": goal, **figures(kept[attribute.name, pattern], goal)}
            for pattern in PATTERNS
            if (asked & shows(seen.runs[pattern].patterns, pattern)).any()
        }
    all_figures = [entry for entries in attributes.values() for entry in entries.values()]
    return {
        "rows": len(seen.owner),
        "splits": splits,
        "certainty": section.certainty,
        "promised": sum(entry["promised"] for entry in all_figures),
        "broken": sum(entry["broken"] for entry in all_figures),
        "attributes": attributes,
    }


def halves(
    owner: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions of the rows of two random sets of groups, as large as each other but for a group.

    A group too large for what is left of the first set falls into the other; so that neither half has the larger
    groups more often, chance says which of them comes first.
    """
    groups = random.permutation(owner.max() + 1)
    rows = np.bincount(owner)[groups].cumsum()
    first = np.zeros(len(groups), np.bool_)
    first[groups[rows <= (len(owner) + 1) // 2]] = True
    here = first[owner] ^ (random.random() < 0.5)
    return np.flatnonzero(here), np.flatnonzero(~here)


def tried(calibration: Calibration, taxonomy: Taxonomy, seen: Seen) -> Iterator[tuple[str, Pattern, Kept]]:
    """What came of each promise on these rows; as `training.evaluation.report` has it, for each pattern."""
    truth = known(seen.targets, taxonomy)
    for pattern, run in seen.runs.items():
        scoped, of = said(run, taxonomy, calibration), shows(run.patterns, pattern)
        by_attribute = calibration.patterns_for(run.served, run.text_only, taxonomy)
        vouched = vouched_in(run, taxonomy, calibration)
        for index, attribute in enumerate(taxonomy):
            auto_from, target = calibration.attributes[index].auto_from, seen.targets[index]
            if all(auto_from[each] is None for each in those(by_attribute[index], of)):
                continue
            met = judged(attribute, target, scoped[index], truth[index]) & of
            confidence, right = offers(scoped[index].confidence[met], target[met], attribute)
            offered = confidence >= ABSTAIN_BELOW
            limits = [auto_from[each] for each in those(by_attribute[index], met)]
            least = torch.tensor([np.inf if limit is None else limit for limit in limits]).unsqueeze(1)
            sure = at_offers(vouched[index][met], scoped[index].confidence[met], attribute)
            auto = offered & (confidence >= least) & sure
            asked = offered.sum() if attribute.multiple else (labelled(target, attribute) & of | met).sum()
            precision = float(right[auto].float().mean()) if auto.any() else None
            yield attribute.name, pattern, Kept(precision, int(auto.sum()) / max(1, int(asked)))


def figures(kept: Sequence[Kept], goal: float) -> dict[str, Any]:
    precisions = [one.precision for one in kept if one.precision is not None]
    return {
        "promised": len(kept),
        "broken": sum(one.broken(goal) for one in kept),
        "worst": min(precisions, default=None),
        "precision": float(np.mean(precisions)) if precisions else None,
        "coverage": float(np.mean([one.coverage for one in kept])) if kept else None,
    }


def in_words(document: dict[str, Any]) -> str:
    """The share of broken promises in a sentence: on the terminal and in the model card."""
    promised, broken = document["promised"], document["broken"]
    tried = f"{document['splits']} random halvings of {document['rows']} products that no training saw"
    if not promised:
        return f"In {tried} nothing was promised: they are too few, or the answers too often wrong."
    allowed = 1 - document["certainty"]
    found = f"In {tried}, {broken} of {promised} promises were broken ({broken / promised:.1%}; allowed {allowed:.0%})."
    entries = [entry for of in document["attributes"].values() for entry in of.values()]
    possible = document["splits"] * sum(entry["promised"] > 0 for entry in entries)
    if promised < SELDOM * possible:
        # What is made by a lucky half is broken by the other, which has all the errors.
        found += f" Where any was made it was in {promised} of {possible} cases: too few to tell."
    return found


def lines(document: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """The cells of COLUMNS for each attribute and pattern."""
    for name, entries in document["attributes"].items():
        for pattern, entry in entries.items():
            shares = [
                "-" if entry[figure] is None else f"{entry[figure]:.3f}"
                for figure in ("worst", "precision", "coverage")
            ]
            yield (
                name,
                PATTERN_IN_WORDS[pattern],
                f"{entry['target_precision']:g}",
                entry["promised"],
                entry["broken"],
                *shares,
            )
