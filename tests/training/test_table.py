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


def groups(path):
    """By id."""
    return {row.id: row.group for row in read_table(path).rows}


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


@pytest.mark.parametrize(
    "other", ["Ｃａｆé  shirt & tie", "cafe\u0301 Shirt &amp; tie", "Caf&eacute; shirt &#38; tie"]
)
def test_one_title_in_other_letters_is_the_same_group(folder, other):
    titles = ["Café shirt & tie", other, "Cafe shirt & tie"]
    records = [{"title": title, "file_name": "", "colour": title} for title in titles]
    found = [row.group for row in read_table(write(folder, "csv", records)).rows]
    assert found[0] == found[1] != found[2]


def test_without_a_title_the_group_is_the_same_wherever_the_table_and_the_row_stand(folder, tmp_path):
    records = [
        {"id": "photo", "title": "", "description": "", "file_name": "a.jpg", "colour": "red"},
        {"id": "photos", "title": "", "description": "", "file_name": "a.jpg|b.jpg", "colour": "blue"},
        {"id": "described", "title": "", "description": "Soft wool.", "file_name": "", "colour": "red"},
        {"id": "again", "title": "", "description": "soft wool", "file_name": "", "colour": "blue"},
        {"id": "symbols", "title": "★★", "description": "Soft wool.", "file_name": "b.jpg", "colour": "red"},
        {"id": "unshown", "title": "★★", "description": "soft wool", "file_name": "", "colour": "blue"},
        {"id": "alone", "title": "★★", "description": "", "file_name": "", "colour": "red"},
    ]
    found = groups(write(folder, "csv", records))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (elsewhere / name).write_bytes(picture())
    assert groups(write(elsewhere, "csv", records[::-1])) == found
    assert found["described"] == found["again"] == found["unshown"]
    assert len(set(found.values())) == 5


def test_rows_of_one_table_may_name_a_photo_or_a_list_of_them(folder):
    records = [
        {"title": "one", "file_name": "a.jpg", "colour": "red"},
        {"title": "two", "file_names": ["a.jpg", "b.jpg"], "colour": "blue"},
        {"title": "three", "file_name": "b.jpg", "file_names": [], "colour": "red"},
        {"title": "four", "colour": "blue"},
    ]
    rows = read_table(write(folder, "jsonl", records)).rows
    assert [[photo.name for photo in row.photos] for row in rows] == [
        ["a.jpg"],
        ["a.jpg", "b.jpg"],
        ["b.jpg"],
        [],
    ]


def test_a_line_of_jsonl_ends_where_the_line_does_and_not_at_a_separator_inside_of_it(folder):
    title, description = "red\u2028shirt", "soft\u0085and warm"
    records = [
        {"title": title, "description": description, "colour": "red"},
        {"title": "shoe", "description": "", "colour": "blue"},
    ]
    path = folder / "metadata.jsonl"
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(lines, encoding="utf-8")
    first, _ = read_table(path).rows
    assert (first.title, first.description) == (title, description)


def test_a_jsonl_file_may_begin_with_a_mark_of_its_encoding(folder):
    path = write(folder, "jsonl", RECORDS)
    expected = read_table(path).rows
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_table(path).rows == expected


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


def test_dates_prices_with_a_currency_and_measures_with_a_unit_are_not_attributes_unless_named(folder):
    records = [
        {
            "title": str(n),
            "created_at": f"2024-{1 + n % 7:02}-{1 + n % 8:02}",
            "Preis": f"{5 + n % 40},99 €",
            "width": f"{n % 40} cm",
            "shelf": f"{n % 40} left row",
            "size": f"{36 + n % 9} EU",
        }
        for n in range(120)
    ]
    table = read_table(write(folder, "csv", records))
    assert table.columns == ("shelf", "size")
    assert all("different numbers or dates" in why for why in table.skipped.values())
    assert read_table(write(folder, "csv", records), ["width"]).columns == ("width",)


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
        ([{"title": "x", "file_name": "x" * 300, "colour": "red"}], {}, "1 photos are missing"),
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


@pytest.mark.parametrize(
    "text",
    [
        "title,size\nred shirt,S,M\nblue shoe,M\n",
        "title,size\nred shirt,S,\nblue shoe,M,\n",
        "title,size\nred shirt,S,,\nblue shoe,M,,\n",
    ],
)
def test_a_csv_whose_first_row_has_more_cells_than_the_header_is_refused(folder, text):
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match="row 1: more cells than the 2 columns"):
        read_table(folder / "metadata.csv")


def test_a_csv_of_a_header_alone_is_said_to_have_no_rows(folder):
    (folder / "metadata.csv").write_text("title,size\n")
    with pytest.raises(DataError, match="has no rows"):
        read_table(folder / "metadata.csv")


def test_an_attribute_that_is_named_twice_is_one(folder):
    table = read_table(write(folder, "csv", RECORDS), ["colour", "colour"])
    assert table.columns == ("colour",)
    make_taxonomy(table, table.rows)


def test_with_optional_a_missing_attribute_is_only_missing(folder):
    path = write(folder, "csv", RECORDS)
    assert read_table(path, ["colour", "season"], optional=True).columns == ("colour",)
    with pytest.raises(DataError, match="none of the attributes"):
        read_table(path, ["season"], optional=True)
