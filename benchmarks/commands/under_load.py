"""`python -m benchmarks under-load`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.installation import own
from benchmarks.machine import describe
from catalog.command_line import DAY_S, Number


@click.command(
    "under-load",
    epilog="Example: python -m benchmarks under-load --products 20 --import 200 --json --out under-load.json",
)
@click.option(
    "--products",
    default=40,
    show_default=True,
    type=click.IntRange(min=2),
    help="Products of each state in a round, and at least so many at each share of saturation.",
)
@click.option(
    "--import",
    "import_size",
    default=400,
    show_default=True,
    type=click.IntRange(min=1),
    help="Bulk products of each of a round's two imports, which must outlast the interactive ones.",
)
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=Number(0, DAY_S, min_open=True),
    help="Products arrive for so long at each share of saturation: a queue takes its time to find its length.",
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Fewer than five say little."
)
@click.option("--seed", default=0, show_default=True, help="Of the arrivals.")
@result_options
def command(
    products: int, import_size: int, seconds: float, rounds: int, seed: int, as_json: bool, out: Path | None
) -> None:
    """POST to tags of interactive products: idle, beside an import, and at 10, 50 and 80 % of saturation.

    Starts an installation of its own with fresh state, and makes the products. Bare forwards of one product stand
    beside them. All states are measured in turns in each round.
    """
    from benchmarks import under_load

    with told(under_load.ImportTooSmallError):
        settings, machine = prepared(), describe()
        with own() as installation:
            document = under_load.measure(
                installation, settings, machine, products, import_size, seconds, rounds, seed
            )
    show(document, under_load.table, as_json=as_json, out=out)
