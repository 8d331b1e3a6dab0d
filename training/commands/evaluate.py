"""`python -m training evaluate`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from training import command_line as shared
from training.command_line import FILE, told
from training.conditions import CONDITIONS, IN_WORDS, Condition, shown
from training.errors import DataError

if TYPE_CHECKING:
    from training.renderings import Shown
    from training.split import Part  # not when a command starts: it brings torch along
    from training.table import Row


@click.command(
    "evaluate", epilog="Example: python -m training evaluate models/starter shop/metadata.csv --json"
)
@shared.checkpoint
@click.argument("metadata", type=FILE)
@shared.as_json
@shared.part("the checkpoint's own split rule puts")
@click.option(
    "--condition",
    type=click.Choice(CONDITIONS),
    default="as_is",
    help="How the products are shown; masked_titles lack every word that names a value.",
)
@shared.titles_by_glossary
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write an HTML page that a person reads, with the products shown in every way.",
)
@shared.workers
def command(
    checkpoint: Path,
    metadata: Path,
    as_json: bool,
    part: "Part | Literal['all']",
    condition: Condition,
    glossary: Path | None,
    style: "Shown",
    unseen: bool,
    report: Path | None,
    workers: int,
) -> None:
    """Measure CHECKPOINT on the rows of METADATA."""
    from models.checkpoint import load
    from models.room import make_room
    from training.catalogue import rows_for
    from training.evaluation import document as document_of
    from training.evaluation import evaluate
    from training.model_card import scopes, table
    from training.readable import require_readable
    from training.renderings import by_glossary
    from training.split import rows_of, split_of

    with told():
        loaded = load(checkpoint)
        rows = rows_for(loaded.taxonomy, metadata)
        if part != "all":
            rows = rows_of(rows, part, split_of(loaded))
        rows, telling = by_glossary(rows, glossary, style, unseen)
        if not rows:
            raise DataError(f"{metadata} has no rows in the {part} part")
        require_labels(metadata, shown(rows, condition, loaded.taxonomy, telling), condition)
        require_readable(rows)
        if report is None:
            document = evaluate(loaded, checkpoint, rows, workers, condition, telling)
        else:
            from training.report import measure_all, write_report

            if not report.exists() or report.is_file():  # a device or a pipe has no folder to make
                make_room(report.resolve())  # now: measuring takes minutes
            measured = measure_all(loaded, rows, workers, telling)
            document = document_of(checkpoint, rows, condition, measured.entries[condition])
        attributes = document["attributes"]
        text = table(loaded.taxonomy, attributes) + scopes(loaded.taxonomy, attributes)
        click.echo(json.dumps(document) if as_json else text)
        if report is not None:
            table_of = metadata.name if glossary is None else f"{metadata.name} rendered by {glossary.name}"
            write_report(report, measured, document, table_of, part)


def require_labels(metadata: Path, seen: Sequence["Row"], condition: Condition) -> None:
    """Raises DataError where no row that shows anything has a value: nothing could be told of any attribute."""
    if not any(any(row.values.values()) for row in seen if row.title or row.description or row.photos):
        raise DataError(
            f"{metadata}: of the products to measure none has, {IN_WORDS[condition]}, something to see and a value "
            f"in one of the columns {', '.join(seen[0].values)}"
        )
