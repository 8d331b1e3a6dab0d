import hashlib
import json
from pathlib import Path

import pytest

from catalog.checkpoint_files import checkpoint_version, read_checkpoint_info
from catalog.errors import InvalidCheckpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "starter"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": "starter", "format": 1}))
    (folder / "taxonomy.json").write_text(json.dumps({"version": 1, "attributes": [{"name": "base_colour"}]}))
    (folder / "metrics.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer" / "vocab.txt").write_bytes(b"a\nb\n")
    return folder


def test_a_checkpoint_describes_itself(checkpoint: Path) -> None:
    info = read_checkpoint_info(checkpoint)
    assert info["name"] == "starter"
    assert info["taxonomy"] == {"version": 1, "attributes": [{"name": "base_colour"}]}
    assert info["metrics"] == {}
    assert info["version"] == checkpoint_version(checkpoint)


def test_the_version_is_the_hash_over_paths_lengths_and_bytes(checkpoint: Path) -> None:
    expected = hashlib.sha256()
    for name in ("config.json", "metrics.json", "model.safetensors", "taxonomy.json", "tokenizer/vocab.txt"):
        content = (checkpoint / name).read_bytes()
        expected.update(name.encode() + b"\0" + len(content).to_bytes(8, "big") + content)
    assert checkpoint_version(checkpoint) == expected.hexdigest()


def test_the_version_changes_with_any_byte_and_any_name(checkpoint: Path) -> None:
    versions = {checkpoint_version(checkpoint)}
    (checkpoint / "model.safetensors").write_bytes(b"Weights")
    versions.add(checkpoint_version(checkpoint))
    (checkpoint / "tokenizer" / "vocab.txt").rename(checkpoint / "tokenizer" / "words.txt")
    versions.add(checkpoint_version(checkpoint))
    (checkpoint / "README.md").write_text("")
    versions.add(checkpoint_version(checkpoint))
    assert len(versions) == 4


def test_the_version_does_not_depend_on_where_the_checkpoint_lies(checkpoint: Path, tmp_path: Path) -> None:
    before = checkpoint_version(checkpoint)
    assert checkpoint_version(checkpoint.rename(tmp_path / "elsewhere")) == before


def test_what_is_missing_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="TAGSMITH_CHECKPOINT"):
        read_checkpoint_info(tmp_path / "nowhere")
    (checkpoint / "taxonomy.json").unlink()
    with pytest.raises(InvalidCheckpoint, match=r"no taxonomy\.json"):
        read_checkpoint_info(checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"'])
def test_a_file_that_is_no_json_object_is_refused(checkpoint: Path, content: str) -> None:
    (checkpoint / "metrics.json").write_text(content)
    with pytest.raises(InvalidCheckpoint, match=r"metrics\.json"):
        read_checkpoint_info(checkpoint)


def test_a_config_without_a_name_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{}")
    with pytest.raises(InvalidCheckpoint, match="no name"):
        read_checkpoint_info(checkpoint)
