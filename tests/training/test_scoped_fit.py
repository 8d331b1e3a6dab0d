"""A catalogue with an attribute that only some products have, from its taxonomy file to the tags."""

import json
import shutil

import pandas as pd
import pytest
from click.testing import CliRunner

from models import Product, Tagger
from models.checkpoint import load
from models.taxonomy import Scope
from tests.tiny_tagger import picture
from training.__main__ import main
from training.declared import Declared, read_declared
from training.errors import AnotherRun
from training.recipe import read_recipe
from training.run_folder import claim
from training.scope import within_scope
from training.table import Row, Table, make_taxonomy

COLOURS = ("red", "green", "blue")
KINDS = ("shirt", "shoe")


@pytest.fixture
def scoped(catalogue, tmp_path):
    """The catalogue with heels: high on red shoes, low on others, and five that somebody gave to shirts."""
    folder = tmp_path / "shop"
    shutil.copytree(catalogue.parent, folder)
    table = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)
    table["heel"] = table.file_name.map(lambda name: "high" if name.startswith("red") else "low")
    shirts = table.index[table.kind == "shirt"]
    table.loc[shirts, "heel"] = ""
    table.loc[shirts[:5], "heel"] = "flat"
    table.to_csv(folder / "metadata.csv", index=False)
    scope = {"attribute": "kind", "values": ["shoe"]}
    taxonomy = {
        "attributes": [{"name": "heel", "applies_when": scope}, {"name": "material", "multiple": True}]
    }
    (folder / "taxonomy.json").write_text(json.dumps(taxonomy))
    return folder


def test_a_scope_is_learned_measured_and_kept(recipe_file, scoped, tmp_path):
    files = ["--data", str(scoped / "metadata.csv"), "--taxonomy", str(scoped / "taxonomy.json")]
    settings = ("train.epochs=8", "model.lexicon=0")
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    arguments = [str(recipe_file), *files, "--out", str(tmp_path / "run"), *overrides]
    fitted = CliRunner().invoke(main, ["fit", *arguments])
    assert fitted.exit_code == 0, fitted.output
    assert "column 'heel': 5 filled cells are not used" in fitted.stderr
    checkpoint = load(tmp_path / "run" / "checkpoint")
    assert checkpoint.taxonomy.scopes["heel"] == Scope("kind", ("shoe",))
    assert checkpoint.taxonomy.attributes[-1].values == ("low", "high")
    measured = checkpoint.metrics["test"]["attributes"]
    assert measured["heel"]["applicable"]["precision"] > 0.8  # half of the products by chance
    assert measured["heel"]["applicable"]["recall"] > 0.8
    assert "applicable" not in measured["kind"]
    assert "- `heel` applies when `kind` is `shoe` (" in checkpoint.card

    tagger = Tagger.load(tmp_path / "run" / "checkpoint")
    products = [
        Product(f"{colour} {kind}", "cotton and wool", (picture(colour),))
        for colour in COLOURS
        for kind in KINDS
    ]
    offered = [
        {tag.attribute: tag.value for tag in tagging.tags}
        for tagging in tagger.predict([tagger.prepare(product) for product in products])
    ]
    assert {tags["kind"] for tags in offered} == {"shirt", "shoe"}
    assert all(("heel" in tags) == (tags["kind"] == "shoe") for tags in offered)

    arguments = [
        str(tmp_path / "run" / "checkpoint"),
        str(scoped / "metadata.csv"),
        "--json",
        "--workers",
        "0",
    ]
    evaluated = CliRunner().invoke(main, ["evaluate", *arguments, "--part", "test"])
    assert json.loads(evaluated.stdout)["attributes"] == measured
    assert "5 filled cells are not used" in evaluated.stderr


def test_a_run_goes_on_with_its_own_taxonomy_file_only(recipe_file, scoped, tmp_path):
    recipe, data = read_recipe(recipe_file), scoped / "metadata.csv"
    declared = read_declared(scoped / "taxonomy.json")
    for _ in range(2):
        claim(tmp_path / "run", recipe, data, declared)
    for other in (Declared(), Declared(attributes=declared.attributes[:1])):
        with pytest.raises(AnotherRun, match="taxonomy file"):
            claim(tmp_path / "run", recipe, data, other)


def test_a_cell_stays_where_nobody_has_said_what_its_parent_is():
    """The attribute may apply; only a parent of another value rules it out."""
    scopes = {"kind": None, "heel": Scope("kind", ("shoe",))}
    kinds = ((), ("shoe",), ("shirt",))
    rows = [Row("1", "title", "", (), "1", {"kind": kind, "heel": ("low",)}) for kind in kinds]
    kept, emptied = within_scope(rows, scopes)
    assert [row.values["heel"] for row in kept] == [("low",), ("low",), ()]
    assert emptied == {"heel": 1}


def test_a_value_that_a_scope_names_is_one_also_where_no_product_to_train_on_has_it():
    kinds = ("shirt", "shoe", "boot")
    rows = [
        Row("1", "title", "", (), kind, {"kind": (kind,), "heel": (heel,)})
        for kind, heel in zip(kinds, ("low", "high", "low"), strict=True)
    ]
    declared = Declared.model_validate(
        {"attributes": [{"name": "heel", "applies_when": {"attribute": "kind", "values": ["boot"]}}]}
    )
    table = Table(tuple(rows), ("kind", "heel"), frozenset(), frozenset(), {})
    taxonomy, _ = make_taxonomy(table, rows[:2], declared)
    assert taxonomy.attributes[0].values == kinds


def test_a_cell_whose_parent_is_itself_out_of_scope_is_not_used():
    scopes = {"kind": None, "heel": Scope("kind", ("shoe",)), "tip": Scope("heel", ("high",))}
    row = Row("1", "title", "", (), "1", {"kind": ("shirt",), "heel": ("high",), "tip": ("steel",)})
    (kept,), _ = within_scope([row], scopes)
    assert kept.values == {"kind": ("shirt",), "heel": (), "tip": ()}
