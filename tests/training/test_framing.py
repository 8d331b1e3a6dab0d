"""The photo tower learns to see photos in other frames as it saw them in its own."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from models.taxonomy import Attribute, Taxonomy
from training.framing import (
    OFF_CENTRE,
    Remembering,
    apart,
    border,
    framing_stage,
    in_a_frame,
    place,
    reframed,
)
from training.loop import run
from training.network import build
from training.recipe import read_recipe
from training.stages import Material
from training.table import make_taxonomy, read_table

GREY, RED = (200, 201, 202), (250, 10, 20)


def picture(side=40):
    """A red square in the middle of grey, uint8 (3, S, S)."""
    photo = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].expand(3, side, side).clone()
    quarter = side // 4
    photo[:, quarter : side - quarter, quarter : side - quarter] = torch.tensor(RED, dtype=torch.uint8)[
        :, None, None
    ]
    return photo


def extent(photo):
    """Height and width of what is red."""
    red = photo[1] < 100
    return int(red.any(dim=1).sum()), int(red.any(dim=0).sum())


def test_what_a_photo_shows_gets_another_size_shape_and_place_on_the_colour_of_its_border():
    torch.manual_seed(0)
    photos = [in_a_frame(picture()) for _ in range(200)]
    for photo in photos:
        assert photo.shape == (3, 40, 40) and photo.dtype == torch.uint8
        assert border(photo).tolist() == list(GREY)
    extents = [extent(photo) for photo in photos]
    shares = [height * width / 400 for height, width in extents]
    assert min(shares) < 0.3 and max(shares) > 1.0, "smaller for the most part, and a little larger"
    stretches = [width / height for height, width in extents]
    assert min(stretches) < 0.85 and max(stretches) > 1.2
    left = [int((photo[1] < 100).any(dim=0).nonzero()[0]) for photo in photos]
    assert len(set(left)) > 10


@pytest.mark.parametrize("length", [1, 13, 40, 41, 55])
def test_a_picture_lies_in_its_frame_not_far_from_the_middle(length):
    torch.manual_seed(0)
    begins = {place(length, 40) for _ in range(200)}
    free = 40 - length
    for begin, cut in begins:
        assert begin == 0 or cut == 0
        assert abs(begin - cut - free / 2) <= abs(free) / 2 * OFF_CENTRE + 0.5
    assert len(begins) > 1 or abs(free) < 3


def test_a_part_of_the_photos_stays_plain():
    torch.manual_seed(0)
    photos = picture().expand(200, -1, -1, -1)
    same = sum(torch.equal(photo, picture()) for photo in reframed(photos))
    assert 20 <= same <= 60  # PLAIN of them


@pytest.fixture
def stage_of(recipe_file, catalogue, tmp_path):
    """The stage over the catalogue's rows, and its tagger."""
    recipe = read_recipe(
        recipe_file, ("framing.epochs=3", "framing.batch_size=16", "framing.photo_lr=2e-3", "augment.flip=0")
    )
    table = read_table(catalogue, multiple=["material"])
    taxonomy, _ = make_taxonomy(table, table.rows)
    drawn = torch.Generator().manual_seed(0)
    for number, row in enumerate(table.rows):
        if row.photos:  # those of the catalogue have one colour, which looks alike in every frame
            photo = picture()
            photo[:, photo[1] < 100] = torch.randint(0, 100, (3, 1), generator=drawn, dtype=torch.uint8)
            Image.fromarray(photo.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    rows = [
        replace(row, photos=(tmp_path / f"{number}.png",) if row.photos else ())
        for number, row in enumerate(table.rows)
    ]
    torch.manual_seed(0)
    tagger, preprocessor = build(recipe, taxonomy)
    material = Material(recipe, rows[:180], rows[180:], preprocessor, taxonomy)
    return framing_stage(tagger, recipe.framing, material), tagger


def test_it_learns_to_see_reframed_photos_as_before_and_touches_the_photo_tower_alone(stage_of, tmp_path):
    stage, tagger = stage_of
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    untaught = stage.validate(stage.network)
    best = run(stage, Accelerator(cpu=True), tmp_path / "framing", 1000)
    assert best["loss"] < 0.8 * untaught["loss"]
    changed = {name for name, tensor in tagger.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed
    assert all(name.startswith("photo_tower.") for name in changed)
    kept = stage.network.before.state_dict()
    assert all(torch.equal(before[f"photo_tower.{name}"], tensor) for name, tensor in kept.items())


def test_it_is_validated_in_the_same_frames_each_time_and_draws_no_random_numbers(stage_of):
    stage, _ = stage_of
    torch.manual_seed(7)
    first = stage.validate(stage.network.eval())
    drawn = torch.rand(())
    torch.manual_seed(7)
    assert torch.rand(()) == drawn
    assert stage.validate(stage.network) == first


def test_the_tower_as_it_was_never_trains_and_plain_photos_cost_nothing(stage_of, monkeypatch):
    stage, tagger = stage_of
    stage.network.train()
    assert tagger.photo_tower.training and not stage.network.before.training
    monkeypatch.setattr("training.framing.PLAIN", 1.0)
    side = stage.loader.dataset.preprocessor.config.photo_size
    network = Remembering(tagger.photo_tower).eval()
    photos = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    assert apart(*network(photos)).item() == pytest.approx(0, abs=1e-6)


def held_out(stage_of, recipe_file, rows, batch_size=16):
    """The stage's validation on these of its rows."""
    stage, tagger = stage_of
    products = stage.loader.dataset
    recipe = read_recipe(recipe_file, ("framing.epochs=1", f"framing.batch_size={batch_size}"))
    taxonomy = Taxonomy((Attribute("kind", ("ring", "watch")),))
    material = Material(recipe, products.rows, rows, products.preprocessor, taxonomy)
    return framing_stage(tagger, recipe.framing, material).validate(stage.network.eval())


def test_a_photo_alone_in_the_last_batch_weighs_no_more_than_the_others(stage_of, recipe_file):
    rows = stage_of[0].loader.dataset.rows[:17]
    at_once = held_out(stage_of, recipe_file, rows, batch_size=17)
    assert held_out(stage_of, recipe_file, rows)["loss"] == pytest.approx(at_once["loss"], rel=1e-3)


def test_photos_of_products_that_were_described_as_well_are_looked_at_once(stage_of, recipe_file):
    rows = stage_of[0].loader.dataset.rows[:17]
    told = [replace(row, description="Wash cold.") for row in rows]
    assert held_out(stage_of, recipe_file, [*rows, *told]) == held_out(stage_of, recipe_file, rows)


def test_validating_leaves_the_random_numbers_of_a_gpu_alone(stage_of, monkeypatch):
    stage, _ = stage_of
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    stage.validate(stage.network.eval())
    assert seeds == []
