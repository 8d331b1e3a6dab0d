"""The table of a run: what lies outside of a scope is emptied, what a list of values lacks is refused."""

import json

import pandas as pd
import pytest

from models.taxonomy import Scope
from training.catalogue import read_catalogue
from training.errors import DataError, RecipeError
from training.recipe import DataSection
from training.table import make_taxonomy

RECORDS = [
    {"title": "pump", "kind": "shoe", "heel": "high", "material": "wool|silk"},
    {"title": "clog", "kind": "shoe", "heel": "low", "material": "wool"},
    {"title": "polo", "kind": "shirt", "heel": "high", "material": "silk"},
    {"title": "tee", "kind": "shirt", "heel": "", "material": "silk"},
    {"title": "thing", "kind": "", "heel": "low", "material": ""},
]
SCOPE = {"attribute": "kind", "values": ["shoe"]}
HEEL = {"name": "heel", "applies_when": SCOPE}


@pytest.fixture
def read(tmp_path):
    def read(*attributes, records=RECORDS, **section):
        pd.DataFrame(records).to_csv(tmp_path / "metadata.csv", index=False)
        path = tmp_path / "taxonomy.json"
        path.write_text(json.dumps({"attributes": attributes}))
        return read_catalogue(tmp_path / "metadata.csv", DataSection(taxonomy=str(path), **section))

    return read


def test_a_cell_outside_of_its_scope_is_emptied_and_counted(read, capsys):
    table, declared = read(HEEL)
    assert [row.values["heel"] for row in table.rows] == [("high",), ("low",), (), (), ("low",)]
    assert (
        "'heel': 1 filled cells are not used: it applies only when 'kind' is 'shoe'"
        in capsys.readouterr().err
    )
    taxonomy, _ = make_taxonomy(table, table.rows, declared)
    assert taxonomy.scopes == {"kind": None, "heel": Scope("kind", ("shoe",)), "material": None}


def test_values_that_occur_only_outside_of_the_scope_are_none(read):
    records = [*RECORDS, {"title": "cap", "kind": "shirt", "heel": "none", "material": "silk"}]
    table, declared = read(HEEL, records=records)
    taxonomy, _ = make_taxonomy(table, table.rows, declared)
    assert set(taxonomy.attributes[1].values) == {"high", "low"}


def test_a_chain_of_scopes_ends_where_a_link_does_not_apply(read):
    records = [
        {"title": "1", "trade": "fashion", "kind": "shoe", "heel": "high"},
        {"title": "2", "trade": "food", "kind": "shoe", "heel": "high"},
        {"title": "3", "trade": "food", "kind": "", "heel": "low"},
        {"title": "4", "trade": "", "kind": "shoe", "heel": "low"},
        {"title": "5", "trade": "fashion", "kind": "shirt", "heel": "low"},
    ]
    kind = {"name": "kind", "applies_when": {"attribute": "trade", "values": ["fashion"]}}
    table, _ = read(HEEL, kind, records=records)
    assert [row.values["kind"] for row in table.rows] == [("shoe",), (), (), ("shoe",), ("shirt",)]
    assert [row.values["heel"] for row in table.rows] == [("high",), (), (), ("low",), ()]


def test_under_several_values_of_a_parent_one_in_scope_is_enough(read):
    warm = {"name": "heel", "applies_when": {"attribute": "material", "values": ["wool"]}}
    table, _ = read(warm, {"name": "material", "multiple": True})
    assert [row.values["heel"] for row in table.rows] == [("high",), ("low",), (), (), ("low",)]


def test_a_list_of_values_is_the_taxonomys_own(read):
    table, declared = read({"name": "kind", "values": ["shirt", "hat", "shoe"]})
    taxonomy, _ = make_taxonomy(table, table.rows, declared)
    assert taxonomy.attributes[0].values == ("shirt", "hat", "shoe")


def test_a_value_that_a_scope_names_stays_however_rare(read):
    table, declared = read(
        HEEL, {"name": "colour"}, records=[{**r, "colour": "ab"[n % 2]} for n, r in enumerate(RECORDS)]
    )
    shirts = [row for row in table.rows if row.values["kind"] != ("shoe",)]
    only_shirts = [*shirts, *(row for row in table.rows if row.title == "pump")]
    taxonomy, _ = make_taxonomy(table, only_shirts, declared)
    assert "shoe" in taxonomy.attributes[0].values


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([{"name": "kind", "values": ["shoe", "hat"]}], r"row 3 \(id 3\): 'kind' cannot be 'shirt'"),
        ([{"name": "sleeve"}], "no attribute column 'sleeve'"),
        (
            [{"name": "heel", "applies_when": {"attribute": "trade", "values": ["x"]}}],
            "no attribute column 'trade'",
        ),
        (
            [{"name": "heel", "applies_when": {"attribute": "kind", "values": ["Shoe"]}}],
            "'Shoe' of 'kind', which no",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(read, attributes, message):
    with pytest.raises(DataError, match=message):
        read(*attributes)


def test_one_value_is_promised_and_several_are_found(read):
    with pytest.raises(DataError, match="'material' takes one value"):
        read({"name": "material", "multiple": False}, multiple=("material",))


def test_a_value_that_is_out_of_scope_need_not_be_on_the_list(read):
    table, _ = read(
        {**HEEL, "values": ["low", "high"]},
        records=[*RECORDS, {"title": "x", "kind": "shirt", "heel": "n/a", "material": ""}],
    )
    assert table.rows[-1].values["heel"] == ()


def test_the_attributes_of_the_recipe_come_first(read):
    table, declared = read(HEEL, {"name": "material", "multiple": True}, attributes=("kind", "heel"))
    assert table.columns == ("kind", "heel")
    assert declared.names == ["heel", "kind"]
    with pytest.raises(RecipeError, match="name 'kind' among the attributes"):
        read(HEEL, attributes=("heel",))


def test_a_column_that_the_file_names_is_an_attribute_whatever_it_holds(read):
    records = [{"title": str(n), "code": f"c{n}", "kind": "ab"[n % 2]} for n in range(30)]
    assert read(records=records)[0].columns == ("kind",)
    assert read({"name": "code"}, records=records)[0].columns == ("code", "kind")


def test_a_column_whose_cells_look_like_several_values_is_told_of(read, capsys):
    records = [
        {**record, "season": "summer|winter" if n < 2 else "summer"} for n, record in enumerate(RECORDS)
    ]
    read(records=records)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" and are")[0] for line in told] == [
        "column 'material': 1 cells hold '|'",
        "column 'season': 2 cells hold '|'",
    ]
    assert all(line.endswith("""--set 'data.multiple=["material", "season"]'""") for line in told)


@pytest.mark.parametrize(
    ("attributes", "section"),
    [
        ([], {"multiple": ("material",)}),
        ([{"name": "material", "multiple": True}], {}),
        ([{"name": "material", "multiple": False}], {}),
        ([{"name": "material", "values": ["wool|silk", "wool", "silk"]}], {}),
    ],
)
def test_a_column_of_which_that_is_settled_is_not(read, capsys, attributes, section):
    read(*attributes, **section)
    assert "hold" not in capsys.readouterr().err


def test_the_setting_that_it_names_keeps_what_is_set_already(read, capsys):
    records = [
        {**record, "season": "summer|winter" if n < 2 else "summer"} for n, record in enumerate(RECORDS)
    ]
    read(records=records, multiple=("season",))
    assert """'data.multiple=["material", "season"]'""" in capsys.readouterr().err
