"""`python -m benchmarks all`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.command_line import result_options, show
from benchmarks.installation import ROOT
from benchmarks.machine import describe
from benchmarks.plan import STEPS

NAMES = [step.name for step in STEPS]


@click.command("all", epilog='Example: python -m benchmarks all --only peers --only "service, starter, bulk"')
@click.option("--quick", is_flag=True, help="A trial of a few minutes, whose figures mean nothing.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only these (default: all).")
@click.option(
    "--results",
    default=ROOT / "benchmarks" / "results",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where <date>-<cpu|gpu>.json is written, with -trial or -part in its name (default: benchmarks/results).",
)
@result_options
def command(quick: bool, only: tuple[str, ...], results: Path, as_json: bool, out: Path | None) -> None:
    """Every benchmark in one go, one table of what they found, and one JSON file with all of it.

    One that fails is told with its reason, the others go on, and the exit status is 1. Everything else on the machine
    should rest: about half an hour on two cores. Of a run that is stopped the file has what was found until then.
    """
    from benchmarks import everything

    steps = [step for step in STEPS if not only or step.name in only]
    for document in everything.measure(steps, describe(), quick=quick, run=everything.in_a_process):
        path = everything.keep(document, results)
    show(document, everything.table, as_json=as_json, out=out)
    click.echo(f"All of it is in {path}", err=True)
    if everything.failed(document):
        raise SystemExit(1)
