"""The names that a fit gives its tagger, and what each weighs."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from models.checkpoint import load, save
from models.names import key_of
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import tiny_checkpoint, tiny_tokenizer
from training.glossary import Glossary
from training.naming import continuing, in_both_numbers, is_value, kept_names, name_values, names_of
from training.recipe import NamesSection
from training.table import Row

COLOURS = Taxonomy((Attribute("colour", ("red", "green", "blue")),))


def rows(*said_and_labelled: tuple[str, str, int]) -> list[Row]:
    """So many rows with a title and a colour each."""
    return [
        Row(f"{title} {n}", title, "", (), title, {"colour": (colour,)} if colour else {})
        for title, colour, count in said_and_labelled
        for n in range(count)
    ]


@pytest.fixture
def weights_of():
    def weights_of(some: list[Row], weight: float = 6.0, rare: int = 100) -> dict[str, float]:
        checkpoint = tiny_checkpoint(COLOURS)
        section = NamesSection(weight=weight, rare=rare)
        name_values(checkpoint.model, checkpoint.preprocessor, COLOURS, some, None, section, None)
        names = checkpoint.model.names
        return (
            {}
            if names is None
            else dict(
                zip(
                    (COLOURS.attributes[0].values[v] for v in names.values),
                    names.weights.tolist(),
                    strict=True,
                )
            )
        )

    return weights_of


def test_a_rare_value_gains_more_by_its_name_than_a_frequent_one(weights_of):
    weights = weights_of(rows(("red shirt", "red", 300), ("green shirt", "green", 3)))
    assert weights["green"] > 3 * weights["red"] > 0
    assert 0 < weights["blue"] <= 6.0, "a value that no title has named yet trusts its attribute's names"


def test_a_name_that_misleads_says_nothing(weights_of):
    weights = weights_of(rows(("red shirt", "red", 40), ("green shirt", "blue", 40)))
    assert weights["green"] == 0
    assert weights["red"] > 0


def test_rows_without_a_label_prove_nothing(weights_of):
    some = rows(("red shirt", "red", 5), ("green shirt", "green", 5))
    assert weights_of(some) == weights_of([*some, *rows(("green bag", "", 50))])


def test_rows_are_looked_at_a_few_at_a_time_and_weigh_as_all_at_once(weights_of, monkeypatch):
    some = rows(
        ("red shirt", "red", 3), ("green shirt", "blue", 2), ("blue bag", "blue", 3), ("red bag", "", 1)
    )
    at_once, parts = weights_of(some), []

    def counting(part, taxonomy):
        parts.append(len(part))
        return is_value(part, taxonomy)

    monkeypatch.setattr("training.naming.is_value", counting)
    monkeypatch.setattr("training.naming.LOOKED_AT", 2)
    assert weights_of(some) == at_once
    assert parts == [2, 2, 2, 2, 1]


def test_a_weight_of_nothing_looks_for_no_names(weights_of):
    assert weights_of(rows(("red shirt", "red", 5)), weight=0) == {}


def test_names_are_the_taxonomys_and_the_glossarys_and_no_two_values_share_one():
    glossary = Glossary(
        {"colour": {"red": ("linen",), "green": ("wool", "soft"), "blue": ("soft",)}}, {}, {}, {}, ()
    )
    tokenizer = tiny_tokenizer()
    names = names_of(COLOURS, tokenizer, glossary, {})
    words = {word: names.get(key(word, 0)) for word in ("linen", "wool", "blue", "soft")}
    assert words == {"linen": 0, "wool": 1, "blue": 2, "soft": None}, "soft would be green as well as blue"


def key(wording, attribute):
    return key_of(tiny_tokenizer().encode(wording, add_special_tokens=False).ids, attribute)


def test_values_that_are_kept_keep_the_names_that_they_had():
    """Also those of a glossary that this run has not, wherever attribute and value stand now."""
    old = tiny_checkpoint(COLOURS)
    glossary = Glossary(
        {"colour": {"red": ("linen",), "green": ("wool",), "blue": ("soft",)}}, {}, {}, {}, ()
    )
    some = rows(("red shirt", "red", 5))
    name_values(old.model, old.preprocessor, COLOURS, some, glossary, NamesSection(), None)
    kind = Attribute("kind", ("shirt", "wool"))
    new = Taxonomy((kind, Attribute("colour", ("green", "soft", "red"))))
    kept = kept_names(old, new, old.preprocessor.tokenizer)
    assert (kept[key("wool", 1)], kept[key("linen", 1)], kept[key("red", 1)]) == (2, 4, 4)
    assert key("soft", 1) not in kept, "blue is no value any more"
    made = tiny_checkpoint(new)
    name_values(made.model, made.preprocessor, new, some, None, NamesSection(), old)
    found = dict(zip(made.model.names.keys.tolist(), made.model.names.values.tolist(), strict=True))
    assert (found[key("wool", 0)], found[key("wool", 1)], found[key("soft", 1)]) == (1, 2, 3)


def test_names_in_tokens_that_mean_something_else_now_are_not_kept():
    old = tiny_checkpoint(COLOURS)
    name_values(
        old.model, old.preprocessor, COLOURS, rows(("red shirt", "red", 5)), None, NamesSection(), None
    )
    assert kept_names(old, COLOURS, old.preprocessor.tokenizer)
    vocabulary = {word: index + 1 for word, index in old.preprocessor.tokenizer.get_vocab().items()}
    others = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    assert kept_names(old, COLOURS, others) == {}


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("Watches", "Watch"),
        ("Scarves", "Scarf"),
        ("Ties", "Ty"),
        ("Bag", "Bags"),
        ("Dress", "Dresses"),
        ("Watch", "Watches"),
        ("Box", "Boxes"),
        ("Lady", "Ladies"),
        ("Toy", "Toys"),
        ("Scarf", "Scarves"),
        ("Shirts", "Shirt"),
    ],
)
def test_an_english_name_is_looked_for_in_both_numbers(value, other):
    assert value in in_both_numbers(value)
    assert other in in_both_numbers(value)


def test_a_checkpoint_keeps_its_names(tmp_path):
    checkpoint = tiny_checkpoint(COLOURS)
    some = rows(("red shirt", "red", 5))
    name_values(checkpoint.model, checkpoint.preprocessor, COLOURS, some, None, NamesSection(), None)
    save(checkpoint, tmp_path / "named")
    again = load(tmp_path / "named").model.names
    assert torch.equal(again.keys, checkpoint.model.names.keys)
    assert torch.equal(again.values, checkpoint.model.names.values)
    torch.testing.assert_close(again.weights, checkpoint.model.names.weights, atol=2e-3, rtol=0)


def test_tokens_that_go_on_with_a_word_are_known_by_their_sign():
    from tokenizers import Tokenizer, models

    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "bra": 1, "##celet": 2}, unk_token="[UNK]"))
    assert continuing(pieces, 3).tolist() == [False, False, True]
    sentence = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("▁bra", -1.0), ("celet", -1.0), (",", -1.0)], unk_id=0)
    )
    assert continuing(sentence, 4).tolist() == [False, False, True, False]


def test_a_value_of_which_the_vocabulary_knows_nothing_has_no_name():
    """Its name would be found wherever a title has any other unknown word."""
    taxonomy = Taxonomy((Attribute("kind", ("鞋",), multiple=True),))
    assert names_of(taxonomy, tiny_tokenizer(), None, {}) == {}


def test_a_label_that_the_taxonomy_lacks_says_that_the_name_is_wrong(weights_of):
    weights = weights_of(rows(("red shirt", "pink", 40), ("green shirt", "green", 40)))
    assert weights["red"] == 0
    assert weights["green"] > 0


def test_names_in_descriptions_beside_a_title_prove_nothing(weights_of):
    some = rows(("red shirt", "red", 5), ("green shirt", "green", 5))
    described = [Row(f"d{n}", "shirt", "red", (), f"d{n}", {"colour": ("blue",)}) for n in range(40)]
    plain = [Row(f"d{n}", "shirt", "", (), f"d{n}", {"colour": ("blue",)}) for n in range(40)]
    assert weights_of([*some, *described]) == weights_of([*some, *plain])


def test_wordings_that_are_held_out_name_nothing():
    glossary = Glossary({"colour": {"red": ("linen",)}}, {"colour": {"red": ("wool",)}}, {}, {}, ())
    names = names_of(COLOURS, tiny_tokenizer(), glossary, {})
    assert key("linen", 0) in names
    assert key("wool", 0) not in names
