"""The table of a shop, read without the libraries of training."""

import json
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from models.errors import ExtraMissing, UnreadableTable
from models.product_table import read_products


def test_a_csv_of_a_spreadsheet_is_read_with_all_its_photos(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "b.jpg").write_bytes(b"b")
    table = tmp_path / "shop.csv"
    table.write_text(
        '\ufefftitle,description,price,file_name\nRed shirt,"soft,\nnew",9,a.jpg|b.jpg\n', encoding="utf-8"
    )
    (listed,) = read_products(table)
    product = listed.product()
    assert (product.title, product.description, product.photos) == ("Red shirt", "soft,\nnew", (b"a", b"b"))


def test_json_lines_may_list_photos_and_leave_out_the_rest(tmp_path):
    table = tmp_path / "shop.jsonl"
    rows = [{"file_names": ["a.jpg", "b.jpg"]}, {"title": "高性价比蓝牙耳机", "description": None}]
    table.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8"
    )
    photos, title = read_products(table)
    assert photos.photos == (tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert (title.title, title.description, title.photos) == ("高性价比蓝牙耳机", "", ())


@pytest.mark.parametrize("name", ["shop.jsonl", "SHOP.JSONL"])
def test_json_lines_may_begin_with_a_mark_of_their_encoding(tmp_path, name):
    (tmp_path / name).write_text('{"title": "shirt"}\n', encoding="utf-8-sig")
    assert [listed.title for listed in read_products(tmp_path / name)] == ["shirt"]


def test_names_of_columns_may_have_blanks_around_them(tmp_path):
    (tmp_path / "SHOP.CSV").write_text(" title,file_name \nshirt,a.jpg\n")
    (listed,) = read_products(tmp_path / "SHOP.CSV")
    assert (listed.title, listed.photos) == ("shirt", (tmp_path / "a.jpg",))


def test_parquet_is_read_as_training_reads_it(tmp_path):
    table = pa.table(
        {"title": ["shirt", None], "price": [9.0, 9.5], "file_names": [["a.jpg", "b.jpg"], ["a.jpg"]]}
    )
    parquet.write_table(table, tmp_path / "shop.parquet")
    shirt, photo = read_products(tmp_path / "shop.parquet")
    assert (shirt.title, shirt.photos) == ("shirt", (tmp_path / "a.jpg", tmp_path / "b.jpg"))
    assert (photo.title, photo.photos) == ("", (tmp_path / "a.jpg",))


def test_without_its_library_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "shop.parquet").touch()
    with pytest.raises(ExtraMissing, match=r"pyarrow.*tagsmith\[train\]"):
        read_products(tmp_path / "shop.parquet")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("shop.txt", "", "none of .csv"),
        ("shop.parquet", "", "cannot be read"),
        ("shop.csv", "price\n9\n", "has no products"),
        ("shop.jsonl", '{"title": "a"}\n[1]\n', "line 2"),
        ("shop.jsonl", "title", "cannot be read"),
        ("shop.jsonl", '\n{"title": "a"}\n{', "line 3, column 2"),
        ("shop.csv", "title;price\na;9\n", "separated by semicolons: save it with commas"),
        ("shop.csv", b"title,price\n\xba\xec,9\n", "in another encoding than UTF-8"),
        ("shop.csv", "title\na\n".encode("utf-16"), "is in UTF-16"),
        ("shop.csv", None, "cannot be read"),
    ],
)
def test_what_is_no_table_of_products_says_why(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnreadableTable, match=told):
        read_products(tmp_path / name)


def test_a_missing_photo_is_named(tmp_path):
    (tmp_path / "shop.csv").write_text("title,file_name\nshirt,gone.jpg\n")
    with pytest.raises(UnreadableTable, match=r"gone\.jpg"):
        read_products(tmp_path / "shop.csv")[0].product()


def test_an_empty_cell_that_was_written_as_a_nan_is_empty_and_a_whole_number_is_written_as_one(tmp_path):
    table = tmp_path / "shop.jsonl"
    table.write_text('{"title": 38.0, "description": NaN, "file_name": NaN}\n')
    (listed,) = read_products(table)
    assert (listed.title, listed.description, listed.photos) == ("38", "", ())


def test_a_cell_may_be_longer_than_the_library_takes_by_itself(tmp_path):
    table = tmp_path / "shop.csv"
    table.write_text(f"title,description\nshirt,{'soft ' * 50_000}\n")
    (listed,) = read_products(table)
    assert len(listed.description) == 5 * 50_000 - 1
