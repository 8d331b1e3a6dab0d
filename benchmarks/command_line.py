"""What the commands of all benchmarks share: settings, the two ways out, and which errors are a line and no trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.installation import NotRunningError
from benchmarks.latency import JobNotTaggedError
from benchmarks.saturation import LaneNotHeldError
from catalog.errors import SettingsError, Unavailable
from catalog.log import configure_logging
from catalog.settings import Settings
from samples.client import ApiError

FORESEEN: tuple[type[Exception], ...] = (
    SettingsError,
    Unavailable,
    NotRunningError,
    LaneNotHeldError,
    JobNotTaggedError,
    ApiError,
)


def prepared() -> Settings:
    """The settings; the logs go to stderr, so that stdout is the result alone. Raises SettingsError."""
    settings = Settings.load()
    configure_logging(settings)
    return settings


def result_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--json` and `--out`, for `show`."""
    out = click.option(
        "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON there as well."
    )
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(out(command))


def show(
    document: dict[str, Any], table: Callable[[dict[str, Any]], str], *, as_json: bool, out: Path | None
) -> None:
    text = json.dumps(document, indent=2)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(text if as_json else table(document))


@contextmanager
def told(*also: type[Exception]) -> Iterator[None]:
    """What may go wrong with an installation or its settings, and `also` these, end the command with their message."""
    try:
        yield
    except FORESEEN + also as error:
        raise click.ClickException(str(error)) from error
