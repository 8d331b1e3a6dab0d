"""Descriptions of a glossary's sentences: in whose language, what fills their slots, and that a seed repeats them."""

import numpy as np
import pytest

from models.taxonomy import Attribute, Taxonomy
from training.describe import MOST, Describer
from training.errors import RecipeError
from training.glossary import Glossary, Sentences, read_glossary
from training.recipe import TranslateSection
from training.renderings import in_style, rendered
from training.table import Row
from training.translate import rewriter

VALUES = {"colour": ("blue",)}
GLOSSARY = """
[values.colour]
"red" = ["红色", "大红"]
"blue" = ["蓝色"]
[values.kind]
"shirt" = ["衬衫"]
[brands]
"acme" = ["艾克"]
[descriptions]
original = ["Hand wash.", "Colour: {colour}.", "Add a {~kind}.", "For {gender}.", "By {brand}."]
translated = ["手洗。", "颜色：{colour}。"]
[held_out_descriptions]
original = ["Do not bleach."]
translated = ["不可漂白。"]
"""


@pytest.fixture
def glossary(tmp_path):
    path = tmp_path / "glossary.toml"
    path.write_text(GLOSSARY, encoding="utf-8")
    return read_glossary(path)


def of(sentence, translated="", **words):
    told = Sentences(original=(sentence,), translated=(translated,) if translated else ())
    values = {"colour": {"red": ("红色",), "blue": ("蓝色",)}, "kind": {"shirt": ("衬衫",)}}
    return Describer(Glossary(values, {}, words.get("words", {}), words.get("brands", {}), (), told))


def filled(describer, title="Blue shirt", values=VALUES):
    return {describer.description(title, values, np.random.default_rng(seed)) for seed in range(60)}


def test_a_slot_takes_the_products_own_value():
    # "": now and then in a language that has no sentence.
    assert filled(of("Colour: {colour}.")) == {"Colour: blue.", ""}


def test_a_slot_of_others_takes_any_value_each_time_anew():
    found = filled(of("{~colour} and {~colour}"))
    assert found == {"red and red", "red and blue", "blue and red", "blue and blue", ""}


def test_words_and_brands_come_from_the_glossary():
    describer = of("{word} by {brand}", words={"cosy": ("舒适",)}, brands={"acme": ("艾克",)})
    assert filled(describer) == {"cosy by acme", ""}


@pytest.mark.parametrize("sentence", ["For {gender}.", "For {~gender}.", "{kind}"])
def test_a_sentence_is_left_out_where_a_slot_cannot_be_filled(sentence):
    assert filled(of(sentence)) == {""}


def test_a_value_without_wordings_is_not_said():
    assert filled(of("Colour: {colour}."), values={"colour": ("teal",)}) == {""}


def test_a_value_with_an_empty_list_of_wordings_is_not_said_in_either_language():
    values = {"colour": {"red": (), "blue": ("蓝色",)}}
    told = Sentences(original=("Also in {~colour}.",), translated=("另有{~colour}。",))
    describer = Describer(Glossary(values, {}, {}, {}, (), told))
    for title in ("Shirt", "衬衫"):
        assert filled(describer, title) == {"Also in blue.", "另有蓝色。"}


def test_a_brand_is_one_of_the_glossarys_brands_and_no_value_of_an_attribute_of_that_name():
    told = Sentences(original=("By {brand}.",))
    describer = Describer(Glossary({"brand": {"nike": ("耐克",)}}, {}, {}, {}, (), told))
    assert filled(describer, values={"brand": ("nike",)}) == {""}


def test_a_slot_takes_any_name_of_an_attribute():
    told = Sentences(original=("Heel: {heel height}.",))
    describer = Describer(Glossary({"heel height": {"low": ("低跟",)}}, {}, {}, {}, (), told))
    assert filled(describer, values={"heel height": ("low",)}) == {"Heel: low.", ""}


def test_a_description_is_in_the_language_of_its_title_but_for_a_few():
    describer = of("Colour: {colour}.", "颜色：{colour}。")
    for title, usual in (("Blue shirt", "Colour: blue."), ("蓝色 shirt", "颜色：蓝色。")):
        told = [describer.description(title, VALUES, np.random.default_rng(seed)) for seed in range(300)]
        assert set(told) == {"Colour: blue.", "颜色：蓝色。"}
        assert 0.8 < told.count(usual) / len(told) < 0.97


def test_no_sentence_comes_twice_and_there_are_at_most_so_many():
    sentences = tuple(f"Sentence{number}." for number in range(MOST + 4))
    describer = Describer(Glossary({}, {}, {}, {}, (), Sentences(original=sentences, translated=sentences)))
    counts = set()
    for seed in range(200):
        told = describer.description("Shirt", {}, np.random.default_rng(seed)).split()
        assert len(set(told)) == len(told)
        counts.add(len(told))
    assert counts == set(range(1, MOST + 1))


def test_a_vocabulary_needs_the_characters_of_sentences_the_held_out_ones_among_them(glossary):
    assert glossary.characters >= set("手洗不可漂白。")


def rewritten(tmp_path, glossary, title, description="", **shares):
    rewrite = rewriter(TranslateSection(glossary=str(tmp_path / "glossary.toml"), **shares))
    return [rewrite(title, description, VALUES, np.random.default_rng(seed)) for seed in range(60)]


def test_a_share_of_the_titles_is_described(tmp_path, glossary):
    found = rewritten(tmp_path, glossary, "Blue shirt", share=0.0, descriptions=0.5)
    assert {title for title, _ in found} == {"Blue shirt"}
    assert 15 < sum(bool(description) for _, description in found) < 40


def test_a_rendered_title_is_described_in_its_own_language(tmp_path, glossary):
    found = rewritten(tmp_path, glossary, "Blue shirt", share=0.999999, descriptions=0.999999)
    told = [description for title, description in found if "蓝" in title and description]
    assert len(told) > 30
    assert sum("手洗" in description or "颜色" in description for description in told) > 0.8 * len(told)


def test_a_product_keeps_the_description_that_it_has(tmp_path, glossary):
    found = rewritten(tmp_path, glossary, "Blue shirt", "Its own.", share=0.0, descriptions=0.999999)
    assert found == [("Blue shirt", "Its own.")] * 60


def test_products_are_described_each_in_its_own_way_and_always_alike(glossary):
    rows = [Row(str(number), "Blue shirt", "", (), "", VALUES) for number in range(30)]
    told = in_style(rows, glossary, "described", unseen=False)
    assert {row.title for row in told} == {"Blue shirt"}
    assert len({row.description for row in told}) > 5
    assert told == in_style(rows, glossary, "described", unseen=False)


def test_what_has_no_title_or_a_description_of_its_own_is_measured_as_it_is(glossary):
    rows = [Row("1", "", "", (), "", VALUES), Row("2", "Shirt", "Its own.", (), "", VALUES)]
    assert in_style(rows, glossary, "described", unseen=False) == rows


def test_what_is_measured_is_what_no_training_sees(glossary):
    rows = [Row(str(number), "Blue shirt", "", (), "", VALUES) for number in range(30)]
    measured = dict(rendered(rows, glossary, Taxonomy((Attribute("colour", ("red", "blue")),))))
    assert {row.description for row in measured["described_unseen"]} == {"Do not bleach.", "不可漂白。"}
    assert all(not row.photos for row in measured["described_unseen_without_photos"])


def test_a_glossary_without_sentences_measures_no_descriptions_and_says_so():
    bare = Glossary({"colour": {"blue": ("蓝色",)}}, {}, {}, {}, ())
    rows = [Row("1", "Blue shirt", "", (), "", VALUES)]
    names = [name for name, _ in rendered(rows, bare, Taxonomy((Attribute("colour", ("red", "blue")),)))]
    assert names and not any("described" in name for name in names)
    with pytest.raises(RecipeError, match=r"\[held_out_descriptions\]"):
        in_style(rows, bare, "described", unseen=True)
    with pytest.raises(RecipeError, match=r"\[descriptions\]"):
        in_style(rows, bare, "described", unseen=False)
