"""Towers behind graphs of a few sizes answer as they did. Where there is no CUDA device the "graph" is the tower itself
on the graph's memory: what is padded, cut and handed on is the same.
"""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models import Batch, Product, Tagger, captured
from models.captured import (
    ROWS,
    TOKENS,
    CapturedPhotoTower,
    CapturedTextTower,
    captured_photo,
    captured_text,
)
from models.fusion import FusionTagger
from models.towers import PhotoTower, TextTower, even
from models.traced import noise, some_texts
from tests.tiny_tagger import PHOTO_CONFIG, WORDS, text_config

STARTER = Path("models/starter")
MAX_TOKENS = 20
SIDE = 16  # of photos
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def without_a_graph(run, inputs):
    """Writes every answer to the same memory, as a graph does."""
    output = run(*inputs)
    return lambda: output.copy_(run(*inputs))


def too_long_by(share):
    return lambda run, inputs: lambda: run(*inputs) * (1 + share)


def text_tower(**changes):
    torch.manual_seed(0)
    return TextTower({**text_config(), **changes}).eval()


def photo_tower():
    torch.manual_seed(0)
    tower = PhotoTower(PHOTO_CONFIG).eval()
    tower.normalise_with((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    return tower


def photos(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, SIDE, SIDE), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("changes", [{}, {"prefix_tokens": 2}], ids=["plain", "with a prefix"])
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (5, 13), (32, MAX_TOKENS), (33, 7)])
@torch.inference_mode()
def test_a_text_tower_answers_as_before(changes, rows, tokens):
    tower = text_tower(**changes)
    quick = captured_text(tower, MAX_TOKENS, without_a_graph)
    assert isinstance(quick, CapturedTextTower)
    texts = some_texts(rows, tokens, len(WORDS))
    expected = tower.encode(*texts)
    assert expected.std() > 0.01
    assert torch.allclose(quick.encode(*texts), expected, atol=1e-5)
    assert quick.width == tower.width


@torch.inference_mode()
def test_what_a_larger_batch_left_in_the_memory_of_a_graph_is_not_seen():
    quick = captured_text(text_tower(), MAX_TOKENS, without_a_graph)
    small, large = some_texts(3, 5, len(WORDS)), some_texts(4, 16, len(WORDS))
    before = quick.encode(*small)
    quick.encode(*large)
    assert torch.equal(quick.encode(*small), before)


@torch.inference_mode()
def test_an_answer_stays_when_the_graph_runs_again():
    quick = captured_photo(photo_tower(), SIDE, without_a_graph)
    first = quick(photos(2))
    kept = first.clone()
    quick(photos(2, seed=1))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("count", [1, 3, 32, 40])
@torch.inference_mode()
def test_a_photo_tower_answers_as_before(count):
    tower = photo_tower()
    quick = captured_photo(tower, SIDE, without_a_graph)
    assert isinstance(quick, CapturedPhotoTower)
    assert torch.allclose(quick(photos(count)), tower(photos(count)), atol=1e-5)
    assert quick.width == tower.width


def test_a_batch_runs_at_the_next_size_and_a_larger_one_at_its_own():
    ran = []
    tower = photo_tower()

    def noted(run, inputs):
        def replay():
            ran.append(len(inputs[0]))
            return run(*inputs)

        return replay

    quick = captured_photo(tower, SIDE, noted)
    ran.clear()
    with torch.inference_mode():
        for count in (1, 3, 9, 32, 33):
            assert len(quick(photos(count))) == count
    assert ran == [1, 4, 16, 32]


def test_texts_have_a_graph_for_all_sizes_up_to_the_longest():
    quick = captured_text(text_tower(), MAX_TOKENS, without_a_graph)
    tokens = {length for _, length in quick.graphs.sizes}
    assert tokens == {length for length in TOKENS if length < MAX_TOKENS} | {MAX_TOKENS}
    assert {rows for rows, _ in quick.graphs.sizes} == set(ROWS)


def test_the_longest_text_has_a_graph_also_where_it_is_padded():
    quick = captured_text(text_tower(), 27, without_a_graph)
    assert max(length for _, length in quick.graphs.sizes) == even(27) > 27


def test_a_tower_whose_graph_answers_otherwise_is_the_same_object():
    tower = photo_tower()
    with pytest.warns(
        UserWarning, match=r"Unlike: at size \(32,\) its features are 0\.040 of their length away"
    ):
        assert captured_photo(tower, SIDE, too_long_by(0.04)) is tower


def test_a_graph_that_rounds_otherwise_is_kept():
    """As other kernels do with bf16."""
    assert isinstance(captured_photo(photo_tower(), SIDE, too_long_by(0.02)), CapturedPhotoTower)


def test_a_tower_whose_graph_gives_no_numbers_is_the_same_object():
    def nothing(run, inputs):
        return lambda: run(*inputs) * float("nan")

    tower = text_tower()
    with pytest.warns(UserWarning, match="Unlike"):
        assert captured_text(tower, MAX_TOKENS, nothing) is tower


def test_a_tower_that_cannot_be_captured_is_the_same_object():
    def refuses(run, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    tower = text_tower()
    with pytest.warns(UserWarning, match="cannot be captured .*not permitted"):
        assert captured_text(tower, MAX_TOKENS, refuses) is tower


def test_threads_do_not_take_each_others_memory():
    """Without turns both would read what the second has put there."""
    tower = photo_tower()
    reading = threading.Barrier(2)

    def slow(run, inputs):
        def replay():
            # Met only where both threads are in the graph at once.
            if quick is not None and not reading.broken:
                with contextlib.suppress(threading.BrokenBarrierError):
                    reading.wait(timeout=0.2)
            return run(*inputs)

        return replay

    quick = None
    quick = captured_photo(tower, SIDE, slow)
    answers = {}

    def ask(seed):
        with torch.inference_mode():
            answers[seed] = quick(photos(2, seed))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.inference_mode():
        for seed in (1, 2):
            assert torch.allclose(answers[seed], tower(photos(2, seed)), atol=1e-5)


def test_a_checkpoint_has_graphs_for_photos_of_its_own_side(monkeypatch):
    """The whole way of a tagger on a CUDA device, its tensors left where they are. The starter's photos are larger
    than its photo tower's pretraining knew.
    """
    monkeypatch.setattr(captured, "ROWS", (1, 2))
    monkeypatch.setattr(captured, "TOKENS", ())
    monkeypatch.setattr(captured, "CudaCapture", lambda: without_a_graph)
    for kind, name in ((FusionTagger, "to"), (Batch, "to"), (Batch, "pin_memory")):
        monkeypatch.setattr(kind, name, lambda self, *_: self)
    on_cpu, on_cuda = Tagger.load(STARTER), Tagger.load(STARTER, "cuda", quick=True)
    assert isinstance(on_cuda.model.photo_tower, CapturedPhotoTower)
    photo = Path("samples/handbag.jpg").read_bytes()
    examples = [on_cpu.prepare(Product(title, "", (photo,))) for title in ("leather handbag", "handbag")]
    for one, other in zip(on_cpu.predict(examples), on_cuda.predict(examples), strict=True):
        assert [tag.value for tag in one.tags] == [tag.value for tag in other.tags]
        assert one.embedding == pytest.approx(other.embedding, abs=1e-4)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_cuda_graphs_answer_as_the_towers(dtype):
    text, photo = text_tower().to("cuda", dtype), photo_tower().to("cuda", dtype)
    quick_text, quick_photo = captured_text(text, MAX_TOKENS), captured_photo(photo, SIDE)
    assert isinstance(quick_text, CapturedTextTower)
    assert isinstance(quick_photo, CapturedPhotoTower)
    for rows in (1, 3, 32, 40):
        texts = [part.cuda() for part in some_texts(rows, 11, len(WORDS))]
        assert torch.allclose(quick_text.encode(*texts), text.encode(*texts), atol=0.05)
        pixels = noise(256, (rows, 3, SIDE, SIDE)).to("cuda", torch.uint8)
        assert torch.allclose(quick_photo(pixels), photo(pixels), atol=0.05)


@pytest.mark.gpu
@needs_cuda
def test_a_tagger_on_cuda_answers_as_one_on_the_processor():
    """The whole of it: pinned memory, graphs, heads and what comes back."""
    on_cpu, on_cuda = Tagger.load(STARTER), Tagger.load(STARTER, "cuda", quick=True)
    assert isinstance(on_cuda.model.text_tower, CapturedTextTower)
    assert isinstance(on_cuda.model.photo_tower, CapturedPhotoTower)
    examples = [
        on_cpu.prepare(Product(sample["title"], "", (Path("samples", sample["photo"]).read_bytes(),)))
        for sample in json.loads(Path("samples/products.json").read_text())
    ]
    for one, other in zip(on_cpu.predict(examples), on_cuda.predict(examples), strict=True):
        assert [tag.value for tag in one.tags] == [tag.value for tag in other.tags]


@pytest.mark.gpu
@needs_cuda
def test_a_checkpoint_is_captured_beside_one_that_tags():
    """Warnings are errors here: neither disturbs the other."""
    serving = Tagger.load(STARTER, "cuda", torch.bfloat16, quick=True)
    photo = Path("samples/handbag.jpg").read_bytes()
    examples = [serving.prepare(Product("leather handbag", "", (photo,) * count)) for count in range(4)]
    expected = [tagging.tags for tagging in serving.predict(examples)]
    over = threading.Event()

    def tag():
        answers = []
        while not over.is_set():
            answers.append([tagging.tags for tagging in serving.predict(examples)])
        return answers

    with ThreadPoolExecutor(3) as pool:
        tagging = [pool.submit(tag) for _ in range(3)]
        try:
            beside = Tagger.load(STARTER, "cuda", torch.bfloat16, quick=True)
        finally:
            over.set()
        assert isinstance(beside.model.text_tower, CapturedTextTower)
        assert isinstance(beside.model.photo_tower, CapturedPhotoTower)
        for answers in (answer for future in tagging for answer in future.result()):
            for one, other in zip(answers, expected, strict=True):
                assert [tag.value for tag in one] == [tag.value for tag in other]
