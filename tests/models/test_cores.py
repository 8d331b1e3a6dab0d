"""Threads with cores of their own, and a tagger that shares a batch out among them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier, Event

import pytest
import torch

from models import Product, Tagger
from models.cores import BEHIND, Callers, one_core, threads
from models.tagger import TOGETHER
from tests.tiny_tagger import WORDS, picture, tiny_checkpoint


def test_each_thread_uses_its_own_cores_and_nobody_else_is_changed():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads(2) as pool, threads(1, cores=2) as wide:
            assert set(pool.map(cores_here, range(8))) == {1}
            assert set(wide.map(cores_here, range(8))) == {2}
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def cores_here(_=None):
    return torch.get_num_threads()


def niceness(_=None):
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_threads_that_stay_behind_leave_the_others_as_they_were():
    before = niceness()
    with threads(2, behind=True) as pool, threads(2) as plain, ThreadPoolExecutor(1) as later:
        assert set(pool.map(niceness, range(8))) == {min(19, before + BEHIND)}
        assert {niceness(), *plain.map(niceness, range(8)), later.submit(niceness).result()} == {before}


def test_threads_that_may_not_stay_behind_begin_all_the_same(monkeypatch):
    def forbidden(*given):
        raise PermissionError("seccomp")

    monkeypatch.setattr(os, "setpriority", forbidden)
    before = niceness()
    with threads(2, behind=True) as pool:
        assert set(pool.map(niceness, range(8))) == {before}


def test_one_core_ends_with_its_block_also_where_it_fails():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    inside = []

    def fail() -> None:
        with one_core():
            inside.append(torch.get_num_threads())
            raise ValueError("inside")

    try:
        with pytest.raises(ValueError, match="inside"):
            fail()
        assert (inside, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_a_batch_that_is_shared_out_answers_as_one_that_is_not():
    before = torch.get_num_threads()
    products = [Product(f"{word} shirt") for word in WORDS]
    assert len(products) > TOGETHER
    try:
        torch.set_num_threads(1)
        alone = Tagger(tiny_checkpoint(), "v", "cpu")
        torch.set_num_threads(2)
        shared = Tagger(tiny_checkpoint(), "v", "cpu", quick=True)
    finally:
        torch.set_num_threads(before)
    examples = [alone.prepare(product) for product in products]
    assert len(shared.collate(examples).batches) == 2
    assert len(shared.collate(examples[:TOGETHER]).batches) == 1
    assert [len(part) for part in shared.collate(examples[:3], patient=True).batches] == [2, 1]
    for one, other in zip(alone.predict(examples), shared.predict(examples), strict=True):
        assert [tag.value for tag in one.tags] == [tag.value for tag in other.tags]
        torch.testing.assert_close(
            [tag.confidence for tag in one.tags], [tag.confidence for tag in other.tags], atol=1e-5, rtol=0
        )


def test_who_enters_is_told_how_many_are_inside():
    callers = Callers()
    with callers as first:
        with callers as second:
            pass
        with pytest.raises(ValueError, match="inside"), callers as third:
            raise ValueError("inside")
    with callers as last:
        pass
    assert (first, second, third, last) == (0, 1, 1, 0)


def tagger_with_cores(cores):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(cores)
        return Tagger(tiny_checkpoint(), "v", "cpu", quick=True)
    finally:
        torch.set_num_threads(before)


def test_large_batches_stay_behind_what_a_person_waits_for():
    tagger = tagger_with_cores(2)
    assert tagger.pool.submit(niceness).result() == min(19, niceness() + BEHIND)
    for pool in (tagger.alone.texts, tagger.alone.photos, tagger.aside.texts, tagger.aside.photos):
        assert pool.submit(niceness).result() == niceness()


def nicenesses(tagger, monkeypatch):
    """Of the threads that run what is forwarded from now on."""
    found, run = [], tagger.run

    def observed(batch, **beside):
        found.append(niceness())
        return run(batch, **beside)

    monkeypatch.setattr(tagger, "run", observed)
    return found


def test_what_nobody_waits_for_stays_behind_however_little_it_is(monkeypatch):
    tagger = tagger_with_cores(2)
    found = nicenesses(tagger, monkeypatch)
    examples = [tagger.prepare(Product(f"{word} shirt")) for word in WORDS[:3]]
    patient = tagger.forward(tagger.collate(examples, patient=True))
    assert set(found) == {min(19, niceness() + BEHIND)}
    found.clear()
    for one, other in zip(tagger.predict(examples), patient, strict=True):
        assert [tag.value for tag in one.tags] == [tag.value for tag in other.tags]
    assert found == [niceness()]


def test_on_one_core_nothing_is_shared_out():
    tagger = tagger_with_cores(1)
    examples = [tagger.prepare(Product(f"{word} shirt")) for word in WORDS[:3]]
    collated = tagger.collate(examples, patient=True)
    assert [len(part) for part in collated.batches] == [3]
    assert len(tagger.forward(collated)) == 3


def test_a_product_does_not_queue_behind_the_parts_of_large_batches():
    tagger = tagger_with_cores(2)
    example = tagger.prepare(Product("red shirt"))
    free = Event()
    with tagger.callers, ThreadPoolExecutor(1) as beside:
        for _ in range(4):
            tagger.pool.submit(free.wait)
        try:
            assert len(beside.submit(tagger.predict, [example]).result(timeout=30)) == 1
        finally:
            free.set()


@pytest.mark.parametrize(("others", "each"), [(False, 2), (True, 1)])
def test_the_towers_of_what_a_person_waits_for_run_side_by_side(monkeypatch, others, each):
    tagger = tagger_with_cores(4)
    both, found = Barrier(2), {}

    def observed(name, tower):
        def run(batch):
            both.wait(timeout=30)  # neither ends before the other has begun
            found[name] = cores_here(), niceness()
            return tower(batch)

        return run

    for name in ("text_features", "photo_features"):
        monkeypatch.setattr(tagger.model, name, observed(name, getattr(tagger.model, name)))
    example = tagger.prepare(Product("red shirt", photos=(picture(),)))
    with tagger.callers if others else nullcontext():
        (tagging,) = tagger.predict([example])
    assert found == dict.fromkeys(("text_features", "photo_features"), (each, niceness()))
    monkeypatch.undo()
    (alone,) = tagger_with_cores(1).predict([example])
    torch.testing.assert_close(
        [tag.confidence for tag in tagging.tags], [tag.confidence for tag in alone.tags], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("broken", ["text_features", "photo_features"])
def test_a_tower_that_fails_fails_the_batch_and_no_later_one(monkeypatch, broken):
    tagger = tagger_with_cores(2)
    example = tagger.prepare(Product("red shirt", photos=(picture(),)))

    def fail(batch):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(tagger.model, broken, fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            tagger.predict([example])
    assert len(tagger.predict([example])) == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_batches_that_run_at_the_same_time_answer_as_alone(cores):
    tagger = tagger_with_cores(cores)
    examples = [tagger.prepare(Product(f"{word} shirt")) for word in WORDS]
    batches = [examples[:1], examples[1:4], examples]  # of the kinds that are run together and shared out
    alone = [tagger.predict(batch) for batch in batches]
    begun = Barrier(len(batches))

    def predict(batch):
        begun.wait(timeout=10)
        return tagger.predict(batch)

    for _ in range(5):
        with ThreadPoolExecutor(len(batches)) as pool:
            beside = list(pool.map(predict, batches))
        for one, other in zip(alone, beside, strict=True):
            torch.testing.assert_close(
                [tag.confidence for tagging in one for tag in tagging.tags],
                [tag.confidence for tagging in other for tag in tagging.tags],
                atol=1e-5,
                rtol=0,
            )
