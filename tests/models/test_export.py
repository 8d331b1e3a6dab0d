"""An exported checkpoint offers what its source offers, or is not written; and everything that serves takes it."""

import csv
import json
import random
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from models import CheckpointError, Product, SeenPhoto, Tagger
from models.__main__ import main
from models.agreement import Agreement, agreement, offers
from models.calibration import PATTERN_IN_WORDS, PATTERNS
from models.checkpoint import load, load_to_train, save
from models.compiled import openvino_core
from models.errors import ExportRefused, ExtraMissing
from models.export import drawn, export, first_accepted, text
from models.fusion import collate
from models.networks import traced_text
from models.traced import noise
from tests.conftest import REPOSITORY
from tests.models.test_prefix import IDS, tower
from tests.tiny_tagger import WORDS, picture, tiny_checkpoint

COLOURS = ("red", "green", "blue", "white")
PRODUCT = Product("red shirt", "soft cotton", (picture("red"),))
PHOTOS = noise(256, (2, 3, 16, 16)).to(torch.uint8)


def silent(iterable, length, title):
    return iterable


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(picture(colour, file_format="PNG"))
    words = random.Random(0)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file_name", "title", "price"))
        rows.writerows(
            (f"{words.choice(COLOURS)}.png", " ".join(words.sample(WORDS, words.randint(1, 6))), 9)
            for _ in range(160)
        )
    return folder / "metadata.csv"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Untrained heads are all but undecided; these are sure of what they say, and whatever they offer is `auto`."""
    checkpoint = tiny_checkpoint()
    checkpoint.metrics["contract"] = {"certainty": 0.8, "promised": 3, "broken": 0}
    checkpoint.metrics.update(
        split={"seed": 3}, test={"rows": 9}, promotable={"verdict": True, "because": []}
    )
    for numbers in checkpoint.calibration.attributes:
        numbers.auto_from.update(dict.fromkeys(PATTERNS, 0.0))
    with torch.no_grad():
        for head in (checkpoint.model.text_head, checkpoint.model.photo_head, checkpoint.model.fused_head):
            head.weight.mul_(8)
    path = tmp_path_factory.mktemp("source") / "checkpoint"
    save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def int8(source, table, tmp_path_factory):
    if not torch.cpu._is_vnni_supported():
        pytest.skip(
            "without VNNI a processor adds int8 products in 16 bits: too coarse for these tiny towers"
        )
    path = tmp_path_factory.mktemp("int8") / "checkpoint"
    return path, export(source, "int8", table, path, 160, silent)


@pytest.fixture(scope="module")
def bf16(source, table, tmp_path_factory):
    """By the command, with what it printed."""
    out = tmp_path_factory.mktemp("bf16") / "checkpoint"
    arguments = ["--precision", "bf16", "--products", str(table), "--out", str(out)]
    result = CliRunner().invoke(main, ["export", str(source), *arguments])
    assert result.exit_code == 0, result.output
    return out, result


@pytest.fixture(scope="module")
def examples(source):
    """More than a CPU takes at once, of mixed lengths, some without photos."""
    prepare = load(source).preprocessor
    titles = [" ".join(WORDS[n : n + 1 + n % 5]) for n in range(15)]
    photos = [(picture(COLOURS[n % 4]),) * (n % 3) for n in range(15)]
    return [prepare(Product(title, "", some)) for title, some in zip(titles, photos, strict=True)]


def test_it_offers_what_its_source_offers(source, int8, examples):
    path, document = int8
    assert document["asked"] == "int8"
    assert "int8" in document["precision"].values()
    assert document["products"] == 160 - 53, "not on what the ranges of activations are taken from"
    assert all(document["agreement"][pattern]["all tags"] >= 0.99 for pattern in PATTERNS)
    one, other = (
        [row for batch in offers(Tagger.load(p), examples) for row in batch] for p in (source, path)
    )
    again = agreement(["colour", "kind", "material"], one, other)
    assert min(again.of(pattern) for pattern in PATTERNS) > 0.9


def test_its_folder_holds_the_towers_as_networks_and_no_weights_of_them(int8):
    path, document = int8
    files = {file.name for file in path.iterdir()}
    assert {"text.xml", "text.bin", "photo.xml", "photo.bin"} <= files
    assert not any("_tower." in name for name in load(path).model.state_dict())
    config = json.loads((path / "config.json").read_text())
    assert (config["format"], config["precision"]) == (2, document["precision"])
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint"]


def test_it_promises_nothing_until_it_is_calibrated(source, int8):
    of_source, of_export = (
        {tag.decision for tag in tagger.predict([tagger.prepare(PRODUCT)])[0].tags}
        for tagger in (Tagger.load(source), Tagger.load(int8[0]))
    )
    assert "auto" in of_source
    assert "review" in of_export
    assert "auto" not in of_export


def test_how_sure_its_promises_are_to_be_stays_for_calibrate_and_how_they_were_kept_is_gone(bf16):
    assert load(bf16[0]).metrics["contract"] == {"certainty": 0.8}


def test_how_the_data_were_split_stays_and_the_scores_of_the_other_towers_are_gone(bf16):
    metrics = load(bf16[0]).metrics
    assert metrics["split"] == {"seed": 3}
    assert set(metrics) == {"split", "rows", "contract", "export"}


def test_its_card_and_name_tell_it_from_its_source(int8):
    exported = load(int8[0])
    assert exported.name == "tiny-int8"
    assert "decides nothing by itself" in exported.card
    assert exported.card.count("# tiny") == 1
    assert exported.metrics["export"]["agreement"] == int8[1]["agreement"]


def test_it_can_be_saved_again_and_answers_the_same(int8, examples, tmp_path):
    first = load(int8[0])
    save(first, tmp_path / "again")
    second = load(tmp_path / "again")
    assert second.precisions == first.precisions
    with torch.inference_mode():
        one, other = first.model(collate(examples)), second.model(collate(examples))
    for a, b in zip(one.fused, other.fused, strict=True):
        torch.testing.assert_close(a, b)


def test_a_disk_that_is_full_is_told_in_a_line(bf16, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("openvino.save_model", full_disk)
    with pytest.raises(OSError, match="tower cannot be written"):
        save(load(bf16[0]), tmp_path / "again")


def test_a_large_batch_of_mixed_lengths_is_answered_as_by_torch(source, bf16, examples):
    with torch.inference_mode():
        one, other = (load(path).model(collate(examples)) for path in (source, bf16[0]))
    for a, b in zip(one.fused, other.fused, strict=True):
        torch.testing.assert_close(a, b, atol=0.1, rtol=0.05)  # bf16 has eight bits


def test_it_runs_on_processors_and_its_heads_in_float32(int8):
    path = int8[0]
    tagger = Tagger.load(path, "cpu", torch.bfloat16)
    assert tagger.dtype == torch.float32
    assert "int8" in tagger.precision
    with pytest.raises(CheckpointError, match="set the device to cpu"):
        Tagger.load(path, "cuda")


def test_nothing_learns_from_it(int8):
    with pytest.raises(CheckpointError, match="cannot learn"):
        load_to_train(int8[0])


def test_it_is_not_exported_again(int8, table, tmp_path):
    with pytest.raises(CheckpointError, match="exported already"):
        export(int8[0], "int8", table, tmp_path / "out", 160, silent)


def test_it_overwrites_neither_its_source_nor_what_is_no_checkpoint(source, table):
    for out in (source, table.parent):
        with pytest.raises(CheckpointError, match="would be overwritten"):
            export(source, "bf16", table, out, 160, silent)
    assert table.exists()


def test_a_damaged_network_is_named(int8, tmp_path):
    save(load(int8[0]), tmp_path / "damaged")
    (tmp_path / "damaged" / "text.xml").write_text("<net")
    with pytest.raises(CheckpointError, match="the text tower of"):
        load(tmp_path / "damaged")


def test_a_precision_that_nobody_knows_is_refused(int8, tmp_path):
    save(load(int8[0]), tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    for precision in ({"text": "int4", "photo": "int8"}, {"text": "int8"}, None):
        (tmp_path / "odd" / "config.json").write_text(json.dumps({**config, "precision": precision}))
        with pytest.raises(CheckpointError, match="precision of each tower"):
            load(tmp_path / "odd")


def test_without_openvino_the_extra_is_named(int8, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExtraMissing, match=r"tagsmith\[cpu\]"):
        load(int8[0])


def test_openvino_reports_to_nobody(int8):
    load(int8[0])
    assert sys.modules["openvino_telemetry"] is None


def attempts(of):
    """What an attempt finds: the share of each pattern, by the precisions of text and photos."""
    tried = []

    def attempt(wanted):
        tried.append((wanted["text"], wanted["photo"]))
        found = of[tried[-1]]
        return tried, Agreement(200, {p: {"colour": share} for p, share in zip(PATTERNS, found, strict=True)})

    return attempt


def test_a_tower_that_disagrees_steps_back_alone():
    of = {
        ("int8", "int8"): (0.995, 0.998, 0.97),
        ("int8", "bf16"): (0.998, 0.998, 0.98),
        ("int8", "float32"): (0.998, 0.998, 1.0),
    }
    tried, found = first_accepted("int8", attempts(of))
    assert tried == list(of)
    assert found.of("photos") == 1.0


def test_where_only_both_together_disagree_the_worse_tower_steps_back():
    of = {("int8", "int8"): (0.98, 0.992, 0.995), ("bf16", "int8"): (0.99, 1.0, 0.995)}
    tried, _ = first_accepted("int8", attempts(of))
    assert tried == list(of)


def test_where_no_tower_agrees_as_asked_for_the_attributes_are_named():
    of = {("bf16", "bf16"): (0.97, 0.96, 0.95)}
    with pytest.raises(ExportRefused, match=r"text alone: 96.00% of all tags; colour 96.00%"):
        first_accepted("bf16", attempts(of))


def test_where_int8_is_left_by_both_towers_nothing_passes_for_it():
    """Though bf16 would agree: that is to be asked for."""
    tried, of = [], {("int8", "int8"): 0.9, ("bf16", "bf16"): 1.0}

    def attempt(wanted):
        tried.append((wanted["text"], wanted["photo"]))
        return tried, Agreement(200, {pattern: {"colour": of[tried[-1]]} for pattern in PATTERNS})

    with pytest.raises(ExportRefused, match="--precision bf16 is nearer"):
        first_accepted("int8", attempt)
    assert tried == [("int8", "int8")]


def test_the_products_are_drawn_by_chance_from_those_that_have_all_that_the_table_has(source, table):
    """Of a table in the order of its products the first would be those of one kind."""
    half = table.with_name("half.csv")
    header, *lines = table.read_text().splitlines()
    half.write_text("\n".join([header, *lines, *(f",{word},9" for word in WORDS), "red.png,,9"]))
    read = load(source)
    examples, patterns = drawn(read, half, 40, silent)
    assert patterns == PATTERNS
    assert len(examples) == 40
    assert all(len(one.photos) == 1 and len(one.token_ids) for one in examples)
    first, _ = drawn(read, table, 160, silent)
    shown = {tuple(one.token_ids) for one in examples}
    assert shown <= {tuple(one.token_ids) for one in first}
    titles = [read.preprocessor(Product(line.split(",")[1])).token_ids for line in lines[:40]]
    assert not shown <= {tuple(ids) for ids in titles}


def test_a_refused_export_exits_1_and_writes_nothing(source, table, tmp_path, monkeypatch):
    monkeypatch.setattr("models.export.LEAST_AGREEMENT", 1.01)
    arguments = ["--precision", "bf16", "--products", str(table), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["export", str(source), *arguments])
    assert result.exit_code == 1
    assert "nothing was written" in result.stderr
    assert not list(tmp_path.iterdir())


def test_too_few_products_tell_nothing(source, table, tmp_path):
    few = table.with_name("few.csv")
    few.write_text("".join(table.read_text().splitlines(keepends=True)[:100]))
    arguments = ["--precision", "bf16", "--products", str(few), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["export", str(source), *arguments])
    assert result.exit_code == 1
    assert "99 products" in result.stderr


def test_a_tower_that_the_table_does_not_measure_stays_in_float32(source, table, tmp_path, int8):
    """By a table of one modality, each in turn; in int8, of which the ranges are taken from the table."""
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for pattern, measured, other, column in (
        ("text", "text", "photo", "title"),
        ("photos", "photo", "text", "file_name"),
    ):
        alone = table.with_name(f"{pattern}.csv")
        with alone.open("w", newline="") as stream:
            csv.writer(stream).writerows([[column], *([row[column]] for row in rows)])
        document = export(source, "int8", alone, tmp_path / pattern, 160, silent)
        assert list(document["agreement"]) == [pattern]
        assert document["precision"][other] == "float32"
        assert document["precision"][measured] in ("int8", "bf16")
        assert PATTERN_IN_WORDS[pattern] in text(document) and PATTERN_IN_WORDS["both"] not in text(document)
        exported = load(tmp_path / pattern)
        assert exported.precisions == document["precision"]
        whole, own = (getattr(one.model, f"{other}_tower") for one in (load(source), exported))
        with torch.inference_mode():
            shown = (PHOTOS,) if other == "photo" else (IDS, torch.zeros_like(IDS), IDS > 0)
            torch.testing.assert_close(own(*shown), whole(*shown), atol=1e-5, rtol=1e-5)


def test_of_a_table_without_photos_only_texts_are_measured():
    of = {("bf16", "float32"): (0.98,), ("float32", "float32"): (1.0,)}
    tried = []

    def attempt(wanted):
        tried.append((wanted["text"], wanted["photo"]))
        return tried, Agreement(200, {"text": {"colour": of[tried[-1]][0]}})

    with pytest.raises(ExportRefused, match=r"text alone: 98\.00%"):
        first_accepted("bf16", attempt, ("text",))
    assert tried == [("bf16", "float32")]


def test_too_few_texts_tell_nothing_either(source, table, tmp_path):
    few = table.with_name("few-texts.csv")
    few.write_text("title\n" + "red shirt\n" * 149)
    with pytest.raises(ExportRefused, match="149 products with text alone"):
        export(source, "bf16", few, tmp_path / "out", 160, silent)


def test_the_command_prints_a_table_and_what_comes_next(bf16):
    out, result = bf16
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == [
        "all",
        "colour",
        "kind",
        "material",
    ]
    assert f"python -m training calibrate {out}" in result.stderr


def test_help_ends_in_an_example():
    assert "Example: python -m models export" in CliRunner().invoke(main, ["export", "--help"]).stdout


DROPPED_ELSEWHERE = """
import os, signal, threading
from models.compiled import openvino_core

held = [openvino_core()]
held[0].get_property("CPU", "FULL_DEVICE_NAME")
elsewhere = threading.Thread(target=held.clear)
elsewhere.start()
elsewhere.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_whose_networks_another_thread_dropped_still_handles_signals():
    done = subprocess.run(
        [sys.executable, "-c", DROPPED_ELSEWHERE], cwd=REPOSITORY,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@torch.no_grad()
def test_a_prefix_is_a_part_of_the_network():
    trained, mask = tower(), IDS > 0
    network = traced_text(trained)
    compiled = openvino_core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (answer,) = compiled([IDS.numpy(), torch.zeros_like(IDS).numpy(), mask.numpy()]).values()
    torch.testing.assert_close(
        torch.from_numpy(answer), trained(IDS, torch.zeros_like(IDS), mask), atol=1e-4, rtol=1e-3
    )


def test_photos_it_has_seen_before_answer_like_the_photos(int8):
    tagger = Tagger.load(int8[0])
    (new,) = tagger.predict([tagger.prepare(PRODUCT)])
    (features,) = new.photo_features
    (seen,) = tagger.predict(
        [tagger.prepare(Product(PRODUCT.title, PRODUCT.description, (SeenPhoto(features),)))]
    )
    assert [tag.value for tag in seen.tags] == [tag.value for tag in new.tags]
    assert [tag.confidence for tag in seen.tags] == pytest.approx(
        [tag.confidence for tag in new.tags], abs=1e-3
    )
