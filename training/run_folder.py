"""The folder of a run: whose it is, and which row went where."""

import csv
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.checkpoint import version
from models.errors import ModelsError
from training.declared import Declared
from training.errors import AnotherRun, DataError, TrainingError
from training.recipe import Recipe, to_json
from training.split import part_of
from training.table import Table


def claim(out: Path, recipe: Recipe, data: Path, declared: Declared) -> None:
    """Marks the folder as this run's, so that resuming never mixes two runs. Raises AnotherRun, DataError."""
    document = {"recipe": json.loads(to_json(recipe)), "data": digest(data), **named(recipe)}
    if declared.attributes:
        document["taxonomy"] = declared.model_dump(mode="json")
    path = out / "run.json"
    if path.is_file():
        if json.loads(path.read_text()) != document:
            raise AnotherRun(
                f"{out} holds a run of another recipe, table or taxonomy file, or of one that named other files and "
                "checkpoints: choose another --out or remove it"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise AnotherRun(f"{out} is not empty and holds no run: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(document, indent=2))
    beside.replace(path)


def named(recipe: Recipe) -> dict[str, str]:
    """Digests of the files and checkpoints that a recipe names; of one that is not there whoever reads it will tell."""
    pseudo_labels, replay, translate = recipe.pseudo_labels, recipe.replay, recipe.translate
    files = {
        "pseudo_labels": pseudo_labels.table if pseudo_labels else "",
        "replay": replay.table if replay else "",
        "glossary": translate.glossary if translate else "",
        "thesaurus": recipe.augment.thesaurus,
    }
    checkpoints = {
        "backbones": recipe.backbones.checkpoint,
        "teacher": pseudo_labels.teacher if pseudo_labels else "",
        **{f"teacher {path}": path for path in (recipe.distillation.teachers if recipe.distillation else ())},
    }
    return {
        **{name: digest(Path(file)) for name, file in files.items() if Path(file).is_file()},
        **{name: version(path) for name, path in checkpoints.items() if path and Path(path).is_dir()},
    }


@contextmanager
def held(out: Path) -> Iterator[None]:
    """A claimed folder, for this process alone. A wrong setting that ends the run before any of its work is kept
    removes it: with the setting put right the run is another one, and the same folder should serve it.

    Raises AnotherRun where another process has it: one that was taken for dead, say, because its launcher was killed.
    """
    with (out / "lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no child inherits it, as it would `flock`'s
        except BlockingIOError:
            raise AnotherRun(f"another process trains in {out}: wait for it, or end it") from None
        for half_saved in out.glob(".checkpoint.*.new"):  # by a process that was killed
            shutil.rmtree(half_saved)
        try:
            yield
        except (TrainingError, ModelsError, FloatingPointError):  # the last one of too high rates
            if not any(out.glob("*/progress.json")):
                shutil.rmtree(out, ignore_errors=True)
            raise


def digest(table: Path) -> str:
    try:
        return hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{table} cannot be read as a table: {error}") from error


def write_split(path: Path, table: Table, recipe: Recipe) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "group", "part"])
        writer.writerows([row.id, row.group, part_of(row.group, recipe.split)] for row in table.rows)
