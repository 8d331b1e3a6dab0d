"""The benchmark of intake: its photos, its arithmetic, and its document from a real web process."""

import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from benchmarks.intake import SIDE, PhotoMaker, Round, memory, summary, table


def test_photos_have_the_size_that_is_asked_for_and_no_two_are_alike():
    maker = PhotoMaker(300_000)
    photos = [maker.make() for _ in range(5)]
    assert len(set(photos)) == 5
    for photo in photos:
        assert len(photo) == pytest.approx(300_000, rel=0.1)
        with Image.open(io.BytesIO(photo)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (SIDE, SIDE))


def test_the_same_seed_makes_the_same_photos():
    assert PhotoMaker(100_000, seed=3).make() == PhotoMaker(100_000, seed=3).make()


def test_the_summary_holds_medians_and_the_ratio_of_the_medians():
    document = summary([Round(40, 100), Round(50, 80), Round(20, 90)])
    assert (document["post_per_s"], document["decode_per_s"], document["ratio"]) == (40, 90, 0.444)
    assert [one["ratio"] for one in document["rounds"]] == [0.4, 0.625, 0.222]
    assert document["headline"][0]["range"] == [pytest.approx(0.222, abs=1e-3), 0.625]


def test_memory_covers_the_children_of_a_process():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        own, together = memory(child.pid), memory(os.getpid())
    finally:
        child.communicate(b"\n")
    assert 0 < own["rss"] <= own["peak_rss"] < together["rss"] <= together["peak_rss"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_document_of_a_real_web_process(run_benchmark):
    document = run_benchmark(*("intake", "--requests", "6", "--rounds", "2", "--photo-bytes", "150000"))
    assert len(document["rounds"]) == 2 and document["photo_kb"] == pytest.approx(150, rel=0.15)
    assert document["ratio"] == pytest.approx(document["post_per_s"] / document["decode_per_s"], rel=0.02)
    assert document["memory_mb"]["after_all_rounds"]["peak_rss"] > 0
    assert "2 rounds of 6 requests" in table(document)
