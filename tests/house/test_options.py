"""No option of any command takes a number that is none: nothing is above or below it, and a wait for it has no end."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest
from click.types import FloatParamType

MAINS = ("catalog", "workers", "models", "training", "benchmarks")


def numbers_of(command: click.Command) -> Iterator[click.Parameter]:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from numbers_of(each)
    yield from (each for each in command.params if isinstance(each.type, FloatParamType))


def options() -> list[tuple[str, click.Parameter]]:
    names = [*(f"{name}.__main__" for name in MAINS), "tests.faults.soak"]
    return [(name, each) for name in names for each in numbers_of(importlib.import_module(name).main)]


@pytest.mark.parametrize("given", ["nan", "inf", "-1"])
@pytest.mark.parametrize("option", [pytest.param(each, id=f"{name} {each.name}") for name, each in options()])
def test_a_number_that_nothing_can_be_made_of_is_refused(option: click.Parameter, given: str) -> None:
    with pytest.raises(click.BadParameter):
        option.type_cast_value(click.Context(click.Command("any")), given)
