"""`python -m training average`."""

from pathlib import Path
from typing import Literal

import click

from training import command_line as shared
from training.command_line import CHECKPOINT, told


@click.command(
    "average",
    epilog="Example: python -m training average a/checkpoint b/checkpoint --data shop/metadata.csv --out ab",
)
@click.argument("checkpoints", nargs=-1, required=True, type=CHECKPOINT)
@shared.data
@shared.out
@click.option(
    "--method",
    type=click.Choice(["greedy", "uniform"]),
    default="greedy",
    show_default=True,
    help="Take only those that do not make the average worse on the validation part, or (uniform) all of them.",
)
@shared.workers
def command(
    checkpoints: tuple[Path, ...], data: Path, out: Path, method: Literal["greedy", "uniform"], workers: int
) -> None:
    """Average the weights of CHECKPOINTS, runs of one table from one starting point, and calibrate the result."""
    if len(set(checkpoints)) < 2:
        raise click.UsageError("name at least two checkpoints")
    from training.average import average

    with told():
        click.echo(average(checkpoints, data, out, method, workers))
