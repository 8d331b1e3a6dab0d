"""The stage in which the classifier of exact words (`models.towers.Lexicon`) learns, by itself and after all others."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.fusion import FusionTagger
from training.augment import Augmenter
from training.data import Labelled
from training.loop import Report, Stage
from training.losses import head_loss
from training.recipe import WordsSection
from training.stages import Material, parameter_groups
from training.table import Row
from training.translate import rewriter

VALIDATION_BATCH = 256


def words_stage(tagger: FusionTagger, section: WordsSection, material: Material) -> Stage:
    """Cross-entropy of the words' own answer on the rows that have a text; their photos are not even read."""
    lexicon, recipe, taxonomy = tagger.lexicon, material.recipe, material.taxonomy
    assert lexicon is not None
    lexicon.requires_grad_(True)
    texts, held_out = (
        [replace(row, photos=()) for row in part if said(row)]
        for part in (material.rows, material.validation)
    )
    rewrite = rewriter(recipe.translate) if recipe.translate else None
    augmenter = Augmenter(recipe.augment, taxonomy, rewrite)

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        logits = network(batch.batch.token_ids, batch.batch.token_mask).split(list(taxonomy.sizes), dim=1)
        everyone = torch.ones_like(batch.batch.token_mask[:, 0])
        return head_loss(logits, batch.targets, everyone, taxonomy, smoothing=0.0), {}

    @torch.inference_mode()
    def validate(network: nn.Module) -> Report:
        """The mean loss over batches of held-out texts."""
        device = next(network.parameters()).device
        loader = material.loader(held_out, VALIDATION_BATCH)
        losses = [loss(network, batch.to(device))[0].item() for batch in loader]
        return {"loss": sum(losses) / max(1, len(losses))}

    return Stage(
        name="words",
        network=lexicon,
        groups=parameter_groups(section, {"heads": [lexicon]}, []),
        loader=material.loader(texts, section.batch_size, augmenter),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=section,
        stopping=material.stopping("loss"),
    )


def said(row: Row) -> bool:
    return bool(row.title or row.description)
