"""Files as spreadsheets and programs really write them: read where they can be, else told what to do."""

import json

import numpy as np
import pandas as pd
import pytest

from training.errors import DataError
from training.frame import named_once, read_frame
from training.table import read_table

RECORDS = [{"title": f"thing {n}", "kind": "shirt" if n % 2 else "shoe", "colour": "red"} for n in range(6)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1, 2]", "line 3: not a JSON object; each line is one product"),
        ("5", "line 3: not a JSON object"),
        ('{"title": "x",', "line 3, column 15: Expecting property name"),
        ('{"title": "so nice \\ud83d"}', "line 3: a .u escape is half of a character"),
        ('{"title": "x", "kind": ["\\uDC4D"]}', "line 3: a .u escape is half of a character"),
    ],
)
def test_a_line_of_jsonl_that_is_no_product_is_named(tmp_path, line, told):
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join([*map(json.dumps, RECORDS[:2]), line]) + "\n")
    with pytest.raises(DataError, match=told):
        read_frame(path)


def test_a_file_that_is_one_json_array_is_told_what_a_line_is(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps(RECORDS))
    with pytest.raises(DataError, match="line 1: not a JSON object; each line is one product"):
        read_frame(path)


@pytest.mark.parametrize(
    ("separator", "encoding", "told"),
    [
        (";", "utf-8-sig", "separated by semicolons: save it with commas"),
        ("\t", "utf-8", "separated by tabs: save it with commas"),
        ("\t", "utf-16", "it is in UTF-16: save it in UTF-8"),
        (",", "gbk", "it is in another encoding than UTF-8: save it in UTF-8"),
    ],
)
def test_a_csv_as_spreadsheets_write_it_is_told_how_to_save_it(tmp_path, separator, encoding, told):
    records = [{**record, "colour": "赤，红"} for record in RECORDS]
    pd.DataFrame(records).to_csv(tmp_path / "metadata.csv", index=False, sep=separator, encoding=encoding)
    with pytest.raises(DataError, match=told):
        read_frame(tmp_path / "metadata.csv")


def test_a_csv_of_commas_may_hold_semicolons(tmp_path):
    (tmp_path / "metadata.csv").write_text("title,kind;colour\nthing,shoe\n")
    assert list(read_frame(tmp_path / "metadata.csv").columns) == ["title", "kind;colour"]


@pytest.mark.parametrize("name", ["METADATA.CSV", "Metadata.JsonL", "metadata.PARQUET"])
def test_the_ending_may_be_in_capitals(tmp_path, name):
    path, frame = tmp_path / name, pd.DataFrame(RECORDS)
    {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".parquet": lambda: frame.to_parquet(path),
    }[path.suffix.lower()]()
    assert len(read_frame(path)) == len(RECORDS)


def test_names_of_columns_lose_their_blanks_and_the_second_of_one_name_gets_a_number():
    assert named_once([" kind", "kind", "colour ", "kind.1", "kind"]) == [
        "kind", "kind.1", "colour", "kind.1.1", "kind.2",
    ]  # fmt: skip


def test_a_name_that_is_there_twice_is_told_and_the_first_is_used(tmp_path):
    path = tmp_path / "metadata.csv"
    lines = [f"thing {n},{'ab'[n % 2]}, {'cd'[n % 2]},e{n % 3}" for n in range(12)]
    path.write_text("\n".join(["title,kind ,kind,size", *lines]))
    table = read_table(path)
    assert table.columns == ("kind", "size")
    assert table.skipped == {"kind.1": "the header has 'kind' more than once"}
    assert table.rows[0].values["kind"] == ("a",)
    assert read_table(path, ["kind.1"]).rows[0].values["kind.1"] == ("c",)


def test_parquet_of_every_type_has_the_values_that_a_csv_would_have(tmp_path):
    frame = pd.DataFrame(RECORDS)
    frame["launch"] = pd.to_datetime(["2024-01-01", "2024-06-01", None] * 2)
    frame["lasts"] = pd.to_timedelta([1, 2, None] * 2, unit="D")
    frame["weight"] = np.array([0.1, 0.2, np.nan] * 2, dtype="float32")
    frame["sizes"] = [np.array([38, np.nan], dtype="float32"), np.array([40.5], dtype="float32")] * 3
    frame.to_parquet(tmp_path / "metadata.parquet")
    rows = read_table(tmp_path / "metadata.parquet").rows
    assert [row.values["launch"] for row in rows[:3]] == [
        ("2024-01-01 00:00:00",),
        ("2024-06-01 00:00:00",),
        (),
    ]
    assert [len(row.values["lasts"]) for row in rows[:3]] == [1, 1, 0]
    assert [row.values["weight"] for row in rows[:3]] == [("0.1",), ("0.2",), ()]
    assert [row.values["sizes"] for row in rows[:2]] == [("38",), ("40.5",)]


def test_parquet_may_hold_categories_and_a_column_as_its_index(tmp_path):
    frame = pd.DataFrame(RECORDS)
    frame["colour"] = pd.Categorical(frame["colour"])  # of one category, and the other of two
    frame["kind"] = pd.Categorical([*frame["kind"][:5], None])
    frame["id"] = [f"a{n}" for n in range(len(frame))]
    frame.set_index("id").to_parquet(tmp_path / "metadata.parquet")
    table = read_table(tmp_path / "metadata.parquet")
    assert table.columns == ("kind",)
    assert [(row.id, row.values["kind"]) for row in table.rows[4:]] == [("a4", ("shoe",)), ("a5", ())]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("cell", [{"a": 1}, [["oak"], ["pine", "ash"]], [{"a": 1}]])
def test_objects_and_lists_of_lists_are_no_values(tmp_path, kind, cell):
    path, frame = (
        tmp_path / f"metadata.{kind}",
        pd.DataFrame([{**record, "nested": cell} for record in RECORDS]),
    )
    if kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    table = read_table(path)
    assert table.columns == ("kind",)
    assert table.skipped["nested"].startswith("its cells hold objects or lists of lists")
    with pytest.raises(DataError, match="row 1: 'nested' cannot be"):
        read_table(path, ["nested"])


@pytest.mark.parametrize("name", ["title", "description", "id", "group"])
def test_what_a_product_has_one_of_is_no_list(tmp_path, name):
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join(json.dumps({**record, name: ["a", "b"]}) for record in RECORDS))
    with pytest.raises(DataError, match=f"row 1: '{name}' cannot be"):
        read_table(path)
