"""What the commands of `catalog` and `workers` share: options that take a number."""

import math
from typing import Any

import click


class Number(click.FloatRange):
    """A range that "nan" is not in, though it is no more above than below anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


# The longest wait: more is a mistake, and a socket takes no timeout of a month.
DAY_S = 86_400
WAIT_S = Number(0, DAY_S)
