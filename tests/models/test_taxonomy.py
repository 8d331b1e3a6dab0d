"""What a taxonomy may say, and how one that cannot be meant is refused."""

import pytest

from models.errors import CheckpointError
from models.taxonomy import Attribute, Scope, Taxonomy, entry, parents_first

KIND = Attribute("kind", ("shirt", "shoe", "boot"))
SHOE_TYPE = Attribute("shoe_type", ("heels", "flats"), applies_when=Scope("kind", ("shoe", "boot")))
HEEL = Attribute("heel_height", ("low", "high"), applies_when=Scope("shoe_type", ("heels",)))


def test_scopes_survive_the_file():
    taxonomy = Taxonomy((HEEL, KIND, SHOE_TYPE))
    document = taxonomy.to_dict()
    assert Taxonomy.from_dict(document) == taxonomy
    assert document["attributes"][0] == {
        "name": "heel_height",
        "multiple": False,
        "values": ["low", "high"],
        "applies_when": {"attribute": "shoe_type", "values": ["heels"]},
    }
    assert "applies_when" not in document["attributes"][1]


def test_parents_come_before_what_lies_within_them():
    assert parents_first(Taxonomy((HEEL, KIND, SHOE_TYPE)).scopes) == ["kind", "shoe_type", "heel_height"]


def within(name, *values):
    return {"name": "size", "values": ["S", "L"], "multiple": False, "applies_when": scope(name, *values)}


def scope(name, *values):
    return {"attribute": name, "values": list(values)}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (within("trade", "shirt"), "'size' applies within 'trade', which is no attribute"),
        (within("kind", "shirt", "hat"), "'size' applies when 'kind' is 'hat', which is none of its values"),
        (within("kind"), "a scope within 'kind' needs values"),
        (within("kind", "shirt", "shirt"), "each named once"),
        (within("size", "S"), "circle: 'size' within 'size'"),
        (within("shoe_type", "heels") | {"applies_when": {"attribute": "kind"}}, "values"),
        (within("kind", "shirt") | {"applies_when": "shirt"}, "not a taxonomy"),
    ],
)
def test_a_scope_that_cannot_be_meant_is_refused_by_name(entry, message):
    document = Taxonomy((KIND, SHOE_TYPE)).to_dict()
    document["attributes"].append(entry)
    with pytest.raises(CheckpointError, match=message):
        Taxonomy.from_dict(document)


def test_a_circle_of_scopes_is_refused_and_shown():
    first = Attribute("first", ("a", "b"), applies_when=Scope("second", ("a",)))
    second = Attribute("second", ("a", "b"), applies_when=Scope("first", ("a",)))
    with pytest.raises(ValueError, match=r"circle: '(first|second)' within '(first|second)' within"):
        Taxonomy((KIND, first, second))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([], "needs attributes"),
        ([KIND, KIND], "each named once"),
        ([{"name": "", "values": ["a", "b"], "multiple": False}], "needs a name"),
        ([{"name": "size", "values": ["S", "L", "S"], "multiple": False}], "'size' names a value twice"),
        ([{"name": "size", "values": ["S"], "multiple": False}], "at least two values"),
        ([{"name": "size", "values": [], "multiple": True}], "at least two values"),
    ],
)
def test_attributes_that_cannot_be_meant_are_refused(attributes, message):
    document = {"attributes": [given if isinstance(given, dict) else entry(given) for given in attributes]}
    with pytest.raises(CheckpointError, match=message):
        Taxonomy.from_dict(document)
