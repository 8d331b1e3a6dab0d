"""Titles in another language: what is said, that a seed repeats it, and that what is held out stays out."""

import re

import numpy as np
import pytest

from training.errors import RecipeError
from training.glossary import Glossary, read_glossary
from training.recipe import TranslateSection
from training.table import Row
from training.translate import Translator, join, rendering, rewriter

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
    assert all(Translator(glossary).title("Zorb", {}, np.random.default_rng(seed)) for seed in range(60))


def test_chinese_needs_no_spaces_and_english_does():
    assert join(["Nike", "男士", "Air", "Max", "T恤"], spaced=False) == "Nike男士Air Max T恤"
    assert join(["蓝色", "鞋"], spaced=True) == "蓝色 鞋"


def test_a_file_that_is_no_glossary_is_refused_with_its_name(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[values]\ngender = 3\n")
    with pytest.raises(RecipeError, match=r"broken\.toml"):
        read_glossary(path)


def test_what_names_a_value_is_translated_as_one_and_never_said_by_the_way():
    blue = Glossary(
        {"base_colour": {"Blue": ("蓝色",)}},
        {},
        {"blue": ("忧郁",), "round neck": ("圆领",)},
        {"blue": ("布鲁",)},
        (),
    )
    translator = Translator(blue)
    segments = translator.segments("Blue Round Neck")
    assert segments == [("Blue", ("蓝色",)), ("Round Neck", ("圆领",))]
    assert list(translator.neutral(segments)) == [("Round Neck", ("圆领",))]


def test_a_glossary_that_is_no_text_is_refused_with_its_name(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('[values.colour]\n"Gr\u00fcn" = ["x"]\n'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.toml"):
        read_glossary(path)


def test_words_of_a_glossary_may_be_written_in_any_case(tmp_path):
    path = tmp_path / "glossary.toml"
    path.write_text(
        '[values]\n[words]\n"Round Neck" = ["圆领"]\n[brands]\n"Nike" = ["耐克"]\n', encoding="utf-8"
    )
    found = read_glossary(path)
    assert (found.words, found.brands) == ({"round neck": ("圆领",)}, {"nike": ("耐克",)})


def test_what_is_held_out_gives_a_value_away_as_well_and_needs_its_characters():
    indigo = Glossary({"colour": {"Blue": ("蓝色",)}}, {"colour": {"Blue": ("靛",)}}, {}, {}, ())
    assert set(indigo.telling) == {"蓝色", "靛"}
    assert indigo.characters == set("蓝色靛")


@pytest.mark.parametrize(("share", "left"), [(0.0, 40), (0.25, 30)])
def test_the_share_of_the_titles_is_translated(tmp_path, glossary, share, left):
    rewrite = rewriter(TranslateSection(glossary=str(tmp_path / "glossary.toml"), share=share))
    random = np.random.default_rng(0)
    as_it_was = sum(rewrite(TITLE, "", VALUES, random) == (TITLE, "") for _ in range(40))
    assert as_it_was == pytest.approx(left, abs=6 if share else 0)


def test_products_are_rendered_each_in_its_own_way(glossary):
    render = rendering(glossary, "whole")
    assert len({render(Row(str(n), TITLE, "", (), "", VALUES)).title for n in range(20)}) > 5
