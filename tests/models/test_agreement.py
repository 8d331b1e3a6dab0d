"""What two taggers are compared by."""

import numpy as np
import pytest

from models.agreement import Agreement, agreement, offered, reduced
from models.product import Evidence, Product, Tag, Tagging
from tests.tiny_tagger import picture, tiny_checkpoint


def tag(attribute, value):
    decision = "abstain" if value is None else "review"
    return Tag(attribute, value, 0.9, decision, Evidence(None, None), ())


@pytest.mark.parametrize(
    ("pattern", "photos", "says_something"),
    [("text", 0, True), ("photos", 1, False), ("both", 1, True)],
)
def test_a_product_is_shown_with_what_the_pattern_has(pattern, photos, says_something):
    whole = tiny_checkpoint().preprocessor(Product("red shirt", "", (picture("red"),)))
    nothing = tiny_checkpoint().preprocessor(Product("", "", (picture("red"),)))
    shown = reduced(whole, pattern)
    assert len(shown.photos) == photos
    assert np.array_equal(shown.token_ids, whole.token_ids if says_something else nothing.token_ids)
    assert len(shown.token_ids) == len(shown.type_ids)


def test_an_abstention_offers_nothing():
    tags = (tag("colour", None), tag("material", "wool"), tag("material", "linen"))
    assert offered(Tagging(tags, ())) == {"colour": frozenset(), "material": frozenset({"wool", "linen"})}


def test_what_does_not_apply_is_offered_as_little_as_what_is_abstained_from():
    """Both send it to nobody."""
    silent, elsewhere = {"text": {"heel": frozenset()}}, {"text": {}}
    assert agreement(["heel"], [silent, silent], [elsewhere, silent]).of("text") == 1.0
    assert agreement(["heel"], [{"text": {"heel": frozenset({"low"})}}], [elsewhere]).of("text") == 0.0


def test_all_tags_count_alike_and_not_those_of_the_best_or_worst_attribute():
    found = Agreement(200, {"both": {"colour": 1.0, "kind": 0.95, "material": 0.99}, "text": {"colour": 1.0}})
    assert found.of("both") == pytest.approx(0.98)
    assert found.short(0.985) == ["both"]
    assert found.short(0.975) == []
