"""The checkpoint that is shipped: it loads, is small, and tags the three samples as a person would."""

import json
from pathlib import Path

import pytest

from models import Product, Tagger

STARTER = Path("models/starter")
SAMPLES = {sample["photo"]: sample for sample in json.loads(Path("samples/products.json").read_text())}
EXPECTED = {
    "tshirt.jpg": ("Men", "Apparel", "Topwear", "Tshirts", "Navy Blue"),
    "handbag.jpg": ("Women", "Accessories", "Bags", "Handbags", "Red"),
    "watch.jpg": ("Men", "Accessories", "Watches", "Watches", "Black"),
}
ATTRIBUTES = ("gender", "master_category", "sub_category", "article_type", "base_colour")
OF_OTHER_THINGS = (
    "Rinse by hand, dry flat in the shade. Free returns. Goes well with white trousers and brown sandals."
)


@pytest.fixture(scope="module")
def tagger():
    return Tagger.load(STARTER)


def values(tagger, product):
    tags = tagger.predict([tagger.prepare(product)])[0].tags
    return {tag.attribute: tag.value for tag in tags}


@pytest.mark.parametrize("photo", sorted(EXPECTED))
@pytest.mark.parametrize("shown", ["everything", "no description", "no photo", "other things"])
def test_it_tags_the_samples_sensibly(tagger, photo, shown):
    sample = SAMPLES[photo]
    description = {"no description": "", "other things": OF_OTHER_THINGS}.get(shown, sample["description"])
    photos = () if shown in ("no photo", "other things") else (Path("samples", photo).read_bytes(),)
    tagged = values(tagger, Product(sample["title"], description, photos))
    assert tuple(tagged[attribute] for attribute in ATTRIBUTES) == EXPECTED[photo]


@pytest.mark.parametrize("photo", sorted(EXPECTED))
def test_it_knows_the_kind_of_product_from_the_photo_alone(tagger, photo):
    tagged = values(tagger, Product(photos=(Path("samples", photo).read_bytes(),)))
    assert tagged["article_type"] == EXPECTED[photo][3]


def test_it_stays_under_60_mb():
    assert sum(file.stat().st_size for file in STARTER.rglob("*") if file.is_file()) < 60_000_000


def test_its_card_says_what_its_metrics_say(tagger):
    metrics = tagger.checkpoint.metrics
    for name, entry in metrics["test"]["attributes"].items():
        fused = entry["fused"]
        line = next(line for line in tagger.checkpoint.card.splitlines() if line.startswith(f"| {name} "))
        assert f"{fused['accuracy']:.3f} / {fused['macro_f1']:.3f}" in line
