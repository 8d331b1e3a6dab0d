"""Several runs as one checkpoint."""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from models.calibration import Calibration
from models.checkpoint import load, load_to_train, save, version
from models.names import NamedValues
from models.preprocessing import Preprocessor
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint
from training.__main__ import main
from training.average import greedy, mean, value
from training.catalogue import rows_for
from training.recipe import SplitSection
from training.split import part_of, rows_of, split_of

SPLIT = {**SplitSection(validation=0.15, calibration=0.2, test=0.15).model_dump(), "rule": "by hash"}


def written(path, shift, taxonomy=TAXONOMY, split=SPLIT, words="words", adapt=lambda checkpoint: checkpoint):
    checkpoint = replace(tiny_checkpoint(taxonomy), calibration=Calibration.uncalibrated(taxonomy, 0.9))
    checkpoint.metrics.update(split=split, words=words, contract={"certainty": 0.8})
    checkpoint = adapt(checkpoint)
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            parameter.add_(shift)
    save(checkpoint, path)
    return path


def command(*arguments):
    return CliRunner().invoke(main, ["average", *map(str, arguments), "--workers", "0"])


def test_a_uniform_average_is_the_mean_of_the_weights_calibrated_and_measured(catalogue, tmp_path):
    one, other = written(tmp_path / "one", 0.0), written(tmp_path / "other", 0.01)
    result = command(one, other, "--data", catalogue, "--out", tmp_path / "out", "--method", "uniform")
    assert result.exit_code == 0, result.output
    averaged = load(result.stdout.strip())
    for name, tensor in load(one).model.state_dict().items():
        expected = (tensor + load(other).model.state_dict()[name]) / 2
        torch.testing.assert_close(averaged.model.state_dict()[name], expected, atol=1e-3, rtol=1e-3)
    assert averaged.name == "tiny-average"
    assert averaged.metrics["words"] == "words"
    assert averaged.metrics["average"]["method"] == "uniform"
    assert [member["taken"] for member in averaged.metrics["average"]["members"]] == [True, True]
    assert averaged.metrics["rows"]["test"] == averaged.metrics["test"]["rows"] > 20
    assert averaged.metrics["split"] == {**SPLIT, "rule": averaged.metrics["split"]["rule"]}
    assert averaged.calibration != load(one).calibration
    assert averaged.metrics["contract"]["certainty"] == 0.8
    assert set(averaged.calibration.targets(TAXONOMY).values()) == {0.9}


def contrary(checkpoint):
    """Its heads say the opposite: with the plain one's they make a mean that knows nothing."""
    model = checkpoint.model
    with torch.no_grad():
        for head in (model.text_head, model.photo_head, model.fused_head):
            for parameter in head.parameters():
                parameter.neg_()
    return checkpoint


def test_a_greedy_average_is_chosen_by_the_validation_part_and_is_of_what_it_took(catalogue, tmp_path):
    paths = written(tmp_path / "one", 0.0), written(tmp_path / "other", 0.0, adapt=contrary)
    result = command(*paths, "--data", catalogue, "--out", tmp_path / "out", "--method", "greedy")
    assert result.exit_code == 0, result.output
    averaged = load(result.stdout.strip())
    made_of = averaged.metrics["average"]
    for path, member in zip(paths, made_of["members"], strict=True):
        run = load_to_train(path)
        rows = rows_of(rows_for(run.taxonomy, catalogue), "validation", split_of(run))
        own = value(run, run.model.state_dict(), rows, workers=0)
        assert member == {"version": version(path), "validation_macro_f1": own, "taken": member["taken"]}
    best, worse = sorted(
        zip(made_of["members"], paths, strict=True), key=lambda pair: -pair[0]["validation_macro_f1"]
    )
    assert (best[0]["taken"], worse[0]["taken"]) == (True, False)
    assert made_of["validation_macro_f1"] == best[0]["validation_macro_f1"]
    torch.testing.assert_close(
        averaged.model.text_head.weight, load(best[1]).model.text_head.weight, atol=1e-3, rtol=1e-3
    )


def test_the_greedy_soup_takes_what_does_not_make_it_worse():
    together = {("b", "a"): 0.6, ("b", "c"): 0.8, ("b", "c", "d"): 0.8}
    asked = []

    def of(some):
        asked.append(tuple(some))
        return together[tuple(some)]

    assert greedy({"a": 0.7, "b": 0.75, "c": 0.5, "d": 0.1}, of) == ["b", "c", "d"]
    assert asked == [("b", "a"), ("b", "c"), ("b", "c", "d")]


def test_whole_numbers_are_not_averaged():
    one, other = (
        {"count": torch.tensor(3), "w": torch.tensor(1.0)},
        {"count": torch.tensor(8), "w": torch.tensor(2.0)},
    )
    assert mean([one, other]) == {"count": torch.tensor(3), "w": torch.tensor(1.5)}


def of_fewer_photos(checkpoint):
    config, tokenizer = checkpoint.preprocessor.config, checkpoint.preprocessor.tokenizer
    return replace(checkpoint, preprocessor=Preprocessor(replace(config, max_photos=2), tokenizer))


def of_another_word(checkpoint):
    config, tokenizer = checkpoint.preprocessor.config, checkpoint.preprocessor.tokenizer
    other = tokenizer.from_str(tokenizer.to_str().replace('"wool"', '"silk"'))
    return replace(checkpoint, preprocessor=Preprocessor(config, other))


def that_saw_no_photos(checkpoint):
    return replace(checkpoint, metrics={**checkpoint.metrics, "unseen": "photos"})


def looking_for(key, value):
    def adapt(checkpoint):
        model = checkpoint.model
        vocabulary = model.config.text["vocab_size"]
        model.config = replace(model.config, names=1)
        model.names = NamedValues(1, vocabulary, model.config.sizes)
        model.names.look_for({key: value}, torch.zeros(vocabulary, dtype=torch.bool))
        return checkpoint

    return adapt


@pytest.mark.parametrize(("key", "value"), [(8, 0), (7, 1)])
def test_runs_that_look_for_other_names_are_refused(catalogue, tmp_path, key, value):
    one = written(tmp_path / "one", 0.0, adapt=looking_for(7, 0))
    other = written(tmp_path / "other", 0.0, adapt=looking_for(key, value))
    result = command(one, other, "--data", catalogue, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "another list of names to look for" in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"taxonomy": Taxonomy((*TAXONOMY.attributes[:2], Attribute("size", ("S", "M", "L"))))},
            "another taxonomy",
        ),
        ({"split": {**SPLIT, "seed": 1}}, "another split"),
        ({"words": "words_anew"}, "another table of exact words"),
        ({"adapt": of_fewer_photos}, "another preprocessing"),
        ({"adapt": of_another_word}, "another vocabulary"),
        ({"adapt": that_saw_no_photos}, "another kind of products learned from"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(catalogue, tmp_path, change, message):
    one, other = written(tmp_path / "one", 0.0), written(tmp_path / "other", 0.0, **change)
    result = command(one, other, "--data", catalogue, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_one_checkpoint_is_no_average(catalogue, tmp_path):
    one = written(tmp_path / "one", 0.0)
    assert command(one, one, "--data", catalogue, "--out", tmp_path / "out").exit_code == 2


def test_an_average_that_is_there_already_is_not_replaced(catalogue, tmp_path):
    one, other = written(tmp_path / "one", 0.0), written(tmp_path / "other", 0.01)
    there = written(tmp_path / "out" / "checkpoint", 0.02)
    before = version(there)
    result = command(one, other, "--data", catalogue, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "is there already: name a new folder" in result.stderr
    assert version(there) == before


@pytest.mark.parametrize("missing", ["validation", "calibration", "test"])
def test_a_table_with_nothing_to_measure_on_is_refused(tmp_path, missing):
    one, other = written(tmp_path / "one", 0.0), written(tmp_path / "other", 0.01)
    section = SplitSection(**{key: value for key, value in SPLIT.items() if key != "rule"})
    groups = [f"g{n}" for n in range(60) if part_of(f"g{n}", section) != missing]
    lines = ["title,group,colour", *(f"red shirt,{group},red" for group in groups)]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    result = command(one, other, "--data", tmp_path / "metadata.csv", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"none of {len(groups)} rows falls into the {missing} part" in result.stderr
    assert not (tmp_path / "out").exists()
