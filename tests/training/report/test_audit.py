"""The audit finds planted label noise, holes and repetitions."""

from dataclasses import replace
from pathlib import Path

from training.report.audit import catalogue_of, labels_of

COLOURS = ("red", "green", "blue")


def catalogue(row, wrong=()):
    """60 products; those of `wrong` carry the colour that follows the one the model sees."""
    seen = [COLOURS[n % 3] for n in range(60)]
    given = [COLOURS[(n + 1) % 3] if n in wrong else COLOURS[n % 3] for n in range(60)]
    rows = [row(n, colour) for n, colour in enumerate(given)]
    said = {
        "colour": seen,
        "kind": ["shirt"] * 60,
        "material": [values.values["material"] for values in rows],
    }
    return rows, said


def test_planted_label_noise_is_found_and_nothing_else(measured, row):
    labels = labels_of(measured(*catalogue(row, wrong={4, 17})), 0)
    assert {suspicion.row.id for suspicion in labels.shown} == {"4", "17"}
    assert labels.suspicious == 2
    assert {(suspicion.given, suspicion.suggested) for suspicion in labels.shown} == {
        (("blue",), ("green",)),
        (("red",), ("blue",)),
    }


def test_planted_noise_among_several_values_is_found(measured, row):
    given = [("cotton",) if n % 2 else ("wool",) for n in range(60)]
    rows = [row(n, material=("cotton",) if n == 8 else materials) for n, materials in enumerate(given)]
    said = {"colour": ["red"] * 60, "kind": ["shirt"] * 60, "material": given}
    (found,) = labels_of(measured(rows, said), 2).shown
    assert (found.row.id, found.given, found.suggested) == ("8", ("cotton",), ("wool",))


def test_one_value_everywhere_is_no_ground_for_doubt(measured, row):
    rows, said = catalogue(row)
    assert labels_of(measured(rows, {**said, "kind": ["shoe"] * 60}), 1).suspicious == 0


def test_a_value_that_every_product_has_among_several_is_no_ground_either(measured, row):
    rows = [row(n, material=("cotton", "wool") if n % 2 else ("cotton",)) for n in range(60)]
    said = {"colour": ["red"] * 60, "kind": ["shirt"] * 60, "material": [r.values["material"] for r in rows]}
    planted = [replace(rows[0], values={**rows[0].values, "material": ("cotton", "wool")}), *rows[1:]]
    (found,) = labels_of(measured(planted, said), 2).shown
    assert (found.row.id, found.suggested) == ("0", ("cotton",))
    one_varies = [
        row(n, material=("cotton", "wool", "linen") if n % 2 else ("cotton", "wool")) for n in range(60)
    ]
    assert labels_of(measured(one_varies, {**said, "material": [("cotton", "wool")] * 60}), 2).suspicious == 0
    for count in (1, 2, 5):
        alike = [row(n, material=("cotton", "wool")) for n in range(count)]
        told = {name: values[:1] * count for name, values in said.items()}
        assert labels_of(measured(alike, told), 2).suspicious == 0


def test_missing_unknown_and_rare_values_are_counted(measured, row):
    rows = [row(0, ""), row(1, "pink"), row(2, "red"), row(3, "red"), *(row(n, "blue") for n in range(4, 10))]
    said = {
        "colour": ["red"] * 4 + ["blue"] * 6,
        "kind": ["shirt"] * 10,
        "material": [("cotton",)] * 10,
    }
    labels = labels_of(measured(rows, said), 0)
    assert (labels.labelled, labels.missing, labels.rare) == (9, 1, 2)
    assert labels.unknown == ("pink",)
    assert labels.counts == (("blue", 6), ("red", 2), ("pink", 1))


def test_groups_whose_products_carry_different_values_are_at_odds(measured, row):
    given = ["red", "red", "red", "blue", "red", ""]  # two products to a group
    rows = [row(n, colour) for n, colour in enumerate(given)]
    said = {"colour": ["red"] * 6, "kind": ["shirt"] * 6, "material": [("cotton",)] * 6}
    labels = labels_of(measured(rows, said), 0)
    assert (labels.groups, labels.disagreeing) == (2, 1)


def test_the_catalogue_counts_what_its_products_have(row):
    photo = (Path("a.jpg"),)
    wordless = replace(row(3, photos=photo), title="")
    rows = [row(0, photos=photo), row(1), row(2, photos=photo * 2), wordless]
    found = catalogue_of(rows)
    assert (found.both, found.text, found.photos, found.several_photos) == (2, 1, 1, 1)
    assert (found.groups, found.repeated, found.largest) == (2, 4, 2)
