"""What can be told about a checkpoint from its JSON files, without loading the network.

The version is the SHA-256 over the folder's files: in the order of their relative POSIX paths, for each the path in
UTF-8, a zero byte, the length as 8 bytes big-endian, and the bytes.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict

from catalog.errors import InvalidCheckpoint

CHUNK_BYTES = 1 << 20


class CheckpointInfo(TypedDict):
    """What is served: `taxonomy` and `metrics` are the checkpoint's files as they are."""

    name: str
    version: str
    taxonomy: dict[str, Any]
    metrics: dict[str, Any]


def read_checkpoint_info(path: Path) -> CheckpointInfo:
    """Reads the folder; costs one pass over the weights. Raises InvalidCheckpoint."""
    if not path.is_dir():
        raise InvalidCheckpoint(f"there is no checkpoint folder {path}; set TAGSMITH_CHECKPOINT to one")
    config = _read_object(path / "config.json")
    name = config.get("name")
    if not isinstance(name, str):
        raise InvalidCheckpoint(f"{path / 'config.json'} holds no name; it was not written by this project")
    return CheckpointInfo(
        name=name,
        version=checkpoint_version(path),
        taxonomy=_read_object(path / "taxonomy.json"),
        metrics=_read_object(path / "metrics.json"),
    )


def checkpoint_version(path: Path) -> str:
    """The SHA-256 over the checkpoint's files."""
    digest = hashlib.sha256()
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    for relative in sorted(files):
        file = files[relative]
        digest.update(relative.encode() + b"\0" + file.stat().st_size.to_bytes(8, "big"))
        with file.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidCheckpoint(f"the checkpoint has no {path.name} ({path})") from error
    except ValueError as error:
        raise InvalidCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidCheckpoint(f"{path} does not hold a JSON object")
    return content
