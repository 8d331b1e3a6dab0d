"""The stage in which the photo tower learns by itself, before the fusion: beside a text that tells nearly everything it
would learn little.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.augment import Augmenter
from training.data import Labelled, targets_of
from training.early_stopping import EarlyStopping
from training.evaluation import evaluate_rows, summary
from training.loop import Report, Stage
from training.losses import attribute_loss
from training.recipe import AugmentSection, PhotosSection, Recipe
from training.stages import freeze, loader_of, parameter_groups
from training.table import Row


def photos_stage(
    tagger: FusionTagger,
    section: PhotosSection,
    recipe: Recipe,
    rows: Sequence[Row],
    validation: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
) -> Stage:
    """Cross-entropy of the photo-only head on the rows that have photos; their texts are not shown."""
    stopping, smoothing = recipe.early_stopping, recipe.train.label_smoothing
    freeze(tagger.photo_tower.visual, section.photo_frozen)
    shown, held_out = ([without_text(row) for row in part if row.photos] for part in (rows, validation))
    photos = AugmentSection(
        drop_text=0,
        drop_photos=0,
        flip=recipe.augment.flip,
        crop=recipe.augment.crop,
        colour=recipe.augment.colour,
    )

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        output = network(batch.batch)
        parts = [
            attribute_loss(logits, target, output.has_photos, attribute.multiple, smoothing)
            for logits, target, attribute in zip(output.photo_only, batch.targets, taxonomy, strict=True)
        ]
        return torch.stack(parts).mean(), {}

    def validate(network: nn.Module) -> Report:
        """Without a text the fused answer is the photo's own."""
        assert isinstance(network, FusionTagger)
        logits = evaluate_rows(network, held_out, preprocessor, recipe.data.workers)
        return summary(logits, targets_of(held_out, taxonomy), taxonomy)

    heads: list[nn.Module] = [tagger.photo_projection, tagger.photo_head]
    return Stage(
        name="photos",
        network=tagger,
        groups=parameter_groups(section, {"photo": [tagger.photo_tower], "heads": heads}, []),
        loader=loader_of(
            shown,
            preprocessor,
            taxonomy,
            section.batch_size,
            recipe.data.workers,
            Augmenter(photos, taxonomy),
            recipe.train.seed,
        ),
        loss=loss,
        validate=validate,
        metric=stopping.metric,
        settings=section,
        stopping=EarlyStopping(stopping.patience, stopping.min_delta, stopping.metric != "loss"),
    )


def without_text(row: Row) -> Row:
    return replace(row, title="", description="")
