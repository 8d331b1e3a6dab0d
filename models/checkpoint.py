"""The checkpoint, format 1: a directory that holds all a tagger needs, with no pickle in it.

    config.json         format number, name, both towers' configurations, the fusion's shape, library versions
    taxonomy.json       attributes and values, in the order of the heads
    model.safetensors   the weights
    tokenizer/          a fast tokenizer
    preprocess.json     how text and photos become numbers
    calibration.json    temperatures, maps of the confidence, thresholds
    metrics.json        what was measured, on how many rows
    README.md           the model card

Format 2 is one that `models/export.py` made to be served on processors: config.json names the precision of each tower,
and text.xml, text.bin, photo.xml and photo.bin hold them as OpenVINO networks; the weights are those of the rest.

Its version is the SHA-256 over its files. It is written beside its final place and renamed, so a reader
never sees half of one.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.calibration import Calibration
from models.compiled import Precision, precisions, read_towers, write_towers
from models.errors import CheckpointError, NewerFormat
from models.fusion import FusionConfig, FusionTagger
from models.preprocessing import Preprocessing, Preprocessor
from models.taxonomy import Taxonomy

TRAINED, EXPORTED = 1, 2
FORMAT = EXPORTED
FULL_BYTES = 1 << 20  # a disk with less is
LIBRARIES = ("torch", "torchvision", "transformers", "tokenizers", "open_clip_torch", "timm", "safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything of a checkpoint in memory; `model` is in evaluation mode."""

    name: str
    model: FusionTagger
    taxonomy: Taxonomy
    preprocessor: Preprocessor
    calibration: Calibration
    metrics: dict[str, Any]
    card: str

    @property
    def precisions(self) -> dict[str, Precision]:
        """Of an exported checkpoint's towers, `text` and `photo`; empty for a trained one."""
        return precisions(self.model.text_tower, self.model.photo_tower)


def save(checkpoint: Checkpoint, path: Path) -> str:
    """Writes the checkpoint at `path`, replacing the one that is there, and returns its version.

    Weights are stored as float16: half the size, and ten mantissa bits are more than any decision needs. Raises
    CheckpointError where something else is there.
    """
    path = Path(path)
    if path.exists() and not (
        (path / "config.json").is_file() or (path.is_dir() and not any(path.iterdir()))
    ):
        raise CheckpointError(f"{path} is no checkpoint and is not replaced by one: name another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        write(checkpoint, beside)
    except BaseException:  # of a full disk it would hold what is left, under a name that nobody sees
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if path.exists():
        # Of a process that was killed here: in containers another one soon has its number.
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    beside.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)
    return version(path)


def write(checkpoint: Checkpoint, beside: Path) -> None:
    """All its files, into a new folder. Raises OSError."""
    (beside / "tokenizer").mkdir(parents=True)
    config = checkpoint.model.config
    write_json(
        beside / "config.json",
        {
            "format": EXPORTED if checkpoint.precisions else TRAINED,
            "name": checkpoint.name,
            **({"precision": checkpoint.precisions} if checkpoint.precisions else {}),
            "text": config.text,
            "photo": config.photo,
            "fusion": {name: getattr(config, name) for name in ("width", "dropout", "lexicon", "names")},
            "libraries": {library: importlib.metadata.version(library) for library in LIBRARIES},
        },
    )
    write_json(beside / "taxonomy.json", checkpoint.taxonomy.to_dict())
    write_json(beside / "preprocess.json", checkpoint.preprocessor.config.to_dict())
    write_json(beside / "calibration.json", checkpoint.calibration.to_dict(checkpoint.taxonomy))
    write_json(beside / "metrics.json", checkpoint.metrics)
    tokenizer = checkpoint.preprocessor.tokenizer.to_str(pretty=True)
    (beside / "tokenizer" / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (beside / "README.md").write_text(checkpoint.card, encoding="utf-8")
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in checkpoint.model.state_dict().items()
    }
    with one_kind_of_error(beside):
        save_file(weights, beside / "model.safetensors")
    (beside / "model.safetensors").chmod(0o644)  # safetensors writes 0600, and a worker may be another user
    write_towers(beside, checkpoint.model.text_tower, checkpoint.model.photo_tower)


@contextmanager
def one_kind_of_error(path: Path) -> Iterator[None]:
    """While something is written: torch and safetensors have errors of their own for a disk that is full, of which
    torch's does not even say so. Raises OSError.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free > FULL_BYTES:
            raise
        raise OSError(f"{path} cannot be written: no space left on its disk") from error


def load(path: Path | str) -> Checkpoint:
    """Reads a checkpoint strictly, with float32 weights on the CPU.

    Raises NewerFormat for a format above FORMAT, CheckpointError for anything missing or not fitting, and
    ExtraMissing for an exported one without OpenVINO.
    """
    path = Path(path)
    config = read_json(path / "config.json")
    found = config.get("format")
    if not isinstance(found, int) or found < 1:
        raise CheckpointError(f"{path / 'config.json'} names no checkpoint format")
    if found > FORMAT:
        raise NewerFormat(
            f"{path} has checkpoint format {found}, this Tagsmith reads up to {FORMAT}: update Tagsmith"
        )
    taxonomy = Taxonomy.from_dict(read_json(path / "taxonomy.json"))
    preprocessing = Preprocessing.from_dict(read_json(path / "preprocess.json"))
    calibration = Calibration.from_dict(read_json(path / "calibration.json"), taxonomy)
    try:
        shape = FusionConfig(config["text"], config["photo"], tuple(taxonomy.sizes), **config["fusion"])
        towers = read_towers(path, config.get("precision")) if found == EXPORTED else None
        model = FusionTagger(shape, towers)
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    except (KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights of {path} do not fit its configuration: {error}") from error
    model.photo_tower.normalise_with(preprocessing.mean, preprocessing.std)
    return Checkpoint(
        name=config["name"],
        model=model.eval(),
        taxonomy=taxonomy,
        preprocessor=Preprocessor.from_files(preprocessing, path / "tokenizer"),
        calibration=calibration,
        metrics=read_json(path / "metrics.json"),
        card=read_text(path / "README.md"),
    )


def load_to_train(path: Path | str) -> Checkpoint:
    """The same, for whoever goes on training its weights. Raises CheckpointError where it is exported as well."""
    checkpoint = load(path)
    if checkpoint.precisions:
        raise CheckpointError(
            f"{path} is exported to be served and cannot learn: start from the checkpoint that it was exported from"
        )
    return checkpoint


def version(path: Path | str) -> str:
    """SHA-256 over every file: its relative path, a zero byte, its length as 8 bytes, its bytes; sorted by
    path.
    """
    path = Path(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        if file.is_file():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(file.stat().st_size.to_bytes(8, "big"))
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return document


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: is {path.parent} a checkpoint directory? ({error})"
        ) from error
