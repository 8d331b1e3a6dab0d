"""Any table of the documented form is read alike, and a wrong one is refused by name."""

import json

import pandas as pd
import pytest

from tests.tiny_tagger import picture
from training.errors import DataError
from training.table import make_taxonomy, read_table

RECORDS = [
    {"title": "red shirt", "description": "soft", "file_name": "a.jpg", "colour": "red", "usage": "NA"},
    {"title": "blue shoe", "description": "", "file_name": "", "colour": "blue", "usage": "Casual"},
    {"title": "green shoe", "description": "", "file_name": "a.jpg|b.jpg", "colour": "", "usage": "Casual"},
    {"title": "blue shoe", "description": "", "file_name": "b.jpg", "colour": "blue", "usage": "NA"},
]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(picture())
    return tmp_path


def write(folder, kind, records):
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    elif kind == "csv":
        pd.DataFrame(records).to_csv(path, index=False)
    else:
        pd.DataFrame(records).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(folder, kind):
    table = read_table(write(folder, kind, RECORDS))
    assert table.columns == ("colour", "usage")
    assert [row.values["colour"] for row in table.rows] == [("red",), ("blue",), (), ("blue",)]
    assert [row.values["usage"] for row in table.rows] == [("NA",), ("Casual",), ("Casual",), ("NA",)]
    assert [len(row.photos) for row in table.rows] == [1, 0, 2, 1]


def test_rows_of_one_title_are_one_group_unless_the_table_says_otherwise(folder):
    assert len({row.group for row in read_table(write(folder, "csv", RECORDS)).rows}) == 3
    grouped = [{**record, "group": number} for number, record in enumerate(RECORDS)]
    assert len({row.group for row in read_table(write(folder, "csv", grouped)).rows}) == 4


def test_lists_are_several_values_and_several_photos(folder):
    records = [
        {"title": "one", "file_names": ["a.jpg", "b.jpg"], "material": ["wool", "linen"]},
        {"title": "two", "file_names": [], "material": []},
        {"title": "three", "file_names": ["a.jpg"], "material": ["wool"]},
        {"title": "four", "file_names": ["a.jpg"], "material": ["linen"]},
    ]
    table = read_table(write(folder, "parquet", records))
    assert table.multiple == {"material"}
    assert [row.values["material"] for row in table.rows] == [("wool", "linen"), (), ("wool",), ("linen",)]
    assert [len(row.photos) for row in table.rows] == [2, 0, 1, 1]


def test_a_bar_in_a_csv_cell_is_a_separator_only_where_asked(folder):
    records = [
        {"title": str(n), "material": value} for n, value in enumerate(["a|b", "a|b", "c", "c", "a|b"])
    ]
    path = write(folder, "csv", records)
    assert read_table(path).rows[0].values["material"] == ("a|b",)
    assert read_table(path, multiple=["material"]).rows[0].values["material"] == ("a", "b")


def test_identifiers_prices_and_constants_are_not_attributes_unless_named(folder):
    records = [
        {
            "title": str(n),
            "sku": f"S{n}",
            "price": str(10 + n % 40),
            "shop": "mine",
            "year": str(2010 + n % 4),
        }
        for n in range(100)
    ]
    table = read_table(write(folder, "csv", records))
    assert table.columns == ("year",)
    assert set(table.skipped) == {"sku", "price", "shop"}
    assert read_table(write(folder, "csv", records), ["sku"]).columns == ("sku",)


def test_values_are_ordered_by_how_often_they_occur(folder):
    table = read_table(write(folder, "csv", RECORDS), ["colour"])
    taxonomy, skipped = make_taxonomy(table, table.rows)
    assert taxonomy.attributes[0].values == ("blue", "red")
    assert skipped == {}


def test_an_attribute_without_a_choice_in_the_training_rows_is_left_out_or_refused(folder):
    path = write(folder, "csv", RECORDS)
    everything, named = read_table(path), read_table(path, ["colour", "usage"])
    one_colour = [row for row in everything.rows if row.values["colour"] == ("blue",)]
    taxonomy, skipped = make_taxonomy(everything, one_colour)
    assert [attribute.name for attribute in taxonomy] == ["usage"]
    assert "1 values" in skipped["colour"]
    with pytest.raises(DataError, match="'colour' has 1 values"):
        make_taxonomy(named, one_colour)


@pytest.mark.parametrize(
    ("records", "arguments", "message"),
    [
        ([], {}, "neither a title nor a file_name"),
        ([{"colour": "red"}], {}, "neither a title nor a file_name"),
        ([{"title": "", "file_name": "", "colour": "red"}], {}, "row 1: neither"),
        ([{"title": "x", "file_name": "gone.jpg", "colour": "red"}], {}, r"1 photos are missing.*gone\.jpg"),
        ([{"title": "x", "colour": "red"}], {"attributes": ["size"]}, "no attribute column 'size'"),
        ([{"title": "x", "colour": "red"}], {"attributes": ["title"]}, "no attribute column 'title'"),
        ([{"title": "x", "colour": "red"}], {}, "no usable attribute column"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_name(folder, records, arguments, message):
    path = folder / "metadata.csv"
    if records:
        write(folder, "csv", records)
    else:
        path.write_text("colour\n")
    with pytest.raises(DataError, match=message):
        read_table(path, **arguments)


def test_a_file_that_is_no_table_is_refused(folder):
    (folder / "metadata.jsonl").write_text("{broken")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_table(folder / "metadata.jsonl")
    with pytest.raises(DataError, match="csv"):
        read_table(folder / "a.jpg")


def test_with_optional_a_missing_attribute_is_only_missing(folder):
    path = write(folder, "csv", RECORDS)
    assert read_table(path, ["colour", "season"], optional=True).columns == ("colour",)
    with pytest.raises(DataError, match="none of the attributes"):
        read_table(path, ["season"], optional=True)
