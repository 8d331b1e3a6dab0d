"""`python -m benchmarks intake`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.machine import describe


@click.command(
    "intake", epilog="Example: python -m benchmarks intake --requests 100 --json --out intake.json"
)
@click.option(
    "--requests", default=200, show_default=True, type=click.IntRange(min=1), help="Requests of a round."
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Fewer than five say little."
)
@click.option(
    "--photo-bytes",
    default=300_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="About so large is each photo, of 1000 x 1000 pixels.",
)
@result_options
def command(requests: int, rounds: int, photo_bytes: int, as_json: bool, out: Path | None) -> None:
    """POST with a photo beside the decoding of the same photos, per second, and the memory of web.

    Starts PostgreSQL, Redis and web itself, with fresh state and without a worker. The two are interleaved.
    """
    from benchmarks import intake

    with told():
        prepared()
        document = intake.measure(describe(), requests, rounds, photo_bytes)
    show(document, intake.table, as_json=as_json, out=out)
