"""Numbers that no command can use are wrong usage, and above all no verdict."""

import pytest
from click.testing import CliRunner

from training.__main__ import main
from training.command_line import told

TABLE = "pyproject.toml"  # never read


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("compare", "models/starter", "models/starter", "--data", TABLE, "--margin", "nan"),
            "nan is not a number",
        ),
        (("compare", "models/starter", "models/starter", "--data", TABLE, "--seed", "-1"), "--seed"),
        (("contract", "models/starter", "--data", TABLE, "--seed", "-1"), "--seed"),
        (("contract", "models/starter", "--data", TABLE, "--certainty", "nan"), "nan is not a number"),
        (("evaluate", "models/starter", TABLE, "--workers", "-1"), "--workers"),
    ],
)
def test_an_impossible_number_is_wrong_usage(arguments, told):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_reader_that_has_read_enough_is_no_error():
    with pytest.raises(BrokenPipeError), told():
        raise BrokenPipeError


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "training/recipes/finetune.toml", "--data"),
        ("calibrate", "models/starter", "--data"),
        ("average", "models/starter", "models/../models/starter", "--data"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(arguments, tmp_path):
    table, file = tmp_path / "metadata.csv", tmp_path / "file"
    table.write_text("title,gender\n" + "".join(f"shirt {n},Men\nskirt {n},Women\n" for n in range(200)))
    file.touch()
    result = CliRunner().invoke(main, [*arguments, str(table), "--out", str(file / "out")])
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr or "File exists" in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "models/starter", "TABLE", "--report"),
        ("calibrate", "models/starter", "--data", "TABLE", "--out"),
        ("average", "models/starter", "models/../models/starter", "--data", "TABLE", "--out"),
    ],
)
def test_a_folder_that_takes_no_file_is_told_before_any_work(arguments, tmp_path, monkeypatch):
    table = tmp_path / "metadata.csv"
    table.write_text("title,gender\n" + "".join(f"shirt {n},Men\n" for n in range(200)))
    for work in ("training.evaluation.evaluate_rows", "training.seen.evaluate_rows"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("the work has begun"))
    given = [str(table) if one == "TABLE" else one for one in arguments]
    result = CliRunner().invoke(main, [*given, "/proc/made"])  # there not even root may make one
    assert (result.exit_code, "/proc/" in result.stderr) == (1, True), result.output
    assert isinstance(result.exception, SystemExit)
