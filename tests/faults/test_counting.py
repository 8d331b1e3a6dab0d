"""The fault tests believe their count, and the soak its verdicts: here both are shown what they must not miss."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from catalog.database import transaction
from tests.faults import invariant
from tests.faults.installation import Installation
from tests.faults.invariant import Count
from tests.faults.lives import Life, judge
from tests.faults.report import PROPERTY, Line, Report

SUCCEED = "UPDATE jobs SET status = 'succeeded', finished_at = now() WHERE id = :job"
BACK = "UPDATE jobs SET status = 'queued', finished_at = NULL WHERE id = :job"
TAG = """INSERT INTO tags (job_id, position, attribute, value, confidence, decision, alternatives)
         VALUES (:job, {position}, 'title', '{value}', 1, 'auto', '[]')"""
EMBEDDING = """INSERT INTO embeddings (job_id, product_id, model_version, embedding)
               SELECT id, product_id, '0', '[1]' FROM jobs WHERE id = :job"""
SHOW = "UPDATE products SET tagged_job_id = job_id WHERE job_id = :job"
WHOLE = (TAG.format(position=0, value="shoe"), EMBEDDING, SHOW, SUCCEED)


def counted(installation: Installation, *statements: str) -> Count:
    """After these statements on one accepted job, in transactions of their own."""
    job = installation.accept_one("shoe", "bulk")
    for statement in statements:
        with transaction(installation.engine) as session:
            session.execute(text(statement), {"job": job})
    return invariant.count(installation.engine, installation.tenant_id, [job])


def test_a_job_with_its_one_set_of_tags_is_neither_lost_nor_doubled(installation: Installation) -> None:
    found = counted(installation, *WHOLE)
    assert found == Count(accepted=1, succeeded=1, failed=0, cancelled=0, lost=0, doubled=0)
    assert invariant.holds(found)


@pytest.mark.parametrize(
    ("statements", "lost", "doubled"),
    [
        pytest.param((), 1, 0, id="it never ended"),
        pytest.param((SUCCEED,), 1, 0, id="no tags"),
        pytest.param(("DELETE FROM jobs WHERE id = :job",), 1, 0, id="no row"),
        pytest.param((TAG.format(position=0, value="boot"), *WHOLE[1:]), 1, 1, id="tags of another product"),
        pytest.param((TAG.format(position=1, value="shoe"), *WHOLE), 0, 1, id="two sets of tags"),
        pytest.param((*WHOLE, BACK, SUCCEED), 0, 1, id="it ended twice"),
    ],
)
def test_what_is_lost_or_doubled_is_seen(
    installation: Installation, statements: tuple[str, ...], lost: int, doubled: int
) -> None:
    found = counted(installation, *statements)
    assert (found.lost, found.doubled) == (lost, doubled)
    assert not invariant.holds(found)


def life(memory: list[int], files: list[float]) -> Life:
    return Life("worker", psutil.Process(), memory, files, [1] * len(memory))


def test_a_process_that_grows_after_its_warm_up_is_told_from_one_that_does_not() -> None:
    warming = [50, 80, 95, 99] + [100] * 8 + [101] * 12
    growing = [*range(100, 124)]
    flat = [7] * 24
    verdicts = [judge(life(memory, flat)) for memory in (warming, growing)]
    assert [verdict is not None and verdict.holds for verdict in verdicts] == [True, False]


def test_files_that_go_up_and_down_are_no_leak_and_files_that_stay_open_are() -> None:
    breathing, leaking = [7, 9, 8] * 8, [*range(7, 31)]
    verdicts = [judge(life([100] * 24, files)) for files in (breathing, leaking)]
    assert [verdict is not None and verdict.holds for verdict in verdicts] == [True, False]


def test_a_short_life_is_not_judged() -> None:
    assert judge(life([100] * 5, [7] * 5)) is None


def test_the_table_is_of_what_all_tests_wrote_down() -> None:
    lines = [Line(name, Count(3, 2, 1, 0, 0, 0), (1.5, 2.5)) for name in ("worker killed", "redis frozen")]
    tests: list[Any] = [
        SimpleNamespace(user_properties=[("another", 1), (PROPERTY, asdict(line))]) for line in lines
    ]
    report = Report.of([*tests, SimpleNamespace(user_properties=[])])
    assert report.lines == lines
    assert report.table().splitlines()[-1].split() == ["all", "6", "4", "2", "0", "0", "0"]
