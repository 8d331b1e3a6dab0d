"""The same in other words."""

import numpy as np
import pytest

from models.taxonomy import Attribute, Taxonomy
from training.augment import Augmenter
from training.errors import RecipeError
from training.recipe import AugmentSection
from training.synonyms import Thesaurus

TAXONOMY = Taxonomy((Attribute("kind", ("shirt", "shoe")),))


def wordings(title, thesaurus=None):
    random = np.random.default_rng(0)
    return {(thesaurus or Thesaurus()).reworded(title, random) for _ in range(60)}


def test_words_are_replaced_by_what_means_the_same():
    assert wordings("nike tee") == {"nike tee", "nike tshirt", "nike t-shirt"}
    assert wordings("nike shoe") == {"nike shoe"}


def test_capitals_and_what_stands_around_a_word_stay():
    assert wordings("(Grey) SARI, x") == {
        "(Grey) SARI, x",
        "(Gray) SARI, x",
        "(Grey) SAREE, x",
        "(Gray) SAREE, x",
    }


def test_a_shop_brings_its_own_words(tmp_path):
    (tmp_path / "words.txt").write_text("# tools\nspanner, wrench\n\n", encoding="utf-8")
    assert wordings("spanner tee", Thesaurus(tmp_path / "words.txt")) == {"spanner tee", "wrench tee"}


def test_a_list_with_a_comma_too_many_takes_no_word_away(tmp_path):
    (tmp_path / "words.txt").write_text("spanner, wrench,\n,rasp,, file\n", encoding="utf-8")
    assert wordings("spanner !", Thesaurus(tmp_path / "words.txt")) == {"spanner !", "wrench !"}
    assert wordings("file", Thesaurus(tmp_path / "words.txt")) == {"file", "rasp"}


def test_capitals_of_a_list_and_its_remarks_are_no_matter(tmp_path):
    (tmp_path / "words.txt").write_text("# spanner, nail\nSpanner, Wrench\n", encoding="utf-8")
    assert wordings("spanner nail", Thesaurus(tmp_path / "words.txt")) == {"spanner nail", "Wrench nail"}


def test_half_of_the_words_are_replaced():
    words = Thesaurus().reworded("grey " * 400, np.random.default_rng(0)).split()
    assert 0.4 < np.mean([word == "gray" for word in words]) < 0.6


@pytest.mark.parametrize("text", ["", "# nothing\n", "alone\n", "alone,\n"])
def test_a_thesaurus_without_a_group_is_refused(tmp_path, text):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(RecipeError, match="two words"):
        Thesaurus(tmp_path / "words.txt")
    with pytest.raises(RecipeError, match="cannot be read"):
        Thesaurus(tmp_path / "nowhere.txt")


def test_a_share_of_the_titles_is_reworded():
    section = AugmentSection(synonyms=0.5, mask_values=0, drop_words=0)
    augmenter, random = Augmenter(section, TAXONOMY), np.random.default_rng(0)
    changed = [augmenter.texts("grey saree", "", {}, random)[0] != "grey saree" for _ in range(400)]
    assert 0.25 < np.mean(changed) < 0.5  # a half of them, of which a quarter happens to keep both words
    none = Augmenter(AugmentSection(), TAXONOMY)
    assert {none.texts("grey saree", "", {}, random)[0] for _ in range(50)} == {"grey saree"}
