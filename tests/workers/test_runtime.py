"""The choice of device and number type, and what the runtime makes of torch's errors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import CheckpointError, Tagger, UnreadablePhoto
from models.checkpoint import save
from tests.tiny_tagger import tiny_checkpoint
from workers.batch_runner import OutOfMemory
from workers.panics import Panic
from workers.runtime import DeviceUnavailable, ModelRuntime, choose_device, choose_dtype, use_all_cores
from workers.served import JobFault


class FailingTagger:
    """Stands in for a tagger; raises what it is told."""

    name, version = "failing", "0"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def prepare(self, product: Any) -> Any:
        raise self.error

    def collate(self, examples: list[Any], *, patient: bool) -> Any:
        raise self.error

    def forward(self, batches: list[Any]) -> list[Any]:
        raise self.error


class RustPanic(BaseException):
    """Like that of a library in Rust: no Exception."""


def runtime_that_raises(error: BaseException) -> ModelRuntime:
    return ModelRuntime(FailingTagger(error))  # type: ignore[arg-type]


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert choose_device("auto") == device


def test_cpu_is_cpu_also_beside_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu") == "cpu"


def test_cuda_without_a_cuda_device_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="TAGSMITH_DEVICE"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"avx2", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
        ({"avx2", "avx512f"}, torch.float32),
        (set(), torch.float32),
    ],
)
def test_bfloat16_weights_only_where_the_processor_multiplies_them(
    flags: set[str], dtype: torch.dtype
) -> None:
    assert choose_dtype("cpu", frozenset(flags)) is dtype


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("step", ["collate", "forward"])
def test_every_way_torch_runs_out_of_memory_is_told_to_the_batcher(step: str, error: Exception) -> None:
    with pytest.raises(OutOfMemory):
        getattr(runtime_that_raises(error), step)([])


def test_what_a_forward_without_memory_had_made_is_gone_before_the_memory_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    left: list[bool] = []

    class Greedy(FailingTagger):
        def forward(self, batches: list[Any]) -> list[Any]:
            states = torch.ones(3)
            made.append(weakref.ref(states))
            raise self.error

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(made[0]() is not None))
    with pytest.raises(OutOfMemory) as raised:  # which keeps it, and where it came through
        ModelRuntime(Greedy(torch.OutOfMemoryError("CUDA out of memory"))).forward([])  # type: ignore[arg-type]
    assert left == [False]
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize(
    "step",
    [
        lambda runtime: runtime.prepare("", "", []),
        lambda runtime: runtime.collate([]),
        lambda runtime: runtime.forward([]),
    ],
)
def test_a_panic_of_a_library_is_an_error_like_any_other(step: Callable[[ModelRuntime], Any]) -> None:
    with pytest.raises(Panic, match="index out of bounds"):
        step(runtime_that_raises(RustPanic("index out of bounds")))


def test_another_error_of_the_forward_passes_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        runtime_that_raises(RuntimeError("size mismatch")).forward([])


def test_an_unreadable_photo_is_a_fault_of_the_job() -> None:
    with pytest.raises(JobFault, match="a photo cannot be decoded"):
        runtime_that_raises(UnreadablePhoto("a photo cannot be decoded: truncated")).prepare("", "", [])


@pytest.mark.parametrize("spoiled", ["fused_head.bias", "text_head.bias", "photo_projection.0.weight"])
def test_a_model_whose_answers_are_no_numbers_is_refused(tmp_path: Path, spoiled: str) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.state_dict()[spoiled].view(-1)[0] = float("nan")
    save(checkpoint, tmp_path / "spoiled")
    runtime = ModelRuntime(Tagger.load(tmp_path / "spoiled"))
    with pytest.raises(CheckpointError, match="not all finite"):
        runtime.warm_up()


def test_torch_is_given_its_interop_threads_once_however_many_checkpoints_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(torch, "get_num_interop_threads", lambda: given[-1] if given else 8)
    monkeypatch.setattr(
        torch, "set_num_interop_threads", given.append
    )  # torch itself raises at a second time
    use_all_cores()
    use_all_cores()
    assert given == [1]
