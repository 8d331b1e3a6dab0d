"""`python -m training contract`."""

import json
from pathlib import Path

import click

from training import command_line as shared
from training.command_line import SEED, told


@click.command(
    "contract",
    epilog="Example: python -m training contract run/checkpoint --data shop/metadata.csv --splits 100",
)
@shared.checkpoint
@shared.data
@click.option(
    "--splits", default=100, show_default=True, type=click.IntRange(min=1), help="How often to halve."
)
@shared.certainty
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the halvings.")
@shared.as_json
@shared.workers
def command(
    checkpoint: Path, data: Path, splits: int, certainty: float | None, seed: int, as_json: bool, workers: int
) -> None:
    """Count how often the precision promised for `auto` is broken on a next sample.

    The rows that the training of CHECKPOINT never saw are halved again and again: calibrated on one half, counted on
    the other. The targets are the checkpoint's own.
    """
    from training.contract import contract_of, in_words
    from training.model_card import contract_table

    with told():
        document = contract_of(checkpoint, data, splits, certainty, seed, workers)
    click.echo(json.dumps(document) if as_json else f"{contract_table(document)}\n\n{in_words(document)}")
