"""`python -m models tag`, as a person types it."""

import json

import pytest
from click.testing import CliRunner

from models.__main__ import main
from models.checkpoint import save, version
from tests.tiny_tagger import picture, tiny_checkpoint


@pytest.fixture
def path(tmp_path):
    save(tiny_checkpoint(), tmp_path / "checkpoint")
    (tmp_path / "shirt.jpg").write_bytes(picture("red"))
    return tmp_path / "checkpoint"


def test_it_prints_a_line_for_each_attribute(path):
    result = CliRunner().invoke(
        main, ["tag", str(path), "--title", "red shirt", "--photo", str(path.parent / "shirt.jpg")]
    )
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"colour", "kind", "material"}


def test_json_names_the_version_and_the_evidence(path):
    result = CliRunner().invoke(main, ["tag", str(path), "--title", "red shirt", "--json"])
    document = json.loads(result.stdout)
    assert document["model"] == {"name": "tiny", "version": version(path)}
    assert all(tag["evidence"]["photos"] is None for tag in document["tags"])


def test_an_empty_product_is_wrong_usage(path):
    result = CliRunner().invoke(main, ["tag", str(path)])
    assert result.exit_code == 2
    assert "--title" in result.stderr


def test_a_broken_photo_is_one_clear_line(path):
    (path.parent / "good.jpg").write_bytes(picture())
    (path.parent / "broken.jpg").write_bytes(b"broken")
    photos = [f"--photo={path.parent / name}" for name in ("good.jpg", "broken.jpg")]
    result = CliRunner().invoke(main, ["tag", str(path), *photos])
    assert result.exit_code == 1
    assert "broken.jpg: a photo cannot be decoded" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_ends_in_an_example():
    assert "Example: python -m models tag" in CliRunner().invoke(main, ["tag", "--help"]).stdout
