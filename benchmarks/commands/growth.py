"""`python -m benchmarks growth`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.machine import describe
from catalog.command_line import DAY_S, Number
from catalog.views import LANES, Lane


@click.command(
    "growth",
    epilog="Example: python -m benchmarks growth --workers 1,2,4,8 --seconds 10 --json --out growth.json",
)
@click.option(
    "--lane", default="bulk", show_default=True, type=click.Choice(LANES), help="The lane of the jobs."
)
@click.option(
    "--workers", default="1,2,4,8,16,32,64", show_default=True, help="Worker processes of each step."
)
@click.option(
    "--jobs", default=100_000, show_default=True, type=click.IntRange(min=1), help="Most jobs of one step."
)
@click.option(
    "--seconds",
    default=30.0,
    show_default=True,
    type=Number(0.1, DAY_S),
    help="A step has no more jobs than its devices can do in that time.",
)
@click.option(
    "--device-ms",
    default="20,4",
    show_default=True,
    help="A simulated device's time for a batch: fixed, and for each product.",
)
@result_options
def command(
    lane: Lane, workers: str, jobs: int, seconds: float, device_ms: str, as_json: bool, out: Path | None
) -> None:
    """Jobs per second of more and more worker processes whose devices are simulated, and what ends the growth.

    Starts PostgreSQL, Redis and the workers itself, with fresh state. Names for each step what it was limited by:
    the devices, or who uses the cores.
    """
    from benchmarks import growth
    from benchmarks.simulated_worker import Device

    try:
        counts = [int(count) for count in workers.split(",")]
        device = Device.parse(device_ms)
    except ValueError as error:
        raise click.UsageError(f"numbers with commas between them are wanted: {error}") from error
    with told():
        prepared()
        document = growth.measure(describe(), lane, counts, jobs, seconds, device)
    show(document, growth.table, as_json=as_json, out=out)
