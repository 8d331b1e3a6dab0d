"""Another checkpoint takes over while jobs are tagged: every job keeps its model, and no batch mixes two."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from catalog.settings import Settings
from catalog.views import Lane
from workers import memory
from workers.batch_runner import ResultCountMismatch
from workers.control import outcome, tell
from workers.served import Prepared, Served, collate, forward, length, new_photos

from .conftest import StandIn

if TYPE_CHECKING:
    from .conftest import Desk

PATIENCE_S = 30.0


class Shelf:
    """Loads a stand-in whose version is the name of the folder; waits before it does while the gate is shut."""

    def __init__(self) -> None:
        self.loaded: dict[str, StandIn] = {}
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, settings: Settings) -> StandIn:
        assert self.gate.wait(PATIENCE_S)
        version = settings.checkpoint.name
        if version == "broken":
            raise ValueError("the weights do not fit")
        self.loaded[version] = StandIn(version=version)
        return self.loaded[version]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def served(shelf: Shelf, tmp_path: Path) -> Served:
    return Served(shelf, Settings(checkpoint=tmp_path / "old"))


def test_what_only_loading_took_goes_back_to_the_system(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[list[str]] = []
    monkeypatch.setattr(memory, "give_back", lambda: loaded.append(list(shelf.loaded)))
    Served(shelf, Settings(checkpoint=tmp_path / "old"))
    assert loaded == [["old"]]


def test_an_example_has_the_length_and_the_photos_that_its_own_runtime_says() -> None:
    one, other = StandIn(), StandIn()
    other.new_photos = lambda title: 3  # type: ignore[method-assign]
    examples = [Prepared(runtime, "shirt", urgent=False) for runtime in (one, other)]
    assert [(length(example), new_photos(example)) for example in examples] == [(5, 0), (5, 3)]


def loaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "checkpoint-loader"]


def change(served: Served, checkpoint: Path) -> dict[str, Any]:
    served.change_to(checkpoint)
    for thread in loaders():
        thread.join(PATIENCE_S)
    return served.report()


def test_the_new_checkpoint_takes_over_and_the_old_one_comes_back(served: Served, tmp_path: Path) -> None:
    assert served.runtime.version == "old"
    report = change(served, tmp_path / "new")
    assert (served.runtime.version, report["version"], report["change"]["status"]) == (
        "new",
        "new",
        "serving",
    )
    assert change(served, tmp_path / "old")["version"] == "old"


def test_a_change_for_which_there_is_no_thread_is_refused_and_the_next_one_goes_on(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        served.change_to(tmp_path / "new")
    assert served.report()["change"]["status"] == "refused"
    assert "thread" in served.report()["change"]["reason"]
    assert change(served, tmp_path / "new")["version"] == "new"


def test_once_the_old_one_is_gone_its_memory_goes_back_to_the_system(
    served: Served, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back = threading.Event()
    monkeypatch.setattr(memory, "give_back", given_back.set)
    monkeypatch.setattr("workers.served.WEIGHTS_GONE_S", 0.0)
    item = Prepared(served.runtime, served.runtime.prepare("in flight", "", ()), urgent=True)
    change(served, tmp_path / "new")
    shelf.loaded.clear()
    assert not given_back.is_set(), "something is still to be run on it"
    forward(collate([item]))
    del item
    assert given_back.wait(PATIENCE_S)


def test_the_old_one_serves_while_the_new_one_loads(served: Served, shelf: Shelf, tmp_path: Path) -> None:
    shelf.gate.clear()
    served.change_to(tmp_path / "new")
    assert served.report()["change"]["status"] == "loading"
    assert all(loader.daemon for loader in loaders()), "a worker that is stopped does not wait for it"
    assert served.runtime.version == "old"
    served.change_to(tmp_path / "another")  # not while one is being loaded
    shelf.gate.set()
    for thread in loaders():
        thread.join(PATIENCE_S)
    assert (served.runtime.version, list(shelf.loaded)) == ("new", ["old", "new"])


def test_a_checkpoint_that_cannot_be_loaded_is_refused_with_its_reason(
    served: Served, tmp_path: Path
) -> None:
    report = change(served, tmp_path / "broken")
    assert (served.runtime.version, report["version"]) == ("old", "old")
    assert report["change"]["status"] == "refused"
    assert report["change"]["reason"] == "ValueError: the weights do not fit"
    fine, line = outcome(report, tmp_path / "broken")
    assert not fine
    assert line.startswith("serves stand-in old as before, and refused")
    assert line.endswith("the weights do not fit")
    assert change(served, tmp_path / "new")["version"] == "new", "a refusal bars nothing"


@pytest.mark.parametrize("checkpoint", ["new", "broken"])
def test_a_change_says_how_long_it_took(shelf: Shelf, tmp_path: Path, checkpoint: str) -> None:
    times = iter([100.0, 103.5])
    served = Served(shelf, Settings(checkpoint=tmp_path / "old"), clock=lambda: next(times))
    assert change(served, tmp_path / checkpoint)["change"]["seconds"] == 3.5


def test_a_link_is_followed_before_its_files_are_read(shelf: Shelf, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "served"
    link.symlink_to("old")
    served = Served(shelf, Settings(checkpoint=link))
    assert (served.runtime.version, served.report()["setting_is_served"]) == ("old", True)
    link.unlink()
    link.symlink_to("new")
    assert not served.report()["setting_is_served"]
    report = change(served, link)
    assert (report["version"], report["checkpoint"]) == ("new", str(tmp_path / "new"))
    assert report["setting_is_served"]


def test_a_setting_that_names_another_checkpoint_is_warned_of(served: Served, tmp_path: Path) -> None:
    said: list[str] = []
    warned: list[str] = []
    reports = {"w1": change(served, tmp_path / "new")}
    assert tell(reports, tmp_path / "new", said.append, warned.append)
    assert said[0].startswith("w1 serves stand-in new, loaded in")
    assert str(tmp_path / "old") in warned[0]
    assert not tell({}, tmp_path / "new", said.append, warned.append)


def test_a_batch_around_a_change_runs_each_example_on_its_own_runtime_and_in_order() -> None:
    ran: list[tuple[str, list[str]]] = []
    old, new = StandIn(version="old"), StandIn(version="new")
    items = []
    for number, runtime in enumerate((old, new, new, old, new)):
        runtime.on_forward = lambda titles, runtime=runtime: ran.append((runtime.version, list(titles)))  # type: ignore[misc]
        items.append(Prepared(runtime, runtime.prepare(str(number), "", ()), urgent=False))
    answers = forward(collate(items))
    assert [answer.tags[0].value for answer in answers] == ["0", "1", "2", "3", "4"]
    assert ran == [("old", ["0", "3"]), ("new", ["1", "2", "4"])]


@pytest.mark.parametrize("urgent", [False, True])
def test_a_batch_is_patient_where_nobody_waits_for_any_of_it(urgent: bool) -> None:
    old, new = StandIn(version="old"), StandIn(version="new")
    collate(
        [
            Prepared(old, "a", urgent=False),
            Prepared(old, "b", urgent=urgent),
            Prepared(new, "c", urgent=False),
        ]
    )
    assert old.patient + new.patient == [(["a", "b"], not urgent), (["c"], not urgent)]


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_an_interactive_job_is_one_that_somebody_waits_for(desk: Desk, lane: Lane) -> None:
    desk.run(desk.accept("shirt", lane=lane), lane=lane)
    assert desk.runtime.patient == [(["shirt"], lane == "bulk")]


def test_a_runtime_that_gives_another_number_of_results_is_found_out() -> None:
    old, new = StandIn(version="old"), StandIn(version="new")
    old.forward = lambda titles: ["one", "two"]  # type: ignore[method-assign]
    items = [Prepared(old, "a", urgent=True), Prepared(new, "b", urgent=True)]
    with pytest.raises(ResultCountMismatch):
        forward(collate(items))


def test_jobs_in_flight_over_a_change_all_succeed_each_with_the_version_that_prepared_it(desk: Desk) -> None:
    old, mixed = desk.runtime, []
    new = StandIn(version="2")
    arrived, go = threading.Semaphore(0), threading.Event()

    def wait(titles: list[str]) -> None:
        arrived.release()
        assert go.wait(PATIENCE_S)

    old.on_forward = wait
    new.on_forward = lambda titles: mixed.extend(title for title in titles if not title.startswith("after"))
    before = [desk.accept(f"before {n}", lane="bulk") for n in range(20)]
    after = [desk.accept(f"after {n}", lane="bulk") for n in range(20)]
    first = threading.Thread(target=desk.run, args=before, kwargs={"lane": "bulk"})
    first.start()
    assert arrived.acquire(timeout=PATIENCE_S), "the old model runs"
    desk.runtime = new  # what is loaded next
    report = change(desk.served, Path("next"))
    assert report["change"]["status"] == "serving"
    second = threading.Thread(target=desk.run, args=after, kwargs={"lane": "bulk"})
    second.start()
    go.set()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    jobs = [desk.job(job_id) for job_id in before + after]
    assert [(job.status, job.model_version) for job in jobs] == (
        [("succeeded", "1")] * 20 + [("succeeded", "2")] * 20
    )
    assert mixed == []
    served = desk.metrics.registry.get_sample_value(
        "tagsmith_worker_model_info", {"name": "stand-in", "version": "2"}
    )
    assert served == 1


def test_a_checkpoint_whose_library_panics_is_refused_and_the_next_one_is_loaded(
    served: Served, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class RustPanic(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(served, "_load", Mock(side_effect=RustPanic("index out of bounds")))
        report = change(served, tmp_path / "odd")
    assert report["change"]["status"] == "refused"
    assert "index out of bounds" in report["change"]["reason"]
    assert change(served, tmp_path / "new")["change"]["status"] == "serving"
