"""The stage in which the tagger learns, and its rebalancing towards rare values."""

from dataclasses import replace

from torch import Tensor, nn

from models.fusion import FusionTagger
from training.adapters import Adapters
from training.adversarial import Loss, attacked
from training.augment import Augmenter
from training.data import Labelled
from training.loop import Report, Stage
from training.losses import tagging_loss
from training.rebalance import repeated
from training.recipe import AdversarialSection, OptimizerSection, RebalanceSection
from training.remembered import remember
from training.stages import Material, freeze, parameter_groups
from training.translate import rewriter


def tagging_stage(tagger: FusionTagger, material: Material, adapters: Adapters | None = None) -> Stage:
    """Cross-entropy over every labelled attribute, fused and from each modality alone."""
    return supervised("tagging", material.recipe.train, tagger, material, adapters)


def rebalance_stage(
    tagger: FusionTagger, section: RebalanceSection, material: Material, adapters: Adapters | None = None
) -> Stage:
    """The same once more, with rare values shown more often."""
    seed = material.recipe.train.seed
    shown = repeated(material.rows, material.taxonomy, section.rare_share, seed)
    return supervised("rebalance", section, tagger, replace(material, rows=shown), adapters)


def supervised(
    name: str,
    section: OptimizerSection,
    tagger: FusionTagger,
    material: Material,
    adapters: Adapters | None,
) -> Stage:
    recipe, taxonomy = material.recipe, material.taxonomy
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
    share = recipe.distillation.share if recipe.distillation is not None else 0.0

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        output = network(batch.batch)
        weight, smoothing = recipe.train.unimodal_weight, recipe.train.label_smoothing
        return tagging_loss(output, batch.targets, taxonomy, weight, smoothing, batch.taught, share)

    def regularized(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        value, report = loss(network, batch)
        return (value if ranks is None else value + ranks.regularizer()), report

    def harder(section: AdversarialSection) -> Loss:
        return attacked(loss, words, section, None if ranks is None else ranks.regularizer)

    rewrite = rewriter(recipe.translate) if recipe.translate else None
    words = tagger.text_tower.encoder.get_input_embeddings()
    return Stage(
        name=name,
        network=tagger,
        groups=parameter_groups(section, parts, [tagger.absent_text, tagger.absent_photos]),
        loader=material.loader(material.rows, section.batch_size, Augmenter(augment, taxonomy, rewrite)),
        loss=regularized if recipe.adversarial is None else harder(recipe.adversarial),
        validate=lambda network: material.figures(network, material.validation),
        metric=recipe.early_stopping.metric,
        settings=section,
        stopping=material.stopping(recipe.early_stopping.metric),
        after_step=ranks,
    )
