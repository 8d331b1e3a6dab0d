"""The Chinese wordings that titles are translated with: complete, unambiguous, and the measured ones unseen."""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

GLOSSARY = tomllib.loads(Path("training/glossaries/fashion-zh.toml").read_text(encoding="utf-8"))
TAXONOMY = {
    attribute["name"]: attribute["values"]
    for attribute in json.loads(Path("models/starter/taxonomy.json").read_text(encoding="utf-8"))[
        "attributes"
    ]
}
MEASURED = ("article_type", "base_colour", "gender")
CJK = re.compile(r"[\u4e00-\u9fff]")


def wordings(table):
    return [wording for several in table.values() for wording in several]


def every_training_wording():
    of_values = [wording for table in GLOSSARY["values"].values() for wording in wordings(table)]
    return (
        of_values
        + wordings(GLOSSARY["words"])
        + wordings(GLOSSARY["brands"])
        + GLOSSARY["selling"]["phrases"]
    )


def every_held_out_wording():
    return [wording for table in GLOSSARY["held_out"].values() for wording in wordings(table)]


def test_every_value_of_the_taxonomy_has_at_least_three_wordings():
    few = [
        (attribute, value)
        for attribute, values in TAXONOMY.items()
        for value in values
        if len(GLOSSARY["values"][attribute].get(value, ())) < 3
    ]
    assert few == []


@pytest.mark.parametrize("part", ["values", "held_out"])
def test_only_values_of_the_taxonomy_have_wordings(part):
    unknown = [
        (attribute, value)
        for attribute, table in GLOSSARY[part].items()
        for value in table
        if value not in TAXONOMY[attribute]
    ]
    assert unknown == []


def test_every_wording_is_chinese():
    wordings_of_all = every_training_wording() + every_held_out_wording()
    assert [wording for wording in wordings_of_all if not CJK.search(wording)] == []


@pytest.mark.parametrize("attribute", sorted(TAXONOMY))
def test_no_wording_stands_for_two_values_of_an_attribute_or_is_trained_and_measured(attribute):
    counts = Counter(wordings(GLOSSARY["values"][attribute]))
    counts.update(wordings(GLOSSARY["held_out"].get(attribute, {})))
    assert [wording for wording, times in counts.items() if times > 1] == []


@pytest.mark.parametrize("attribute", MEASURED)
def test_every_value_of_the_measured_attributes_has_a_held_out_wording(attribute):
    table = GLOSSARY["held_out"][attribute]
    assert [value for value in TAXONOMY[attribute] if not table.get(value)] == []


def test_a_held_out_wording_is_nowhere_among_the_training_wordings():
    assert set(every_held_out_wording()) & set(every_training_wording()) == set()


def test_a_held_out_wording_is_more_than_a_training_wording_of_its_value_with_or_without_the_word_colour():
    same = [
        held_out
        for attribute, table in GLOSSARY["held_out"].items()
        for value, several in table.items()
        for held_out in several
        if held_out.rstrip("色") in {wording.rstrip("色") for wording in GLOSSARY["values"][attribute][value]}
    ]
    assert same == []


def test_selling_phrases_say_nothing_of_the_product():
    telling = [
        (phrase, wording)
        for attribute in ("gender", "base_colour", "article_type", "season", "usage")
        for wording in wordings(GLOSSARY["values"][attribute])
        for phrase in GLOSSARY["selling"]["phrases"]
        if len(wording) > 1 and wording in phrase
    ]
    assert telling == []


def test_words_and_phrases_are_written_in_lower_case():
    assert [words for words in GLOSSARY["words"] if words != words.lower().strip()] == []


def sentences(part):
    return [*GLOSSARY[part]["original"], *GLOSSARY[part]["translated"]]


@pytest.mark.parametrize("part", ["descriptions", "held_out_descriptions"])
def test_the_slots_of_sentences_name_what_there_is(part):
    slots = {slot for sentence in sentences(part) for slot in re.findall(r"\{~?(\w+)\}", sentence)}
    assert slots <= {*TAXONOMY, "word", "brand"}
    assert not any(
        re.sub(r"\{~?\w+\}", "", sentence).count(brace) for sentence in sentences(part) for brace in "{}"
    )


def test_no_held_out_sentence_is_a_training_one():
    assert not set(sentences("descriptions")) & set(sentences("held_out_descriptions"))
    assert len(set(sentences("descriptions"))) == len(sentences("descriptions"))
