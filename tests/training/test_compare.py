"""The gate before a promotion as an operator calls it: exit codes, what is compared, what is said.

The checkpoints here answer the same for every product, so that what they are worth is known by counting.
"""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import normalizers

from models.checkpoint import save
from models.fusion import collate
from models.preprocessing import Preprocessor
from models.product import Product
from models.taxonomy import Attribute, Scope, Taxonomy
from tests.tiny_tagger import picture, tiny_checkpoint, tiny_tokenizer
from training.__main__ import main
from training.bootstrap import Difference
from training.compare import Under, judged, views
from training.recipe import SplitSection
from training.split import part_of
from training.table import Row, read_table

COLOUR = Attribute("colour", ("red", "green", "blue"))
KIND = Attribute("kind", ("shirt", "shoe"))
SAID = Attribute("base_colour", ("Red", "Green"))  # a colour that rendered titles nearly always say
GLOSSARY = """
[values.base_colour]
"Red" = ["红"]
"Green" = ["绿"]
[held_out.base_colour]
"Red" = ["朱"]
"Green" = ["翠"]
[words]
"shirt" = ["衬衫"]
"""
SPLIT = {"seed": 0, "validation": 0.0, "calibration": 0.0, "test": 0.5, "rule": "by hash"}


def constant(path, answers, *attributes, **metrics):
    """A checkpoint that gives each attribute the value of `answers`."""
    taxonomy = Taxonomy(attributes or (COLOUR, KIND))
    checkpoint = tiny_checkpoint(taxonomy)
    values = [(attribute.name, value) for attribute in taxonomy for value in attribute.values]
    for position, (name, value) in enumerate(values):
        for head in (checkpoint.model.fused_head, checkpoint.model.text_head, checkpoint.model.photo_head):
            head.bias.data[position] += 100 if value in answers[name] else -100
    save(dataclasses.replace(checkpoint, metrics=metrics), path)
    return path


def reader(path, words):
    """A checkpoint that reads the colour in a title; `words` are characters that it knows, by what they mean."""
    checkpoint = tiny_checkpoint(Taxonomy((SAID,)))
    learn_to_read(checkpoint)
    tokenizer = tiny_tokenizer()
    meanings = [normalizers.Replace(character, f" {meaning} ") for character, meaning in words.items()]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *meanings])
    preprocessor = Preprocessor(checkpoint.preprocessor.config, tokenizer)
    save(dataclasses.replace(checkpoint, preprocessor=preprocessor), path)
    return path


def learn_to_read(checkpoint):
    """Least squares on the text that the untrained tower embeds."""
    frames = ["{}", "{} shirt", "shirt {}", "new {}", "{} new", "new {} shirt", "shirt new {}", "{} {} shirt"]
    titles = [frame.format(colour, colour) for frame in frames for colour in ("red", "green")]
    batch = collate([checkpoint.preprocessor(Product(title)) for title in titles])
    with torch.inference_mode():
        text = checkpoint.model.embed(batch).text
    sides = torch.tensor([[1.0, -1.0], [-1.0, 1.0]] * len(frames))
    weight = torch.linalg.lstsq(text.clone(), sides).solution.T
    checkpoint.model.text_head.load_state_dict({"weight": weight, "bias": torch.zeros(2)})


def write_table(path, rows, **columns):
    names = ["title", "group", *columns]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        for n in range(rows):
            writer.writerow(["new red shirt", f"group {n}", *(column(n) for column in columns.values())])
    return path


@pytest.fixture
def table(tmp_path):
    """Sixty shirts, four in five red and the others green."""
    return write_table(
        tmp_path / "metadata.csv",
        60,
        colour=lambda n: "green" if n % 5 == 0 else "red",
        kind=lambda n: "shirt",
    )


@pytest.fixture
def right(tmp_path):
    return constant(tmp_path / "right", {"colour": ["red"], "kind": ["shirt"]})


def run(a, b, table, *options):
    arguments = ["compare", str(a), str(b), "--data", str(table), "--workers", "0", *options]
    return CliRunner().invoke(main, arguments)


def test_a_checkpoint_is_no_worse_than_itself(right, table):
    result = run(right, right, table)
    assert result.exit_code == 0, result.output
    assert "B is nowhere worse than A by more than 0.01" in result.stdout
    assert "| colour | 60 | 0.800 → 0.800 | +0.000 (+0.000 to +0.000) |" in result.stdout


def test_a_worse_candidate_exits_1_and_the_attribute_is_named(right, table, tmp_path):
    result = run(right, constant(tmp_path / "b", {"colour": ["green"], "kind": ["shirt"]}), table)
    assert result.exit_code == 1
    assert (
        "B is worse than A by more than 0.01:\n- colour as they are: accuracy 0.200 after 0.800"
        in result.stdout
    )
    assert "- kind" not in result.stdout


def test_the_intervals_of_all_differences_hold_together(right, table, monkeypatch):
    """Of two figures of two attributes and of their mean, under two conditions."""
    asked, interval = set(), Difference.interval
    monkeypatch.setattr(
        Difference, "interval", lambda one, together: asked.add(together) or interval(one, together)
    )
    assert run(right, right, table).exit_code == 0
    assert asked == {2 * (2 + 1) * 2}


def test_a_better_candidate_and_one_that_loses_within_the_margin_pass(right, table, tmp_path):
    worse = constant(tmp_path / "b", {"colour": ["green"], "kind": ["shirt"]})
    assert run(worse, right, table).exit_code == 0
    assert run(right, worse, table, "--margin", "0.61").exit_code == 0


def test_the_json_says_all_that_the_tables_say(right, table, tmp_path):
    worse = constant(tmp_path / "b", {"colour": ["blue"], "kind": ["shirt"]})
    result = run(right, worse, table, "--json", "--resamples", "200", "--seed", "7")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["a"]["checkpoint"] == str(right) and document["b"]["checkpoint"] == str(worse)
    assert (document["rows"], document["resamples"], document["seed"]) == (60, 200, 7)
    assert set(document["conditions"]) == {"as_is", "masked_titles"}  # the table has no photos
    colour = document["conditions"]["as_is"]["attributes"]["colour"]
    assert colour["rows"] == 60
    assert colour["accuracy"]["a"] == 0.8 and colour["accuracy"]["b"] == 0
    assert colour["accuracy"]["low"] < -0.8 < colour["accuracy"]["high"] < 0
    assert colour["macro_f1"]["a"] == pytest.approx((2 * 48 / 108 + 0) / 2)
    assert colour["macro_f1"]["verdict"] == "worse"
    assert document["conditions"]["as_is"]["mean"]["accuracy"]["difference"] == pytest.approx(-0.4)
    assert document["verdict"] == "worse"
    assert run(right, worse, table, "--json", "--resamples", "200", "--seed", "7").stdout == result.stdout


def test_values_are_matched_by_name_not_by_place(right, table, tmp_path):
    turned = Attribute("colour", ("blue", "red"))
    other = constant(tmp_path / "b", {"colour": ["red"], "kind": ["shirt"]}, KIND, turned)
    assert run(right, other, table).exit_code == 0
    assert run(other, right, table).exit_code == 0


def test_a_value_that_the_candidate_does_not_know_is_a_wrong_answer(right, table, tmp_path):
    blind = Attribute("colour", ("green", "blue"))
    result = run(right, constant(tmp_path / "b", {"colour": ["blue"], "kind": ["shirt"]}, blind, KIND), table)
    assert result.exit_code == 1
    assert "0.800 → 0.000" in result.stdout


def test_several_values_are_compared_as_sets(tmp_path):
    material = Attribute("material", ("cotton", "wool"), multiple=True)
    table = write_table(
        tmp_path / "metadata.csv", 40, material=lambda n: "cotton|silk" if n % 4 == 0 else "wool|cotton"
    )
    both = constant(tmp_path / "a", {"material": ["cotton", "wool"]}, material)
    wool = constant(tmp_path / "b", {"material": ["wool"]}, material)
    told = json.loads(run(both, wool, table, "--json").stdout)["conditions"]["as_is"]["attributes"][
        "material"
    ]
    assert (told["accuracy"]["a"], told["accuracy"]["b"]) == (0.75, 0)
    cotton, of_wool = 1, 2 * 30 / (30 + 40)
    assert told["macro_f1"]["a"] == pytest.approx((cotton + of_wool + 0) / 3)  # silk, which both do not know


def test_of_several_values_those_are_compared_that_a_worker_would_offer(tmp_path):
    """What calibration moves counts: the candidate's map offers nothing."""
    material = Attribute("material", ("cotton", "wool"), multiple=True)
    table = write_table(tmp_path / "metadata.csv", 60, material=lambda n: "cotton")
    a = constant(tmp_path / "a", {"material": ["cotton"]}, material)
    silent = json.loads((a / "calibration.json").read_text())
    b = constant(tmp_path / "b", {"material": ["cotton"]}, material)
    for beta in silent["attributes"]["material"]["beta"]:
        silent["attributes"]["material"]["beta"][beta] = [0.0, 0.0, -9.0]
    (b / "calibration.json").write_text(json.dumps(silent))
    result = run(a, b, table)
    assert result.exit_code == 1, result.output
    assert "material as they are: accuracy 0.000 after 1.000" in result.output


def test_attributes_of_only_one_checkpoint_are_named_and_not_compared(right, table, tmp_path):
    several = Attribute("kind", ("shirt", "shoe"), multiple=True)
    season = Attribute("season", ("summer", "winter"))
    other = constant(
        tmp_path / "b", {"colour": ["red"], "kind": ["shirt"], "season": ["summer"]}, COLOUR, several, season
    )
    document = json.loads(run(right, other, table, "--json").stdout)
    assert list(document["conditions"]["as_is"]["attributes"]) == ["colour"]
    assert (document["only_in_a"], document["only_in_b"], document["unlike"]) == ([], ["season"], ["kind"])
    result = run(right, other, table)
    assert "only in B: season" in result.stdout and "not comparable: kind" in result.stdout


def test_a_loss_that_few_rows_cannot_prove_holds_the_candidate_back_as_unsure(tmp_path):
    """Seven of twelve against five of twelve."""
    table = write_table(
        tmp_path / "m.csv", 12, colour=lambda n: "red" if n < 7 else "green", kind=lambda n: "shoe"
    )
    a = constant(tmp_path / "a", {"colour": ["red"], "kind": ["shoe"]})
    b = constant(tmp_path / "b", {"colour": ["green"], "kind": ["shoe"]})
    result = run(a, b, table, "--conditions", "as_is")
    assert result.exit_code == 1
    assert "B looks worse than A, and the rows are too few to be sure" in result.stdout
    assert run(b, a, table, "--conditions", "as_is").exit_code == 0


def test_one_attributes_unsure_loss_is_shown_and_does_not_decide(tmp_path):
    """Colour falls from 31 to 29 of 60, kind rises from 29 to 31: nothing is lost on the mean."""
    table = write_table(
        tmp_path / "m.csv",
        60,
        colour=lambda n: "red" if n < 31 else "green",
        kind=lambda n: "shirt" if n < 29 else "shoe",
    )
    a = constant(tmp_path / "a", {"colour": ["red"], "kind": ["shirt"]})
    b = constant(tmp_path / "b", {"colour": ["green"], "kind": ["shoe"]})
    result = run(a, b, table, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)["conditions"]["as_is"]["attributes"]
    assert told["colour"]["accuracy"]["verdict"] == "unsure"
    assert told["kind"]["accuracy"]["verdict"] == "no worse"


def test_a_candidate_that_is_not_promotable_is_compared_and_it_is_said(right, table, tmp_path):
    because = {"verdict": False, "because": ["colour without text: fused is below"]}
    other = constant(tmp_path / "b", {"colour": ["red"], "kind": ["shirt"]}, promotable=because)
    result = run(right, other, table)
    assert result.exit_code == 0
    assert "Never judged for promotion." in result.stdout
    assert "NOT promotable: colour without text: fused is below." in result.stdout
    assert json.loads(run(right, other, table, "--json").stdout)["b"]["promotable"] == because


def test_a_part_is_what_both_checkpoints_kept_apart(table, tmp_path):
    answers = {"colour": ["red"], "kind": ["shirt"]}
    a = constant(tmp_path / "a", answers, split=SPLIT)
    b = constant(tmp_path / "b", answers, split={**SPLIT, "seed": 1})
    document = json.loads(run(a, b, table, "--json", "--part", "test").stdout)
    sections = [SplitSection(seed=seed, validation=0, calibration=0, test=0.5) for seed in (0, 1)]
    both = [
        row
        for row in read_table(table).rows
        if all(part_of(row.group, section) == "test" for section in sections)
    ]
    assert 0 < document["rows"] == len(both) < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--conditions", "upside_down"], "'upside_down' is none of as_is"),
        (["--conditions", "without_photos"], "nothing to measure without photos"),
        (["--part", "test"], "names no split"),
        (["--margin", "-1"], "--margin"),
        (["--unseen"], "needs --glossary"),
        (["--style", "mixed"], "needs --glossary"),
        (["--glossary", "pyproject.toml"], "is not a readable glossary"),
    ],
)
def test_what_cannot_be_compared_exits_2(right, table, options, message):
    result = run(right, right, table, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_checkpoints_that_share_no_attribute_exit_2(right, table, tmp_path):
    other = constant(tmp_path / "b", {"season": ["summer"]}, Attribute("season", ("summer", "winter")))
    result = run(right, other, table)
    assert result.exit_code == 2
    assert "no attribute that both" in result.stderr


def test_conditions_are_those_that_change_what_is_seen(tmp_path):
    checkpoints = (tiny_checkpoint(Taxonomy((COLOUR,))), tiny_checkpoint(Taxonomy((KIND,))))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture())
    text = Row("1", "new red shirt", "", (), "g", {})
    both = Row("2", "new", "", (photo,), "h", {})
    assert set(views([text], checkpoints, ())) == {"as_is", "masked_titles"}
    found = views([text, both], checkpoints, ())
    assert [row.title for row in found["masked_titles"]] == ["new", "new"]  # the words of both taxonomies
    assert [row.id for row in found["without_photos"]] == ["1", "2"]
    assert [row.id for row in found["without_text"]] == ["2"]  # nothing is left of the other
    assert set(views([dataclasses.replace(both, title="")], checkpoints, ())) == {"as_is"}


@pytest.fixture
def bilingual(tmp_path):
    """The glossary, a table of English titles that it knows, and a checkpoint that reads both languages."""
    glossary = tmp_path / "zh.toml"
    glossary.write_text(GLOSSARY, encoding="utf-8")
    table = tmp_path / "said.csv"
    lines = [f"{n},{n},{colour} shirt,{colour}" for n, colour in enumerate(("Red", "Green") * 30)]
    table.write_text("\n".join(["id,group,title,base_colour", *lines]))
    both = reader(
        tmp_path / "both", {"红": "red", "绿": "green", "朱": "red", "翠": "green", "衬衫": "shirt"}
    )
    return glossary, table, both


def test_a_candidate_that_loses_chinese_is_refused_on_titles_of_the_glossary_alone(bilingual, tmp_path):
    glossary, table, both = bilingual
    english = reader(tmp_path / "english", {})
    assert run(both, english, table).exit_code == 0
    result = run(both, english, table, "--glossary", str(glossary))
    assert result.exit_code == 1, result.output
    assert f"Rendered by {glossary}: whole titles, wordings of the training" in result.stdout
    assert "- base_colour as they are: accuracy" in result.stdout
    assert run(english, both, table, "--glossary", str(glossary)).exit_code == 0


def test_a_candidate_that_knows_only_the_wordings_of_its_training_is_refused_on_the_others(
    bilingual, tmp_path
):
    glossary, table, both = bilingual
    learned = reader(tmp_path / "learned", {"红": "red", "绿": "green", "衬衫": "shirt"})
    assert run(both, learned, table, "--glossary", str(glossary)).exit_code == 0
    options = ["--glossary", str(glossary), "--style", "mixed", "--unseen", "--json"]
    result = run(both, learned, table, *options)
    assert result.exit_code == 1
    titles = json.loads(result.stdout)["titles"]
    assert titles == {"glossary": str(glossary), "style": "mixed", "unseen": True}


def test_masked_titles_of_a_glossary_lack_its_wordings(bilingual):
    checkpoints = (tiny_checkpoint(Taxonomy((SAID,))),) * 2
    row = Row("1", "new 红衬衫", "", (), "g", {})
    assert views([row], checkpoints, (), ["红"])["masked_titles"][0].title == "new 衬衫"


def test_the_shipped_glossary_renders_what_is_compared(right, table):
    shipped = Path("training/glossaries/fashion-zh.toml")
    result = run(right, right, table, "--glossary", str(shipped), "--unseen")
    assert result.exit_code == 0 and "fashion-zh.toml: whole titles, wordings held out" in result.stdout


def test_cells_out_of_the_scope_of_either_checkpoint_are_not_compared(tmp_path):
    """Half of the products are shirts with a heel, which one of both has for shoes only."""
    heel = Attribute("heel", ("low", "high"))
    answers = {"kind": ["shoe"], "heel": ["low"]}
    everywhere = constant(tmp_path / "everywhere", answers, KIND, heel)
    of_shoes = dataclasses.replace(heel, applies_when=Scope("kind", ("shoe",)))
    scoped = constant(tmp_path / "scoped", answers, KIND, of_shoes)
    table = write_table(
        tmp_path / "metadata.csv", 60, kind=lambda n: ("shirt", "shoe")[n % 2], heel=lambda n: "low"
    )
    for a, b in ((everywhere, scoped), (scoped, everywhere)):
        assert "| heel | 30 |" in run(a, b, table, "--conditions", "as_is").stdout


def test_an_unsure_loss_of_the_mean_macro_f1_is_shown_and_does_not_decide():
    """Of the mean only the accuracy is steady enough for that."""
    chance = np.random.default_rng(0).normal(scale=0.05, size=1000)
    kept, lost = (Difference(0.8, after, chance, chance, 100) for after in (0.8, 0.75))
    under = Under(100, {"colour": 100}, {"colour": {"accuracy": kept, "macro_f1": lost}})
    found = judged({"as_is": under}, margin=0.01)
    assert found["conditions"]["as_is"]["mean"]["macro_f1"]["verdict"] == "unsure"
    assert (found["verdict"], found["because"]) == ("no worse", [])
