"""The table of a shop, read without the libraries of training."""

import json

import pytest

from models.errors import UnreadableTable
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


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("shop.parquet", "", "none of .csv"),
        ("shop.csv", "price\n9\n", "has no products"),
        ("shop.jsonl", '{"title": "a"}\n[1]\n', "line 2"),
        ("shop.jsonl", "title", "cannot be read"),
        ("shop.csv", None, "cannot be read"),
    ],
)
def test_what_is_no_table_of_products_says_why(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UnreadableTable, match=told):
        read_products(tmp_path / name)


def test_a_missing_photo_is_named(tmp_path):
    (tmp_path / "shop.csv").write_text("title,file_name\nshirt,gone.jpg\n")
    with pytest.raises(UnreadableTable, match=r"gone\.jpg"):
        read_products(tmp_path / "shop.csv")[0].product()
