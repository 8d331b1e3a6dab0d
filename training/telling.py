"""Which words of a product's text give its values away, and the text without them.

Sellers do not write tidy titles: a model is trained and measured on titles without these words as well. The
taxonomy names most of them; a shop's other wordings, of any language, are passed in.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

from models.taxonomy import Taxonomy

# Chinese and Japanese are written without spaces: their words are found inside a text, not between its spaces.
UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# English words that say the same as a value in other letters; a group tells when one of its words does.
SAME_WORDS = (
    ("men", "man", "gent", "gentleman", "gentlemen", "male", "him", "his"),
    ("women", "woman", "lady", "female", "her"),
    ("boy", "girl", "kid", "kidswear", "child", "children", "infant", "toddler", "baby", "junior"),
    ("tshirt", "tee"),
    ("saree", "sari"),
    ("shoe", "footwear", "sneaker", "trainer"),
    ("flip-flop", "slipper", "thong"),
    ("deodorant", "deo"),
    ("duffel", "duffle"),
    ("trousers", "chino"),
    ("jewellery", "jewelry"),
    ("grey", "gray"),
    ("gold", "golden"),
    ("multi", "multicolour", "multicoloured", "multicolor", "multicolored"),
    ("colour", "color", "coloured", "colored"),
)


def stem(word: str) -> str:
    """Lower case, letters and digits only, singular: `T-Shirts` and `tshirt` are one, `Watches` and `watch`; so are the
    wide letters that stand among Chinese ones, `ＸＬ`, and `XL`.

    Not a word of any language: endings that English plurals change are cut off or made alike, which is all
    that comparing needs.
    """
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", word)).lower()
    if not word.endswith("ss"):
        word = word.removesuffix("s")
    if word.endswith("ie"):
        return word.removesuffix("ie") + "y"
    word = word.removesuffix("e")
    return word[:-1] + "f" if word.endswith("v") else word


def telling_words(taxonomy: Taxonomy, wordings: Iterable[str] = ()) -> frozenset[str]:
    """The stems of all words of all values and wordings, and of those written as one word."""
    values = [value for attribute in taxonomy for value in attribute.values]
    words = {stem(word) for wording in (*values, *wordings) for word in (*parts(wording), wording)}
    for group in SAME_WORDS:
        same = {stem(word) for word in group}
        words |= same if same & words else set()
    # A single letter or digit says nothing, but a single Chinese character is a word.
    return frozenset(word for word in words if len(word) > 1 or re.fullmatch(f"[{UNSPACED}]", word))


def without(text: str, words: frozenset[str]) -> str:
    """The text without its telling words; one part of `Navy-Blue` or `Men's` is enough to go.

    Two words that make one when written together, such as `T Shirt`, go together.
    """
    inside = unspaced(words)
    if inside is not None:
        text = inside.sub(" ", text)
    found = text.split()
    telling = [any(stem(part) in words for part in (word, *parts(word))) for word in found]
    for position, (word, following) in enumerate(pairwise(found)):
        if stem(word + following) in words:
            telling[position] = telling[position + 1] = True
    return " ".join(word for word, tells in zip(found, telling, strict=True) if not tells)


def parts(text: str) -> list[str]:
    """The words inside a word or a text, also where two are only set apart by a capital: `JonyBoys`."""
    return [part for part in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", text) if part]


@lru_cache(maxsize=8)  # a run masks with one set of words, or two
def unspaced(words: frozenset[str]) -> re.Pattern[str] | None:
    """Finds the words that are written without spaces, the longest first."""
    found = [word for word in words if re.search(f"[{UNSPACED}]", word)]
    if not found:
        return None
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))), re.IGNORECASE)
