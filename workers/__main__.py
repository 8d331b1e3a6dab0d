"""`python -m workers`: whether a worker of this machine could tag a product now, and changing what workers serve."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

import click

from catalog.command_line import DAY_S, WAIT_S, Number
from catalog.errors import SettingsError
from catalog.settings import Settings
from workers.health import FRESH_S, heartbeat_folder, living_workers


@click.group()
def main() -> None:
    """Ask the workers, and tell them what to serve."""


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
            " start one with: celery -A workers.app worker --pool threads -Q sweep,interactive,bulk",
            err=True,
        )
        sys.exit(1)
    for worker in workers:
        click.echo(f"{worker} is alive")


@main.command(
    epilog="Example: ln -sfn shop-2 runs/served && TAGSMITH_CHECKPOINT=runs/served python -m workers load"
)
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option(
    "--answer-s",
    default=5.0,
    show_default=True,
    type=Number(0.1, DAY_S),
    help="Wait for workers to answer.",
)
@click.option("--load-s", default=300.0, show_default=True, type=WAIT_S, help="Wait for them to load.")
def load(checkpoint: Path | None, answer_s: float, load_s: float) -> None:
    """Have every worker serve CHECKPOINT, by default the one that TAGSMITH_CHECKPOINT names now.

    Each loads it beside the one in use (twice the memory for that while), warms it up and changes between two
    batches; every job keeps the version that tagged it. The way back is the same command with the old folder. Where
    it cannot be loaded the worker says why and serves what it served; exit 1 unless all serve it. One that no longer
    answers is waited for half a minute.
    """
    # Celery takes seconds of a busy processor to import, and a container asks for the health every ten.
    from catalog.queue import faults, make_celery
    from workers.control import ask_to_load, tell

    try:
        settings = Settings.load()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    # As the workers see it: absolute, and not resolved, which each does by itself.
    wanted = (checkpoint or settings.checkpoint).absolute()
    with make_celery(settings) as celery:
        try:
            reports = ask_to_load(celery, wanted, answer_s=answer_s, load_s=load_s)
        except faults(celery.connection_for_write()) as error:
            raise click.ClickException(f"the broker does not answer: {error}") from error
    if not reports:
        raise click.ClickException(
            f"no worker answered within {answer_s:g} s; python -m workers health lists those here"
        )
    if not tell(reports, wanted, click.echo, functools.partial(click.echo, err=True)):
        sys.exit(1)


if __name__ == "__main__":
    main()
