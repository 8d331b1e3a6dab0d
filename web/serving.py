"""What is being served: the taxonomy and the model, read from the files of the checkpoint without torch."""

from __future__ import annotations

import threading
from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, jsonify

from catalog.checkpoint_files import CheckpointInfo, read_checkpoint_info
from catalog.errors import InvalidCheckpoint
from web import authentication, problems
from web.openapi import answers_problems
from web.problems import ProblemError
from web.schemas import NoQuery, ServedModel, ServedTaxonomy
from web.services import services

bp = APIBlueprint("serving", __name__, url_prefix="/v1", tag="What is served")
bp.before_request(authentication.require_key)


class ServedCheckpoint:
    """Hashing 60 MB takes a fraction of a second, so it is done once for each state of the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: tuple[tuple[tuple[str, int, int], ...], CheckpointInfo] | None = None

    def info(self) -> CheckpointInfo:
        with self._lock:
            # A symbolic link that is moved while its files are read must not mix two checkpoints.
            folder = self._folder.resolve()
            state = _state_of(folder)
            if self._read is None or self._read[0] != state:
                try:
                    self._read = (state, read_checkpoint_info(folder))
                except InvalidCheckpoint as error:
                    raise ProblemError(
                        problems.UNAVAILABLE, f"No model is served: {error}.", headers={"Retry-After": "30"}
                    ) from error
            return self._read[1]


def _state_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file of the checkpoint does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)


@bp.get("/taxonomy")
@bp.input(NoQuery, location="query")
@bp.output(ServedTaxonomy, description="The taxonomy of the served checkpoint")
@bp.doc(
    summary="The attributes and values that tags are chosen from, and which products each applies to",
    operation_id="getTaxonomy",
    security="ApiKey",
    responses=answers_problems(problems.UNAUTHORIZED, problems.INVALID_PARAMETERS, problems.UNAVAILABLE),
)
def get_taxonomy(query_data: NoQuery) -> Response:
    return jsonify(services().checkpoint.info()["taxonomy"])


@bp.get("/model")
@bp.input(NoQuery, location="query")
@bp.output(ServedModel, description="The served checkpoint")
@bp.doc(
    summary="The model that tags products, and what was measured of it",
    description=(
        "What `TAGSMITH_CHECKPOINT` names now. While workers change to another checkpoint, and after"
        " `python -m workers load` with one that the setting does not name, they may serve a different one: a job"
        " always says which model tagged it."
    ),
    operation_id="getModel",
    security="ApiKey",
    responses=answers_problems(problems.UNAUTHORIZED, problems.INVALID_PARAMETERS, problems.UNAVAILABLE),
)
def get_model(query_data: NoQuery) -> ServedModel:
    info = services().checkpoint.info()
    return ServedModel(name=info["name"], version=info["version"], metrics=info["metrics"])
