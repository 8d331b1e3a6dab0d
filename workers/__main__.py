"""`python -m workers health`: whether a worker of this machine could tag a product now."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from catalog.errors import SettingsError
from catalog.settings import Settings
from workers.health import FRESH_S, heartbeat_folder, living_workers


@click.group()
def main() -> None:
    """Ask about the workers of this machine."""


@main.command(
    epilog="Example: python -m workers health && echo 'a worker is ready'   "
    "(as a container's health check: HEALTHCHECK CMD python -m workers health)"
)
@click.option(
    "--var",
    type=click.Path(path_type=Path, file_okay=False),
    help="The state folder of the installation. By default that of TAGSMITH_VAR.",
)
def health(var: Path | None) -> None:
    """Exit 0 when a worker of this machine is alive with its model loaded, else 1.

    Reads the file that each worker keeps writing while its batcher lives and no forward hangs. Takes no
    connection, so it answers at once, also while the broker or the database is away.
    """
    try:
        folder = Settings.load().var if var is None else var
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    workers = living_workers(folder, time.time())
    if not workers:
        click.echo(
            f"no worker has given a sign of life in the last {FRESH_S:.0f} s in {heartbeat_folder(folder)};"
            " start one with: celery -A workers.app worker --pool threads -Q interactive,bulk",
            err=True,
        )
        sys.exit(1)
    for worker in workers:
        click.echo(f"{worker} is alive")


if __name__ == "__main__":
    main()
