"""What a masked title keeps, and what it must lose."""

import pytest

from models.taxonomy import Attribute, Taxonomy
from training.telling import telling_words, without

TAXONOMY = Taxonomy(
    (
        Attribute("gender", ("Men", "Women", "Boys")),
        Attribute("colour", ("Navy Blue", "Red", "Gold", "Grey")),
        Attribute(
            "type", ("Tshirts", "Casual Shoes", "Watches", "Dresses", "Scarves", "Gloves", "Accessories")
        ),
    )
)
WORDS = telling_words(TAXONOMY)


@pytest.mark.parametrize(
    "title",
    [
        "Tshirts",
        "T-shirt",
        "t shirts",
        "Tee",
        "WATCH",
        "watches",
        "Dress",
        "scarf",
        "glove",
        "accessory",
        "sneakers",
        "Men's",
        "womens",
        "Ladies",
        "kids",
        "MenShoes",
        "navy-blue",
        "Blue/Red",
        "golden",
        "gray",
        "(red)",
    ],
)
def test_a_value_in_another_spelling_tells_as_much(title):
    assert without(f"Nike {title} Pro", WORDS) == "Nike Pro"


def test_a_value_of_two_words_tells_as_much_when_they_are_written_together():
    words = telling_words(Taxonomy((Attribute("type", ("Hand-Bags", "Track Pants")),)), ("rain coat",))
    assert without("Nike handbag trackpants raincoats Pro", words) == "Nike Pro"


def test_words_that_only_share_letters_with_a_value_stay():
    title = "Nike Redefine Mentor Goldman watchful Boyd T 20"
    assert without(title, WORDS) == title


def test_words_of_no_attribute_of_this_taxonomy_stay():
    colours = telling_words(Taxonomy((Attribute("colour", ("red", "blue")),)))
    assert without("Men's red tee for kids", colours) == "Men's tee for kids"


def test_wordings_of_a_language_without_spaces_are_found_inside_the_text():
    words = telling_words(TAXONOMY, ("红色", "红", "女士", "运动鞋", "T恤"))
    assert without("李宁女士红色透气运动鞋 新款", words) == "李宁 透气 新款"
    assert without("纯棉T恤", words) == "纯棉"


def test_values_of_a_language_without_spaces_need_no_wordings():
    words = telling_words(Taxonomy((Attribute("颜色", ("红", "深蓝")),)))
    assert without("深蓝耳机 红", words) == "耳机"


def test_japanese_and_rare_chinese_characters_are_found_inside_the_text():
    words = telling_words(Taxonomy((Attribute("種類", ("シャツ", "くつ", "㐂")),)))
    assert without("白いシャツ新品 黒くつ 㐂寿", words) == "白い 新品 黒 寿"


def test_wide_letters_tell_as_much_as_narrow_ones():
    words = telling_words(
        Taxonomy((Attribute("尺码", ("XL", "均码")), Attribute("kind", ("Ｐｏｌｏ", "shirt"))))
    )
    assert without("ＸＬ 耳机 polo 均码 Ｓhirt", words) == "耳机"


def test_single_letters_and_signs_say_nothing():
    words = telling_words(Taxonomy((Attribute("size", ("S", "M", "XL")),)))
    assert without("Nike M & S Co XL", words) == "Nike M & S Co"
