"""Titles in another language: what is said, that a seed repeats it, and that what is held out stays out."""

import re

import numpy as np
import pytest

from training.errors import RecipeError
from training.glossary import read_glossary
from training.table import Row
from training.translate import Translator, join, rendering

GLOSSARY = """
[values.gender]
"Men" = ["男士", "男款"]
[values.base_colour]
"Navy Blue" = ["藏青色", "海军蓝"]
"Blue" = ["蓝色"]
[values.article_type]
"Tshirts" = ["T恤"]
[held_out.base_colour]
"Navy Blue" = ["海军藏蓝"]
[words]
"round neck" = ["圆领"]
[brands]
"nike" = ["耐克"]
[selling]
phrases = ["包邮"]
"""
TITLE = "Nike Men Navy Blue Round Neck T-shirt"
VALUES = {"gender": ("Men",), "base_colour": ("Navy Blue",), "article_type": ("Tshirts",)}


@pytest.fixture
def glossary(tmp_path):
    path = tmp_path / "glossary.toml"
    path.write_text(GLOSSARY, encoding="utf-8")
    return read_glossary(path)


def test_a_title_is_taken_apart_by_its_longest_known_phrases(glossary):
    segments = [phrase for phrase, wordings in Translator(glossary).segments(TITLE) if wordings]
    assert segments == ["Nike", "Men", "Navy Blue", "Round Neck", "T-shirt"]


def test_a_whole_title_keeps_no_english_word_that_the_glossary_knows(glossary):
    translator = Translator(glossary)
    for seed in range(40):
        parts = translator.translated(TITLE, VALUES, "whole", np.random.default_rng(seed))
        assert not re.search("[a-z]", "".join(parts).replace("T恤", ""), re.IGNORECASE)


def test_mixed_titles_hold_both_languages(glossary):
    translator = Translator(glossary)
    titles = [translator.title(TITLE, VALUES, np.random.default_rng(seed), "mixed") for seed in range(40)]
    assert sum(bool(re.search("[a-z]{3}", t)) and bool(re.search("[男蓝青圆]", t)) for t in titles) > 15


def test_a_seed_repeats_a_title_and_another_changes_it(glossary):
    translator = Translator(glossary)
    titles = [
        translator.title(TITLE, VALUES, np.random.default_rng(seed)) for seed in (*range(20), *range(20))
    ]
    assert titles[:20] == titles[20:]
    assert len(set(titles)) > 10


def test_held_out_wordings_appear_only_where_they_are_measured(glossary):
    row = Row("7", TITLE, "", (), "", VALUES)
    seen = {Translator(glossary).title(TITLE, VALUES, np.random.default_rng(seed)) for seed in range(200)}
    assert not any("海军藏蓝" in title for title in seen)
    measured = {rendering(glossary.unseen(), "whole", seed)(row).title for seed in range(60)}
    assert any("海军藏蓝" in title for title in measured)
    assert not any("藏青色" in title or title.count("海军蓝") for title in measured)


def test_a_product_is_always_rendered_alike_for_measuring(glossary):
    row = Row("7", TITLE, "", (), "", VALUES)
    assert rendering(glossary, "whole")(row) == rendering(glossary, "whole")(row)


def test_a_title_without_any_known_word_is_still_a_title(glossary):
    assert Translator(glossary).title("Zorb", {}, np.random.default_rng(0))


def test_chinese_needs_no_spaces_and_english_does():
    assert join(["Nike", "男士", "Air", "Max", "T恤"], spaced=False) == "Nike男士Air Max T恤"
    assert join(["蓝色", "鞋"], spaced=True) == "蓝色 鞋"


def test_a_file_that_is_no_glossary_is_refused_with_its_name(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[values]\ngender = 3\n")
    with pytest.raises(RecipeError, match=r"broken\.toml"):
        read_glossary(path)
