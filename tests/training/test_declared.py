"""A taxonomy file fixes what it names and is refused by name where it cannot be meant."""

import json
from pathlib import Path

import pytest

from models.taxonomy import Scope
from training.declared import read_declared
from training.errors import RecipeError

KIND = {"name": "kind", "values": ["shirt", "shoe"]}
HEEL = {"name": "heel_height", "applies_when": {"attribute": "kind", "values": ["shoe"]}}


@pytest.fixture
def read(tmp_path):
    def read(document):
        path = tmp_path / "taxonomy.json"
        path.write_text(document if isinstance(document, str) else json.dumps({"attributes": document}))
        return read_declared(path)

    return read


def test_all_but_the_name_may_be_left_out(read):
    declared = read([KIND, HEEL, {"name": "material", "multiple": True}])
    assert declared.names == ["kind", "heel_height", "material"]
    assert declared.values == {"kind": ("shirt", "shoe")}
    assert declared.multiple == ["material"]
    assert declared.scopes == {"heel_height": Scope("kind", ("shoe",))}


def test_the_parent_of_a_scope_need_not_have_an_entry(read):
    assert read([HEEL]).names == ["heel_height", "kind"]


def test_the_taxonomy_of_a_checkpoint_is_such_a_file():
    path = Path("models/starter/taxonomy.json")
    document = json.loads(path.read_text())
    assert read_declared(path).names == [attribute["name"] for attribute in document["attributes"]]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not a taxonomy file"),
        ('{"attribute": []}', "attribute: Extra inputs"),
        ([{"name": ""}], "attributes.0.name"),
        ([{"name": "kind", "value": ["a", "b"]}], "attributes.0.value"),
        ([{"name": "kind", "values": ["a"]}], "'kind' needs at least two values"),
        ([{"name": "kind", "values": ["a", "a"]}], "'kind' names a value twice"),
        ([KIND, KIND], "named twice"),
        ([{"name": "size", "applies_when": {"attribute": "kind", "values": []}}], "applies_when.values"),
        (
            [KIND, {"name": "size", "applies_when": {"attribute": "kind", "values": ["hat"]}}],
            "'hat' of 'kind'",
        ),
        ([{"name": "size", "applies_when": {"attribute": "size", "values": ["S"]}}], "circle"),
        (
            [HEEL, {"name": "kind", "applies_when": {"attribute": "heel_height", "values": ["low"]}}],
            r"circle: '\w+' within '\w+' within '\w+'",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(read, document, message):
    with pytest.raises(RecipeError, match=message):
        read(document)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"gone\.json"):
        read_declared(tmp_path / "gone.json")


def test_only_some_attributes_must_keep_the_parents_of_their_scopes(read):
    declared = read([KIND, HEEL, {"name": "material", "multiple": True}])
    assert declared.only(["kind", "heel_height"]).names == ["kind", "heel_height"]
    with pytest.raises(RecipeError, match="'heel_height' applies within 'kind'"):
        declared.only(["heel_height", "material"])


def test_names_and_values_are_read_as_the_cells_of_a_table_are(read):
    document = [{"name": " kind", "values": ["caf\u0065\u0301 ", "tea"]}]
    declared = read("\ufeff" + json.dumps({"attributes": document}))
    assert declared.values == {"kind": ("caf\u00e9", "tea")}
