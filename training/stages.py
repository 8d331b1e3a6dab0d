"""The stages of a recipe as the loop sees them: CLIP's contrastive stage, the fine-tuning of the tagger, and its
rebalancing towards rare values.
"""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.adapters import Adapters
from training.adversarial import attacked
from training.augment import Augmenter
from training.data import Collator, Labelled, Products, targets_of
from training.early_stopping import EarlyStopping
from training.evaluation import evaluate_rows, summary
from training.loop import Report, Stage
from training.losses import tagging_loss
from training.rebalance import repeated
from training.recipe import AugmentSection, ContrastiveSection, OptimizerSection, RebalanceSection, Recipe
from training.remembered import remember
from training.table import Row
from training.translate import rewriter

VALIDATION_BATCH = 256


class Clip(nn.Module):
    """The tagger's two towers in one space; only the photo tower and the text's projection learn."""

    def __init__(self, tagger: FusionTagger, temperature: float) -> None:
        super().__init__()
        self.text_tower = tagger.text_tower
        self.photo_tower = tagger.photo_tower
        self.text_projection = nn.Linear(tagger.text_tower.width, tagger.photo_tower.width)
        self.logit_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def forward(self, labelled: Labelled) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, D) of the photos and of the text, one of each for every product."""
        batch = labelled.batch
        with torch.no_grad():
            text = self.text_tower(batch.token_ids, batch.type_ids, batch.token_mask)
        text = functional.normalize(self.text_projection(text), dim=-1)
        return functional.normalize(self.photo_tower(batch.photos), dim=-1), text

    def scale(self) -> Tensor:
        """At most 100, as in the paper (Radford et al. 2021, section 2.5)."""
        return self.logit_scale.exp().clamp(max=100)


def contrastive_stage(
    tagger: FusionTagger,
    section: ContrastiveSection,
    recipe: Recipe,
    rows: Sequence[Row],
    validation: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
) -> Stage:
    """Photo-title pairs of the rows that have both; each product's first photo."""
    clip = Clip(tagger, section.temperature)
    freeze(clip.text_tower, ("",))
    freeze(clip.photo_tower.visual, section.photo_frozen)
    pairs = [first_photo(row) for row in rows if row.photos and row.title]
    held_out = [first_photo(row) for row in validation if row.photos and row.title]
    # A pair without its photo or its title is no pair.
    crops = AugmentSection(drop_text=0, drop_photos=0, flip=recipe.augment.flip, crop=recipe.augment.crop)
    augmenter = Augmenter(crops, taxonomy)
    loss_of = open_clip.ClipLoss()

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        photos, text = network(batch)
        value = loss_of(photos, text, clip.scale())
        return value, {"scale": clip.scale().item()}

    @torch.inference_mode()
    def validate(network: nn.Module) -> Report:
        """The mean loss over batches of held-out pairs."""
        assert isinstance(network, Clip)
        losses = []
        for batch in loader_of(held_out, preprocessor, taxonomy, section.batch_size, recipe.data.workers):
            photos, text = network(batch.to(network.logit_scale.device))
            losses.append(loss_of(photos, text, network.scale()).item())
        return {"loss": sum(losses) / len(losses)}

    return Stage(
        name="contrastive",
        network=clip,
        groups=parameter_groups(
            section, {"photo": [clip.photo_tower], "heads": [clip.text_projection]}, [clip.logit_scale]
        ),
        loader=loader_of(
            pairs,
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
        stopping=EarlyStopping(
            recipe.early_stopping.patience, recipe.early_stopping.min_delta, higher_is_better=False
        ),
    )


def tagging_stage(
    tagger: FusionTagger,
    recipe: Recipe,
    rows: Sequence[Row],
    validation: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    adapters: Adapters | None = None,
) -> Stage:
    """Cross-entropy over every labelled attribute, fused and from each modality alone."""
    return supervised(
        "tagging", recipe.train, tagger, recipe, rows, validation, preprocessor, taxonomy, adapters
    )


def rebalance_stage(
    tagger: FusionTagger,
    section: RebalanceSection,
    recipe: Recipe,
    rows: Sequence[Row],
    validation: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    adapters: Adapters | None = None,
) -> Stage:
    """The same once more, with rare values shown more often."""
    shown = repeated(rows, taxonomy, section.rare_share, recipe.train.seed)
    return supervised(
        "rebalance", section, tagger, recipe, shown, validation, preprocessor, taxonomy, adapters
    )


def supervised(
    name: str,
    section: OptimizerSection,
    tagger: FusionTagger,
    recipe: Recipe,
    rows: Sequence[Row],
    validation: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    adapters: Adapters | None,
) -> Stage:
    train, stopping = recipe.train, recipe.early_stopping
    for parameter in tagger.parameters():
        parameter.requires_grad_(True)
    if adapters is not None:
        adapters.only_these_learn()
    freeze(tagger.text_tower.encoder, section.text_frozen)
    freeze(tagger.photo_tower.visual, section.photo_frozen)
    if tagger.lexicon is not None:
        freeze(tagger.lexicon, ("",))  # it has a stage of its own
    augment = recipe.augment
    if not any(parameter.requires_grad for parameter in tagger.photo_tower.parameters()):
        remember(tagger)
        augment = augment.model_copy(update={"flip": 0.0, "crop": 0.0, "colour": 0.0})
    parts: dict[str, list[nn.Module]] = {"text": [tagger.text_tower], "photo": [tagger.photo_tower]}
    towers = {"text_tower", "photo_tower"}
    parts["heads"] = [module for name, module in tagger.named_children() if name not in towers]
    ranks = adapters.ranks if adapters is not None else None

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        output = network(batch.batch)
        value, report = tagging_loss(
            output, batch.targets, taxonomy, train.unimodal_weight, train.label_smoothing
        )
        return (value if ranks is None else value + ranks.regularizer()), report

    def validate(network: nn.Module) -> Report:
        assert isinstance(network, FusionTagger)
        logits = evaluate_rows(network, validation, preprocessor, recipe.data.workers)
        return summary(logits, targets_of(validation, taxonomy), taxonomy)

    words = tagger.text_tower.encoder.get_input_embeddings()
    return Stage(
        name=name,
        network=tagger,
        groups=parameter_groups(section, parts, [tagger.absent_text, tagger.absent_photos]),
        loader=loader_of(
            rows,
            preprocessor,
            taxonomy,
            section.batch_size,
            recipe.data.workers,
            Augmenter(augment, taxonomy, rewriter(recipe.translate) if recipe.translate else None),
            train.seed,
        ),
        loss=loss if recipe.adversarial is None else attacked(loss, words, recipe.adversarial),
        validate=validate,
        metric=stopping.metric,
        settings=section,
        stopping=EarlyStopping(stopping.patience, stopping.min_delta, stopping.metric != "loss"),
        after_step=ranks,
    )


def loader_of(
    rows: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    batch_size: int,
    workers: int,
    augmenter: Augmenter | None = None,
    seed: int = 0,
) -> DataLoader[Any]:
    """Shuffled and augmented when there is an augmenter; in order and plain otherwise."""
    products = Products(rows, preprocessor, augmenter, seed)
    return DataLoader(
        products,
        batch_size=batch_size,
        shuffle=augmenter is not None,
        # A last batch of one product would make a noisy step; a table smaller than a batch still needs its
        # only one.
        drop_last=augmenter is not None and len(rows) >= batch_size,
        collate_fn=Collator(targets_of(rows, taxonomy)),
        num_workers=workers,
        # Its own: starting an epoch in the middle must not shift the random numbers of dropout.
        generator=torch.Generator(),
    )


def freeze(module: nn.Module, prefixes: Sequence[str]) -> None:
    for name, parameter in module.named_parameters():
        if any(name.startswith(prefix) for prefix in prefixes):
            parameter.requires_grad_(False)


def parameter_groups(
    section: OptimizerSection, modules: dict[str, list[nn.Module]], loose: list[nn.Parameter]
) -> list[dict[str, Any]]:
    """A group for each part and decay; vectors (biases, norms, loose parameters) are never decayed."""
    rates = {"text": section.text_lr, "photo": section.photo_lr, "heads": section.heads_lr}
    groups = [{"params": loose, "lr": section.heads_lr, "weight_decay": 0.0}]
    for part, parts in modules.items():
        learning = [p for module in parts for p in module.parameters() if p.requires_grad]
        groups.append({"params": [p for p in learning if p.ndim > 1], "lr": rates[part]})
        groups.append(
            {"params": [p for p in learning if p.ndim <= 1], "lr": rates[part], "weight_decay": 0.0}
        )
    return [group for group in groups if group["params"]]


def first_photo(row: Row) -> Row:
    return Row(row.id, row.title, row.description, row.photos[:1], row.group, row.values)
