"""`python -m benchmarks peers`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import towers as sizes
from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.installation import own
from benchmarks.machine import describe
from benchmarks.towers import Towers

NAMES = ("naive-celery", "celery-batches", "litserve")


@click.command("peers", epilog="Example: python -m benchmarks peers --peer naive-celery --products 64 --json")
@sizes.option
@click.option(
    "--peer",
    "peers",
    multiple=True,
    default=NAMES,
    type=click.Choice(NAMES),
    help="Only these (default: all).",
)
@click.option(
    "--products", default=256, show_default=True, type=click.IntRange(min=1), help="Products of a round."
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Fewer than five say little."
)
@result_options
def command(
    towers: Towers, peers: tuple[str, ...], products: int, rounds: int, as_json: bool, out: Path | None
) -> None:
    """Our worker beside a Celery task for each product, celery-batches and LitServe, on the same cores.

    The same checkpoint and products; each peer in float32, the two that batch also in the numeric type that ours
    uses. The first run makes an environment for each of those two, from the package index.
    """
    from benchmarks.peers import contest
    from benchmarks.peers.contestants import PeerFailedError
    from benchmarks.peers.environment import PeerUnavailableError
    from models.errors import ModelsError
    from workers.runtime import DeviceUnavailable

    with told(PeerUnavailableError, PeerFailedError, ModelsError, DeviceUnavailable):
        machine = describe()
        with sizes.served(towers, prepared()) as settings, own(settings.checkpoint) as installation:
            document = contest.measure(installation, settings, machine, peers, products, rounds)
    show(document, contest.table, as_json=as_json, out=out)
