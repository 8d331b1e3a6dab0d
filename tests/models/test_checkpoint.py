"""A checkpoint is whole, strict, versioned by its bytes, and never half written."""

import hashlib
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models import CheckpointError, NewerFormat, Product, Tagger
from models.checkpoint import load, one_kind_of_error, save, version
from models.fusion import FusionConfig, FusionTagger
from tests.tiny_tagger import PHOTO_CONFIG, TAXONOMY, picture, text_config, tiny_checkpoint

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


def test_it_is_loaded_to_be_evaluated_in_the_shape_that_it_was_saved_in(tmp_path):
    config = FusionConfig(
        text_config(), PHOTO_CONFIG, tuple(TAXONOMY.sizes), width=16, dropout=0.2, lexicon=50, names=40
    )
    save(replace(tiny_checkpoint(), model=FusionTagger(config)), tmp_path / "checkpoint")
    loaded = load(tmp_path / "checkpoint").model
    assert loaded.config == config
    assert not loaded.training


def test_a_worker_of_another_user_can_read_its_weights(path):
    assert (path / "model.safetensors").stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("number", [None, 0, "1"])
def test_a_format_that_is_no_number_of_one_is_refused(path, number):
    change(path / "config.json", format=number)
    with pytest.raises(CheckpointError, match="names no checkpoint format"):
        load(path)


def test_a_file_that_holds_another_kind_of_json_is_refused(path):
    (path / "metrics.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"metrics\.json must hold a JSON object"):
        load(path)


@pytest.mark.parametrize("more", [True, False])
def test_weights_that_are_one_too_many_or_too_few_are_refused(path, more):
    weights = load_file(path / "model.safetensors")
    weights = {**weights, "unheard_of": torch.zeros(1)} if more else {**weights}
    if not more:
        del weights["absent_text"]
    save_file(weights, path / "model.safetensors")
    with pytest.raises(CheckpointError, match="do not fit"):
        load(path)


def test_truncated_weights_are_refused(path):
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="weights"):
        load(path)


def test_a_truncated_tokenizer_is_named(path):
    file = path / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text()[:-100])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
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


def test_a_failed_save_leaves_the_earlier_checkpoint_and_nothing_beside(path, monkeypatch):
    before = version(path)

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("models.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(tiny_checkpoint(), path)
    assert version(path) == before
    load(path)
    assert list(path.parent.iterdir()) == [path]


def test_saving_twice_replaces_and_leaves_nothing_beside(path):
    save(tiny_checkpoint(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint"]


def test_what_is_replaced_is_moved_away_whole_before_it_is_deleted(path, monkeypatch):
    """A reader would see half of it."""
    deleted = []
    monkeypatch.setattr("models.checkpoint.shutil.rmtree", lambda folder, **_: deleted.append(folder))
    save(tiny_checkpoint(), path)
    assert deleted and path not in deleted


def change(path, **settings):
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(path):
    left = path.with_name(f".{path.name}.{os.getpid()}.old")
    left.mkdir()
    (left / "model.safetensors").write_text("half of it")
    save(tiny_checkpoint(), path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


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
        save(replace(tiny_checkpoint(), name="another"), path)
        return checkpoint

    monkeypatch.setattr("models.tagger.load", slow)
    with pytest.raises(CheckpointError, match="replaced while it was read"):
        Tagger.load(path)


def test_a_checkpoint_that_is_written_over_while_it_is_read_is_refused(path, monkeypatch):
    """As rsync or `cp -r` does it: the folder stays, and file after file is another."""

    def slow(of):
        checkpoint = load(of)
        calibration = path / "calibration.json"
        calibration.write_text(calibration.read_text().replace("0.9", "0.8"))
        return checkpoint

    monkeypatch.setattr("models.tagger.load", slow)
    with pytest.raises(CheckpointError, match="replaced while it was read"):
        Tagger.load(path)


@pytest.mark.parametrize(("free", "error"), [(0, OSError), (1 << 30, RuntimeError)])
def test_a_disk_that_is_full_is_the_same_error_whoever_writes(tmp_path, monkeypatch, free, error):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(error), one_kind_of_error(tmp_path / "state"):
        raise RuntimeError("unexpected pos 526464 vs 526352")  # torch's whole sentence
    with pytest.raises(OSError, match="No space left"), one_kind_of_error(tmp_path / "state"):
        raise SafetensorError("No space left on device")
