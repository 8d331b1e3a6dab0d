"""`python -m benchmarks fusion`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.command_line import result_options, show, told


@click.command(
    "fusion", epilog="Example: python -m benchmarks fusion models/starter shop/metadata.csv --json"
)
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
@result_options
def command(
    checkpoint: Path,
    metadata: Path,
    max_rows: int,
    seed: int,
    workers: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """CHECKPOINT's fused head beside TF-IDF, concatenation, text only and photos only on its own test part.

    TF-IDF and concatenation learn from its own train part of METADATA.
    """
    from benchmarks import fusion
    from models.errors import ModelsError
    from training.errors import TrainingError

    with told(TrainingError, ModelsError):
        document = fusion.measure(checkpoint, metadata, max_rows, seed, workers)
    show(document, fusion.table, as_json=as_json, out=out)
