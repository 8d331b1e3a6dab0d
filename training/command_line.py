"""What the commands of `python -m training` share: arguments and options, and which errors are a line and no trace."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from models.errors import ModelsError
from training.errors import TrainingError

# An OSError: of a place to write to, that cannot be, is full or is not ours.
FORESEEN: tuple[type[Exception], ...] = (TrainingError, ModelsError, OSError)


class Number(click.FloatRange):
    """A range that "nan" is not in, though it is no more above than below anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CHECKPOINT = click.Path(exists=True, file_okay=False, path_type=Path)
CHANCE = Number(0, 1, min_open=True, max_open=True)

checkpoint = click.argument("checkpoint", type=CHECKPOINT)
data = click.option("--data", required=True, type=FILE, help="The table.")
out = click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
workers = click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    help="Processes that read photos.",
)
SEED = click.IntRange(min=0)
certainty = click.option(
    "--certainty",
    type=CHANCE,
    help="With which probability each promise is to hold (default: as the checkpoint has it).",
)


def part(whose: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--part`, by the split rule of `whose`."""
    return click.option(
        "--part",
        type=click.Choice(["all", "train", "validation", "calibration", "test"]),
        default="all",
        help=f"Only the rows that {whose} there.",
    )


def needs_glossary(context: click.Context, parameter: click.Parameter, chosen: Any) -> Any:
    given = context.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT
    if given and context.params.get("glossary") is None:
        raise click.BadParameter("needs --glossary")
    return chosen


def titles_by_glossary(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how a glossary changes the texts that are measured."""
    options = (
        click.option(
            "--glossary",
            type=FILE,
            is_eager=True,  # read before the two that need it
            help="Render the titles in this glossary's language first, or describe the products.",
        ),
        click.option(
            "--style",
            type=click.Choice(["whole", "mixed", "described"]),
            default="whole",
            callback=needs_glossary,
            help="With --glossary: how much of a title; described: none of it, but titles alone get a description.",
        ),
        click.option(
            "--unseen",
            is_flag=True,
            callback=needs_glossary,
            help="With --glossary: the wordings and sentences that no training sees.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def told(*also: type[Exception]) -> Iterator[None]:
    """What may be wrong with tables, recipes and checkpoints, and `also` these, end the command with their message."""
    try:
        yield
    except BrokenPipeError:  # whoever reads has read enough, and click ends quietly
        raise
    except FORESEEN + also as error:
        raise click.ClickException(str(error)) from error
