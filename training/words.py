"""The stage in which the classifier of exact words (`models.towers.Lexicon`) learns, by itself and after all others.

The one that a checkpoint brings along knows the words of its own trade. In another trade they are in the way of those
that matter there, so a fresh one learns as well, and the one with the lower loss on held-out texts is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.towers import Lexicon
from training.augment import Augmenter
from training.data import Labelled
from training.loop import Report, Stage
from training.losses import head_loss
from training.stages import Material, parameter_groups
from training.table import Row
from training.translate import rewriter

VALIDATION_BATCH = 256


def learn_words(model: FusionTagger, material: Material, train: Callable[[Stage], Report]) -> str:
    """In place; `train` runs a stage and returns the figures of its best validation. Returns the stage that is kept."""
    contenders = lexicons(model, material)
    losses = {name: train(words_stage(name, of, material))["loss"] for name, of in contenders.items()}
    kept = min(losses, key=losses.__getitem__)
    model.lexicon = contenders[kept]
    model.config = replace(model.config, lexicon=model.lexicon.rows)
    return kept


def lexicons(model: FusionTagger, material: Material) -> dict[str, Lexicon]:
    """Those to choose from, by the name of their stage: the one that a checkpoint has brought along, and a fresh one
    unless the recipe keeps what the heads know, of which its own are a part.
    """
    recipe = material.recipe
    found: dict[str, Lexicon] = {}
    if model.lexicon is not None and not recipe.backbones.untrained:
        found["words"] = model.lexicon
    if not found or not (recipe.backbones.keep_heads or recipe.replay is not None):
        fresh = Lexicon(recipe.model.lexicon, sum(model.config.sizes))
        start_by_rarity(fresh, material.preprocessor, material.rows, recipe.train.seed)
        found["words_anew" if found else "words"] = fresh.to(model.absent_text.device)
    return found


@torch.no_grad()
def start_by_rarity(lexicon: Lexicon, preprocessor: Preprocessor, rows: Sequence[Row], seed: int) -> None:
    """Fresh vectors as long as their words and pairs are rare (inverse document frequency, Sparck Jones 1972): long
    descriptions are mostly words that all products share, and these would drown the few that tell.
    """
    texts = torch.zeros(lexicon.rows)  # how many have a word or pair of the row
    for row in rows:
        token_ids = torch.from_numpy(preprocessor.tokens(row.title, row.description)[0])
        texts[torch.cat([lexicon.rows_of_words(token_ids), lexicon.rows_of_pairs(token_ids)]).unique()] += 1
    rarity = ((1 + len(rows)) / (1 + texts)).log()
    lexicon.table.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    lexicon.table.weight.mul_((rarity / rarity.mean()).unsqueeze(1))


def words_stage(name: str, lexicon: Lexicon, material: Material) -> Stage:
    """Cross-entropy of the words' own answer on the rows that have a text; their photos are not even read."""
    recipe, taxonomy, section = material.recipe, material.taxonomy, material.recipe.words
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
        name=name,
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
