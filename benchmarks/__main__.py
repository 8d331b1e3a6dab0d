"""`python -m benchmarks`: measure an installation or a checkpoint, print a table or JSON."""

from __future__ import annotations

import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from benchmarks.installation import Installation, NotRunningError, own, running
from benchmarks.latency import JobNotTaggedError, measure
from benchmarks.machine import describe
from catalog.errors import SettingsError, Unavailable
from catalog.log import configure_logging
from catalog.settings import Settings
from catalog.views import LANES, Lane
from samples.client import ApiError


@click.group()
def main() -> None:
    """Measure an installation or a checkpoint. Times are of this machine and this minute: compare only within one
    run.
    """
    # A termination unwinds as Ctrl-C does, so that an installation of our own is stopped as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def prepared() -> Settings:
    """The settings; the logs go to stderr, so that stdout is the result alone. Raises SettingsError."""
    settings = Settings.load()
    configure_logging(settings)
    return settings


@main.command()
@click.option(
    "--running", "use_running", is_flag=True, help="Measure the installation that `make run` started."
)
@click.option("--count", default=200, show_default=True, type=click.IntRange(min=2), help="Products to send.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON there as well.")
def latency(use_running: bool, count: int, as_json: bool, out: Path | None) -> None:
    """POST to tags of one product at a time, beside the bare forward; memory of web and worker.

    Starts an installation of its own with fresh state, unless --running names the one of TAGSMITH_PORT.
    """
    try:
        settings = prepared()
        target: AbstractContextManager[Installation] = (
            running(f"http://{settings.host}:{settings.port}", settings.var) if use_running else own()
        )
        with target as installation:
            result = measure(installation, settings, count)
    except (SettingsError, NotRunningError, JobNotTaggedError) as error:
        raise click.ClickException(str(error)) from error
    document = json.dumps(result, indent=2)
    if out is not None:
        out.write_text(document + "\n", encoding="utf-8")
    click.echo(document if as_json else table(result))


@main.command(epilog="Example: python -m benchmarks service --products 256 --json --out service.json")
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON there as well.")
def service(lane: Lane, products: int, rounds: int, as_json: bool, out: Path | None) -> None:
    """Products per second through a saturated service, beside bare forward and decode.

    Starts an installation of its own with fresh state, and draws the products. Each round accepts its products
    while the worker waits, has them tagged, then prepares, runs and decodes the same ones bare, while the worker is
    idle.
    """
    from benchmarks import service as saturated
    from benchmarks.saturation import LaneNotHeldError

    try:
        settings, machine = prepared(), describe()
        with own() as installation:
            document = saturated.measure(installation, settings, machine, lane, products, rounds)
    except (
        SettingsError,
        Unavailable,
        NotRunningError,
        LaneNotHeldError,
        JobNotTaggedError,
        ApiError,
    ) as error:
        raise click.ClickException(str(error)) from error
    text = json.dumps(document, indent=2)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(text if as_json else saturated.table(document))


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("metadata", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--max-rows",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Learn from that many rows at most, for a quick look that flatters the fused head (0: from all).",
)
@click.option("--seed", default=0, show_default=True, help="Of the rows chosen and of the resamples.")
@click.option("--workers", default=1, show_default=True, help="Processes that read photos.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fusion(checkpoint: Path, metadata: Path, max_rows: int, seed: int, workers: int, as_json: bool) -> None:
    """CHECKPOINT's fused head beside TF-IDF, concatenation, text only and photos only on its own test part.

    TF-IDF and concatenation learn from its own train part of METADATA.
    """
    from benchmarks import fusion as peers
    from models.errors import ModelsError
    from training.errors import TrainingError

    try:
        document = peers.measure(checkpoint, metadata, max_rows, seed, workers)
    except (TrainingError, ModelsError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(document, indent=2) if as_json else peers.table(document))


def table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"{result['products']} products, model {result['model']['name']} {result['model']['version'][:12]}",
        "",
        f"{'ms':<22}{'p50':>9}{'p90':>9}{'p99':>9}",
    ]
    for title, key in (
        ("POST to 202", "post_ms"),
        ("POST to tags", "post_to_tags_ms"),
        ("bare forward, batch 1", "bare_forward_ms"),
    ):
        figures = result[key]
        lines.append(f"{title:<22}{figures['p50']:>9.1f}{figures['p90']:>9.1f}{figures['p99']:>9.1f}")
    lines += ["", f"{'MB':<22}{'RSS':>9}{'PSS':>9}"]
    for name, memory in sorted(result["memory_mb"].items()):
        lines.append(f"{name:<22}{memory['rss']:>9.1f}{memory['pss']:>9.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
