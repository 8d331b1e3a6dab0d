"""The fused head beside the peers that it must not lose to, in macro-F1 and accuracy on the same rows.

Two peers learn here, from the rows of the checkpoint's own train part: a bag of words (TF-IDF of words and pairs of
words) and the concatenation of the checkpoint's own text and photo embeddings, each under a logistic regression; the
other two are the checkpoint's text-only and photo-only heads. All are measured on its test part. Every peer answers
every row: where its modality is missing it gives what is most usual.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.embeddings import embeddings
from models.calibration import AttributeCalibration, Pattern
from models.checkpoint import Checkpoint, load, version
from models.taxonomy import Attribute
from training.answers import answered, owners, placed, values_of, wanted
from training.bootstrap import RESAMPLES, Difference, Figure, count, differences, resamples
from training.compare import read_rows
from training.conditions import IN_WORDS, Condition, shown
from training.evaluation import Logits, evaluate_rows
from training.model_card import pair
from training.model_card import row as line
from training.promotion import ALONE
from training.table import Row

CONDITIONS: tuple[Condition, ...] = ("as_is", "masked_titles", "without_photos")
PEERS = {
    "tfidf": "TF-IDF",
    "concatenation": "concatenation",
    "text_only": "text only",
    "photo_only": "photos only",
}
# Of a logistic regression. A bag of words has so many sparse columns that the usual 1 is too stiff for rare values;
# some hundred dense ones take less.
STRENGTH = {"tfidf": 10.0, "concatenation": 0.1}
Features = dict[str, Any]  # (N, …) of each peer that learns, sparse or dense
Against = dict[str, dict[Figure, Difference]]  # the fused head (b) against each peer (a)


def measure(path: Path, metadata: Path, max_rows: int, seed: int, workers: int) -> dict[str, Any]:
    """The document of `fusion --json`; with `max_rows` 0 the peers learn from the whole train part.

    Raises DataError and CheckpointError.
    """
    checkpoint = load(path)
    train, test = (read_rows(metadata, [checkpoint], part) for part in ("train", "test"))
    chosen = train
    if 0 < max_rows < len(train):
        positions = np.random.default_rng(seed).choice(len(train), max_rows, replace=False)
        chosen = [train[position] for position in sorted(positions)]
    seen = {condition: shown(test, condition, checkpoint.taxonomy) for condition in CONDITIONS}
    learned, asked = features(checkpoint, chosen, seen, workers)
    logits = {
        condition: evaluate_rows(checkpoint.model, rows, checkpoint.preprocessor, workers, quiet=False)
        for condition, rows in seen.items()
    }
    found: dict[Condition, dict[str, Against]] = {condition: {} for condition in CONDITIONS}
    for index, attribute in enumerate(checkpoint.taxonomy):
        print(f"learning {attribute.name}", file=sys.stderr)
        learners = {peer: learn(peer, matrix, chosen, attribute) for peer, matrix in learned.items()}
        for condition in CONDITIONS:
            own = {peer: answers(learners[peer], asked[condition][peer], attribute) for peer in learners}
            against = beside(
                test,
                attribute,
                own,
                heads(logits[condition], index, attribute, checkpoint.calibration.attributes[index]),
                seed,
            )
            if against:
                found[condition][attribute.name] = against
    return {
        "checkpoint": str(path),
        "version": version(path),
        "rows": {"learned_from": len(chosen), "train": len(train), "test": len(test)},
        "conditions": entries(found),
    }


def features(
    checkpoint: Checkpoint,
    train: Sequence[Row],
    seen: Mapping[Condition, Sequence[Row]],
    workers: int,
) -> tuple[Features, dict[Condition, Features]]:
    """What the peers that learn see of the rows to learn from, and of those to answer under each condition."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    scaler = StandardScaler()
    learned: Features = {"concatenation": scaler.fit_transform(embeddings(checkpoint, train, workers))}
    if any(text_of(row).strip() for row in train):
        learned["tfidf"] = words.fit_transform(text_of(row) for row in train)
    asked: dict[Condition, Features] = {}
    for condition, rows in seen.items():
        asked[condition] = {"concatenation": scaler.transform(embeddings(checkpoint, rows, workers))}
        if "tfidf" in learned:
            asked[condition]["tfidf"] = words.transform(text_of(row) for row in rows)
    return learned, asked


def text_of(row: Row) -> str:
    return f"{row.title} {row.description}"


def learn(peer: str, matrix: Any, rows: Sequence[Row], attribute: Attribute) -> Any:
    """A fitted estimator over the attribute's own values, by their position."""
    true = wanted(rows, attribute, values_of(rows, [attribute]))[:, : len(attribute.values)]
    labelled = np.flatnonzero(true.any(axis=1))
    regression = LogisticRegression(C=STRENGTH[peer], max_iter=300)
    if attribute.multiple:
        return OneVsRestClassifier(regression).fit(matrix[labelled], true[labelled].astype(int))
    codes = true[labelled].argmax(axis=1)
    one_value = len(np.unique(codes)) < 2
    return (DummyClassifier() if one_value else regression).fit(matrix[labelled], codes)


def answers(learner: Any, matrix: Any, attribute: Attribute) -> NDArray[np.bool_]:
    """(N, V) over the attribute's own values."""
    found = learner.predict(matrix)
    return found.astype(bool) if attribute.multiple else found[:, None] == np.arange(len(attribute.values))


def heads(
    logits: Logits, index: int, attribute: Attribute, calibration: AttributeCalibration
) -> dict[str, NDArray[np.bool_]]:
    """The answers of the checkpoint's heads; a part's only where any row has its modality."""
    of: dict[str, list[Pattern]] = {"fused": logits.served}
    of |= {part: [pattern] * len(logits.patterns) for part, pattern in ALONE.items()}
    lacking = {"fused": None, "text_only": "photos", "photo_only": "text"}
    return {
        head: answered(getattr(logits, head)[index], of[head], attribute, calibration, attribute.values)
        for head in of
        if any(pattern not in (lacking[head], None) for pattern in logits.patterns)
    }


def beside(
    rows: Sequence[Row],
    attribute: Attribute,
    learned: Mapping[str, NDArray[np.bool_]],
    heads: Mapping[str, NDArray[np.bool_]],
    seed: int,
) -> Against:
    """The fused head against each peer over the labelled rows; empty where there are none."""
    values = values_of(rows, [attribute])
    true = wanted(rows, attribute, values)
    labelled = true.any(axis=1)
    if not labelled.any():
        return {}
    owner, groups = owners(rows)
    resampled = resamples(groups, RESAMPLES, seed)
    counts = {
        name: count(true[labelled], placed(own, attribute, values)[labelled], owner[labelled], groups)
        for name, own in {**learned, **heads}.items()
    }
    return {peer: differences(counts[peer], counts["fused"], resampled) for peer in PEERS if peer in counts}


def entries(found: Mapping[Condition, Mapping[str, Against]]) -> dict[str, Any]:
    """Figures of all, and what the fused head's macro-F1 is above the best peer's with its interval."""
    together = sum(len(attributes) for attributes in found.values())
    document: dict[str, Any] = {}
    for condition, attributes in found.items():
        document[condition] = {}
        for name, against in attributes.items():
            best = max(against, key=lambda peer: against[peer]["macro_f1"].a)
            above = against[best]["macro_f1"]
            low, high = above.interval(together)
            document[condition][name] = {
                **{
                    peer: {figure: of.a for figure, of in figures.items()}
                    for peer, figures in against.items()
                },
                "fused": {figure: of.b for figure, of in against[best].items()},
                "best_peer": best,
                "fused_above_best": {"macro_f1": above.value, "low": low, "high": high},
            }
    return document


def table(document: Mapping[str, Any]) -> str:
    """Accuracy / macro-F1 as Markdown, a table for each condition."""
    rows = document["rows"]
    lines = [
        f"{document['checkpoint']} {document['version'][:12]}: accuracy / macro-F1 on {rows['test']} products; "
        f"TF-IDF and concatenation learned from {rows['learned_from']} of {rows['train']}"
    ]
    columns = ["attribute", *PEERS.values(), "fused", "fused above the best in macro-F1"]
    for condition, attributes in document["conditions"].items():
        lines += ["", f"Products {IN_WORDS[condition]}", "", line(columns), line(["---"] * len(columns))]
        for name, entry in attributes.items():
            above = entry["fused_above_best"]
            lines.append(
                line(
                    [
                        name,
                        *(pair(entry[peer]) if peer in entry else "-" for peer in PEERS),
                        pair(entry["fused"]),
                        f"{above['macro_f1']:+.3f} ({above['low']:+.3f} to {above['high']:+.3f})",
                    ]
                )
            )
    return "\n".join(lines)
