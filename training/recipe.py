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
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BackbonesSection(Section):
    """Where the towers start: a `checkpoint`, or `text` and `photo` as `models.backbones.Backbones` reads
    them.

    `untrained` takes the towers' shapes alone, with fresh weights: what a comparison from scratch starts from.
    `keep_heads` keeps what the heads of a checkpoint know of the values that the new taxonomy shares with it.
    """

    checkpoint: str = ""
    text: str = ""
    photo: str = ""
    photo_pretrained: str = ""
    photo_weights: str = ""
    untrained: bool = False
    keep_heads: bool = False


class DataSection(Section):
    """`attributes` names the columns to learn, none: every other one. `multiple` names those of them that take several
    values, written `cotton|linen` in a csv cell. So many `workers`, processes, read photos.

    `taxonomy` is a file that fixes values and scopes, as `training/declared.py` shows.
    """

    taxonomy: str = ""
    attributes: tuple[str, ...] = ()
    multiple: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=0)] = 1


class FewShotSection(Section):
    """Trains on so few of the rows that every value has `per_value` products."""

    per_value: Count = 8


class PseudoLabelsSection(Section):
    """Fills cells with what the checkpoint `teacher` says with a calibrated confidence of at least `confidence`.

    `table` is a second table of products to train on as well; without it the empty cells of the first are filled.
    """

    teacher: str
    table: str = ""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class DistillationSection(Section):
    """Learns with `share` what the checkpoints `teachers` say of the training products, the mean of their
    probabilities, and with the rest what the labels say (Hinton et al. 2015).
    """

    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


class ReplaySection(Section):
    """Goes on from `backbones.checkpoint`, heads and values included, and shows `share` of the training part of its
    own `table` again; what it forgot of that table's test part is measured.
    """

    table: str
    share: Annotated[float, Field(ge=0, le=1)] = 0.2


class SplitSection(Section):
    """Shares of the groups; the rest is for training. Another `seed` splits them otherwise."""

    seed: int = 0
    validation: Share = 0.08
    calibration: Share = 0.08
    test: Share = 0.1


class ModelSection(Section):
    """The fusion's shape (`width` is that of the space in which text and photos meet) and the limits of a product.

    `lexicon` is the number of rows of a fresh table of exact words, 0 for none: by default every piece of a usual
    vocabulary has one to itself. `photo_size` is another side of the photos than the tower's own, for convolutional
    towers.
    """

    width: Count = 384
    dropout: Share = 0.1
    lexicon: Annotated[int, Field(ge=0)] = 65_536
    photo_size: Count | None = None
    max_tokens: Annotated[int, Field(ge=4)] = 128  # three of them are marks
    max_photos: Count = 8


class NamesSection(Section):
    """What the name of a value in a title adds to its logit: `weight`, less for values with many rows (half of it at
    `rare`) and for names that mislead. A weight of 0 looks for none.
    """

    weight: Annotated[float, Field(ge=0)] = 6.0
    rare: Count = 100


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
    """`share` of the titles of an epoch is rendered in the language of the `glossary`, a TOML file; `descriptions` of
    the products that have a title alone get a description of its sentences, and stages that describe are validated
    with and without them.
    """

    glossary: str
    share: Share = 0.3
    descriptions: Share = 0.0


class LanguageSection(OptimizerSection):
    """Masked-language pretraining of the text tower on the texts of all training rows, however few of them are tagged
    (Gururangan et al. 2020).
    """

    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15


class ContrastiveSection(OptimizerSection):
    """CLIP's stage (Radford et al. 2021) on photo-title pairs; the text tower stays as it is."""

    temperature: Annotated[float, Field(gt=0)] = 0.07


class PhotosSection(OptimizerSection):
    """How the photo tower learns by itself, with its own head, before the fusion; of no use to a text."""

    epochs: Count = 7
    photo_lr: Rate = 8e-4
    heads_lr: Rate = 1e-3


class FramingSection(OptimizerSection):
    """How the photo tower learns, after all that tags, to see photos in other frames as it sees them in their own."""

    epochs: Count = 2
    photo_lr: Rate = 5e-4


class TrainSection(OptimizerSection):
    """The main stage, and what all share: the `seed`, and every how many steps a killed run can go on from.

    Of the loss the answers of text alone and of photos alone have `unimodal_weight` each, the fused one 1.
    `logit_adjustment` is the share of a value's rarity that is taken back after the last stage, `fused_adjustment` what
    is taken back beyond it where text and photos are both there.
    """

    label_smoothing: Share = 0.0
    logit_adjustment: Share = 0.0
    fused_adjustment: Share = 0.0
    unimodal_weight: Rate = 0.5
    mixed_precision: Literal["no", "bf16"] = "no"
    save_every_steps: Count = 200
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class AdaptersSection(Section):
    """Adapters learn in place of the text tower, at `train.text_lr`: peft's LoRA, AdaLoRA or prefix tuning.

    `rank`, `alpha`, `dropout` and `targets` (names of layers; none: peft's usual ones) are LoRA's and AdaLoRA's,
    `prefix_tokens` those that prefix tuning puts in front of every text.
    """

    method: Literal["lora", "adalora", "prefix"] = "lora"
    rank: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Share = 0.05
    targets: tuple[str, ...] = ()
    prefix_tokens: Count = 16


class AdversarialSection(Section):
    """Every step also learns, with `weight`, from its words moved by `epsilon` against it (Miyato et al. 2017)."""

    epsilon: Annotated[float, Field(gt=0)] = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0


class RebalanceSection(OptimizerSection):
    """A last stage in which values with a share of the rows under `rare_share` are shown more often."""

    rare_share: Share = 0.005


class WordsSection(OptimizerSection):
    """How the classifier of exact words learns, where `model.lexicon` has one; of the rates `heads_lr` is its."""

    epochs: Count = 8
    heads_lr: Rate = 5e-3


class AugmentSection(Section):
    """Shares of the products of an epoch that each change happens to.

    `thesaurus` is a text file of words that mean the same, a group on each line, for `synonyms`; without it the English
    one of the project. `colour` is left out, with a message, where an attribute asks for colours.
    """

    drop_text: Share = 0.1
    drop_photos: Share = 0.1
    mask_values: Share = 0.0
    drop_words: Share = 0.0
    synonyms: Share = 0.0
    thesaurus: str = ""
    colour: Share = (
        0.0  # the most that brightness, contrast and saturation are changed by; the hue by a fifth of it
    )
    flip: Share = 0.5
    crop: Share = 0.15  # the most of each side that a random crop takes away


class EarlyStoppingSection(Section):
    """A stage ends when `metric`, on the validation part, has not got better by more than `min_delta` for `patience`
    epochs; stages that do not tag watch their own loss.
    """

    metric: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    patience: Count = 2
    min_delta: Rate = 0.0005


class CalibrationSection(Section):
    """`auto` keeps `target_precision` on a next sample as large as the calibration part with probability `certainty`.

    `targets` sets another precision for an attribute by name. Over so many `splits` into random halves of the
    products that no training saw it is measured how often that is broken.
    """

    target_precision: Annotated[float, Field(gt=0, lt=1)] = 0.95
    certainty: Annotated[float, Field(gt=0, lt=1)] = 0.95
    targets: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    splits: Count = 100


class LogSection(Section):
    """With a `wandb_project` Weights & Biases (`pip install wandb`) gets what TensorBoard's files in `logs/` have."""

    wandb_project: str = ""


class Recipe(Section):
    name: str
    description: str = ""
    backbones: BackbonesSection
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    model: ModelSection = ModelSection()
    names: NamesSection = NamesSection()
    vocabulary: VocabularySection | None = None
    translate: TranslateSection | None = None
    few_shot: FewShotSection | None = None
    pseudo_labels: PseudoLabelsSection | None = None
    replay: ReplaySection | None = None
    distillation: DistillationSection | None = None
    language: LanguageSection | None = None
    contrastive: ContrastiveSection | None = None
    photos: PhotosSection | None = None
    adapters: AdaptersSection | None = None
    adversarial: AdversarialSection | None = None
    train: TrainSection = TrainSection()
    rebalance: RebalanceSection | None = None
    framing: FramingSection | None = None
    words: WordsSection = WordsSection()
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
        data = document.setdefault("data", {})
        if not isinstance(data, dict):
            raise RecipeError(f"{path}: data is not a section, as which it would hold the attributes")
        data["attributes"] = list(attributes)
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        wrong = 'write a list, such as ["kind"]' if first["type"] == "tuple_type" else first["msg"]
        raise RecipeError(f"{path}: {where}: {wrong}") from error
    if recipe.split.validation + recipe.split.calibration + recipe.split.test >= 1:
        raise RecipeError("split: validation, calibration and test together must leave rows to train on")
    if bool(recipe.backbones.checkpoint) == bool(recipe.backbones.text or recipe.backbones.photo):
        raise RecipeError("backbones: name either checkpoint, or text and photo")
    if recipe.replay is not None and not recipe.backbones.checkpoint:
        raise RecipeError("[replay] goes on from an older checkpoint: name it in backbones.checkpoint")
    if recipe.rebalance is not None and recipe.adapters is not None and recipe.adapters.method == "adalora":
        raise RecipeError(
            "adapters: AdaLoRA has taken its ranks away before [rebalance], leave one of them out"
        )
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
