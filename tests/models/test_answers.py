"""What comes after the towers, as tensors: the same as by lists of patterns, and the same as a graph."""

from dataclasses import replace

import pytest
import torch

from models.answers import Answering, Answers
from models.calibration import PATTERNS, AttributeCalibration, Calibration, indices_of, patterns
from models.fusion import FusionTagger
from models.names import key_of
from models.scope import in_scope
from models.taxonomy import Attribute, Scope, Taxonomy
from models.traced import PRODUCTS, some_features, some_texts, traced_answering
from tests.tiny_tagger import text_config, tiny_model

# A scope over a single choice, and one over several values, so that every way of `models.scope` is taken.
SCOPED = Taxonomy(
    (
        Attribute("kind", ("shirt", "shoe")),
        Attribute("material", ("cotton", "linen", "wool"), multiple=True),
        Attribute("heel", ("flat", "high"), applies_when=Scope("kind", ("shoe",))),
        Attribute("care", ("cold", "hand"), applies_when=Scope("material", ("linen", "wool"))),
    )
)
SIZES = tuple(len(attribute.values) for attribute in SCOPED)
# Rows, tokens and whose the photos are: none at all, of some, several of one.
SHAPES = [(1, 1, ()), (1, 7, (0,)), (4, 12, (3, 1, 1)), (17, 9, tuple(range(17)))]


def calibration() -> Calibration:
    attributes = []
    for number, _ in enumerate(SCOPED, 1):
        by_pattern = {pattern: number + 0.3 * place for place, pattern in enumerate(PATTERNS)}
        attributes.append(
            AttributeCalibration(
                0.95,
                by_pattern,
                dict.fromkeys(PATTERNS, 0.7),
                text_only=0.6,
                photo_only=1.7,
                beta={pattern: [1.1, 0.8, 0.1 * place] for place, pattern in enumerate(PATTERNS)},
            )
        )
    return Calibration(tuple(attributes), {"text": 0.8, "photos": 0.9})


def model(dtype=torch.float32) -> FusionTagger:
    torch.manual_seed(0)
    config = replace(tiny_model().config, sizes=SIZES, lexicon=64, names=2)
    made = FusionTagger(config)
    vocabulary = text_config()["vocab_size"]
    made.names.look_for({key_of((4, 5), 0): 1, key_of((6,), 1): 3}, torch.zeros(vocabulary, dtype=torch.bool))
    torch.nn.init.normal_(made.lexicon.head.weight)
    return made.to(dtype).eval()


def some(answering: Answering, shape) -> tuple[torch.Tensor, ...]:
    """With a row that has neither text nor photos, where there are several."""
    texts, photos, ids, types, mask, owners = some_features(answering, *shape)
    mask[2:3], ids[2:3] = False, 0
    return texts, photos, ids, types, mask, owners


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_the_answers_are_those_of_the_calibration_by_patterns(shape):
    made, found = model(), calibration()
    answering = Answering(made, SCOPED, found)
    given = some(answering, shape)
    answers = answering(*given)
    output = made.fuse(made.join(*given))
    of = patterns(output.has_text, output.has_photos)
    by_attribute = found.patterns_for(of, output.text_only, SCOPED)
    scoped = in_scope(
        SCOPED,
        [
            one.confidences(head, each, attribute.multiple)
            for one, head, each, attribute in zip(
                found.attributes, output.fused, by_attribute, SCOPED, strict=True
            )
        ],
    )
    assert torch.equal(answers.confidence, torch.cat([one.confidence for one in scoped], dim=1))
    assert torch.equal(answers.offered, torch.stack([one.offered for one in scoped], dim=1))
    named = [[PATTERNS[index] for index in column] for column in answers.pattern.T.tolist()]
    assert named == by_attribute
    vouched = found.vouched_at(output.text_only, output.photo_only, indices_of(of), SCOPED)
    assert torch.equal(answers.vouched, torch.cat(vouched, dim=1))
    assert torch.equal(answers.embedding, output.embedding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_as_a_graph_it_answers_as_before(shape, dtype):
    answering = Answering(model(dtype), SCOPED, calibration())
    quick = traced_answering(answering)
    assert quick is not answering
    given = some(answering, shape)
    expected = answering(*given)
    for _ in range(3):  # what it has seen a few times it runs otherwise
        for name, one, other in zip(Answers._fields, quick(*given), expected, strict=True):
            assert torch.equal(one, other), name


@torch.inference_mode()
def test_a_graph_made_of_titles_in_which_one_name_is_found_finds_none_and_several():
    made = model()
    rows, tokens, _ = PRODUCTS[0]
    ids, _, mask = some_texts(rows, tokens, text_config()["vocab_size"])
    (once, *_) = (token for token in ids[mask].tolist() if ids[mask].tolist().count(token) == 1)
    # The other name has a token that no title has.
    made.names.look_for(
        {key_of((once,), 0): 1, key_of((text_config()["vocab_size"],), 1): 3}, made.names.continues
    )
    answering = Answering(made, SCOPED, calibration())
    quick = traced_answering(answering)
    assert quick is not answering
    texts, photos, ids, types, mask, owners = some_features(answering, 3, 4, ())
    for titles in ([[0] * 4] * 3, [[once, 0, 0, 0], [0] * 4, [0] * 4], [[once, 0, once, 0]] * 3):
        given = (texts, photos, torch.tensor(titles), types, torch.ones_like(mask), owners)
        for one, other in zip(quick(*given), answering(*given), strict=True):
            assert torch.equal(one, other)


@torch.inference_mode()
def test_what_follows_the_towers_of_several_values_everywhere_is_a_graph_too():
    several = Taxonomy(tuple(replace(attribute, multiple=True) for attribute in SCOPED))
    answering = Answering(model(), several, calibration())
    quick = traced_answering(answering)
    assert quick is not answering
    given = some(answering, SHAPES[-1])
    for one, other in zip(quick(*given), answering(*given), strict=True):
        assert torch.equal(one, other)


class CountsRows(Answering):
    def forward(self, *given):
        answers = super().forward(*given)
        return answers._replace(embedding=answers.embedding * len(given[0]))


def test_what_a_graph_would_answer_otherwise_stays_as_it_is():
    answering = CountsRows(model(), SCOPED, calibration())
    assert traced_answering(answering) is answering
