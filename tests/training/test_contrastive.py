"""The contrastive stage: which products are pairs, and what learns from them."""

from dataclasses import replace

import pytest
import torch

from models.fusion import collate
from models.product import Product
from tests.tiny_tagger import picture, tiny_checkpoint
from training.contrastive import Clip, contrastive_stage
from training.data import Labelled
from training.network import build
from training.recipe import read_recipe
from training.stages import Material
from training.table import make_taxonomy, read_table


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return Clip(tiny_checkpoint().model, temperature=0.07)


def batch_of(*colours):
    prepare = tiny_checkpoint().preprocessor
    return Labelled(
        collate([prepare(Product(f"{colour} shirt", "", (picture(colour),))) for colour in colours]), (), ()
    )


def test_photos_and_titles_lie_on_one_sphere_and_only_the_text_tower_does_not_learn(clip):
    photos, text = clip(batch_of("red", "green", "blue"))
    for embeddings in (photos, text):
        assert embeddings.shape == (3, 12)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    (photos * text).sum().backward()
    assert clip.photo_tower.visual.proj.grad is not None
    assert clip.text_projection.weight.grad is not None
    assert all(parameter.grad is None for parameter in clip.text_tower.parameters())


def test_the_scale_starts_at_the_temperature_and_ends_at_a_hundred(clip):
    assert clip.scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        clip.logit_scale.fill_(9)
    assert clip.scale().item() == 100


def test_pairs_are_the_first_photo_and_the_title_of_products_that_have_both(recipe_file, catalogue):
    """Photos and titles that went astray or were left out would teach that what belongs together does not."""
    recipe = read_recipe(recipe_file, ("augment.drop_text=0.9", "augment.drop_photos=0.9"))
    table = read_table(catalogue, multiple=["material"])
    whole = [row for row in table.rows if row.photos and row.title][:12]
    rows = [replace(row, photos=row.photos * 2) for row in whole]
    rows += [replace(whole[0], title=""), replace(whole[0], photos=())]
    taxonomy, _ = make_taxonomy(table, table.rows)
    torch.manual_seed(0)
    tagger, preprocessor = build(recipe, taxonomy)
    material = Material(recipe, rows, rows, preprocessor, taxonomy)
    stage = contrastive_stage(tagger, recipe.contrastive, material)
    batches = [labelled.batch for labelled in stage.loader]
    assert sum(map(len, batches)) == 12
    for batch in batches:
        assert len(batch.photos) == len(batch)
        assert batch.token_mask.any(dim=1).all()
    assert stage.validate(stage.network)["loss"] > 0
