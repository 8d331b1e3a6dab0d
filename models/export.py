"""Makes a checkpoint to be served on processors: its towers as OpenVINO networks in bf16 or int8, the rest as it was.

It is accepted only where it offers what float32 offers; a tower that cannot is left in a higher precision, and one that
a table without photos or without texts has nothing to measure by in float32. Its confidences are its own, so it
promises nothing until it is calibrated, which `training` knows how to do.
"""

import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from models.agreement import BATCH, Agreement, Offered, agreement, offers
from models.calibration import PATTERN_IN_WORDS, PATTERNS, Pattern
from models.checkpoint import Checkpoint, load, save, version
from models.compiled import CompiledPhotoTower, CompiledTextTower, Network, Precision, openvino_core
from models.errors import CheckpointError, ExportRefused
from models.fusion import FusionTagger
from models.networks import Networks, quantised, traced
from models.product import Example
from models.product_table import read_products
from models.room import make_room
from models.tagger import Tagger

# Of the tags of each pattern of what is present.
LEAST_AGREEMENT = 0.99
# Two thirds are compared, and one of a hundred products may have other tags.
LEAST_PRODUCTS = 150
# What the ranges of activations are taken from, at most a third of the products: NNCF's own default.
QUANTISE_ON = 300
LADDER: tuple[Precision, ...] = get_args(Precision)
ALONE: dict[str, Pattern] = {"text": "text", "photo": "photos"}  # where each tower answers by itself
# Of `metrics.json`: how the data were split, what they lacked, and how the training went; scores are of other towers.
KEPT = ("split", "rows", "unseen", "training")
# Shows how far the walk through an iterable is, by its length and a title.
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def export(
    path: Path, precision: Precision, table: Path, out: Path, limit: int, progress: Progress
) -> dict[str, Any]:
    """Writes the exported checkpoint at `out` and returns what `export --json` prints.

    `limit` is how many products of the table are looked at, drawn by chance. Raises ExportRefused, CheckpointError,
    ExtraMissing, UnreadableTable and UnreadablePhoto.
    """
    openvino_core()  # its absence should be told before minutes of work
    source = exportable(path, out)
    make_room(out)  # now, and not after minutes of work
    examples, patterns = drawn(source, table, limit, progress)
    quantise_on = examples[: min(QUANTISE_ON, len(examples) // 3)]
    compare_on = examples[len(quantise_on) :]
    whole = traced(source.model, source.preprocessor.config.photo_size)
    networks: dict[Precision, Networks] = {"bf16": whole, "float32": whole}
    if precision == "int8":
        networks["int8"] = quantised(whole, source.model, quantise_on)
    tagger = Tagger(source, version(path), "cpu")
    expected = said(tagger, compare_on, patterns, "in float32", progress)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:

        def attempt(wanted: dict[str, Precision]) -> tuple[Checkpoint, Agreement]:
            """Through the disk: what is measured is what will be served."""
            towers = {name: Network(networks[wanted[name]][name], wanted[name]) for name in wanted}
            save(assembled(source, towers), Path(folder) / "candidate")
            candidate = Tagger.load(Path(folder) / "candidate")
            answers = said(candidate, compare_on, patterns, in_words(wanted), progress)
            names = [attribute.name for attribute in source.taxonomy]
            return candidate.checkpoint, agreement(names, expected, answers)

        accepted, found = first_accepted(precision, attempt, patterns)
        report = {
            "exported_from": tagger.version,
            "asked": precision,
            "precision": accepted.precisions,
            "products": found.products,
            "agreement": {
                pattern: {"all tags": found.of(pattern), **found.attributes[pattern]} for pattern in patterns
            },
        }
        save(with_papers(accepted, source, report), out)
    return {"checkpoint": str(out), "version": version(out), **report}


def exportable(path: Path, out: Path) -> Checkpoint:
    """The checkpoint at `path`. Raises CheckpointError where it is exported already, or where `out` is itself or is no
    checkpoint: saving replaces a whole folder.
    """
    source = load(path)
    if source.precisions:
        raise CheckpointError(f"{path} is exported already: export the checkpoint that it was made from")
    if out.exists() and (out.samefile(path) or not (out / "config.json").is_file()):
        raise CheckpointError(f"{out} is there and would be overwritten: name a new folder")
    return source


def drawn(
    source: Checkpoint, table: Path, limit: int, progress: Progress
) -> tuple[list[Example], tuple[Pattern, ...]]:
    """Prepared products that have all that the table has, and the patterns that it shows: of those with a text and a
    photo each is shown whole and with either one alone.
    """
    rows = read_products(table)
    texts, photos = any(row.has_text for row in rows), any(row.photos for row in rows)
    alone: tuple[Pattern, ...] = ("text",) if texts else ("photos",)
    patterns = PATTERNS if texts and photos else alone
    whole = [row for row in rows if row.has_text >= texts and bool(row.photos) >= photos]
    if len(whole) < LEAST_PRODUCTS:
        raise ExportRefused(
            f"{table} has {len(whole)} products with {PATTERN_IN_WORDS[patterns[0]]}; agreement cannot be measured on"
            f" fewer than {LEAST_PRODUCTS}"
        )
    random.Random(0).shuffle(whole)
    chosen = whole[:limit]
    reading = progress(chosen, len(chosen), "reading products")
    return [source.preprocessor(row.product()) for row in reading], patterns


def said(
    tagger: Tagger, examples: list[Example], patterns: Sequence[Pattern], how: str, progress: Progress
) -> list[dict[Pattern, Offered]]:
    batches = progress(offers(tagger, examples, patterns), -(-len(examples) // BATCH), f"tagging, {how}")
    return [one for batch in batches for one in batch]


def assembled(source: Checkpoint, towers: dict[str, Network]) -> Checkpoint:
    """The source with these towers."""
    compiled = (CompiledTextTower(towers["text"]), CompiledPhotoTower(towers["photo"]))
    model = FusionTagger(source.model.config, compiled)
    weights = source.model.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()}, strict=True)
    return replace(source, model=model)


def first_accepted(
    asked: Precision,
    attempt: Callable[[dict[str, Precision]], tuple[Checkpoint, Agreement]],
    patterns: Sequence[Pattern] = PATTERNS,
) -> tuple[Checkpoint, Agreement]:
    """From both towers as asked for, upwards, without one that no pattern measures. Raises ExportRefused."""
    wanted: dict[str, Precision] = {
        name: asked if alone in patterns else "float32" for name, alone in ALONE.items()
    }
    while True:
        checkpoint, found = attempt(wanted)
        if not found.short(LEAST_AGREEMENT):
            return checkpoint, found
        higher = stepped_back(wanted, found)
        if asked not in higher.values():
            raise ExportRefused(refusal(wanted, found))
        wanted = higher


def stepped_back(wanted: dict[str, Precision], found: Agreement) -> dict[str, Precision]:
    """One precision higher where a tower disagrees when it answers alone; where none does, for the one that disagrees
    more.
    """
    able = [name for name in wanted if wanted[name] != "float32"]
    short = found.short(LEAST_AGREEMENT)
    guilty = [name for name in able if ALONE[name] in short]
    guilty = guilty or sorted(able, key=lambda name: found.of(ALONE[name]))[:1]
    return {**wanted, **{name: LADDER[LADDER.index(wanted[name]) + 1] for name in guilty}}


def refusal(wanted: dict[str, Precision], found: Agreement) -> str:
    lines = [
        f"with {in_words(wanted)} less than {LEAST_AGREEMENT:.0%} of the tags of {found.products} products are what "
        "float32 offers, so nothing was written:"
    ]
    for pattern in found.short(LEAST_AGREEMENT):
        worst = sorted(found.attributes[pattern].items(), key=lambda entry: entry[1])
        named = ", ".join(f"{name} {share:.2%}" for name, share in worst if share < LEAST_AGREEMENT)
        lines.append(f"{PATTERN_IN_WORDS[pattern]}: {found.of(pattern):.2%} of all tags; {named}")
    if "int8" in wanted.values():
        lines.append("--precision bf16 is nearer to float32")
    return "\n".join(lines)


def in_words(precisions: dict[str, Precision]) -> str:
    return ", ".join(f"{name} in {precision}" for name, precision in precisions.items())


def with_papers(accepted: Checkpoint, source: Checkpoint, report: dict[str, Any]) -> Checkpoint:
    """With a name of its own, the promise taken away, and of what was measured only what holds for it too."""
    unpromised = tuple(
        replace(numbers, auto_from=dict.fromkeys(PATTERNS)) for numbers in source.calibration.attributes
    )
    calibration = replace(source.calibration, attributes=unpromised)
    kept: dict[str, Any] = {key: of for key, of in source.metrics.items() if key in KEPT}
    if "contract" in source.metrics:  # how sure its promises were to be, and not how they were kept
        kept["contract"] = {"certainty": source.metrics["contract"]["certainty"]}
    return replace(
        accepted,
        name=f"{source.name}-{report['asked']}",
        calibration=calibration,
        metrics={**kept, "export": report},
        card=card(source, report),
    )


def card(source: Checkpoint, report: dict[str, Any]) -> str:
    """The source's model card, opened with what it does not know. True before and after it is calibrated."""
    shares = ", ".join(
        f"{share['all tags']:.2%} ({PATTERN_IN_WORDS[pattern]})"
        for pattern, share in report["agreement"].items()
    )
    heading, _, body = source.card.partition("\n")
    return f"""# {source.name}-{report["asked"]}

Made from `{source.name}` (version `{report["exported_from"][:12]}`) to be served on processors:
{in_words(report["precision"])}. Of the tags of {report["products"]} products it offers what float32 offers:
{shares}. Until it is calibrated it decides nothing by itself, and all
figures below are those of `{source.name}` in float32.

{(body if heading.startswith("# ") else source.card).strip()}
"""


def text(document: dict[str, Any]) -> str:
    """The document of `export` as a table, a column for each pattern."""
    shares = document["agreement"]
    names = list(next(iter(shares.values())))
    width = max(map(len, names))
    lines = [
        f"{document['checkpoint']}: {in_words(document['precision'])}; of {document['products']} products it offers "
        "what float32 offers:",
        f"{'':<{width}}  " + "  ".join(f"{PATTERN_IN_WORDS[pattern]:>15}" for pattern in shares),
    ]
    for name in names:
        lines.append(f"{name:<{width}}  " + "  ".join(f"{shares[p][name]:>15.2%}" for p in shares))
    return "\n".join(lines)
