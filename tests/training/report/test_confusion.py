"""Mistakes are named with the products that show them."""

from tests.tiny_tagger import TAXONOMY
from training.report.confusion import mistakes_of


def attribute(name):
    return [attribute.name for attribute in TAXONOMY].index(name)


def said(rows, **changed):
    return {name: changed.get(name, [row.values[name][0] for row in rows]) for name in ("colour", "kind")} | {
        "material": changed.get("material", [row.values["material"] for row in rows])
    }


def test_the_most_frequent_mistake_comes_first_with_its_products(measured, row):
    rows = [row(n, colour) for n, colour in enumerate(["red", "red", "red", "green", "blue"])]
    found = mistakes_of(
        measured(rows, said(rows, colour=["red", "blue", "blue", "red", "blue"])), attribute("colour")
    )
    first, second = found.pairs
    assert (first.given, first.tagged, first.count) == ("red", "blue", 2)
    assert first.share == 2 / 3
    assert [example.id for example in first.examples] == ["1", "2"]
    assert (second.given, second.tagged) == ("green", "red")
    assert found.wrong == 3


def test_the_matrix_counts_every_row_of_a_value_once(measured, row):
    rows = [row(n, colour) for n, colour in enumerate(["red", "red", "green", "blue"])]
    matrix = mistakes_of(
        measured(rows, said(rows, colour=["red", "blue", "green", "blue"])), attribute("colour")
    ).matrix
    assert matrix.values == ("red", "blue")
    assert [[cell.count for cell in line] for line in matrix.cells] == [[1, 1, 0], [0, 1, 0]]
    assert [[cell.right for cell in line] for line in matrix.cells] == [
        [True, False, False],
        [False, True, False],
    ]
    assert matrix.rows == (2, 1)


def test_a_value_that_the_taxonomy_lacks_is_a_mistake_by_its_name(measured, row):
    rows = [row(0, "red"), row(1, "pink")]
    found = mistakes_of(measured(rows, said(rows, colour=["red", "red"])), attribute("colour"))
    assert (found.pairs[0].given, found.pairs[0].tagged) == ("pink", "red")
    assert found.weakest[0].value == "pink"


def test_values_of_a_multiple_attribute_are_missed_or_offered_wrongly(measured, row):
    rows = [row(0, material=("cotton", "linen")), row(1, material=("wool",))]
    found = mistakes_of(
        measured(rows, said(rows, material=[("cotton",), ("wool", "cotton")])), attribute("material")
    )
    assert {(pair.given, pair.tagged, pair.examples[0].id) for pair in found.pairs} == {
        ("linen", "", "0"),
        ("", "cotton", "1"),
    }
    assert found.matrix is None
    assert found.wrong == 2


def test_no_mistake_is_no_pair_and_no_matrix(measured, row):
    rows = [row(0, "red"), row(1, "blue")]
    found = mistakes_of(measured(rows, said(rows)), attribute("colour"))
    assert (found.wrong, found.pairs, found.matrix, found.weakest) == (0, (), None, ())
