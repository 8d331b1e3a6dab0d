"""`python -m training`: make a checkpoint from a catalogue, and measure one.

Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 could not be done, 2 wrong usage.
"""

import json
import sys
from pathlib import Path

import click

from models.errors import ModelsError
from training.conditions import CONDITIONS, Condition
from training.errors import TrainingError


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
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
def evaluate(
    checkpoint: Path, metadata: Path, as_json: bool, part: str, condition: Condition, workers: int
) -> None:
    """Measure CHECKPOINT on the rows of METADATA."""
    from models.checkpoint import load
    from training.evaluation import evaluate as measure
    from training.model_card import table
    from training.recipe import SplitSection
    from training.scope import say, within_scope
    from training.split import part_of
    from training.table import read_table

    try:
        loaded = load(checkpoint)
        names = [attribute.name for attribute in loaded.taxonomy]
        multiple = [attribute.name for attribute in loaded.taxonomy if attribute.multiple]
        scopes = loaded.taxonomy.scopes
        rows, emptied = within_scope(read_table(metadata, names, multiple, optional=True).rows, scopes)
        say(emptied, scopes)
        if part != "all":
            section = SplitSection(**{k: v for k, v in loaded.metrics["split"].items() if k != "rule"})
            rows = [row for row in rows if part_of(row.group, section) == part]
        document = measure(loaded, checkpoint, rows, workers, condition)
    except (TrainingError, ModelsError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(document) if as_json else table(loaded.taxonomy, document["attributes"]))


if __name__ == "__main__":
    sys.exit(main())
