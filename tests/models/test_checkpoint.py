"""A checkpoint is whole, strict, versioned by its bytes, and never half written."""

import hashlib
import json

import pytest

from models import CheckpointError, NewerFormat, Product, Tagger
from models.checkpoint import load, save, version
from tests.tiny_tagger import picture, tiny_checkpoint

PRODUCTS = [
    Product("red shirt", "cotton", (picture("red"),)),
    Product("blue shoe"),
    Product(photos=(picture("blue"),)),
]


@pytest.fixture
def path(tmp_path):
    save(tiny_checkpoint(), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_loaded_checkpoint_tags_as_the_saved_one(path):
    saved, loaded = Tagger(tiny_checkpoint(), "", "cpu"), Tagger.load(path)
    before = saved.predict([saved.prepare(product) for product in PRODUCTS])
    after = loaded.predict([loaded.prepare(product) for product in PRODUCTS])
    for one, other in zip(before, after, strict=True):
        assert [(tag.attribute, tag.value) for tag in one.tags] == [
            (tag.attribute, tag.value) for tag in other.tags
        ]
        # float16 weights: three decimals survive
        assert [tag.confidence for tag in one.tags] == pytest.approx(
            [tag.confidence for tag in other.tags], abs=2e-3
        )


def test_it_holds_the_files_of_format_1_and_no_pickle(path):
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert files == {
        "config.json",
        "taxonomy.json",
        "model.safetensors",
        "tokenizer/tokenizer.json",
        "preprocess.json",
        "calibration.json",
        "metrics.json",
        "README.md",
    }


def test_its_version_is_the_documented_digest(path):
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        if file.is_file():
            content = file.read_bytes()
            digest.update(
                file.relative_to(path).as_posix().encode() + b"\0" + len(content).to_bytes(8, "big") + content
            )
    assert version(path) == digest.hexdigest()


@pytest.mark.parametrize(
    "name", ["config.json", "README.md", "tokenizer/tokenizer.json", "model.safetensors"]
)
def test_its_version_changes_with_any_file(path, name):
    before = version(path)
    with (path / name).open("ab") as stream:
        stream.write(b" ")
    assert version(path) != before


def test_a_newer_format_is_refused_with_both_numbers(path):
    change(path / "config.json", format=3)
    with pytest.raises(NewerFormat, match=r"format 3.*up to 2"):
        load(path)


@pytest.mark.parametrize(
    "name",
    ["config.json", "taxonomy.json", "model.safetensors", "tokenizer/tokenizer.json", "preprocess.json"],
)
def test_a_missing_file_is_named(path, name):
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=name.split("/")[-1].split(".")[0].replace("model", "weights")):
        load(path)


def test_truncated_weights_are_refused(path):
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="weights"):
        load(path)


def test_a_taxonomy_of_another_size_does_not_load(path):
    taxonomy = json.loads((path / "taxonomy.json").read_text())
    taxonomy["attributes"][0]["values"].append("violet")
    (path / "taxonomy.json").write_text(json.dumps(taxonomy))
    with pytest.raises(CheckpointError, match="do not fit"):
        load(path)


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"is .* a checkpoint directory"):
        load(tmp_path)


def test_a_failed_save_leaves_the_earlier_checkpoint(path, monkeypatch):
    before = version(path)

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("models.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(tiny_checkpoint(), path)
    assert version(path) == before
    load(path)


def test_saving_twice_replaces_and_leaves_nothing_beside(path):
    save(tiny_checkpoint(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint"]


def change(path, **settings):
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_what_is_no_checkpoint_is_not_replaced_by_one(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "kept.jpg").write_bytes(b"kept")
    with pytest.raises(CheckpointError, match="photos is no checkpoint"):
        save(tiny_checkpoint(), tmp_path / "photos")
    assert (tmp_path / "photos" / "kept.jpg").read_bytes() == b"kept"
    (tmp_path / "empty").mkdir()
    assert save(tiny_checkpoint(), tmp_path / "empty") == version(tmp_path / "empty")


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_refused(path, monkeypatch):
    def slow(of):
        checkpoint = load(of)
        save(tiny_checkpoint(), path)
        return checkpoint

    monkeypatch.setattr("models.tagger.load", slow)
    with pytest.raises(CheckpointError, match="replaced while it was read"):
        Tagger.load(path)
