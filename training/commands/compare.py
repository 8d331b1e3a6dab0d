"""`python -m training compare`."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from models.errors import ModelsError
from training import command_line as shared
from training.command_line import CHECKPOINT, SEED, Number
from training.conditions import CONDITIONS, Condition
from training.errors import TrainingError


def conditions_of(context: click.Context, parameter: click.Parameter, names: str) -> tuple[Condition, ...]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in CONDITIONS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(CONDITIONS)}")
    return tuple(condition for condition in CONDITIONS if condition in wanted)


@click.command(
    "compare",
    epilog="Example: python -m training compare models/starter run/checkpoint --data shop/metadata.csv",
)
@click.argument("a", type=CHECKPOINT)
@click.argument("b", type=CHECKPOINT)
@shared.data
@click.option(
    "--margin",
    default=0.01,
    show_default=True,
    type=Number(0, 1),
    help="How much of accuracy or macro-F1 may be lost anywhere.",
)
@click.option(
    "--conditions",
    default="",
    callback=conditions_of,
    help=f"Some of {','.join(CONDITIONS)} (default: all that the table allows).",
)
@shared.part("the split rules of both checkpoints put")
@shared.titles_by_glossary
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=100))
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the resamples.")
@shared.as_json
@shared.workers
def command(a: Path, b: Path, data: Path, as_json: bool, **settings: Any) -> None:
    """Measure the candidate B beside A on the same rows; exit code 1 if B is worse anywhere by more than the margin.

    Each difference has a bootstrap interval. A loss counts when it is above the margin and no luck; where the mean
    accuracy falls by more than the margin and the rows are too few to be sure, the exit code is 1 as well.
    """
    from training.compare import Settings, compare, text

    try:
        document = compare(a, b, data, Settings(**settings))
    except (TrainingError, ModelsError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps(document) if as_json else text(document))
    if document["verdict"] != "no worse":
        sys.exit(1)
