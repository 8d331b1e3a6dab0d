"""`python -m benchmarks service`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import towers as sizes
from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.installation import own
from benchmarks.machine import describe
from benchmarks.towers import Towers
from catalog.views import LANES, Lane


@click.command(
    "service", epilog="Example: python -m benchmarks service --products 256 --json --out service.json"
)
@sizes.option
@click.option(
    "--lane",
    default="bulk",
    show_default=True,
    type=click.Choice(LANES),
    help="The lane that is saturated.",
)
@click.option(
    "--products", default=512, show_default=True, type=click.IntRange(min=1), help="Products of a round."
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Fewer than five say little."
)
@result_options
def command(towers: Towers, lane: Lane, products: int, rounds: int, as_json: bool, out: Path | None) -> None:
    """Products per second through a saturated service, beside bare forward and decode.

    Starts an installation of its own with fresh state, and makes the products. Each round accepts its products
    while the worker waits, has them tagged, then prepares, runs and decodes the same ones bare, while the worker is
    idle.
    """
    from benchmarks import service
    from models.errors import ModelsError
    from workers.runtime import DeviceUnavailable

    with told(ModelsError, DeviceUnavailable):
        machine = describe()
        with sizes.served(towers, prepared()) as settings, own(settings.checkpoint) as installation:
            document = service.measure(installation, settings, machine, towers, lane, products, rounds)
    show(document, service.table, as_json=as_json, out=out)
