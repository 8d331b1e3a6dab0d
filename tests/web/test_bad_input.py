"""Bad input, case by case: a clear problem of its own type, nothing stored, never a 500."""

import gzip
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.web.seller import Seller, Stored, encoded, form, picture

BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def assert_refused(answer: Any, status: int, kind: str, stored: Stored) -> None:
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/problem+json"
    problem = answer.json
    assert problem["type"] == f"/problems/{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert stored.nothing()


def part(name: str | None, value: bytes, filename: str | None = None) -> bytes:
    disposition = "form-data" + (f'; name="{name}"' if name is not None else "")
    if filename is not None:
        disposition += f'; filename="{filename}"'
    return (f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n").encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


# ---- Photos

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_that_claims(width: int, height: int) -> bytes:
    """A header of this size and next to no pixels behind it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_SIGNATURE + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    frames = [picture(40, 40), picture(40, 40).rotate(90)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


PHOTOS: list[tuple[str, Callable[[], bytes], int, str]] = [
    ("empty", lambda: b"", 415, "unsupported-photo"),
    ("text", lambda: b"not a picture at all", 415, "unsupported-photo"),
    ("GIF", lambda: encoded(picture(), "GIF"), 415, "unsupported-photo"),
    ("BMP", lambda: encoded(picture(), "BMP"), 415, "unsupported-photo"),
    ("TIFF", lambda: encoded(picture(), "TIFF"), 415, "unsupported-photo"),
    ("SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', 415, "unsupported-photo"),
    ("PDF", lambda: b"%PDF-1.7\n", 415, "unsupported-photo"),
    ("HEIC", lambda: b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + b"\0" * 64, 415, "unsupported-photo"),
    ("JPEG's first bytes alone", lambda: b"\xff\xd8\xff\xe0", 422, "photo-unreadable"),
    ("PNG's signature alone", lambda: PNG_SIGNATURE, 422, "photo-unreadable"),
    ("WebP's header alone", lambda: b"RIFF\x10\0\0\0WEBPVP8 ", 422, "photo-unreadable"),
    ("AVIF's header alone", lambda: encoded(picture(), "AVIF")[:60], 422, "photo-unreadable"),
    ("truncated JPEG", lambda: encoded(picture(600, 800), quality=95)[:-2000], 422, "photo-unreadable"),
    ("JPEG cut in half", lambda: encoded(picture(600, 800), quality=95)[:4000], 422, "photo-unreadable"),
    ("progressive JPEG cut in half",
     lambda: encoded(picture(600, 800), progressive=True)[:4000], 422, "photo-unreadable"),
    ("truncated PNG", lambda: encoded(picture(600, 800), "PNG")[:-200], 422, "photo-unreadable"),
    ("truncated WebP", lambda: encoded(picture(600, 800), "WEBP")[:-200], 422, "photo-unreadable"),
    ("truncated AVIF", lambda: encoded(picture(600, 800), "AVIF")[:-200], 422, "photo-unreadable"),
    ("PNG without pixels", lambda: png_that_claims(100, 100), 422, "photo-unreadable"),
    ("random bytes behind a JPEG's start", lambda: b"\xff\xd8\xff" + bytes(range(256)) * 20, 422,
     "photo-unreadable"),
    ("65 megapixels in the header", lambda: png_that_claims(8100, 8100), 422, "photo-too-many-pixels"),
    ("100 megapixels in the header", lambda: png_that_claims(10_000, 10_000), 422, "photo-too-many-pixels"),
    ("4 gigapixels in the header", lambda: png_that_claims(65_500, 65_500), 422, "photo-too-many-pixels"),
    ("animated PNG", lambda: animated("PNG"), 422, "photo-animated"),
    ("animated WebP", lambda: animated("WEBP"), 422, "photo-animated"),
    ("animated AVIF", lambda: animated("AVIF"), 422, "photo-animated"),
]  # fmt: skip


def test_a_bad_photo_is_refused_with_all_that_came_with_it(
    seller: Seller, jpeg: bytes, stored: Stored, subtests: pytest.Subtests
) -> None:
    for name, make, status, kind in PHOTOS:
        with subtests.test(name):
            answer = seller.send(jpeg, make(), title="Shoes", headers={"Idempotency-Key": "k"})
            assert_refused(answer, status, kind, stored)
            assert "photo 2" in answer.json["detail"]


def test_a_photo_over_the_limit_is_413(make_app: Callable[..., Flask], api_key: str, stored: Stored) -> None:
    seller = Seller(make_app(max_photo_bytes=5000).test_client(), api_key)
    answer = seller.send(encoded(picture(600, 800), quality=95), title="Shoes")
    assert_refused(answer, 413, "photo-too-large", stored)
    assert "photo 1" in answer.json["detail"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_request_over_the_limit_is_413(
    make_app: Callable[..., Flask], api_key: str, stored: Stored, announced: bool
) -> None:
    seller = Seller(make_app(max_request_bytes=20_000).test_client(), api_key)
    body = part("title", b"Shoes") + part("photos", b"\xff\xd8\xff" + b"x" * 30_000, "a.jpg") + END
    chunked = {"wsgi.input_terminated": True, "CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = seller.call(
        "POST",
        "/v1/products",
        input_stream=io.BytesIO(body),
        content_type=MULTIPART,
        environ_overrides={"CONTENT_LENGTH": str(len(body))} if announced else chunked,
    )
    assert_refused(answer, 413, "request-too-large", stored)
    assert (f"has {len(body):,} bytes" in answer.json["detail"]) is announced


def test_too_many_photos_are_refused(seller: Seller, jpeg: bytes, stored: Stored) -> None:
    assert_refused(seller.send(*[jpeg] * 9, title="Shoes"), 422, "too-many-photos", stored)
    urls = [f"https://example.com/{n}.jpg" for n in range(9)]
    assert_refused(seller.send_json({"photo_urls": urls}), 422, "too-many-photos", stored)


def test_an_input_that_was_left_empty_beside_as_many_photos_as_there_may_be_is_none(
    make_app: Callable[..., Flask], api_key: str, jpeg: bytes
) -> None:
    """Browsers send each as a part without name and content."""
    seller = Seller(make_app(max_photos=1).test_client(), api_key)
    body = part("photos", jpeg, "a.jpg") + part("photos", b"", "") + END
    answer = seller.call("POST", "/v1/products", data=body, content_type=MULTIPART)
    assert (answer.status_code, len(answer.json["product"]["photos"])) == (202, 1)


# ---- Forms

FORMS: list[tuple[str, bytes, int, str]] = [
    ("no parts", END, 422, "empty-product"),
    ("next to nothing", b"\r\n", 400, "malformed-multipart"),
    ("no closing boundary", part("title", b"Shoes"), 400, "malformed-multipart"),
    ("another boundary", part("title", b"Shoes").replace(b"frontier", b"border") + END, 422, "empty-product"),
    ("a part without headers", f"--{BOUNDARY}\r\n\r\nShoes\r\n".encode() + END, 400, "malformed-multipart"),
    ("a part without a name", part(None, b"Shoes") + END, 400, "malformed-multipart"),
    ("headers that never end", f"--{BOUNDARY}\r\nX: ".encode() + b"y" * 500_000, 400, "malformed-multipart"),
    ("header bytes that are not UTF-8",
     part("title", b"x").replace(b'"title"', b'"\xff\xfe"') + END, 400, "malformed-multipart"),
    ("neither title nor photo", part("description", b"Mesh") + END, 422, "empty-product"),
    ("a blank title", part("title", b"  \t ") + END, 422, "empty-product"),
    ("an unchosen file", part("photos", b"", "") + END, 422, "empty-product"),
    ("an unknown field", part("title", b"Shoes") + part("colour", b"red") + END, 422, "invalid-fields"),
    ("an unknown file", part("title", b"Shoes") + part("photo", b"x", "a.jpg") + END, 422, "invalid-fields"),
    ("addresses in a form", part("photo_urls", b"https://example.com/a.jpg") + END, 422, "invalid-fields"),
    ("a title given twice", part("title", b"a") + part("title", b"b") + END, 422, "invalid-fields"),
    ("a title as a file", part("title", b"Shoes", "title.txt") + END, 422, "invalid-fields"),
    ("photos as text", part("photos", b"a.jpg") + END, 422, "invalid-fields"),
    ("NUL in the title", part("title", b"Sho\0es") + END, 422, "invalid-fields"),
    ("invalid UTF-8 in the title", part("title", b"Sho\xffes") + END, 422, "invalid-fields"),
    ("a surrogate in UTF-8", part("title", b"\xed\xa0\x80") + END, 422, "invalid-fields"),
    ("too long a title", part("title", b"x" * 501) + END, 422, "invalid-fields"),
    ("a huge title", part("title", b"x" * 3_000_000) + END, 422, "invalid-fields"),
    ("too long a description", part("title", b"a") + part("description", b"x" * 20_001) + END, 422,
     "invalid-fields"),
    ("too long an external_id", part("title", b"a") + part("external_id", b"x" * 201) + END, 422,
     "invalid-fields"),
    ("an unknown lane", part("title", b"a") + part("lane", b"express") + END, 422, "invalid-fields"),
    ("a file without a name", part("photos", b"x", "") + END, 422, "invalid-fields"),
    ("a part cut off inside its headers",
     part("title", b"Shoes") + f"--{BOUNDARY}\r\nContent-Disp".encode(), 400, "malformed-multipart"),
    ("thousands of parts", part("title", b"a") + part("photos", b"", "") * 20_000 + part("title", b"b") + END,
     400, "malformed-multipart"),
]  # fmt: skip


def test_a_bad_form_is_refused(seller: Seller, stored: Stored, subtests: pytest.Subtests) -> None:
    for name, body, status, kind in FORMS:
        with subtests.test(name):
            answer = seller.call("POST", "/v1/products", data=body, content_type=MULTIPART)
            assert_refused(answer, status, kind, stored)


def test_a_form_without_a_boundary_is_refused(seller: Seller, stored: Stored) -> None:
    answer = seller.call("POST", "/v1/products", data=b"x", content_type="multipart/form-data")
    assert_refused(answer, 400, "malformed-multipart", stored)


# ---- JSON

DOCUMENTS: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 400, "malformed-json"),
    ("half an object", b'{"title": "Sho', 400, "malformed-json"),
    ("invalid UTF-8", b'{"title": "Sho\xffes"}', 400, "malformed-json"),
    ("UTF-16", '{"title": "Shoes"}'.encode("utf-16"), 400, "malformed-json"),
    ("two objects", b'{"title": "a"}{"title": "b"}', 400, "malformed-json"),
    ("nested deeply", b'{"title": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "malformed-json"),
    ("a lone surrogate", b'{"title": "\\ud800"}', 400, "malformed-json"),
    ("a list", b'["Shoes"]', 422, "invalid-fields"),
    ("null", b"null", 422, "invalid-fields"),
    ("an empty object", b"{}", 422, "empty-product"),
    ("no title and no photo", b'{"title": null, "photo_urls": []}', 422, "empty-product"),
    ("an unknown field", b'{"title": "Shoes", "colour": "red"}', 422, "invalid-fields"),
    ("an unknown field that is half a pair", b'{"title": "Shoes", "\\ud800": 1}', 400, "malformed-json"),
    ("an unknown field that is not printable", b'{"title": "Shoes", "\\u0000": 1}', 422, "invalid-fields"),
    ("a number as title", b'{"title": 12}', 422, "invalid-fields"),
    ("an object as title", b'{"title": {"en": "Shoes"}}', 422, "invalid-fields"),
    ("NUL in the title", b'{"title": "Sho\\u0000es"}', 422, "invalid-fields"),
    ("NUL in external_id", b'{"title": "Shoes", "external_id": "\\u0000"}', 422, "invalid-fields"),
    ("too long a title", json.dumps({"title": "x" * 501}).encode(), 422, "invalid-fields"),
    ("an unknown lane", b'{"title": "Shoes", "lane": "express"}', 422, "invalid-fields"),
    ("one address as text", b'{"photo_urls": "https://example.com/a.jpg"}', 422, "invalid-fields"),
    ("an address that is too long", json.dumps({"photo_urls": ["https://e.com/" + "x" * 3000]}).encode(), 422,
     "invalid-fields"),
    ("a million bytes and more", b'{"title": "' + b"x" * 1_100_000 + b'"}', 413, "request-too-large"),
]  # fmt: skip


def test_a_bad_document_is_refused(seller: Seller, stored: Stored, subtests: pytest.Subtests) -> None:
    for name, body, status, kind in DOCUMENTS:
        with subtests.test(name):
            answer = seller.call("POST", "/v1/products", data=body, content_type="application/json")
            assert_refused(answer, status, kind, stored)


def test_each_wrong_field_is_named(seller: Seller) -> None:
    answer = seller.send_json({"title": 1, "lane": "express", "color": "red"})
    assert {error["field"] for error in answer.json["errors"]} == {"title", "lane", "color"}


def test_of_many_wrong_fields_a_few_are_told_and_their_names_cut_short(seller: Seller) -> None:
    answer = seller.send_json({f"{number}{'x' * 10_000}": 1 for number in range(30)})
    assert answer.status_code == 422
    assert len(answer.json["errors"]) == 20
    form_answer = seller.send(**{"y" * 1000: "1"})
    assert form_answer.status_code == 422
    for error in answer.json["errors"] + form_answer.json["errors"]:
        assert len(error["field"]) < 100


def test_another_kind_of_body_is_415(seller: Seller, stored: Stored, subtests: pytest.Subtests) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "image/jpeg", None):
        with subtests.test(str(media_type)):
            answer = seller.call("POST", "/v1/products", data=b"title=Shoes", content_type=media_type)
            assert_refused(answer, 415, "unsupported-media-type", stored)


def test_a_compressed_body_is_told_from_a_broken_one(seller: Seller, stored: Stored) -> None:
    packed = gzip.compress(b'{"title": "Shoes"}')
    headers = {"Content-Encoding": "gzip"}
    answer = seller.call(
        "POST", "/v1/products", data=packed, content_type="application/json", headers=headers
    )
    assert_refused(answer, 415, "unsupported-media-type", stored)
    assert "send it uncompressed" in answer.json["detail"]
    plain = seller.send_json({"title": "Shoes"}, headers={"Content-Encoding": "Identity"})
    assert plain.status_code == 202


def test_an_address_that_is_too_long_is_told_in_characters(seller: Seller) -> None:
    answer = seller.send_json({"title": "Shoes", "photo_urls": ["https://example.com/" + "x" * 2048]})
    assert answer.status_code == 422
    assert "2048 characters" in answer.json["detail"]


# ---- Headers, queries, addresses


def test_a_bad_idempotency_key_is_refused(seller: Seller, stored: Stored, subtests: pytest.Subtests) -> None:
    for key in ("", " ", "two words", "x" * 256, "schl\u00fcssel"):
        with subtests.test(key):
            answer = seller.send(title="Shoes", headers={"Idempotency-Key": key})
            assert_refused(answer, 422, "idempotency-key-invalid", stored)


BAD_QUERIES = [
    "/v1/products?limit=0", "/v1/products?limit=101", "/v1/products?limit=ten", "/v1/products?limit=",
    "/v1/products?cursor=nonsense", "/v1/products?cursor=%00", "/v1/products?cursor=cHJkXwBh",
    "/v1/products?cursor=%F0%9F%8E%A7", "/v1/products?cursr=x", "/v1/products?cursor=" + "A" * 600,
    "/v1/jobs/job_{id}?wait=-1", "/v1/jobs/job_{id}?wait=31", "/v1/jobs/job_{id}?wait=nan",
    "/v1/jobs/job_{id}?wait=inf", "/v1/jobs/job_{id}?wait=soon", "/v1/jobs/job_{id}?wiat=3",
    "/v1/products/prd_{id}?fields=all", "/v1/taxonomy?x=1", "/v1/jobs/job_{id}?wait=1&wait=2",
]  # fmt: skip


def test_a_bad_query_is_refused(seller: Seller, stored: Stored, subtests: pytest.Subtests) -> None:
    for path in BAD_QUERIES:
        with subtests.test(path):
            answer = seller.get(path.replace("{id}", "0" * 32))
            assert_refused(answer, 422, "invalid-parameters", stored)
            assert answer.json["errors"]


NOT_THERE = [
    "/v1/jobs/job_" + "0" * 32, "/v1/jobs/nonsense", "/v1/jobs/job_%00", "/v1/jobs/prd_" + "0" * 32,
    "/v1/jobs/job_" + "G" * 32, "/v1/jobs/%ff%fe", "/v1/jobs/" + "x" * 3000, "/v1/jobs/job_%ED%A0%80",
    "/v1/products/prd_" + "0" * 32, "/v1/products/prd_" + "0" * 33, "/v1/products/1%20OR%201=1",
    "/v1/products/..%2f..%2fetc", "/v1/nothing", "/nothing", "/static/nothing.js", "/static/../app.py",
    "/problems/nothing",
]  # fmt: skip


def test_what_is_not_there_is_404(seller: Seller, stored: Stored, subtests: pytest.Subtests) -> None:
    for path in NOT_THERE:
        with subtests.test(path):
            assert_refused(seller.get(path), 404, "not-found", stored)


METHODS = [
    ("PUT", "/v1/products", {"GET", "HEAD", "OPTIONS", "POST"}),
    ("POST", "/v1/jobs/job_" + "0" * 32, {"DELETE", "GET", "HEAD", "OPTIONS"}),
    ("DELETE", "/v1/model", {"GET", "HEAD", "OPTIONS"}),
    ("POST", "/", {"GET", "HEAD", "OPTIONS"}),
    ("BREW", "/v1/products", {"GET", "HEAD", "OPTIONS", "POST"}),
]


def test_another_method_is_405_and_names_the_right_ones(
    seller: Seller, stored: Stored, subtests: pytest.Subtests
) -> None:
    for method, path, allowed in METHODS:
        with subtests.test(f"{method} {path}"):
            answer = seller.call(method, path)
            assert_refused(answer, 405, "method-not-allowed", stored)
            assert set(answer.headers["Allow"].split(", ")) == allowed


AUTHORIZATIONS = [
    None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer tsk_nonsense", "Bearer nonsense",
    "Bearer page_nonsense", "Bearer tsk_" + "x" * 5000, "bearer tsk_\u00e9",
]  # fmt: skip


def test_without_a_known_key_every_call_is_401(
    seller: Seller, stored: Stored, subtests: pytest.Subtests
) -> None:
    for path in ("/v1/products", "/v1/jobs/job_" + "0" * 32, "/v1/taxonomy", "/v1/model"):
        for authorization in AUTHORIZATIONS:
            with subtests.test(f"{path} {authorization}"):
                headers = {} if authorization is None else {"Authorization": authorization}
                answer = seller.client.get(path, headers=headers)
                assert_refused(answer, 401, "unauthorized", stored)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_key_that_is_wrong_is_told_from_none_and_its_scheme_may_be_written_in_any_case(
    seller: Seller,
) -> None:
    for authorization, told in ((None, False), ("Bearer tsk_nonsense", True)):
        headers = {} if authorization is None else {"Authorization": authorization}
        challenge = seller.client.get("/v1/products", headers=headers).headers["WWW-Authenticate"]
        assert ('error="invalid_token"' in challenge) is told  # RFC 6750, section 3.1
    answer = seller.client.get("/v1/products", headers={"Authorization": f"bearer  {seller.key}"})
    assert answer.status_code == 200


def test_without_a_key_no_body_is_read(seller: Seller, stored: Stored, jpeg: bytes) -> None:
    assert_refused(seller.client.post("/v1/products", **form(jpeg)), 401, "unauthorized", stored)


def test_a_defect_is_500_with_an_id_and_no_secrets(
    app: Flask, seller: Seller, stored: Stored, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes, name: str) -> Any:
        raise RuntimeError("the database password is hunter2")

    monkeypatch.setattr(app.extensions["tagsmith"].photo_intake, "prepare", broken)
    answer = seller.send(jpeg, title="Shoes", headers={"Idempotency-Key": "k"})
    assert_refused(answer, 500, "internal-error", stored)
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    assert b"hunter2" not in answer.data


def test_every_way_a_job_can_end_has_a_page() -> None:
    from web import problems

    sources = [path for package in ("catalog", "workers") for path in Path(package).rglob("*.py")]
    written = {kind for path in sources for kind in re.findall(r'problem\(\s*"([a-z-]+)"', path.read_text())}
    assert "untaggable" in written
    assert written == set(problems.JOB_ENDINGS)


def test_every_problem_type_has_a_page(app: Flask) -> None:
    from web import problems

    client = app.test_client()
    for slug, kind in problems.KINDS.items():
        page = client.get(f"/problems/{slug}")
        assert page.status_code == 200
        assert kind.advice
    assert client.get("/problems").status_code == 200
