"""From a recipe and a table to a checkpoint: the order of this file is the order of a run.

Leaves in the output folder: `checkpoint/`, `run.json` (the resolved recipe and the table's digest),
`split.csv`, `contrastive/` and `tagging/` (state and best weights), `logs/` (TensorBoard) and `curves.png`.
"""

import csv
import hashlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed

from models.backbones import Backbones, from_backbones
from models.calibration import Calibration
from models.checkpoint import Checkpoint, load, save
from models.fusion import FusionConfig, FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.calibrate import calibrate
from training.catalogue import read_catalogue
from training.conditions import CONDITIONS, shown
from training.data import targets_of
from training.declared import Declared
from training.errors import AnotherRun, DataError, RecipeError
from training.evaluation import evaluate_rows, report
from training.glossary import read_glossary
from training.loop import Stage, run
from training.model_card import card
from training.plots import draw_curves, histories
from training.promotion import in_words, promotion
from training.recipe import Recipe, to_json
from training.renderings import rendered
from training.split import Part, part_of, rule
from training.stages import contrastive_stage, rebalance_stage, tagging_stage
from training.table import Row, Table, make_taxonomy
from training.vocabulary import extended

PARTS: tuple[Part, ...] = ("train", "validation", "calibration", "test")


def fit(recipe: Recipe, data: Path, out: Path) -> Path:
    """Trains, calibrates and measures; returns the checkpoint's path. Called again it goes on where it
    stopped.

    Raises RecipeError, DataError, AnotherRun, and models' BackboneUnavailable or CheckpointError.
    """
    table, declared = read_catalogue(data, recipe.data)
    warn(table.skipped)
    split = {part: [row for row in table.rows if part_of(row.group, recipe.split) == part] for part in PARTS}
    for part, rows in split.items():
        if not rows:
            raise DataError(
                f"{data}: none of {len(table.rows)} rows falls into the {part} part: "
                "give more rows or a larger share"
            )
    taxonomy, skipped = make_taxonomy(table, split["train"], declared)
    warn(skipped)

    accelerator = start(recipe, out)
    set_seed(recipe.train.seed)
    model, preprocessor = build(recipe, taxonomy)
    preprocessor = with_limits(model, preprocessor, recipe)
    if recipe.vocabulary is not None:
        glossary = read_glossary(Path(recipe.translate.glossary)) if recipe.translate else None
        titles = [row.title for row in split["train"]]
        model, preprocessor = extended(model, preprocessor, recipe.vocabulary, titles, glossary)
    # Only a run that can begin takes the folder: after a wrong setting the same --out still serves.
    with accelerator.main_process_first():
        claim(out, recipe, data, declared)
    accelerator.init_trackers(recipe.log.wandb_project or "tagsmith")
    if accelerator.is_main_process:
        write_split(out / "split.csv", table, recipe)

    parts = (split["train"], split["validation"], preprocessor, taxonomy)
    if recipe.contrastive is not None:
        train(contrastive_stage(model, recipe.contrastive, recipe, *parts), accelerator, recipe, out)
    train(tagging_stage(model, recipe, *parts), accelerator, recipe, out)
    if recipe.rebalance is not None:
        train(rebalance_stage(model, recipe.rebalance, recipe, *parts), accelerator, recipe, out)
    accelerator.end_training()

    if accelerator.is_main_process:
        draw_curves(histories(out), out)
        finish(recipe, out, model, preprocessor, taxonomy, split)
    accelerator.wait_for_everyone()
    return out / "checkpoint"


def warn(skipped: dict[str, str]) -> None:
    for name, why in skipped.items():
        print(f"column {name!r} is not used: {why} (name it with --attributes to use it)", file=sys.stderr)


def claim(out: Path, recipe: Recipe, data: Path, declared: Declared) -> None:
    """Marks the folder as this run's, so that resuming never mixes two runs."""
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    document = {"recipe": json.loads(to_json(recipe)), "data": digest}
    if declared.attributes:
        document["taxonomy"] = declared.model_dump(mode="json")
    path = out / "run.json"
    if path.is_file():
        if json.loads(path.read_text()) != document:
            raise AnotherRun(
                f"{out} holds a run of another recipe, table or taxonomy file: choose another --out or remove it"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise AnotherRun(f"{out} is not empty and holds no run: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(document, indent=2))
    beside.replace(path)


def write_split(path: Path, table: Table, recipe: Recipe) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "group", "part"])
        writer.writerows([row.id, row.group, part_of(row.group, recipe.split)] for row in table.rows)


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


def build(recipe: Recipe, taxonomy: Taxonomy) -> tuple[FusionTagger, Preprocessor]:
    """A network with trained towers and heads for this taxonomy."""
    if recipe.backbones.checkpoint:
        return from_checkpoint(load(recipe.backbones.checkpoint), taxonomy, recipe)
    section = recipe.backbones
    model, preprocessing, tokenizer = from_backbones(
        Backbones(section.text, section.photo, section.photo_pretrained, section.photo_weights),
        taxonomy,
        recipe.model.width,
        recipe.model.dropout,
        recipe.model.lexicon,
        recipe.model.max_tokens,
        recipe.model.max_photos,
    )
    return model, Preprocessor(preprocessing, tokenizer)


def from_checkpoint(old: Checkpoint, taxonomy: Taxonomy, recipe: Recipe) -> tuple[FusionTagger, Preprocessor]:
    """The old towers and projections with fresh heads: every tensor whose name and shape still fit is kept,
    except the heads themselves, whose rows mean other values now."""
    config = FusionConfig(
        old.model.config.text,
        old.model.config.photo,
        tuple(taxonomy.sizes),
        old.model.config.width,
        recipe.model.dropout,
        recipe.model.lexicon,
    )
    model = FusionTagger(config)
    heads = ("text_head.", "photo_head.", "fused_head.", "gate.2.")
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    kept = {
        name: tensor
        for name, tensor in old.model.state_dict().items()
        if not name.startswith(heads) and tensor.shape == shapes.get(name)
    }
    model.load_state_dict(kept, strict=False)
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
        max_tokens=min(recipe.model.max_tokens, preprocessor.config.max_tokens),
        max_photos=recipe.model.max_photos,
    )
    return Preprocessor(config, preprocessor.tokenizer)


def train(stage: Stage, accelerator: Accelerator, recipe: Recipe, out: Path) -> None:
    best = run(stage, accelerator, out / stage.name, recipe.train.save_every_steps)
    print(f"{stage.name}: best {stage.metric} {best[stage.metric]:.4f}", file=sys.stderr)


def finish(
    recipe: Recipe,
    out: Path,
    model: FusionTagger,
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    split: dict[Part, list[Row]],
) -> None:
    """Calibrates, measures on the test part, and writes the checkpoint."""
    model.eval()
    rounded(model)
    calibration = calibrate(
        model, split["calibration"], preprocessor, taxonomy, recipe.calibration, recipe.data.workers
    )
    metrics = {
        **measure(recipe, model, preprocessor, taxonomy, calibration, split),
        "training": histories(out),
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
    print(in_words(metrics["promotable"]), file=sys.stderr)


def rounded(model: FusionTagger) -> None:
    """Rounds the weights as the checkpoint will store them, so that what is measured is what is shipped."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


def measure(
    recipe: Recipe,
    model: FusionTagger,
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    calibration: Calibration,
    split: dict[Part, list[Row]],
) -> dict[str, Any]:
    """For `metrics.json`: the test part under every condition, and whether it makes the checkpoint promotable."""
    rows = split["test"]
    targets = targets_of(rows, taxonomy)
    measured, logits = {}, {}
    for condition in CONDITIONS:
        seen = shown(rows, condition, taxonomy)
        logits[condition] = evaluate_rows(model, seen, preprocessor, recipe.data.workers, quiet=False)
        attributes = report(logits[condition], targets, taxonomy, calibration)
        name = "test" if condition == "as_is" else f"test_{condition}"
        measured[name] = {"rows": len(rows), "attributes": attributes}
    if recipe.translate is not None:
        glossary = read_glossary(Path(recipe.translate.glossary))
        measured["test_translated"] = {
            name: report(
                evaluate_rows(model, seen, preprocessor, recipe.data.workers, quiet=False),
                targets,
                taxonomy,
                calibration,
            )
            for name, seen in rendered(rows, glossary, taxonomy)
        }
    return {
        "split": {**recipe.split.model_dump(), "rule": rule(recipe.split)},
        "rows": {part: len(rows) for part, rows in split.items()},
        **measured,
        "promotable": promotion(logits, rows, taxonomy),
    }
