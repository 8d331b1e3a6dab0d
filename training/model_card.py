"""The model card: what a checkpoint is, what it was made from, what was measured (Mitchell et al. 2019)."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from models.taxonomy import Taxonomy
from training import contract
from training.promotion import in_words
from training.recipe import CalibrationSection, Recipe
from training.renderings import RENDERINGS
from training.unseen import SENTENCES, unseen_in

COLUMNS = ("attribute", "values", "rows", "fused", "text only", "photos only", "ECE", "auto")
OPENING = (
    "Tags a product from its title, description and photos: a BERT text tower and a CLIP photo tower, gated fusion\n"
    "for each attribute, calibrated confidences. Text or photos may be missing."
)
CARD = """# {name}

{description}

{opening}

## Data

{total} products: {train} to train, {validation} to choose the best epoch, {calibration} to calibrate,
{test} to measure. Split {rule}.
{scopes}
## Measured on the test part

Accuracy / macro-F1 of the fused head and of each modality alone; `auto` is precision / coverage of the tags
that need no person, aiming at a precision of {target}.

{as_is}

The same products with every word that names a value taken out of their text, as in a poor title:

{masked_titles}

Without their photos:

{without_photos}

And without their text:

{without_text}

{translated}Accuracy counts every labelled row; macro-F1 is the mean over the values that occur in them; ECE has 15
equal-width bins. A value that the training rows lack counts as wrong. Where an attribute takes several values, its
fused figures and ECE are those of the values that are offered.

{promotable}

## The promise of `auto`

The share of right values among those of `auto` is to reach the target on a next sample as large as the one that the
thresholds were found on, with a probability of {certainty:.0%}. {contract}

{contract_table}

Worst and mean precision and mean coverage of the other half, over the splits in which something was promised.

## Limits

{unseen}It knows the values it was trained on and no others: a product of another trade gets the nearest of them, so
run `python -m training fit` on the shop's own catalogue. It reads the languages of its training titles.
"""


def card(recipe: Recipe, taxonomy: Taxonomy, metrics: dict[str, Any]) -> str:
    return CARD.format(
        name=recipe.name,
        description=recipe.description.strip() or "A Tagsmith checkpoint, format 1.",
        opening=OPENING,
        total=sum(metrics["rows"].values()),
        **metrics["rows"],
        rule=metrics["split"]["rule"],
        scopes=scopes(taxonomy, metrics["test"]["attributes"]),
        target=target(recipe.calibration, taxonomy),
        as_is=table(taxonomy, metrics["test"]["attributes"]),
        masked_titles=table(taxonomy, metrics["test_masked_titles"]["attributes"]),
        without_photos=table(taxonomy, metrics["test_without_photos"]["attributes"]),
        without_text=table(taxonomy, metrics["test_without_text"]["attributes"]),
        translated=translated(taxonomy, metrics.get("test_translated")),
        promotable=in_words(metrics["promotable"]),
        certainty=metrics["contract"]["certainty"],
        contract=contract.in_words(metrics["contract"]),
        contract_table=contract_table(metrics["contract"]),
        unseen="" if (unseen := unseen_in(metrics)) is None else f"{SENTENCES[unseen]}\n\n",
    )


def target(section: CalibrationSection, taxonomy: Taxonomy) -> str:
    """The precision that most attributes aim at, and those of the others."""
    targets = {one.name: section.targets.get(one.name, section.target_precision) for one in taxonomy}
    usual = Counter(targets.values()).most_common(1)[0][0]
    others = ", ".join(f"{name} {100 * goal:.4g}%" for name, goal in targets.items() if goal != usual)
    return f"{100 * usual:.4g}%" + (f" ({others})" if others else "")


def description_of(text: str) -> str:
    """The description that a card was written with, empty where the text is no card of this form."""
    before, opening, _ = text.partition(OPENING)
    return before.partition("\n")[2].strip() if opening else ""


def translated(taxonomy: Taxonomy, measured: dict[str, Any] | None) -> str:
    """The fused head on titles that a glossary rendered, a column for each rendering; empty without any."""
    if not measured:
        return ""
    lines = [row(["attribute", *(RENDERINGS[name].in_words for name in measured)])]
    lines.append(row(["---"] * (1 + len(measured))))
    for attribute in taxonomy:
        found = [entries.get(attribute.name) for entries in measured.values()]
        lines.append(row([attribute.name, *(pair(entry["fused"]) if entry else "-" for entry in found)]))
    return "With their texts rendered by the glossary, fused:\n\n" + "\n".join(lines) + "\n\n"


def scopes(taxonomy: Taxonomy, measured: dict[str, Any]) -> str:
    """A section on which attributes apply where, and how well that was told; nothing where all apply everywhere."""
    lines = []
    for attribute in taxonomy:
        scope = attribute.applies_when
        if scope is not None:
            found = measured.get(attribute.name, {}).get("applicable", {"precision": None, "recall": None})
            values = " or ".join(f"`{value}`" for value in scope.values)
            figures = " / ".join("-" if figure is None else f"{figure:.3f}" for figure in found.values())
            lines.append(f"- `{attribute.name}` applies when `{scope.attribute}` is {values} ({figures})")
    if not lines:
        return ""
    heading = (
        "Not offered outside of their scope; in brackets precision / recall of telling where they apply:"
    )
    return "\n## Scopes\n\n" + "\n".join([heading, "", *lines]) + "\n"


def table(taxonomy: Taxonomy, measured: dict[str, Any]) -> str:
    """A Markdown table with a row for each attribute that was measured."""
    lines = [row(COLUMNS), row(["---"] * len(COLUMNS))]
    for attribute in taxonomy:
        if attribute.name in measured:
            entry = measured[attribute.name]
            heads = [pair(entry[head]) for head in ("fused", "text_only", "photo_only")]
            ece, auto = f"{entry['fused']['ece']:.3f}", entry["auto"]
            precision = "-" if auto["precision"] is None else f"{auto['precision']:.3f}"
            promise = f"{precision} / {auto['coverage']:.2f}"
            lines.append(row([attribute.name, len(attribute.values), entry["rows"], *heads, ece, promise]))
    return "\n".join(lines)


def contract_table(document: dict[str, Any]) -> str:
    """A row for each attribute and pattern that the promise was tried on."""
    heading = [row(contract.COLUMNS), row(["---"] * len(contract.COLUMNS))]
    return "\n".join([*heading, *(row(cells) for cells in contract.lines(document))])


def row(cells: Iterable[object]) -> str:
    plain = (" ".join(str(cell).replace("|", "\\|").splitlines()) for cell in cells)
    return f"| {' | '.join(plain)} |"


def pair(scores: dict[str, float | None]) -> str:
    if scores["accuracy"] is None:
        return "-"
    return f"{scores['accuracy']:.3f} / {scores['macro_f1']:.3f}"
