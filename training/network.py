"""The network that a run starts with, by its recipe: pretrained towers, or those of a checkpoint, and fresh heads."""

from dataclasses import replace

from models.backbones import Backbones, from_backbones
from models.checkpoint import Checkpoint, load_to_train
from models.fusion import FusionConfig, FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from models.towers import most_tokens
from training.errors import RecipeError
from training.heads import keep_heads
from training.recipe import Recipe


def build(recipe: Recipe, taxonomy: Taxonomy) -> tuple[FusionTagger, Preprocessor]:
    """A network with trained towers and heads for this taxonomy; all of it fresh where the recipe says untrained."""
    model, preprocessor = started(recipe, taxonomy)
    if recipe.backbones.untrained:
        model = FusionTagger(model.config)
        model.photo_tower.normalise_with(preprocessor.config.mean, preprocessor.config.std)
    return model, preprocessor


def started(recipe: Recipe, taxonomy: Taxonomy) -> tuple[FusionTagger, Preprocessor]:
    if recipe.backbones.checkpoint:
        return from_checkpoint(load_to_train(recipe.backbones.checkpoint), taxonomy, recipe)
    section = recipe.backbones
    model, preprocessing, tokenizer = from_backbones(
        Backbones(section.text, section.photo, section.photo_pretrained, section.photo_weights),
        taxonomy,
        recipe.model.width,
        recipe.model.dropout,
        recipe.model.max_tokens,
        recipe.model.max_photos,
    )
    return model, Preprocessor(preprocessing, tokenizer)


def from_checkpoint(old: Checkpoint, taxonomy: Taxonomy, recipe: Recipe) -> tuple[FusionTagger, Preprocessor]:
    """The old towers and projections with fresh heads: every tensor whose name and shape still fit is kept,
    except the heads themselves, whose rows mean other values now. Where the recipe keeps heads, the rows of shared
    values are."""
    config = FusionConfig(
        old.model.config.text,
        old.model.config.photo,
        tuple(taxonomy.sizes),
        old.model.config.width,
        recipe.model.dropout,
        old.model.config.lexicon if recipe.model.lexicon else 0,
    )
    model = FusionTagger(config)
    heads = ("text_head.", "photo_head.", "fused_head.", "gate.2.", "lexicon.head.")
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    kept = {
        name: tensor
        for name, tensor in old.model.state_dict().items()
        if not name.startswith(heads) and tensor.shape == shapes.get(name)
    }
    model.load_state_dict(kept, strict=False)
    if recipe.backbones.keep_heads or recipe.replay is not None:
        keep_heads(model, taxonomy, old)
    model.photo_tower.normalise_with(old.preprocessor.config.mean, old.preprocessor.config.std)
    return model, old.preprocessor


def with_limits(model: FusionTagger, preprocessor: Preprocessor, recipe: Recipe) -> Preprocessor:
    """The recipe's own limits on tokens and photos, and its own photo size."""
    size = recipe.model.photo_size or preprocessor.config.photo_size
    vision = model.config.photo["vision_cfg"]
    if size != preprocessor.config.photo_size and "timm_model_name" not in vision:
        raise RecipeError("model.photo_size: this photo tower takes no other size than its own, leave it out")
    config = replace(
        preprocessor.config,
        photo_size=size,
        # The tower's own limit, and not that of the checkpoint it comes from, whose texts may have been shorter.
        max_tokens=most_tokens(model.config.text, recipe.model.max_tokens),
        max_photos=recipe.model.max_photos,
    )
    return Preprocessor(config, preprocessor.tokenizer)
