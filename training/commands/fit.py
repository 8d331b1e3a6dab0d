"""`python -m training fit`."""

import json
from pathlib import Path

import click

from training import command_line as shared
from training.command_line import FILE, told


@click.command(
    "fit",
    epilog="Example: python -m training fit training/recipes/finetune.toml --data shop/metadata.csv --out run",
)
@click.argument("recipe", type=FILE)
@shared.data
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run's folder."
)
@click.option(
    "--attributes", default="", help="The columns to learn, separated by commas (default: every other one)."
)
@click.option("--taxonomy", type=FILE, help="A file that fixes values and scopes of attributes.")
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a number of the recipe."
)
def command(
    recipe: Path, data: Path, out: Path, attributes: str, taxonomy: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train a checkpoint by RECIPE on a catalogue; run it again after a kill and it goes on."""
    from training.recipe import read_recipe

    names = tuple(name.strip() for name in attributes.split(",") if name.strip())
    if taxonomy is not None:
        overrides = (*overrides, f"data.taxonomy={json.dumps(str(taxonomy), ensure_ascii=False)}")
    with told(FloatingPointError):
        resolved = read_recipe(recipe, overrides, names)
        from training.fit import fit
        from training.processes import one_voice

        with one_voice():
            click.echo(fit(resolved, data, out))
