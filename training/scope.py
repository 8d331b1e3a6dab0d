"""Where an attribute applies by what the table says of its products.

A filled cell outside of its attribute's scope is emptied, so that it neither trains nor counts. What nobody has
said leaves it open: with an empty cell of the parent the attribute may apply, and its cell stays.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from models.taxonomy import Scope
from training.table import Row

Scopes = Mapping[str, Scope | None]


def within_scope(rows: Sequence[Row], scopes: Scopes) -> tuple[list[Row], Counter[str]]:
    """The rows without their cells outside of the scopes, and how many those were by attribute."""
    scoped = [name for name, scope in scopes.items() if scope is not None]
    emptied: Counter[str] = Counter()
    kept = []
    for row in rows:
        outside = [name for name in scoped if row.values.get(name) and applies(row, name, scopes) is False]
        emptied.update(outside)
        kept.append(replace(row, values={**row.values, **dict.fromkeys(outside, ())}) if outside else row)
    return kept, emptied


def applies(row: Row, name: str, scopes: Scopes) -> bool | None:
    """Whether the attribute applies to the row; None where the cell that would tell is empty."""
    scope = scopes.get(name)
    if scope is None:
        return True
    if applies(row, scope.attribute, scopes) is False:
        return False
    values = row.values.get(scope.attribute, ())
    return any(value in scope.values for value in values) if values else None


def say(emptied: Counter[str], scopes: Scopes) -> None:
    """Warns of each attribute that has filled cells outside of its scope."""
    for name, count in emptied.items():
        scope = scopes[name]
        assert scope is not None
        where = f"{scope.attribute!r} is {' or '.join(repr(value) for value in scope.values)}"
        print(
            f"column {name!r}: {count} filled cells are not used: it applies only when {where}",
            file=sys.stderr,
        )
