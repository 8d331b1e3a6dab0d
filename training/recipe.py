"""A recipe: the TOML file that says how a checkpoint is made. Every number of a run is here or in the data.

Knows the shape of a recipe, not what its numbers do.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.errors import RecipeError

Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackbonesSection(Section):
    """Where the towers start: a `checkpoint`, or `text` and `photo` as `models.backbones.Backbones` reads
    them.
    """

    checkpoint: str = ""
    text: str = ""
    photo: str = ""
    photo_pretrained: str = ""
    photo_weights: str = ""


class DataSection(Section):
    """`multiple` names the attributes that take several values, written `cotton|linen` in a csv cell.

    `taxonomy` is a file that fixes values and scopes, as `training/declared.py` shows.
    """

    taxonomy: str = ""
    attributes: tuple[str, ...] = ()
    multiple: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=0)] = 1


class SplitSection(Section):
    """Shares of the groups; the rest is for training."""

    seed: int = 0
    validation: Share = 0.08
    calibration: Share = 0.08
    test: Share = 0.1


class ModelSection(Section):
    """The fusion's shape and the limits of a product.

    `lexicon` is the number of rows of the table of exact words, 0 for none. `photo_size` is another side of the
    photos than the tower's own, for convolutional towers.
    """

    width: Count = 384
    dropout: Share = 0.1
    lexicon: Annotated[int, Field(ge=0)] = 16384
    photo_size: Count | None = None
    max_tokens: Count = 128
    max_photos: Count = 8


class OptimizerSection(Section):
    """Learning rates of AdamW for each part; `warmup` is the share of all steps.

    With `ema_decay` above 0 (0.999 is usual) the weights that are validated and kept are a moving average of those
    of the steps.
    """

    epochs: Count = 4
    batch_size: Count = 64
    text_lr: Rate = 3e-5
    photo_lr: Rate = 3e-5
    heads_lr: Rate = 5e-4
    weight_decay: Rate = 0.01
    warmup: Share = 0.06
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Share = 0.0
    # Parameters of a tower whose names start so stay as they are: `trunk.blocks.0`, `embeddings.`, …
    text_frozen: tuple[str, ...] = ()
    photo_frozen: tuple[str, ...] = ()


class VocabularySection(Section):
    """Characters of another script for a WordPiece vocabulary. The first `keep` pieces stay, and those that the titles
    use.
    """

    keep: Count = 30522
    characters: Literal["glossary", "gb2312"] = "gb2312"


class TranslateSection(Section):
    """`share` of the titles of an epoch is rendered in the language of the `glossary`, a TOML file."""

    glossary: str
    share: Share = 0.3


class ContrastiveSection(OptimizerSection):
    """CLIP's stage (Radford et al. 2021) on photo-title pairs; the text tower stays as it is."""

    temperature: Annotated[float, Field(gt=0)] = 0.07


class TrainSection(OptimizerSection):
    label_smoothing: Share = 0.0
    unimodal_weight: Rate = 0.5
    mixed_precision: Literal["no", "bf16"] = "no"
    save_every_steps: Count = 200
    seed: int = 0


class RebalanceSection(OptimizerSection):
    """A last stage in which values with a share of the rows under `rare_share` are shown more often."""

    rare_share: Share = 0.005


class AugmentSection(Section):
    """Shares of the products of an epoch that each change happens to."""

    drop_text: Share = 0.1
    drop_photos: Share = 0.1
    mask_values: Share = 0.0
    drop_words: Share = 0.0
    flip: Share = 0.5
    crop: Share = 0.15  # the most of each side that a random crop takes away


class EarlyStoppingSection(Section):
    metric: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    patience: Count = 2
    min_delta: Rate = 0.0005


class CalibrationSection(Section):
    """`auto` keeps `target_precision` with probability `certainty` over the draw of the calibration split.

    `targets` sets another precision for an attribute by name.
    """

    target_precision: Annotated[float, Field(gt=0, lt=1)] = 0.95
    certainty: Annotated[float, Field(gt=0, lt=1)] = 0.95
    targets: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}


class LogSection(Section):
    wandb_project: str = ""


class Recipe(Section):
    name: str
    description: str = ""
    backbones: BackbonesSection
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    model: ModelSection = ModelSection()
    vocabulary: VocabularySection | None = None
    translate: TranslateSection | None = None
    contrastive: ContrastiveSection | None = None
    train: TrainSection = TrainSection()
    rebalance: RebalanceSection | None = None
    augment: AugmentSection = AugmentSection()
    early_stopping: EarlyStoppingSection = EarlyStoppingSection()
    calibration: CalibrationSection = CalibrationSection()
    log: LogSection = LogSection()


def read_recipe(path: Path, overrides: tuple[str, ...] = (), attributes: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe; each override is `section.key=value`, the value in TOML (bare words are strings).

    Raises RecipeError for a file that is no TOML, an unknown setting or a number out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not a readable recipe: {error}") from error
    for override in overrides:
        put(document, override)
    if attributes:
        document.setdefault("data", {})["attributes"] = list(attributes)
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {where}: {first['msg']}") from error
    if recipe.split.validation + recipe.split.calibration + recipe.split.test >= 1:
        raise RecipeError("split: validation, calibration and test together must leave rows to train on")
    if bool(recipe.backbones.checkpoint) == bool(recipe.backbones.text or recipe.backbones.photo):
        raise RecipeError("backbones: name either checkpoint, or text and photo")
    return recipe


def put(document: dict[str, Any], override: str) -> None:
    """Sets one dotted key in place."""
    key, equals, value = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise RecipeError(f"--set {override!r}: write section.key=value, such as train.epochs=3")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise RecipeError(f"--set {override!r}: {section} is not a section")
    try:
        document[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        document[last] = value


def to_json(recipe: Recipe) -> str:
    return json.dumps(recipe.model_dump(), sort_keys=True, indent=2)
