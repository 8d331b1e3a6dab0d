"""The table of a run as the recipe and its taxonomy file would have it."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from models.taxonomy import Taxonomy
from training.cells import SEVERAL
from training.declared import Declared, read_declared
from training.errors import DataError
from training.recipe import DataSection
from training.scope import say, within_scope
from training.table import Row, Table, read_table


def read_catalogue(data: Path, section: DataSection) -> tuple[Table, Declared]:
    """The table without what is out of scope, which is warned of. Raises RecipeError and DataError."""
    declared = read_declared(Path(section.taxonomy)) if section.taxonomy else Declared()
    if section.attributes:
        declared = declared.only(section.attributes)
    multiple = [*section.multiple, *declared.multiple]
    table = read_table(data, section.attributes, multiple, among=declared.names)
    table, emptied = checked(table, declared)
    say(emptied, declared.scopes)
    for sentence in perhaps_several(table, declared):
        print(sentence, file=sys.stderr)
    return table, declared


def perhaps_several(table: Table, declared: Declared) -> Iterator[str]:
    """A sentence for each attribute of one value whose cells look as if they held several, unless the file says so."""
    sure = {entry.name for entry in declared.attributes if entry.multiple is False or entry.values}
    cells = {
        name: sum(SEVERAL in value for row in table.rows for value in row.values[name])
        for name in table.columns
        if name not in table.multiple and name not in sure
    }
    # All of them, and those that are it already: a setting takes the place of the one before it.
    several = json.dumps(
        [name for name in table.columns if name in table.multiple or cells.get(name)], ensure_ascii=False
    )
    for name, found in cells.items():
        if found:
            yield (
                f"column {name!r}: {found} cells hold {SEVERAL!r} and are taken as one value each; if they are several "
                f"values, use --set 'data.multiple={several}'"
            )


def rows_for(taxonomy: Taxonomy, data: Path) -> list[Row]:
    """The rows of a table as a checkpoint of this taxonomy takes them: without what is out of scope, which is warned
    of. An attribute may be missing from the table. Raises DataError.
    """
    names = [attribute.name for attribute in taxonomy]
    multiple = [attribute.name for attribute in taxonomy if attribute.multiple]
    rows, emptied = within_scope(read_table(data, names, multiple, optional=True).rows, taxonomy.scopes)
    say(emptied, taxonomy.scopes)
    return rows


def checked(table: Table, declared: Declared) -> tuple[Table, Counter[str]]:
    """The table with cells outside of a scope emptied, and how many those were by attribute.

    Raises DataError for an attribute of one value with several in a cell, a scope's value that no product
    carries, and a value that is not on its attribute's list, with its row.
    """
    for entry in declared.attributes:
        if entry.multiple is False and entry.name in table.multiple:
            raise DataError(f"attribute {entry.name!r} takes one value, but its cells hold several")
    for name, wanted in declared.scope_values.items():
        carried = {value for row in table.rows for value in row.values[name]}
        for value in wanted:
            if value not in carried and value not in declared.values.get(name, ()):
                raise DataError(f"a scope names {value!r} of {name!r}, which no product carries")
    rows, emptied = within_scope(table.rows, declared.scopes)
    for number, row in enumerate(rows, start=1):
        for name, values in declared.values.items():
            for value in row.values[name]:
                if value not in values:
                    raise DataError(f"row {number} (id {row.id}): {name!r} cannot be {value!r}")
    return replace(table, rows=tuple(rows)), emptied
