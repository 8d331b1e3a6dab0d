"""The stage in which the classifier of exact words (`models.towers.Lexicon`) learns, by itself and after all others."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.augment import Augmenter
from training.data import Labelled
from training.early_stopping import EarlyStopping
from training.loop import Report, Stage
from training.losses import attribute_loss
from training.recipe import Recipe
from training.stages import VALIDATION_BATCH, loader_of, parameter_groups
from training.table import Row
from training.translate import rewriter


def words_stage(
    tagger: FusionTagger,
    recipe: Recipe,
    rows: Sequence[Row],
    validation: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
) -> Stage:
    """Cross-entropy of the words' own answer on the rows that have a text; their photos are not even read."""
    lexicon, section, stopping = tagger.lexicon, recipe.words, recipe.early_stopping
    assert lexicon is not None
    lexicon.requires_grad_(True)
    texts, held_out = ([replace(r, photos=()) for r in part if said(r)] for part in (rows, validation))
    rewrite = rewriter(recipe.translate) if recipe.translate else None
    augmenter = Augmenter(recipe.augment, taxonomy, rewrite)

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        logits = network(batch.batch.token_ids, batch.batch.token_mask).split(list(taxonomy.sizes), dim=1)
        everyone = torch.ones_like(batch.batch.token_mask[:, 0])
        parts = [
            attribute_loss(logits[a], batch.targets[a], everyone, attribute.multiple, 0.0)
            for a, attribute in enumerate(taxonomy)
        ]
        return torch.stack(parts).mean(), {}

    @torch.inference_mode()
    def validate(network: nn.Module) -> Report:
        """The mean loss over batches of held-out texts."""
        device = next(network.parameters()).device
        loader = loader_of(held_out, preprocessor, taxonomy, VALIDATION_BATCH, recipe.data.workers)
        losses = [loss(network, batch.to(device))[0].item() for batch in loader]
        return {"loss": sum(losses) / max(1, len(losses))}

    return Stage(
        name="words",
        network=lexicon,
        groups=parameter_groups(section, {"heads": [lexicon]}, []),
        loader=loader_of(
            texts,
            preprocessor,
            taxonomy,
            section.batch_size,
            recipe.data.workers,
            augmenter,
            recipe.train.seed,
        ),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=section,
        stopping=EarlyStopping(stopping.patience, stopping.min_delta, higher_is_better=False),
    )


def said(row: Row) -> bool:
    return bool(row.title or row.description)
