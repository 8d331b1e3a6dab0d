"""Freed memory goes back to the system, and what nobody needs is never taken."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import psutil
import pytest

from workers import memory

PIECE_BYTES, PIECES = 50_000, 4000  # each too small for glibc to map it by itself


def test_what_was_freed_between_pieces_in_use_is_given_back() -> None:
    process = psutil.Process()
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    for piece in range(len(pieces)):
        if piece % 10:
            pieces[piece] = b""
    before = process.memory_info().rss
    memory.give_back()
    assert before - process.memory_info().rss > PIECES * PIECE_BYTES / 2


def test_of_the_libraries_only_that_stays_in_memory_which_is_used() -> None:
    [library] = [
        str(path.resolve()) for path in Path(numpy.__file__).parent.glob("_core/_multiarray_umath.*.so")
    ]

    def read_only() -> list[Any]:
        maps = psutil.Process().memory_maps(grouped=False)
        return [m for m in maps if m.path == library and "w" not in m.perms and not m.anonymous]

    for mapped in read_only():  # another test of this process may have let go of them
        start, end = (int(address, 16) for address in mapped.addr.split("-"))
        ctypes.string_at(start, end - start)
    before = sum(mapped.rss for mapped in read_only())
    memory.let_go_of_libraries()
    assert sum(mapped.rss for mapped in read_only()) < before / 2
    assert numpy.arange(4).sum() == 6


def test_what_was_written_to_a_library_stays_where_it_is_swapped_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system counts it no more as memory that has no file behind it."""
    written = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    written[:4] = b"here"
    start = ctypes.addressof(ctypes.c_char.from_buffer(written))
    swapped_out = SimpleNamespace(
        path="/lib/a.so", perms="r--p", anonymous=0, swap=4096, addr=f"{start:x}-{start + mmap.PAGESIZE:x}"
    )
    monkeypatch.setattr(psutil.Process, "memory_maps", lambda *_, **__: [swapped_out])
    memory.let_go_of_libraries()
    assert written[:4] == b"here"


@pytest.fixture(scope="module")
def worker_like() -> subprocess.CompletedProcess[str]:
    """What a process prints that loads the starter as a worker does."""
    program = """
import gc, json, sys, weakref
from workers import memory
memory.spare()
import torch, transformers.models.bert.modeling_bert
import open_clip
said = {"spared": [sys.modules["triton"], sys.modules["scipy"]], "sum": torch.ones(2).sum().item()}
from catalog.settings import Settings
from workers.app import _load_model_runtime
runtime = _load_model_runtime(Settings())
said["frozen"] = gc.get_freeze_count()
gc.disable()
weights = [weakref.ref(weight) for weight in runtime._tagger.model.parameters()]
said["weights"] = len(weights)
runtime.forward(runtime.collate([runtime.prepare("Blue shirt", "", [])] * 3))
del runtime
said["left"] = sum(weight() is not None for weight in weights)
print(json.dumps(said))
"""
    shown = os.environ | {"OMP_DISPLAY_ENV": "true"}  # what OpenMP goes by, on stderr
    found = subprocess.run(
        [sys.executable, "-c", program], env=shown, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    return found


def test_torch_and_transformers_come_up_as_a_worker_wants_them(
    worker_like: subprocess.CompletedProcess[str],
) -> None:
    said = json.loads(worker_like.stdout.splitlines()[-1])
    assert (said["spared"], said["sum"]) == ([None, None], 2.0)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in worker_like.stderr


def test_a_loaded_model_is_apart_from_the_garbage_collector_and_goes_without_it(
    worker_like: subprocess.CompletedProcess[str],
) -> None:
    said = json.loads(worker_like.stdout.splitlines()[-1])
    assert said["frozen"] > 100_000
    assert said["weights"] > 0 and said["left"] == 0
