import email
import email.policy
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from samples import draw, paintbox, welcome
from samples.client import ApiError, Client, Sample, multipart, read_samples, url_of

TAGS: list[dict[str, Any]] = [
    {
        "attribute": "article_type",
        "value": "Tshirts",
        "confidence": 0.971,
        "decision": "auto",
        "evidence": {"text": 0.93, "photos": 0.4},
    },
    {
        "attribute": "base_colour",
        "value": None,
        "confidence": 0.4,
        "decision": "abstain",
        "evidence": {"text": 0.1, "photos": None},
    },
]


@pytest.mark.parametrize("sample", read_samples(), ids=lambda sample: sample.photo_name)
def test_a_sample_photo_is_a_small_upright_jpeg_on_white(sample: Sample) -> None:
    assert len(sample.photo) < 40_000
    with Image.open(io.BytesIO(sample.photo)) as picture:
        assert picture.format == "JPEG"
        assert picture.width * 4 == picture.height * 3
        corners = [
            (0, 0),
            (picture.width - 1, 0),
            (0, picture.height - 1),
            (picture.width - 1, picture.height - 1),
        ]
        assert all(min(picture.getpixel(corner)) > 245 for corner in corners)
        assert min(picture.convert("L").getextrema()) < 120


def test_every_sample_photo_can_be_drawn_again() -> None:
    assert {sample.photo_name for sample in read_samples()} == set(draw.DRAWINGS)


def test_the_watch_is_drawn_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # At a third of the size: what is compared is the drawing, not the smoothing.
    for module in (draw, paintbox):
        monkeypatch.setattr(module, "SCALE", 1)
    drawn = draw.render(draw.draw_watch).resize((90, 120), Image.Resampling.BOX).convert("RGB")
    with Image.open(draw.FOLDER / "watch.jpg") as committed:
        known = committed.resize((90, 120), Image.Resampling.BOX)
    differences = [abs(a - b) for a, b in zip(drawn.tobytes(), known.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 4


def test_the_table_is_aligned_and_shows_what_is_missing() -> None:
    lines = welcome.table(TAGS).splitlines()
    assert lines[0].split() == ["attribute", "value", "confidence", "decision", "text", "photos"]
    assert lines[1].split() == ["article_type", "Tshirts", "97%", "auto", "93%", "40%"]
    assert lines[2].split() == ["base_colour", "-", "40%", "abstain", "10%", "-"]
    starts = [[match.start() for match in re.finditer(r"\S+", line)] for line in lines]
    ends = [[match.end() for match in re.finditer(r"\S+", line)] for line in lines]
    for column, aligned in ((0, starts), (1, starts), (2, ends), (3, starts), (4, ends), (5, ends)):
        assert len({row[column] for row in aligned}) == 1, column


def test_the_form_arrives_as_it_was_sent() -> None:
    content_type, body = multipart({"title": "Schöne Schuhe 鞋"}, [("a.jpg", b"\xff\xd8\r\n--\x00")])
    message = email.message_from_bytes(
        f"Content-Type: {content_type}\r\n\r\n".encode() + body, policy=email.policy.HTTP
    )
    title, photo = message.iter_parts()
    assert title.get_payload(decode=True).decode().rstrip("\r\n") == "Schöne Schuhe 鞋"
    assert photo.get_filename() == "a.jpg"
    assert b"\xff\xd8\r\n--\x00" in body


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (json.dumps({"ready": False, "database": True, "broker": True, "worker": False}).encode(), "worker"),
        (
            json.dumps({"ready": False, "database": False, "broker": False, "worker": True}).encode(),
            "database and broker",
        ),
        (b"<html>", "the service (HTTP 503)"),
        (b"[]", "the service (HTTP 503)"),
    ],
)
def test_the_wait_says_what_is_missing(body: bytes, said: str) -> None:
    assert welcome.what_is_missing(503, body) == said


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("shop.example", "http://shop.example:8001"),
        ("::1", "http://[::1]:8001"),
    ],
)
def test_any_address_that_web_listens_on_can_be_asked(host: str, url: str) -> None:
    assert url_of(host, 8001) == url
    with Client(url) as client:
        assert (client._connection.host, client._connection.port) == (host, 8001)


def test_an_error_answer_becomes_its_detail() -> None:
    assert "too long" in str(ApiError(422, b'{"title": "Invalid", "detail": "title is too long"}'))
    assert "oops" in str(ApiError(500, b"oops"))


def test_the_welcome_ends_with_the_reason_that_the_log_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, unused_port: int
) -> None:
    monkeypatch.setattr(welcome, "READY_WITHIN_S", 0)
    monkeypatch.setenv("TAGSMITH_PORT", str(unused_port))
    monkeypatch.setenv("TAGSMITH_VAR", str(tmp_path))
    log = tmp_path / "log" / "web.log"
    log.parent.mkdir()
    log.write_text("starting\nError: the disk is full\n")
    assert welcome.main() == 1
    said = capsys.readouterr().err
    assert "waiting for web" in said
    assert str(log) in said
    assert "the disk is full" in said


def test_a_missing_worker_is_explained_by_its_own_log(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text("models.errors.CheckpointError: no such checkpoint\n")
    said = str(welcome.not_ready("worker", tmp_path))
    assert said.endswith("worker.log, which ends with: models.errors.CheckpointError: no such checkpoint")
