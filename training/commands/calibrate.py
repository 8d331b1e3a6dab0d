"""`python -m training calibrate`."""

from pathlib import Path

import click

from training import command_line as shared
from training.command_line import CHANCE, FILE, told


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


@click.command(
    "calibrate",
    epilog="Example: python -m training calibrate run/checkpoint --data shop/metadata.csv --target size=0.98 --out new",
)
@shared.checkpoint
@shared.data
@shared.out
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
@shared.certainty
@click.option(
    "--glossary",
    type=FILE,
    help="Measure titles rendered by it again, too; their old figures are left out otherwise.",
)
@shared.workers
def command(
    checkpoint: Path,
    data: Path,
    out: Path,
    targets: dict[str, float],
    target_precision: float | None,
    certainty: float | None,
    glossary: Path | None,
    workers: int,
) -> None:
    """Calibrate CHECKPOINT anew, for other precision targets or changed weights, without training; measure it anew."""
    from training.recalibrate import Wanted, recalibrate

    with told():
        wanted = Wanted(targets, target_precision, certainty)
        click.echo(recalibrate(checkpoint, data, out, wanted, glossary, workers))
