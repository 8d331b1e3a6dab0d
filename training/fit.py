"""From a recipe and a table to a checkpoint: the order of this file is the order of a run.

Leaves in the output folder: `checkpoint/`, `run.json` (the resolved recipe and the table's digest), `split.csv`, a
folder for each stage (state and best weights), `lock`, `logs/` (TensorBoard) and `curves.png`.
"""

import importlib.util
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed

from models.checkpoint import Checkpoint, load, save
from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training import contract
from training.adapters import Adapters
from training.calibrate import calibrate, check_targets, unpromised
from training.catalogue import read_catalogue
from training.colour import colour_attribute
from training.contrastive import contrastive_stage
from training.describe import described
from training.errors import DataError, RecipeError
from training.framing import framing_stage, with_photos
from training.gates import settle_gates
from training.language import language_stage
from training.logit_adjustment import adjust
from training.loop import Report, Stage, run
from training.measure import measure
from training.model_card import card
from training.naming import name_values
from training.network import build, with_limits
from training.parts import learned, split_rows, warn_of_few_to_calibrate_on, warn_of_shared_photos
from training.photos import photos_stage
from training.plots import draw_curves, histories
from training.promotion import in_words
from training.readable import require_readable
from training.recipe import Recipe
from training.remembered import forget
from training.replay import Replay, read_replay
from training.rows import rows_to_train_on
from training.run_folder import claim, held, write_split
from training.seen import see
from training.split import MEASURED_ON, Part
from training.stages import Material
from training.table import Row, make_taxonomy
from training.tagging import rebalance_stage, tagging_stage
from training.translate import glossary_of
from training.unseen import SENTENCES, close, unseen_in, unseen_of, with_unseen
from training.vocabulary import extended
from training.words import learn_words, said


def fit(recipe: Recipe, data: Path, out: Path) -> Path:
    """Trains, calibrates and measures; returns the checkpoint's path. Called again it goes on where it
    stopped.

    Raises RecipeError, DataError, AnotherRun, and models' BackboneUnavailable or CheckpointError.
    """
    table, declared = read_catalogue(data, recipe.data)
    split = split_rows(data, table.rows, recipe.split)
    replay = None
    if recipe.replay is not None:
        seed, checkpoint = recipe.train.seed, recipe.backbones.checkpoint
        replay = read_replay(recipe.replay, checkpoint, recipe.split, table.rows, seed)
    known = replay.names & table.rows[0].values.keys() if replay is not None else frozenset()
    taxonomy, skipped = make_taxonomy(table, split["train"], declared, known)
    warn({name: why for name, why in (table.skipped | skipped).items() if name not in known})
    if replay is not None:
        taxonomy = replay.extended(taxonomy, split["train"], table.multiple, declared)
    for part in ("train", "validation"):
        if not any(row.values.get(attribute.name) for row in split[part] for attribute in taxonomy):
            raise DataError(f"{data}: no row of the {part} part has a label, give more or a larger share")
    check_targets(recipe.calibration.targets, taxonomy)
    warn_of_shared_photos(split, require_readable(table.rows))
    if recipe.augment.colour and (asking := colour_attribute(taxonomy)):
        print(f"augment.colour is not used: {asking!r} asks for colours", file=sys.stderr)
    print(learned(taxonomy), file=sys.stderr)
    warn_of_few_to_calibrate_on(split["calibration"], recipe.split)

    accelerator = start(recipe, out)
    set_seed(recipe.train.seed)
    model, preprocessor = build(recipe, taxonomy)
    preprocessor = with_limits(model, preprocessor, recipe)
    glossary = glossary_of(recipe.translate) if recipe.translate else None
    if recipe.vocabulary is not None:
        titles = [row.title for row in split["train"]]
        model, preprocessor = extended(model, preprocessor, recipe.vocabulary, titles, glossary)
    # Only a run that can begin takes the folder: after a wrong setting the same --out still serves.
    with accelerator.main_process_first():
        claim(out, recipe, data, declared)
    accelerator.init_trackers(recipe.log.wandb_project or "tagsmith")
    first = accelerator.is_main_process
    with held(out) if first else nullcontext():
        if first:
            write_split(out / "split.csv", table, recipe)
        texts = split["train"]  # what the language stage reads: it needs no tags
        with accelerator.main_process_first():
            measured = [row for part in MEASURED_ON for row in split[part]]
            split["train"] = rows_to_train_on(recipe, split["train"], measured, taxonomy, replay, out)
        old = going_on_from(recipe, replay)
        name_values(model, preprocessor, taxonomy, split["train"], glossary, recipe.names, old)
        words = train_stages(model, recipe, split, texts, preprocessor, taxonomy, accelerator, out)
        # The other processes have nothing left to do, and need not wait for what the first one measures.
        accelerator.end_training()

        if first:
            extra: dict[str, Any] = {"training": histories(out), "words": words}
            draw_curves(extra["training"], out)
            if (unseen := unseen_of(recipe, split["train"])) is not None:
                close(model, unseen)
                extra["unseen"] = unseen
            if replay is not None:
                rounded(model)  # as `finish` will
                extra["forgetting"] = replay.forgetting(model, preprocessor, taxonomy, recipe.data.workers)
            finish(recipe, out, model, preprocessor, taxonomy, split, extra)
    return out / "checkpoint"


def going_on_from(recipe: Recipe, replay: Replay | None) -> Checkpoint | None:
    """The checkpoint of which more than the towers is kept."""
    if replay is not None:
        return replay.old
    return load(recipe.backbones.checkpoint) if recipe.backbones.keep_heads else None


def train_stages(
    model: FusionTagger,
    recipe: Recipe,
    split: dict[Part, list[Row]],
    texts: list[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    accelerator: Accelerator,
    out: Path,
) -> str | None:
    """Every stage that the recipe has, in order; each starts from the best weights of the one before. Returns which
    one's exact words are kept, None without any.
    """
    material = Material(recipe, split["train"], split["validation"], preprocessor, taxonomy)
    if recipe.framing is not None:
        with_photos(material)  # without any the last stage would say so after hours of the others
    if recipe.language is not None:
        stage = language_stage(model, recipe.language, replace(material, rows=texts))
        train(stage, accelerator, recipe, out)
    if recipe.contrastive is not None:
        train(contrastive_stage(model, recipe.contrastive, material), accelerator, recipe, out)
    if recipe.photos is not None:
        train(photos_stage(model, recipe.photos, material), accelerator, recipe, out)
    if recipe.translate is not None and recipe.translate.descriptions:
        # From here on products are described, and the best epoch is to be the best of both kinds. The stages before
        # take texts as they are: described as well, a product would be its own wrong pair in [contrastive].
        told = described(split["validation"], glossary_of(recipe.translate))
        material = replace(material, validation=[*split["validation"], *told])
    adapters = None
    if recipe.adapters is not None:
        steps = len(split["train"]) // (recipe.train.batch_size * accelerator.num_processes)
        steps = recipe.train.epochs * max(1, steps)
        adapters = Adapters(model, recipe.adapters, steps, recipe.train.seed)
    train(tagging_stage(model, material, adapters), accelerator, recipe, out)
    if recipe.rebalance is not None:
        train(rebalance_stage(model, recipe.rebalance, material, adapters), accelerator, recipe, out)
    if adapters is not None:
        adapters.merge()
    if recipe.framing is not None:
        train(framing_stage(model, recipe.framing, material), accelerator, recipe, out)
    words = None
    if recipe.model.lexicon and any(said(row) for row in split["train"]):
        if any(said(row) for row in split["validation"]):
            words = learn_words(model, material, lambda stage: train(stage, accelerator, recipe, out))
        else:
            print(
                "exact words are not learned: no product of the validation part has a text", file=sys.stderr
            )
    print("each attribute's gate is shifted to where held-out products are most likely", file=sys.stderr)
    settle_gates(model, material)
    adjust(model, split["train"], taxonomy, recipe.train)
    return words


def warn(skipped: dict[str, str]) -> None:
    for name, why in skipped.items():
        print(f"column {name!r} is not used: {why} (name it with --attributes to use it)", file=sys.stderr)


def start(recipe: Recipe, out: Path) -> Accelerator:
    if recipe.log.wandb_project and importlib.util.find_spec("wandb") is None:
        raise RecipeError("log.wandb_project is set, but wandb is not installed: pip install wandb")
    trackers = ["tensorboard", *(["wandb"] if recipe.log.wandb_project else [])]
    return Accelerator(
        mixed_precision=recipe.train.mixed_precision,
        log_with=trackers,
        project_dir=str(out / "logs"),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=recipe.train.seed),
    )


def train(stage: Stage, accelerator: Accelerator, recipe: Recipe, out: Path) -> Report:
    best = run(stage, accelerator, out / stage.name, recipe.train.save_every_steps)
    forget(stage.network)
    print(f"{stage.name}: best {stage.metric} {best[stage.metric]:.4f}", file=sys.stderr)
    return best


def finish(
    recipe: Recipe,
    out: Path,
    model: FusionTagger,
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    split: dict[Part, list[Row]],
    extra: dict[str, Any],
) -> None:
    """Calibrates, measures on the test part, and writes the checkpoint; `extra` is for `metrics.json`."""
    model.eval()
    rounded(model)
    seen = see(model, split["calibration"], preprocessor, taxonomy, recipe.data.workers, quiet=False)
    unseen = unseen_in(extra)
    calibration = with_unseen(calibrate(seen, taxonomy, recipe.calibration), unseen)
    unkept = list(unpromised(calibration, taxonomy, seen, recipe.calibration.certainty, unseen))
    for sentence in unkept:
        print(sentence, file=sys.stderr)
    if unkept:
        warn_of_few_to_calibrate_on(split["calibration"], recipe.split)
    metrics = {
        **measure(recipe, model, preprocessor, taxonomy, calibration, split, seen, unseen),
        **extra,
    }
    save(
        Checkpoint(
            name=recipe.name,
            model=model,
            taxonomy=taxonomy,
            preprocessor=preprocessor,
            calibration=calibration,
            metrics=metrics,
            card=card(recipe, taxonomy, metrics),
        ),
        out / "checkpoint",
    )
    if unseen is not None:
        print(SENTENCES[unseen], file=sys.stderr)
    print(in_words(metrics["promotable"]), file=sys.stderr)
    print(contract.in_words(metrics["contract"]), file=sys.stderr)


def rounded(model: FusionTagger) -> None:
    """Rounds the weights as the checkpoint will store them, so that what is measured is what is shipped."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
