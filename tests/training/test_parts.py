"""What makes the parts of a split say little is said before training, and what is learned."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import TAXONOMY, picture, tiny_checkpoint
from training.__main__ import main
from training.errors import DataError
from training.parts import (
    NAMED,
    learned,
    lumpy,
    split_rows,
    warn_of_few_to_calibrate_on,
    warn_of_shared_photos,
)
from training.readable import require_readable
from training.recipe import BackbonesSection, Recipe, SplitSection
from training.replay import Replay
from training.rows import rows_to_train_on
from training.split import PARTS, part_of
from training.table import Row, read_table

SPLIT = SplitSection()


def rows(count, groups):
    return [Row(str(n), "", "", (), f"group {n % groups}", {}) for n in range(count)]


def test_rows_fall_where_the_rule_of_their_group_puts_them(capsys):
    found = split_rows(Path("metadata.csv"), rows(400, 400), SPLIT)
    assert all(part_of(row.group, SPLIT) == part for part in PARTS for row in found[part])
    assert sum(map(len, found.values())) == 400
    assert capsys.readouterr().err == ""


def test_an_empty_part_of_few_groups_says_what_would_help():
    with pytest.raises(
        DataError, match=r"none of 1000 rows .* only 7 groups, the largest of 143 .* `group` column"
    ):
        split_rows(Path("metadata.csv"), rows(1000, 7), SPLIT)
    with pytest.raises(DataError, match="give more rows or a larger share"):
        split_rows(Path("metadata.csv"), rows(4, 4), SPLIT)


def test_few_groups_and_large_ones_are_told_and_usual_ones_are_not(capsys):
    assert "1000 rows are only 200 groups, the largest of 5 rows" in lumpy(rows(1000, 200), SPLIT)
    one_title = [*rows(1000, 1000), *rows(100, 1)]
    assert "1100 rows are only 1000 groups, the largest of 101 rows" in lumpy(one_title, SPLIT)
    assert lumpy(rows(1000, 400), SPLIT) == ""
    assert lumpy(rows(100, 50), SPLIT) == "", "so few rows are few whatever their groups are"
    split_rows(Path("metadata.csv"), rows(1000, 200), SPLIT)
    assert "a group is never split" in capsys.readouterr().err


def test_too_few_products_to_calibrate_on_are_told_with_the_share_that_would_do(capsys):
    warn_of_few_to_calibrate_on(rows(77, 77), SPLIT)
    told = capsys.readouterr().err
    assert "77 products are few to calibrate on" in told and "--set split.calibration=0.21" in told
    warn_of_few_to_calibrate_on(rows(20, 20), SPLIT)
    told = capsys.readouterr().err
    assert "give more\n" in told, "a table this small has no such share"
    warn_of_few_to_calibrate_on(rows(200, 200), SPLIT)
    assert capsys.readouterr().err == ""


def test_photos_of_more_than_one_part_are_counted_by_what_they_hold(tmp_path, capsys):
    for name, colour in {"red": "red", "again": "red", "blue": "blue", "green": "green"}.items():
        (tmp_path / f"{name}.png").write_bytes(picture(colour, file_format="PNG"))
    red, again, blue, green = (tmp_path / f"{name}.png" for name in ("red", "again", "blue", "green"))
    parts = {
        "train": [Row("1", "", "", (red, blue), "a", {}), Row("2", "", "", (blue,), "b", {})],
        "test": [Row("3", "", "", (again, green), "c", {})],
    }
    digests = require_readable([row for part in parts.values() for row in part])
    warn_of_shared_photos(parts, digests)
    assert "1 of 3 photos are in more than one part" in capsys.readouterr().err
    warn_of_shared_photos({"train": parts["train"], "test": []}, digests)
    assert capsys.readouterr().err == ""


def test_a_product_of_another_table_with_the_title_of_a_measured_one_is_told(tmp_path, capsys):
    """The table of the run groups by a column, the other one has none and so groups by the title."""
    (tmp_path / "more.csv").write_text("title,colour\nRed Shirt!,red\nblue shoe,blue\n")
    old = Replay(tiny_checkpoint(), read_table(tmp_path / "more.csv").rows, ())
    own = [Row("1", "green shirt", "", (), "own", {"colour": ("green",)})]
    measured = [Row("2", "red shirt", "", (), "of the shop", {}), Row("3", "", "", (), "x", {})]
    recipe = Recipe(name="tiny", backbones=BackbonesSection(checkpoint="models/starter"))
    taken = rows_to_train_on(recipe, own, measured, TAXONOMY, old, tmp_path)
    assert [row.title for row in taken] == ["green shirt", "Red Shirt!", "blue shoe"]
    assert capsys.readouterr().err.startswith("1 products of other tables have the title or a photo")
    rows_to_train_on(recipe, own, measured[1:], TAXONOMY, old, tmp_path)
    assert capsys.readouterr().err == ""


def test_a_product_of_another_table_with_a_photo_of_a_measured_one_is_told(tmp_path, capsys):
    """Whatever the file is called, and its product."""
    for name, colour in (("a.jpg", "red"), ("b.jpg", "red"), ("c.jpg", "blue")):
        (tmp_path / name).write_bytes(picture(colour))
    measured = [Row("2", "red shirt", "", (tmp_path / "a.jpg",), "of the shop", {})]
    added = [
        Row("3", "crimson top", "", (tmp_path / "c.jpg", tmp_path / "b.jpg"), "x", {"colour": ("red",)}),
        Row("4", "blue top", "", (tmp_path / "c.jpg",), "y", {"colour": ("blue",)}),
    ]
    recipe = Recipe(name="tiny", backbones=BackbonesSection(checkpoint="models/starter"))
    old = Replay(tiny_checkpoint(), tuple(added), ())
    rows_to_train_on(recipe, [], measured, TAXONOMY, old, tmp_path)
    assert capsys.readouterr().err.startswith("1 products of other tables have the title or a photo")


def test_what_is_learned_is_one_line_and_a_long_list_is_cut():
    assert learned(TAXONOMY) == "learns colour (3 values), kind (2 values), material (3 values)"
    many = Taxonomy(tuple(Attribute(f"a{n}", ("x", "y")) for n in range(NAMED + 5)))
    assert learned(many).endswith(f"a{NAMED - 1} (2 values), 5 more")


def test_fit_says_it_all_before_it_begins(recipe_file, catalogue, tmp_path):
    """By a setting that is refused late: nothing is trained for it."""
    arguments = ["fit", str(recipe_file), "--data", str(catalogue), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*arguments, "--set", "log.wandb_project=none"])
    assert "240 rows are only 120 groups, the largest of 2 rows" in result.stderr
    assert "3 of 3 photos are in more than one part" in result.stderr
    assert "learns colour (3 values), kind (2 values), material (3 values)" in result.stderr
