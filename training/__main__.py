"""`python -m training`: make a checkpoint from a catalogue, and measure one.

Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 could not be done, 2 wrong usage.
`compare` answers by its exit code: 0 no worse, 1 worse or too few rows to be sure, 2 nothing could be compared.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from models.errors import ModelsError
from training.conditions import CONDITIONS, Condition
from training.errors import DataError, TrainingError

if TYPE_CHECKING:
    from training.split import Part  # not when a command starts: it brings torch along
    from training.translate import Style

CHANCE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.group()
def main() -> None:
    """Train and measure checkpoints."""


@main.command(
    epilog="Example: python -m training fit training/recipes/finetune.toml --data shop/metadata.csv --out run"
)
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The table."
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run's folder."
)
@click.option(
    "--attributes", default="", help="The columns to learn, separated by commas (default: every other one)."
)
@click.option(
    "--taxonomy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that fixes values and scopes of attributes.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a number of the recipe."
)
def fit(
    recipe: Path, data: Path, out: Path, attributes: str, taxonomy: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train a checkpoint by RECIPE on a catalogue; run it again after a kill and it goes on."""
    from training.recipe import read_recipe

    names = tuple(name.strip() for name in attributes.split(",") if name.strip())
    if taxonomy is not None:
        overrides = (*overrides, f"data.taxonomy={json.dumps(str(taxonomy), ensure_ascii=False)}")
    try:
        resolved = read_recipe(recipe, overrides, names)
        from training.fit import fit as run

        click.echo(run(resolved, data, out))
    except (TrainingError, ModelsError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from error


def needs_glossary(context: click.Context, parameter: click.Parameter, chosen: Any) -> Any:
    given = context.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT
    if given and context.params.get("glossary") is None:
        raise click.BadParameter("needs --glossary")
    return chosen


def titles_by_glossary(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say in whose language the titles are measured."""
    options = (
        click.option(
            "--glossary",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,  # read before the two that need it
            help="Render the titles in this glossary's language first.",
        ),
        click.option(
            "--style",
            type=click.Choice(["whole", "mixed"]),
            default="whole",
            callback=needs_glossary,
            help="With --glossary: how much of a title.",
        ),
        click.option(
            "--unseen",
            is_flag=True,
            callback=needs_glossary,
            help="With --glossary: the wordings that no training sees.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command(epilog="Example: python -m training evaluate models/starter shop/metadata.csv --json")
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("metadata", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option(
    "--part",
    type=click.Choice(["all", "train", "validation", "calibration", "test"]),
    default="all",
    help="Only the rows that the checkpoint's own split rule puts there.",
)
@click.option(
    "--condition",
    type=click.Choice(CONDITIONS),
    default="as_is",
    help="How the products are shown; masked_titles lack every word that names a value.",
)
@titles_by_glossary
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write an HTML page that a person reads, with the products shown in every way.",
)
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
def evaluate(
    checkpoint: Path,
    metadata: Path,
    as_json: bool,
    part: "Part | Literal['all']",
    condition: Condition,
    glossary: Path | None,
    style: "Style",
    unseen: bool,
    report: Path | None,
    workers: int,
) -> None:
    """Measure CHECKPOINT on the rows of METADATA."""
    from models.checkpoint import load
    from training.catalogue import rows_for
    from training.evaluation import document as document_of
    from training.evaluation import evaluate as measure
    from training.model_card import scopes, table
    from training.renderings import by_glossary
    from training.split import rows_of, split_of

    try:
        loaded = load(checkpoint)
        rows = rows_for(loaded.taxonomy, metadata)
        if part != "all":
            rows = rows_of(rows, part, split_of(loaded))
        rows, telling = by_glossary(rows, glossary, style, unseen)
        if not rows:
            raise DataError(f"{metadata} has no rows in the {part} part")
        if report is None:
            document = measure(loaded, checkpoint, rows, workers, condition, telling)
        else:
            from training.report import measure_all, write_report

            report.parent.mkdir(parents=True, exist_ok=True)  # now: measuring takes minutes
            measured = measure_all(loaded, rows, workers, telling)
            document = document_of(checkpoint, rows, condition, measured.entries[condition])
            table_of = metadata.name if glossary is None else f"{metadata.name} rendered by {glossary.name}"
            write_report(report, measured, document, table_of, part)
    except (TrainingError, ModelsError) as error:
        raise click.ClickException(str(error)) from error
    measured = document["attributes"]
    text = table(loaded.taxonomy, measured) + scopes(loaded.taxonomy, measured)
    click.echo(json.dumps(document) if as_json else text)


def conditions_of(context: click.Context, parameter: click.Parameter, names: str) -> tuple[Condition, ...]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in CONDITIONS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(CONDITIONS)}")
    return tuple(condition for condition in CONDITIONS if condition in wanted)


@main.command(
    epilog="Example: python -m training compare models/starter run/checkpoint --data shop/metadata.csv"
)
@click.argument("a", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The table."
)
@click.option(
    "--margin",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How much of accuracy or macro-F1 may be lost anywhere.",
)
@click.option(
    "--conditions",
    default="",
    callback=conditions_of,
    help=f"Some of {','.join(CONDITIONS)} (default: all that the table allows).",
)
@click.option(
    "--part",
    type=click.Choice(["all", "train", "validation", "calibration", "test"]),
    default="all",
    help="Only the rows that the split rules of both checkpoints put there.",
)
@titles_by_glossary
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=100))
@click.option("--seed", default=0, show_default=True, help="Of the resamples.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
def compare(a: Path, b: Path, data: Path, as_json: bool, **settings: Any) -> None:
    """Measure the candidate B beside A on the same rows; exit code 1 if B is worse anywhere by more than the margin.

    Each difference has a bootstrap interval. A loss counts when it is above the margin and no luck; where the mean
    accuracy falls by more than the margin and the rows are too few to be sure, the exit code is 1 as well.
    """
    from training.compare import Settings, text
    from training.compare import compare as measure

    try:
        document = measure(a, b, data, Settings(**settings))
    except (TrainingError, ModelsError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps(document) if as_json else text(document))
    if document["verdict"] != "no worse":
        sys.exit(1)


@main.command(
    epilog="Example: python -m training contract run/checkpoint --data shop/metadata.csv --splits 100"
)
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The table."
)
@click.option(
    "--splits", default=100, show_default=True, type=click.IntRange(min=1), help="How often to halve."
)
@click.option(
    "--certainty",
    default=0.95,
    show_default=True,
    type=CHANCE,
    help="With which probability each promise is to hold.",
)
@click.option("--seed", default=0, show_default=True, help="Of the halvings.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
def contract(
    checkpoint: Path, data: Path, splits: int, certainty: float, seed: int, as_json: bool, workers: int
) -> None:
    """Count how often the precision promised for `auto` is broken on a next sample.

    The rows that the training of CHECKPOINT never saw are halved again and again: calibrated on one half, counted on
    the other. The targets are the checkpoint's own.
    """
    from training.contract import contract_of, in_words
    from training.model_card import contract_table

    try:
        document = contract_of(checkpoint, data, splits, certainty, seed, workers)
    except (TrainingError, ModelsError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(document) if as_json else f"{contract_table(document)}\n\n{in_words(document)}")


def targets_by_attribute(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, float]:
    targets = {}
    for one in given:
        name, equals, number = one.rpartition("=")
        if not equals:
            raise click.BadParameter(f"{one!r} is not ATTRIBUTE=PRECISION")
        targets[name] = CHANCE(number, parameter, context)
    return targets


@main.command(
    epilog="Example: python -m training calibrate run/checkpoint --data shop/metadata.csv --target size=0.98 --out new"
)
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The table."
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="ATTRIBUTE=PRECISION",
    callback=targets_by_attribute,
    help="The precision of an attribute; may be given for several.",
)
@click.option(
    "--target-precision", type=CHANCE, help="Of all attributes without a --target (default: what each has)."
)
@click.option(
    "--certainty",
    default=0.95,
    show_default=True,
    type=CHANCE,
    help="With which probability each promise is to hold.",
)
@click.option(
    "--glossary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure titles rendered by it again, too; their old figures are left out otherwise.",
)
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
def calibrate(
    checkpoint: Path,
    data: Path,
    out: Path,
    targets: dict[str, float],
    target_precision: float | None,
    certainty: float,
    glossary: Path | None,
    workers: int,
) -> None:
    """Calibrate CHECKPOINT anew, for other precision targets or changed weights, without training; measure it anew."""
    from training.recalibrate import Wanted, recalibrate

    try:
        wanted = Wanted(targets, target_precision, certainty)
        click.echo(recalibrate(checkpoint, data, out, wanted, glossary, workers))
    except (TrainingError, ModelsError) as error:
        raise click.ClickException(str(error)) from error


@main.command(
    epilog="Example: python -m training average a/checkpoint b/checkpoint --data shop/metadata.csv --out ab"
)
@click.argument(
    "checkpoints", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Their table."
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to."
)
@click.option(
    "--method",
    type=click.Choice(["greedy", "uniform"]),
    default="greedy",
    show_default=True,
    help="Take every checkpoint, or only those that do not make the average worse on the validation part.",
)
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
def average(
    checkpoints: tuple[Path, ...], data: Path, out: Path, method: Literal["greedy", "uniform"], workers: int
) -> None:
    """Average the weights of CHECKPOINTS, runs of one table from one starting point, and calibrate the result."""
    if len(set(checkpoints)) < 2:
        raise click.UsageError("name at least two checkpoints")
    from training.average import average as run

    try:
        click.echo(run(checkpoints, data, out, method, workers))
    except (TrainingError, ModelsError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
