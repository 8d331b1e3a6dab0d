"""The calls on products and jobs, through HTTP, on the real database and broker."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from flask import Flask
from PIL import Image
from pydantic import SecretStr

from catalog import jobs, photos, tenants
from catalog.database import transaction
from catalog.errors import DatabaseUnavailable, StoreUnavailable
from catalog.photo_store import PhotoStore
from catalog.settings import Settings
from catalog.views import problem
from tests.web.seller import Seller, Stored, encoded, form, picture
from web import envelopes
from web.problems import JOB_ENDINGS


@pytest.fixture
def other_seller(app: Flask, engine: Any, make_tenant: Callable[[str], str]) -> Seller:
    with transaction(engine) as session:
        key = tenants.create_api_key(session, make_tenant("another tenant"), "for a test")
    return Seller(app.test_client(), key)


def test_a_form_with_photos_is_accepted_with_a_job(seller: Seller, jpeg: bytes, stored: Stored) -> None:
    png = encoded(picture(90, 70, "RGBA"), "PNG")
    answer = seller.send(jpeg, png, title="Navy shoes", description="Mesh", external_id="SKU-9")
    assert answer.status_code == 202
    product, job = answer.json["product"], answer.json["job"]
    assert product["title"] == "Navy shoes"
    assert product["external_id"] == "SKU-9"
    assert [(photo["width"], photo["height"]) for photo in product["photos"]] == [(60, 80), (90, 70)]
    assert job["status"] == "queued"
    assert job["lane"] == "interactive"
    assert job["submitted_at"].endswith("Z")
    assert (job["position"], job["eta_s"]) == (0, None)
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert len(stored.files()) == 4  # an original and a model view of each


def test_the_message_of_an_accepted_product_is_in_its_lane(
    seller: Seller, redis_url: str, settings: Settings, servers: Any
) -> None:
    interactive = seller.send(title="one").json["job"]["id"]
    bulk = seller.send(title="two", lane="bulk").json["job"]["id"]
    with closing(servers.redis()) as broker:
        assert interactive.encode() in _decoded(broker, "interactive")
        assert bulk.encode() in _decoded(broker, "bulk")


def test_an_import_shares_messages_and_loses_none(
    app: Flask, seller: Seller, redis_url: str, servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelopes, "MOMENT_S", 3600.0)
    ids = [seller.send(title=f"product {n}", lane="bulk").json["job"]["id"] for n in range(70)]
    app.extensions["tagsmith"].broker.close()
    with closing(servers.redis()) as broker:
        sent = [
            json.loads(base64.b64decode(json.loads(m)["body"]))[0][0] for m in broker.lrange("bulk", 0, -1)
        ]
    messages = [message["job_ids"] for message in sent[::-1]]
    assert [len(message) for message in messages] == [1, 64, 5]
    assert [job_id for message in messages for job_id in message] == ids


def _decoded(broker: "redis.Redis", lane: str) -> bytes:
    (message,) = broker.lrange(lane, 0, -1)
    return base64.b64decode(json.loads(message)["body"])


def test_a_line_of_a_form_ends_with_one_character(seller: Seller, settings: Settings) -> None:
    """As its `maxlength` counts it, though browsers send two."""
    lines = "a\n" * (settings.max_description_chars // 2 - 1) + "aa"
    answer = seller.send(title="Shoes", description=lines.replace("\n", "\r\n"))
    assert (answer.status_code, answer.json["product"]["description"]) == (202, lines)


def test_json_with_a_title_alone_is_accepted(seller: Seller) -> None:
    answer = seller.send_json({"title": "高性价比蓝牙耳机 \U0001f3a7", "external_id": None, "lane": "bulk"})
    assert answer.status_code == 202
    assert answer.json["product"]["title"] == "高性价比蓝牙耳机 \U0001f3a7"
    assert answer.json["product"]["photos"] == []
    assert answer.json["job"]["lane"] == "bulk"


def test_what_is_as_long_as_it_may_be_is_accepted(
    make_app: Callable[..., Flask], api_key: str, jpeg: bytes
) -> None:
    """In characters, however many bytes each has."""
    seller = Seller(make_app(max_photos=2, max_photo_bytes=len(jpeg)).test_client(), api_key)
    texts = {
        "title": "\U0001f3a7" * 500,
        "description": "\U0001f3a7" * 20_000,
        "external_id": "\U0001f3a7" * 200,
    }
    for answer in (seller.send(jpeg, jpeg, **texts), seller.send_json(texts)):
        assert answer.status_code == 202
        assert answer.json["product"]["title"] == texts["title"]


def test_a_job_shows_its_tags_when_it_has_succeeded(
    seller: Seller, finish_jobs: Callable[[str], None]
) -> None:
    accepted = seller.send(title="Navy shoes").json
    job_id = accepted["job"]["id"]
    queued = seller.get(f"/v1/jobs/{job_id}")
    assert queued.json["status"] == "queued"
    assert queued.json["tags"] is None
    assert "Retry-After" in queued.headers
    finish_jobs(job_id)
    job = seller.get(f"/v1/jobs/{job_id}").json
    assert job["status"] == "succeeded"
    assert job["attempts"] == 1
    assert job["model"] == {"name": "starter", "version": "ab" * 32}
    assert job["tags"][0] == {
        "attribute": "article_type", "value": "Casual Shoes", "confidence": 0.97, "decision": "auto",
        "evidence": {"text": 0.93, "photos": None},
        "alternatives": [{"value": "Sports Shoes", "confidence": 0.02}],
    }  # fmt: skip
    assert job["tags"][1]["value"] is None
    product = seller.get(f"/v1/products/{accepted['product']['id']}").json
    assert product["tags"] == job["tags"]
    assert product["job_id"] == job_id


def test_a_queued_job_says_how_many_are_before_it_and_when_it_will_have_ended(
    seller: Seller, finish_jobs: Callable[[str], None]
) -> None:
    ended, running, first = (seller.send(title=title).json["job"]["id"] for title in ("one", "two", "three"))
    finish_jobs(ended)
    accepted = seller.send(title="four").json["job"]
    assert accepted["position"] == 2
    assert accepted["eta_s"] is not None
    bulk = seller.send(title="five", lane="bulk").json["job"]
    assert (bulk["position"], bulk["eta_s"]) == (3, None)
    finish_jobs(running)
    waited = seller.get(f"/v1/jobs/{accepted['id']}?wait=0.05").json
    assert (waited["status"], waited["position"]) == ("queued", 1)
    assert waited["eta_s"] is not None
    for job_id in (running, first):
        job = seller.call("DELETE" if job_id == first else "GET", f"/v1/jobs/{job_id}").json
        assert job["status"] in ("succeeded", "cancelled")
        assert (job["position"], job["eta_s"]) == (None, None)
    assert seller.get(f"/v1/jobs/{accepted['id']}").json["position"] == 0


def test_wait_answers_as_soon_as_the_job_ends(seller: Seller, finish_jobs: Callable[[str], None]) -> None:
    job_id = seller.send(title="Navy shoes").json["job"]["id"]
    worker = threading.Timer(0.2, finish_jobs, [job_id])
    worker.start()
    answer = seller.get(f"/v1/jobs/{job_id}?wait=30")
    worker.join()
    assert answer.json["status"] == "succeeded"


def test_wait_gives_the_unended_job_when_its_time_is_over(seller: Seller) -> None:
    job_id = seller.send(title="Navy shoes").json["job"]["id"]
    answer = seller.get(f"/v1/jobs/{job_id}?wait=0.05")
    assert answer.status_code == 200
    assert answer.json["status"] == "queued"


def test_where_too_many_wait_the_answer_comes_at_once(make_app: Callable[..., Flask], api_key: str) -> None:
    seller = Seller(make_app(max_waiters=0).test_client(), api_key)
    job_id = seller.send(title="Navy shoes").json["job"]["id"]
    start = time.monotonic()
    assert seller.get(f"/v1/jobs/{job_id}?wait=30").json["status"] == "queued"
    assert time.monotonic() - start < 20  # it did not wait


def test_a_queued_job_is_cancelled_once(seller: Seller) -> None:
    job_id = seller.send(title="Navy shoes").json["job"]["id"]
    assert seller.call("DELETE", f"/v1/jobs/{job_id}").json["status"] == "cancelled"
    again = seller.call("DELETE", f"/v1/jobs/{job_id}")
    assert again.status_code == 409
    assert again.json["type"] == "/problems/job-not-cancellable"


def test_pages_give_every_product_once_newest_first(seller: Seller) -> None:
    sent = [seller.send(title=f"product {n}").json["product"]["id"] for n in range(5)]
    seen: list[str] = []
    query = "?limit=2"
    while True:
        page = seller.get(f"/v1/products{query}").json
        seen += [product["id"] for product in page["products"]]
        if page["next_cursor"] is None:
            break
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert seen == sent[::-1]


def test_a_change_makes_a_new_job_and_keeps_what_is_not_named(seller: Seller, jpeg: bytes) -> None:
    accepted = seller.send(jpeg, title="Navy shoes", description="Mesh").json
    path = f"/v1/products/{accepted['product']['id']}"
    changed = seller.call("PATCH", path, json={"title": "Black shoes"})
    assert changed.status_code == 202
    assert changed.json["job"]["id"] != accepted["job"]["id"]
    assert changed.json["product"]["title"] == "Black shoes"
    assert changed.json["product"]["description"] == "Mesh"
    assert changed.json["product"]["photos"] == accepted["product"]["photos"]
    old = seller.get(f"/v1/jobs/{accepted['job']['id']}").json
    assert old["status"] == "cancelled"
    assert old["error"]["type"] == "/problems/superseded"
    assert seller.client.get(old["error"]["type"]).status_code == 200


@pytest.mark.parametrize("kind", ["photo-store-unavailable", "unprepared"])
def test_why_the_world_failed_a_job_names_no_file_of_ours_to_a_seller(
    seller: Seller, engine: Any, settings: Settings, kind: str
) -> None:
    job_id = seller.send(title="Shoes").json["job"]["id"]
    reason = problem(
        kind, "The world", "[Errno 5] Input/output error: '/srv/tagsmith/photos/ab/cd.model_view'"
    )
    with transaction(engine) as session:
        (claimed,) = jobs.claim(session, "interactive", [job_id], worker="a test", settings=settings)
        assert jobs.fail(session, claimed, reason)
    error = seller.get(f"/v1/jobs/{job_id}").json["error"]
    assert error == {"type": f"/problems/{kind}", "title": "The world", "detail": JOB_ENDINGS[kind][1]}


def test_photos_of_a_change_replace_all_photos(seller: Seller, jpeg: bytes) -> None:
    path = f"/v1/products/{seller.send(jpeg, title='Shoes').json['product']['id']}"
    other = encoded(picture(33, 44), "PNG")
    changed = seller.call("PATCH", path, **form(other)).json["product"]
    assert changed["title"] == "Shoes"
    assert [(photo["width"], photo["height"]) for photo in changed["photos"]] == [(33, 44)]
    assert seller.call("PATCH", path, json={"photo_urls": []}).json["product"]["photos"] == []


def test_a_change_may_not_leave_a_product_empty(seller: Seller) -> None:
    path = f"/v1/products/{seller.send(title='Shoes').json['product']['id']}"
    refused = seller.call("PATCH", path, json={"title": ""})
    assert (refused.status_code, refused.json["type"]) == (422, "/problems/empty-product")
    assert seller.get(path).json["title"] == "Shoes"
    nothing = seller.call("PATCH", path, json={})
    assert (nothing.status_code, nothing.json["type"]) == (422, "/problems/nothing-to-change")
    unknown = seller.call("PATCH", path, json={"external_id": "SKU-1"})
    assert unknown.status_code == 422


def test_a_deleted_product_takes_its_photos_along(seller: Seller, jpeg: bytes, stored: Stored) -> None:
    accepted = seller.send(jpeg, title="Navy shoes").json
    path = f"/v1/products/{accepted['product']['id']}"
    answer = seller.call("DELETE", path)
    assert (answer.status_code, answer.data) == (204, b"")
    assert seller.get(path).status_code == 404
    assert stored.files() == []
    assert seller.get(f"/v1/jobs/{accepted['job']['id']}").json["status"] == "cancelled"


def test_a_photo_that_another_product_holds_survives(seller: Seller, jpeg: bytes, stored: Stored) -> None:
    first, second = (seller.send(jpeg, title=title).json["product"]["id"] for title in "ab")
    seller.call("DELETE", f"/v1/products/{first}")
    assert len(stored.files()) == 2
    seller.call("DELETE", f"/v1/products/{second}")
    assert stored.files() == []


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_the_product_of_another_tenant_is_not_there(
    seller: Seller, other_seller: Seller, jpeg: bytes, stored: Stored, method: str
) -> None:
    path = f"/v1/products/{seller.send(title='Shoes').json['product']['id']}"
    body = form(jpeg) if method == "PATCH" else {}
    answer = other_seller.call(method, path, **body)
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/not-found")
    assert seller.get(path).status_code == 200
    assert stored.files() == []  # the photo of the refused change is gone again


def test_the_job_of_another_tenant_is_not_there(seller: Seller, other_seller: Seller) -> None:
    path = f"/v1/jobs/{seller.send(title='Shoes').json['job']['id']}"
    assert other_seller.get(path).status_code == 404
    assert other_seller.call("DELETE", path).status_code == 404
    assert other_seller.get("/v1/products").json == {"products": [], "next_cursor": None}


# ---- Idempotency keys

KEY = {"Idempotency-Key": "order-66"}


def test_the_same_key_and_payload_get_the_first_answer(seller: Seller, jpeg: bytes, stored: Stored) -> None:
    first = seller.send(jpeg, title="Shoes", headers=KEY)
    again = seller.send(jpeg, title="Shoes", headers=KEY)
    assert first.status_code == again.status_code == 202
    assert first.data == again.data
    assert first.headers["Location"] == again.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (stored.rows("products"), stored.rows("jobs")) == (1, 1)


def test_the_same_key_with_another_payload_is_refused(
    seller: Seller, other_seller: Seller, jpeg: bytes, stored: Stored
) -> None:
    seller.send(jpeg, title="Shoes", headers=KEY)
    for refused in (
        seller.send(jpeg, title="Boots", headers=KEY),
        seller.send(encoded(picture(50, 50)), title="Shoes", headers=KEY),
        seller.send_json({"title": "Shoes"}, headers=KEY),
    ):
        assert (refused.status_code, refused.json["type"]) == (422, "/problems/idempotency-key-reused")
    assert stored.rows("products") == 1
    # A key belongs to a tenant: another one may use the same.
    assert other_seller.send(title="Boots", headers=KEY).status_code == 202


def test_a_key_whose_request_still_runs_is_409(
    app: Flask, seller: Seller, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = app.extensions["tagsmith"].photo_intake
    prepare, started, go_on = intake.prepare, threading.Event(), threading.Event()

    def slow(data: bytes, name: str, tenant_id: str) -> Any:
        started.set()
        assert go_on.wait(30)
        return prepare(data, name, tenant_id)

    monkeypatch.setattr(intake, "prepare", slow)
    first: list[int] = []
    thread = threading.Thread(
        target=lambda: first.append(seller.send(jpeg, title="Shoes", headers=KEY).status_code)
    )
    thread.start()
    assert started.wait(30)
    twin = Seller(app.test_client(), seller.key).send(jpeg, title="Shoes", headers=KEY)
    go_on.set()
    thread.join()
    assert (twin.status_code, twin.json["type"]) == (409, "/problems/idempotency-key-in-progress")
    assert first == [202]


def test_a_refused_request_leaves_its_key_free(seller: Seller, jpeg: bytes, stored: Stored) -> None:
    assert seller.send(jpeg[:-200], title="Shoes", headers=KEY).status_code == 422
    assert stored.nothing()
    assert seller.send(jpeg, title="Shoes", headers=KEY).status_code == 202


def test_a_key_that_could_not_be_given_back_is_given_back_by_the_next_request(
    app: Flask, seller: Seller, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Mock(side_effect=DatabaseUnavailable("away"))
    with monkeypatch.context() as patch:
        patch.setattr("web.acceptance.idempotency.release", away)
        patch.setattr("catalog.products.accept", away)
        assert seller.send(title="Shoes", headers=KEY).status_code == 503
    assert seller.send(title="Shoes", headers=KEY).status_code == 202


def test_a_key_that_cannot_be_given_back_for_a_defect_hides_no_reason(
    seller: Seller, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.acceptance.idempotency.release", Mock(side_effect=ZeroDivisionError))
    assert seller.send(jpeg[:-200], title="Shoes", headers=KEY).status_code == 422


def test_a_product_whose_answer_cannot_be_kept_for_its_key_is_not_made(
    seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever repeats the request would make it a second time."""
    with monkeypatch.context() as patch:
        away = Mock(side_effect=DatabaseUnavailable("away"))
        patch.setattr("web.acceptance.idempotency.complete", away)
        assert seller.send(jpeg, title="Shoes", headers=KEY).status_code == 503
    assert stored.nothing()
    assert seller.send(jpeg, title="Shoes", headers=KEY).status_code == 202


def test_a_change_takes_a_key_as_well(seller: Seller, stored: Stored) -> None:
    path = f"/v1/products/{seller.send(title='Shoes').json['product']['id']}"
    first = seller.call("PATCH", path, json={"title": "Boots"}, headers=KEY)
    again = seller.call("PATCH", path, json={"title": "Boots"}, headers=KEY)
    assert first.data == again.data
    assert stored.rows("jobs") == 2


def test_the_same_change_of_another_product_is_another_request(seller: Seller) -> None:
    paths = [f"/v1/products/{seller.send(title='Shoes').json['product']['id']}" for _ in range(2)]
    answers = [seller.call("PATCH", path, json={"title": "Boots"}, headers=KEY) for path in paths]
    assert [answer.status_code for answer in answers] == [202, 422]


# ---- When parts of the service are away


def test_a_full_queue_refuses_and_stores_nothing(
    make_app: Callable[..., Flask], api_key: str, jpeg: bytes, stored: Stored
) -> None:
    seller = Seller(make_app(max_queued_interactive=1).test_client(), api_key)
    assert seller.send(title="one").status_code == 202
    refused = seller.send(jpeg, title="two", headers=KEY)
    assert (refused.status_code, refused.json["type"]) == (503, "/problems/queue-full")
    assert int(refused.headers["Retry-After"]) == 300  # no worker has ended anything
    assert stored.rows("products") == 1
    assert stored.rows("idempotency_records") == 0
    assert stored.files() == []
    assert seller.send(jpeg, title="two", lane="bulk").status_code == 202


def test_a_refusal_says_its_own_reason_where_its_photos_cannot_be_removed(
    make_app: Callable[..., Flask], api_key: str, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seller = Seller(make_app(max_queued_interactive=0).test_client(), api_key)
    away = Mock(side_effect=StoreUnavailable("away"))
    monkeypatch.setattr("web.acceptance.photos.remove_released", away)
    refused = seller.send(jpeg, title="one")
    assert (refused.status_code, refused.json["type"]) == (503, "/problems/queue-full")


def test_a_full_bulk_queue_refuses_no_interactive_product_and_says_when_it_has_room(
    make_app: Callable[..., Flask], api_key: str, finish_jobs: Callable[[str], None]
) -> None:
    seller = Seller(make_app(max_queued_bulk=1).test_client(), api_key)
    finish_jobs(seller.send(title="one", lane="bulk").json["job"]["id"])
    assert seller.send(title="two", lane="bulk").status_code == 202
    refused = seller.send(title="three", lane="bulk")
    assert (refused.status_code, refused.json["type"]) == (503, "/problems/queue-full")
    assert 1 <= int(refused.headers["Retry-After"]) < 60  # one job took the time of this test so far
    assert refused.headers["Retry-After"] in refused.json["detail"]
    assert seller.send(title="three").status_code == 202


def test_a_broker_that_is_away_does_not_keep_a_product_out(
    make_app: Callable[..., Flask], api_key: str, stored: Stored
) -> None:
    seller = Seller(make_app(broker_url=SecretStr("redis://127.0.0.1:1/0")).test_client(), api_key)
    answers = [seller.send(title=title) for title in ("one", "two")]
    answers.append(seller.send(title="three", lane="bulk"))
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert stored.rows("jobs") == 3
    assert b"tagsmith_messages_unsent_total 3.0" in seller.client.get("/metrics").data


def test_a_database_that_is_away_is_503_and_leaves_no_photo_behind(
    app: Flask, seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog.errors import DatabaseUnavailable
    from web import acceptance

    working = acceptance.transaction

    def away(engine: Any) -> Any:
        raise DatabaseUnavailable("the test took it away")

    monkeypatch.setattr(acceptance, "transaction", away)
    refused = seller.send(jpeg, title="one")
    monkeypatch.setattr(acceptance, "transaction", working)
    assert (refused.status_code, refused.json["type"]) == (503, "/problems/service-unavailable")
    assert "Retry-After" in refused.headers
    assert "test" not in refused.json["detail"]  # reasons belong in the log
    assert stored.files() == []


def test_a_photo_store_that_is_away_is_503(
    seller: Seller, jpeg: bytes, stored: Stored, tmp_path: Any
) -> None:
    (tmp_path / "photos").write_bytes(b"a file where the folder should be")
    refused = seller.send(jpeg, title="one")
    assert (refused.status_code, refused.json["type"]) == (503, "/problems/service-unavailable")
    assert stored.rows("products") == 0


def test_a_photo_that_is_removed_while_its_product_is_accepted_is_stored_again(
    seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the sweep, after another product that held it was deleted."""
    put, puts = PhotoStore.put, Mock()

    def put_and_remove_once(self: PhotoStore, photo_id: str, original: bytes, model_view: bytes) -> None:
        put(self, photo_id, original, model_view)
        puts(photo_id)
        if puts.call_count == 1:
            self.delete(photo_id)

    monkeypatch.setattr(PhotoStore, "put", put_and_remove_once)
    assert seller.send(jpeg, title="Shoes").status_code == 202
    assert len(stored.files()) == 2


def test_a_photo_store_that_goes_away_after_the_rows_were_written_takes_no_answer_back(
    seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, puts = PhotoStore.put, Mock(side_effect=[None, StoreUnavailable("away")])

    def put_once(self: PhotoStore, photo_id: str, original: bytes, model_view: bytes) -> None:
        puts()
        put(self, photo_id, original, model_view)

    monkeypatch.setattr(PhotoStore, "put", put_once)
    assert seller.send(jpeg, title="Shoes").status_code == 202
    assert (stored.rows("products"), len(stored.files())) == (1, 2)


def test_a_model_view_is_a_small_upright_jpeg(app: Flask, seller: Seller) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right by the viewer
    exif[0x010F] = "Camera Maker"
    large = encoded(picture(1200, 900), "JPEG", exif=exif.tobytes(), comment=b"secret place")
    photo = seller.send(large, title="Shoes").json["product"]["photos"][0]
    assert (photo["width"], photo["height"]) == (900, 1200)
    store = app.extensions["tagsmith"].photo_store
    with Image.open(io.BytesIO(store.model_view(photo["id"]))) as view:
        assert (view.format, view.size) == ("JPEG", (320, 427))
    original = store.original(photo["id"])
    assert b"Camera Maker" not in original
    assert b"secret place" not in original


def test_photos_of_a_process_that_died_before_its_rows_were_written_are_removed(
    app: Flask, seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.products.accept", Mock(side_effect=ZeroDivisionError))
    monkeypatch.setattr("web.acceptance.Acceptor._remove", Mock())  # as one that is killed
    assert seller.send(jpeg, title="Shoes").status_code == 500
    assert len(stored.files()) == 2
    services = app.extensions["tagsmith"]
    assert photos.remove_released(services.engine, services.photo_store, older_than_s=60) == 0
    assert photos.remove_released(services.engine, services.photo_store) == 1
    assert stored.files() == []


def test_photos_of_a_process_that_died_while_it_stored_them_are_removed(
    app: Flask, seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = PhotoStore.put

    def put_and_die(self: PhotoStore, photo_id: str, original: bytes, model_view: bytes) -> None:
        put(self, photo_id, original, model_view)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(PhotoStore, "put", put_and_die)
        patch.setattr("web.acceptance.Acceptor._remove", Mock())
        assert seller.send(jpeg, title="Shoes").status_code == 500
    assert len(stored.files()) == 2
    services = app.extensions["tagsmith"]
    assert photos.remove_released(services.engine, services.photo_store) == 1
    assert stored.files() == []


def test_what_a_change_sets_to_null_is_cleared_and_nothing_else(seller: Seller, jpeg: bytes) -> None:
    def after(change: dict[str, None]) -> tuple[str, str, int]:
        accepted = seller.send(jpeg, title="Shoes", description="Mesh").json["product"]
        changed = seller.call("PATCH", f"/v1/products/{accepted['id']}", json=change).json["product"]
        return changed["title"], changed["description"], len(changed["photos"])

    assert after({"title": None}) == ("", "Mesh", 1)
    assert after({"description": None}) == ("Shoes", "", 1)
    assert after({"photo_urls": None}) == ("Shoes", "Mesh", 0)


def test_an_external_id_that_was_left_empty_is_none(seller: Seller) -> None:
    assert seller.send(title="Shoes", external_id=" ").json["product"]["external_id"] is None


def test_a_product_is_deleted_also_while_its_photos_cannot_be_removed(
    seller: Seller, jpeg: bytes, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are gone and the photos are marked: the sweep removes them."""
    path = f"/v1/products/{seller.send(jpeg, title='Shoes').json['product']['id']}"
    monkeypatch.setattr(PhotoStore, "delete", Mock(side_effect=StoreUnavailable("away")))
    assert seller.call("DELETE", path).status_code == 204
    assert seller.get(path).status_code == 404
    assert (stored.rows("products"), len(stored.files())) == (0, 2)


def test_blanks_around_a_text_are_no_part_of_it(seller: Seller) -> None:
    sent = {"title": " Navy shoes\n", "description": "\tMesh ", "external_id": " SKU-9 "}
    product = seller.send_json(sent).json["product"]
    assert {name: product[name] for name in sent} == {
        "title": "Navy shoes",
        "description": "Mesh",
        "external_id": "SKU-9",
    }


def test_a_change_holds_room_for_its_body_as_a_new_product_does(
    app: Flask, seller: Seller, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = app.extensions["tagsmith"].intake
    room_for, asked = intake.room_for, []

    def remember(request: Any, tenant_id: str) -> Any:
        asked.append(request.method)
        return room_for(request, tenant_id)

    monkeypatch.setattr(intake, "room_for", remember)
    path = f"/v1/products/{seller.send(title='Shoes').json['product']['id']}"
    assert seller.call("PATCH", path, **form(jpeg)).status_code == 202
    assert asked == ["POST", "PATCH"]
