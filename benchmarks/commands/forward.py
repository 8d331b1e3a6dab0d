"""`python -m benchmarks forward`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import towers as sizes
from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.machine import describe
from benchmarks.towers import Towers


@click.command("forward", epilog="Example: python -m benchmarks forward --towers starter --rounds 3 --json")
@sizes.option
@click.option(
    "--rounds", default=7, show_default=True, type=click.IntRange(min=1), help="Fewer than five say little."
)
@result_options
def command(towers: Towers, rounds: int, as_json: bool, out: Path | None) -> None:
    """What share of the measured matrix peak the towers reach: float32, bf16, and by OpenVINO bf16 and int8."""
    from benchmarks import forward
    from models.errors import ModelsError
    from workers.runtime import DeviceUnavailable

    with told(ModelsError, DeviceUnavailable):
        machine = describe()
        with sizes.served(towers, prepared()) as settings:
            document = forward.measure(
                settings.checkpoint, machine, settings.device, rounds, goals=towers == "base"
            )
    show(document, forward.table, as_json=as_json, out=out)
