"""From logits to tags: values, decisions, evidence and alternatives."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from models import Evidence, Product, SeenPhoto, Tagger
from models.calibration import PATTERNS, AttributeCalibration, Calibration
from models.checkpoint import Checkpoint
from models.tagger import CPU_BATCH, Alone, choose
from models.taxonomy import Attribute
from models.traced import TracedPhotoTower, TracedTextTower
from tests.tiny_tagger import TAXONOMY, WORDS, picture, tiny_checkpoint

COLOUR = Attribute("colour", ("red", "green", "blue", "black", "white"))
MATERIAL = Attribute("material", ("cotton", "linen", "wool"), multiple=True)
CALIBRATION = AttributeCalibration(
    0.95,
    {"both": 1.0, "text": 1.0, "photos": 1.0},
    {"both": 0.8, "text": 0.9, "photos": None},
)


def evidence(count):
    return Alone([0.1 * n for n in range(count)], None)


@pytest.fixture(scope="module")
def tagger():
    return Tagger(tiny_checkpoint(), "v", "cpu")


def tags(tagger, product):
    return tagger.predict([tagger.prepare(product)])[0].tags


def test_every_attribute_of_the_taxonomy_is_answered(tagger):
    assert {tag.attribute for tag in tags(tagger, Product("red shirt"))} == {
        attribute.name for attribute in TAXONOMY
    }


def test_predictions_come_in_the_order_of_the_examples(tagger):
    products = [Product("red shirt"), Product("blue shoe wool"), Product(photos=(picture("blue"),))]
    together = tagger.predict([tagger.prepare(product) for product in products])
    for product, tagging in zip(products, together, strict=True):
        alone = tags(tagger, product)
        assert [tag.confidence for tag in tagging.tags] == pytest.approx(
            [tag.confidence for tag in alone], abs=1e-5
        )


def test_a_batch_over_what_the_cpu_takes_at_once_keeps_its_order(tagger):
    titles = [f"{colour} {kind}" for colour in ("red", "green", "blue") for kind in WORDS]
    assert len(titles) > 2 * CPU_BATCH
    examples = [tagger.prepare(Product(title)) for title in titles]
    for example, tagging in zip(examples, tagger.predict(examples), strict=True):
        (alone,) = tagger.predict([example])
        assert [tag.confidence for tag in tagging.tags] == pytest.approx(
            [tag.confidence for tag in alone.tags], abs=1e-5
        )


def test_towers_made_over_for_serving_tag_alike(tagger):
    quick = Tagger(tiny_checkpoint(), "v", "cpu", quick=True)
    assert isinstance(quick.model.text_tower, TracedTextTower)
    assert isinstance(quick.model.photo_tower, TracedPhotoTower)
    assert isinstance(quick.answering, torch.jit.ScriptModule)
    products = [
        Product("red shirt"),
        Product("blue", "wool", (picture("blue"),)),
        Product(photos=(picture(),)),
    ]
    examples = [tagger.prepare(product) for product in products]
    for one, other in zip(tagger.predict(examples), quick.predict(examples), strict=True):
        assert [tag.value for tag in one.tags] == [tag.value for tag in other.tags]
        assert [tag.confidence for tag in one.tags] == pytest.approx(
            [tag.confidence for tag in other.tags], abs=1e-5
        )


def test_no_examples_no_taggings(tagger):
    assert tagger.predict([]) == []


def test_evidence_is_there_only_for_what_was_given(tagger):
    for tag in tags(tagger, Product("red shirt")):
        assert tag.evidence.photos is None
        assert tag.evidence.text is not None
    for tag in tags(tagger, Product(photos=(picture(),))):
        assert tag.evidence.text is None
        assert tag.evidence.photos is not None


def test_a_model_that_was_being_trained_is_served_without_its_dropout(tagger):
    checkpoint = tiny_checkpoint()
    checkpoint.model.train()
    trained = Tagger(checkpoint, "v", "cpu")
    assert tags(trained, Product("red shirt")) == tags(tagger, Product("red shirt"))


def test_probabilities_are_taken_in_full_precision_also_where_the_towers_run_in_half():
    half = Tagger(tiny_checkpoint(), "v", "cpu", torch.bfloat16)
    example = half.prepare(Product("red shirt"))
    (batch,) = half.collate([example]).batches
    with torch.inference_mode():
        (expected,) = half.model(batch).text_only[0].float().softmax(dim=1).tolist()
    (tag,) = (tag for tag in half.predict([example])[0].tags if tag.attribute == "colour")
    best = TAXONOMY.attributes[0].values.index(tag.alternatives[0].value)
    assert tag.evidence.text == pytest.approx(expected[best], abs=1e-6)


def test_the_embedding_has_unit_length(tagger):
    embedding = tagger.predict([tagger.prepare(Product("red shirt"))])[0].embedding
    assert sum(value * value for value in embedding) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("confidence", "pattern", "decision", "value"),
    [
        (0.81, "both", "auto", "green"),
        (0.79, "both", "review", "green"),
        (0.81, "text", "review", "green"),
        (0.99, "photos", "review", "green"),  # no threshold keeps the promise without text
        (0.49, "both", "abstain", None),
    ],
)
def test_a_decision_follows_the_threshold_of_what_is_present(confidence, pattern, decision, value):
    rest = (1 - confidence) / 4
    (tag,) = choose(
        COLOUR, CALIBRATION, pattern, [rest, confidence, rest, rest, rest], evidence(5), [True] * 5
    )
    assert (tag.decision, tag.value, tag.confidence) == (decision, value, confidence)


def test_what_a_strange_product_is_tagged_with_goes_to_a_person(tagger):
    product = Product("red shirt", photos=(picture("red"),))
    promising = AttributeCalibration(0.5, dict.fromkeys(PATTERNS, 1.0), dict.fromkeys(PATTERNS, 0.0))
    attributes = tuple(promising for _ in TAXONOMY)

    def decisions(least: float | None) -> list[str]:
        calibration = Calibration(attributes, {"text": least, "photos": least})
        strict = Tagger(replace(tagger.checkpoint, calibration=calibration), tagger.version, "cpu")
        return [tag.decision for tag in strict.predict([strict.prepare(product)])[0].tags]

    assert "auto" in decisions(None)
    assert decisions(-1e9) == decisions(None)
    assert decisions(1e9) == [{"auto": "review"}.get(decision, decision) for decision in decisions(None)]


def test_alternatives_are_the_next_three_and_never_the_value():
    (tag,) = choose(COLOUR, CALIBRATION, "both", [0.05, 0.6, 0.2, 0.1, 0.05], evidence(5), [True] * 5)
    assert [(a.value, a.confidence) for a in tag.alternatives] == [
        ("blue", 0.2),
        ("black", 0.1),
        ("red", 0.05),
    ]
    assert tag.evidence == Evidence(0.1, None)


def test_an_abstained_value_is_still_the_first_alternative():
    (tag,) = choose(COLOUR, CALIBRATION, "both", [0.1, 0.4, 0.3, 0.1, 0.1], evidence(5), [True] * 5)
    assert tag.value is None
    assert tag.alternatives[0].value == "green"


def test_of_two_values_that_are_as_likely_one_is_offered():
    (tag,) = choose(COLOUR, CALIBRATION, "both", [0.0, 0.5, 0.5, 0.0, 0.0], evidence(5), [True] * 5)
    assert (tag.value, tag.alternatives[0].value) == ("green", "blue")


def test_a_multiple_attribute_offers_every_likely_value():
    offered = choose(MATERIAL, CALIBRATION, "both", [0.95, 0.2, 0.6], evidence(3), [True] * 3)
    assert [(tag.value, tag.decision) for tag in offered] == [("cotton", "auto"), ("wool", "review")]


def test_a_multiple_attribute_without_a_likely_value_abstains_once():
    (tag,) = choose(MATERIAL, CALIBRATION, "both", [0.3, 0.2, 0.1], evidence(3), [True] * 3)
    assert (tag.value, tag.decision) == (None, "abstain")


def test_a_promise_kept_by_the_surer_values_lets_no_unlikely_one_through():
    generous = AttributeCalibration(0.9, CALIBRATION.temperature, dict.fromkeys(PATTERNS, 0.3))
    (tag,) = choose(COLOUR, generous, "both", [0.1, 0.4, 0.3, 0.1, 0.1], evidence(5), [True] * 5)
    assert (tag.value, tag.decision) == (None, "abstain")


def confidences(taggings):
    return [[(tag.attribute, tag.value, tag.decision) for tag in tagging.tags] for tagging in taggings], [
        [(tag.confidence, tag.evidence.photos or 0.0) for tag in tagging.tags] for tagging in taggings
    ]


def assert_same_answers(taggings, expected):
    (offered, numbers), (offered_before, numbers_before) = confidences(taggings), confidences(expected)
    assert offered == offered_before
    for one, other in zip(numbers, numbers_before, strict=True):
        assert [x for pair in one for x in pair] == pytest.approx(
            [x for pair in other for x in pair], abs=1e-3
        )


def test_seen_photos_answer_like_the_photos_themselves_also_mixed_with_new_ones(tagger, monkeypatch):
    red, blue, green, white = (picture(colour) for colour in ("red", "blue", "green", "white"))
    products = [
        Product("red shirt", photos=(red, blue, green)),
        Product("blue shoe"),
        Product(photos=(white,)),
        Product("wool", "soft", (blue, white)),
        Product("bag", photos=(red, green, blue, white)),  # one more than the tagger looks at
    ]
    taggings = tagger.predict([tagger.prepare(product) for product in products])
    assert [len(tagging.photo_features) for tagging in taggings] == [3, 0, 1, 2, 3]
    first, _, third, *_ = (tagging.photo_features for tagging in taggings)
    seen = dict(zip((red, blue, green, white), map(SeenPhoto, (*first, *third)), strict=True))
    again = [
        Product("red shirt", photos=(seen[red], blue, seen[green])),
        Product("blue shoe"),
        Product(photos=(seen[white],)),
        Product("wool", "soft", (blue, white)),
        Product("bag", photos=(seen[red], seen[green], seen[blue], seen[white])),
    ]
    run = []
    tower = tagger.model.photo_tower.forward
    monkeypatch.setattr(
        tagger.model.photo_tower, "forward", lambda photos: run.append(len(photos)) or tower(photos)
    )
    remembered = tagger.predict([tagger.prepare(product) for product in again])
    assert run == [3], "the tower runs on the new photos only"
    assert_same_answers(remembered, taggings)
    assert [len(tagging.photo_features) for tagging in remembered] == [1, 0, 0, 2, 0]


def test_seen_texts_answer_like_the_texts_themselves_also_mixed_with_new_ones(tagger, monkeypatch):
    products = [
        Product("red shirt", photos=(picture("red"),)),
        Product("blue shoe", "soft wool"),
        Product(photos=(picture("white"),)),
        Product("green bag and watch with linen"),
    ]
    taggings = tagger.predict([tagger.prepare(product) for product in products])
    assert [tagging.text_features is None for tagging in taggings] == [False, False, True, False]
    again = [
        replace(product, text_features=tagging.text_features)
        for product, tagging in zip(products, taggings, strict=True)
    ]
    again[3] = products[3]
    run = []
    tower = tagger.model.text_tower.forward
    monkeypatch.setattr(
        tagger.model.text_tower, "forward", lambda ids, *rest: run.append(len(ids)) or tower(ids, *rest)
    )
    remembered = tagger.predict([tagger.prepare(product) for product in again])
    assert run == [1], "the tower runs on the new text only"
    assert_same_answers(remembered, taggings)
    assert [tagging.text_features is None for tagging in remembered] == [True, True, True, False]
    run.clear()
    tagger.predict([tagger.prepare(product) for product in again[:3]])
    assert run == [], "no text is new"


def test_features_that_float16_cannot_hold_are_not_to_be_remembered(tagger, monkeypatch):
    tower = tagger.model.photo_tower.forward
    monkeypatch.setattr(tagger.model.photo_tower, "forward", lambda photos: tower(photos) * 1e6)
    (tagging,) = tagger.predict([tagger.prepare(Product(photos=(picture(),)))])
    assert tagging.photo_features == (None,)
    assert tagging.tags


def test_the_tags_of_a_multiple_attribute_and_its_alternatives_come_most_likely_first():
    offered = choose(MATERIAL, CALIBRATION, "both", [0.6, 0.2, 0.95], evidence(3), [True] * 3)
    assert [tag.value for tag in offered] == ["wool", "cotton"]
    (tag,) = choose(MATERIAL, CALIBRATION, "both", [0.1, 0.2, 0.3], evidence(3), [True] * 3)
    assert [a.value for a in tag.alternatives] == ["wool", "linen", "cotton"]
    assert (tag.confidence, tag.evidence.text) == (0.3, 0.2)


def test_compiled_towers_answer_one_caller_at_a_time(monkeypatch):
    monkeypatch.setattr(Checkpoint, "precisions", {"text": "int8"})
    tagger = Tagger(tiny_checkpoint(), "v", "cpu")
    run, meeting, met = tagger.run, threading.Barrier(2), []

    def look_around(batch, **how):
        with contextlib.suppress(threading.BrokenBarrierError):
            met.append(meeting.wait(0.2))
        return run(batch, **how)

    monkeypatch.setattr(tagger, "run", look_around)
    example = tagger.prepare(Product("red shirt"))
    with ThreadPoolExecutor(2) as callers:
        taggings = list(callers.map(tagger.predict, [[example], [example]]))
    assert met == []
    assert_same_answers(*taggings)
