"""The stage in which the photo tower learns by itself, before the fusion: beside a text that tells nearly everything it
would learn little.
"""

from dataclasses import replace

from torch import Tensor, nn

from models.fusion import FusionTagger
from models.taxonomy import Taxonomy
from training.augment import Augmenter
from training.data import Labelled
from training.loop import Report, Stage
from training.losses import head_loss
from training.recipe import AugmentSection, PhotosSection
from training.stages import Material, freeze, parameter_groups, require
from training.table import Row


def photos_stage(tagger: FusionTagger, section: PhotosSection, material: Material) -> Stage:
    """Cross-entropy of the photo-only head on the rows that have photos; their texts are not shown.

    Raises DataError without any.
    """
    recipe, taxonomy = material.recipe, material.taxonomy
    tagger.photo_tower.requires_grad_(True)  # whatever an earlier stage froze
    freeze(tagger.photo_tower.visual, section.photo_frozen)
    shown, held_out = (
        [without_text(row) for row in part if row.photos] for part in (material.rows, material.validation)
    )
    require(
        "photos",
        "photos and a label",
        *([row for row in part if has_label(row, taxonomy)] for part in (shown, held_out)),
    )
    share = recipe.distillation.share if recipe.distillation is not None else 0.0
    photos = AugmentSection(
        drop_text=0,
        drop_photos=0,
        flip=recipe.augment.flip,
        crop=recipe.augment.crop,
        colour=recipe.augment.colour,
    )

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        output = network(batch.batch)
        of, smoothing = output.photo_only, recipe.train.label_smoothing
        return head_loss(of, batch.targets, output.has_photos, taxonomy, smoothing, batch.taught, share), {}

    heads: list[nn.Module] = [tagger.photo_projection, tagger.photo_head]
    return Stage(
        name="photos",
        network=tagger,
        groups=parameter_groups(section, {"photo": [tagger.photo_tower], "heads": heads}, []),
        loader=material.loader(shown, section.batch_size, Augmenter(photos, taxonomy)),
        loss=loss,
        # Without a text the fused answer is the photo's own.
        validate=lambda network: material.figures(network, held_out),
        metric=recipe.early_stopping.metric,
        settings=section,
        stopping=material.stopping(recipe.early_stopping.metric),
    )


def has_label(row: Row, taxonomy: Taxonomy) -> bool:
    return any(row.values.get(attribute.name) for attribute in taxonomy)


def without_text(row: Row) -> Row:
    return replace(row, title="", description="")
