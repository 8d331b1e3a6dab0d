"""`python -m benchmarks latency`."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from pathlib import Path

import click

from benchmarks.command_line import prepared, result_options, show, told
from benchmarks.installation import Installation, own, running
from benchmarks.latency import measure, table
from samples.client import url_of

NUMBERS = 2**40  # of products that are told apart


@click.command("latency", epilog="Example: python -m benchmarks latency --count 50 --json --out latency.json")
@click.option(
    "--running", "use_running", is_flag=True, help="Measure the installation that `make run` started."
)
@click.option("--count", default=200, show_default=True, type=click.IntRange(min=2), help="Products to send.")
@result_options
def command(use_running: bool, count: int, as_json: bool, out: Path | None) -> None:
    """POST to tags of one product at a time, beside the bare forward; memory of web and worker.

    Starts an installation of its own with fresh state, unless --running names the one of TAGSMITH_PORT.
    """
    with told():
        settings = prepared()
        target: AbstractContextManager[Installation] = (
            running(url_of(settings.host, settings.port), settings.var) if use_running else own()
        )
        with target as installation:
            # Of its own it is fresh, and the same products come each time.
            first = random.SystemRandom().randrange(NUMBERS) if use_running else 0
            document = measure(installation, settings, count, first)
    show(document, table, as_json=as_json, out=out)
