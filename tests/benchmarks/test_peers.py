"""The peers of the contest: their arithmetic, their environments, and each of them on a tiny checkpoint."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers import contestants
from benchmarks.peers.contest import PEERS, goal_of, headlines, lineup, run_round, summary
from benchmarks.peers.contestants import PeerFailedError, Setting, span, stored_at
from benchmarks.peers.environment import HERE, PeerUnavailableError, is_made, make, python_of
from benchmarks.peers.processes import started
from models.checkpoint import save
from tests.tiny_tagger import picture, tiny_checkpoint

TORCH = {"device": "cpu", "threads": 2}


def test_every_service_of_a_round_gets_the_same_products_and_ours_goes_first():
    order = []

    class Peer:
        def __init__(self, name, took):
            self.name, self.took = name, took

        def tag(self, products):
            order.append((self.name, products))
            return self.took

    one = run_round(
        ["a", "b"],
        lambda made: (0.5, [f"{name}!" for name in made]),
        {"x": Peer("x", 2.0), "y": Peer("y", 1.0)},
    )
    assert one == {"ours": 4.0, "x": 1.0, "y": 2.0}
    assert order == [("x", ["a!", "b!"]), ("y", ["a!", "b!"])]


def test_how_many_times_as_fast_is_the_median_of_the_rounds_own_ratios():
    rounds = [
        {"ours": 30, "litserve, float32": 10},
        {"ours": 20, "litserve, float32": 20},
        {"ours": 50, "litserve, float32": 25},
    ]
    found = summary(rounds)
    assert found["litserve, float32"] == {"per_s": 20, "ours_is_times": 2.0, "range": [1.0, 3.0]}
    assert found["ours"]["ours_is_times"] == 1
    (line,) = headlines(found, "float32")
    assert (line["value"], line["range"], line["goal"]) == (2.0, [1.0, 3.0], 1.3)
    assert line["figure"] == "ours, float32 / litserve, float32"


@pytest.mark.parametrize(
    ("title", "precision", "goal"),
    [
        ("naive-celery, float32", "float32", 3.0),
        ("naive-celery, float32", "bfloat16", 3.0),
        ("naive-celery, bfloat16", "bfloat16", None),
        ("litserve, bfloat16", "bfloat16", 1.3),
        ("naive-celery, as exported", "text int8, photo bf16", 3.0),
    ],
)
def test_the_goal_of_the_peer_that_people_write_first_is_that_of_float32(title, precision, goal):
    assert goal_of(title, precision) == goal


def test_peers_also_run_in_our_numeric_type(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    entries = lineup(list(PEERS), Path("c"), {**TORCH, "precision": "torch.bfloat16"})
    assert [title for _, title, _ in entries] == [
        "naive-celery, float32",
        "naive-celery, bfloat16",
        "celery-batches, float32",
        "celery-batches, bfloat16",
        "litserve, float32",
        "litserve, bfloat16",
    ]
    assert all(setting.processes * setting.threads == 2 for _, _, setting in entries)
    exported = lineup(list(PEERS), Path("c"), {**TORCH, "precision": "text int8, photo bf16"})
    assert [title for _, title, _ in exported] == [f"{name}, as exported" for name in PEERS]


def test_on_a_gpu_one_process_takes_the_batches(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    of = {
        title: setting
        for _, title, setting in lineup(
            list(PEERS), Path("c"), {"device": "cuda", "precision": "torch.float32"}
        )
    }
    assert of["naive-celery, float32"].processes == 8
    assert of["litserve, float32"].processes == 1 and of["litserve, float32"].threads == 8


def done(began, date_done, status="SUCCESS", tags=("red",)):
    return {"status": status, "date_done": date_done, "result": {"began": began, "tags": list(tags)}}


def test_a_celery_peer_takes_from_the_first_task_to_the_last_result():
    noon = stored_at("2026-01-01T12:00:00+00:00")
    assert stored_at("2026-01-01T12:00:00") == noon
    assert span(
        [done(noon + 1, "2026-01-01T12:00:03"), done(noon + 2, "2026-01-01T12:00:06.5+00:00")]
    ) == pytest.approx(5.5)


@pytest.mark.parametrize(
    "answer", [done(0, "2026-01-01T12:00:00", status="FAILURE"), done(0, "2026-01-01T12:00:00", tags=())]
)
def test_a_product_without_tags_is_an_error(answer):
    with pytest.raises(PeerFailedError):
        span([answer])


# -- processes and environments --------------------------------------------------------------------------------


def test_a_group_is_gone_at_the_end_of_its_block_also_when_it_is_paused(tmp_path):
    nap = "import time; time.sleep(600)"
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {nap!r}]); print('up', flush=True); {nap}"
    log = tmp_path / "log"
    with started([sys.executable, "-c", child], {}, log) as group:
        group.until(lambda: "up" in log.read_text())
        pid = group._process.pid
        group.pause()
    deadline = time.monotonic() + 20
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_there(pid)


def is_there(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_ends_by_itself_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no weights')"]
    with (
        started(command, {}, tmp_path / "log") as group,
        pytest.raises(PeerUnavailableError, match="no weights"),
    ):
        group.until(lambda: False)


def test_an_environment_that_cannot_be_made_says_what_the_installer_said(tmp_path):
    (tmp_path / "bad.lock").write_text("celery==5.6.3\n")  # without its hash
    with pytest.raises(PeerUnavailableError, match="hash"):
        make(tmp_path / "environment", tmp_path / "bad.lock")
    assert not is_made(tmp_path / "environment", tmp_path / "bad.lock")


# -- each of them on a tiny checkpoint -------------------------------------------------------------------------


def needs_environment(name):
    made = is_made(Path(sys.prefix) / "peers" / name, HERE / f"{name}.lock")
    return pytest.mark.skipif(not made, reason=f"python -m benchmarks peers makes the environment of {name}")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        "naive-celery",
        pytest.param("celery-batches", marks=needs_environment("celery-batches")),
        pytest.param("litserve", marks=needs_environment("litserve")),
    ],
)
def test_a_peer_tags_what_it_is_given(name, tmp_path):
    save(tiny_checkpoint(), tmp_path / "checkpoint")
    (tmp_path / "shirt.jpg").write_bytes(picture())
    products = [
        {"title": f"red shirt {n}", "description": "soft", "photos": [str(tmp_path / "shirt.jpg")] * (n % 2)}
        for n in range(5)
    ]
    setting = Setting(tmp_path / "checkpoint", "cpu", "float32", processes=1, threads=1)
    with PEERS[name].start(setting, tmp_path) as peer:
        assert 0 < peer.tag(products) < 60
        assert 0 < peer.tag(products) < 60  # stopped and gone on


@needs_environment("celery-batches")
def test_celery_batches_runs_under_the_celery_that_it_takes_and_the_torch_that_we_have():
    python = python_of("celery-batches", HERE / "celery-batches.lock", "celery")
    said = subprocess.run(
        [python, "-c", "from importlib.metadata import version as v; print(v('celery'), v('torch'))"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert said[0] < "5.7"
    assert said[1] == contestants.tagging.torch.__version__.partition("+")[0]
