"""A request with photo addresses and an idempotency key, and the same one again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from web.photo_urls import PhotoUrlFetcher
from web.precedence import Precedence

if TYPE_CHECKING:
    from tests.web.seller import Seller

URL = "https://cdn.example/shoe.jpg?expires=1"
KEY = {"Idempotency-Key": "k"}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, jpeg: bytes) -> list[Any]:
    """The addresses of each fetch."""
    urls: list[Any] = []

    def fetch_all(self: PhotoUrlFetcher, wanted: Any, tenant_id: str) -> list[bytes]:
        urls.extend(wanted)
        return [jpeg] * len(wanted)

    monkeypatch.setattr(PhotoUrlFetcher, "fetch_all", fetch_all)
    return urls


def test_it_gets_the_first_answer_and_nothing_is_fetched_again(seller: "Seller", fetched: list[Any]) -> None:
    first = seller.send_json({"photo_urls": [URL]}, headers=KEY)
    assert first.status_code == 202
    again = seller.send_json({"photo_urls": [URL]}, headers=KEY)
    assert (again.status_code, again.json) == (202, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert fetched == [URL]


def test_as_many_addresses_as_there_may_be_photos_are_taken(seller: "Seller", fetched: list[Any]) -> None:
    urls = [f"{URL}&{number}" for number in range(8)]
    assert seller.send_json({"photo_urls": urls}).status_code == 202
    assert fetched == urls


def test_another_address_is_another_request(seller: "Seller", fetched: list[Any]) -> None:
    assert seller.send_json({"photo_urls": [URL]}, headers=KEY).status_code == 202
    other = seller.send_json({"photo_urls": [URL + "&2"]}, headers=KEY)
    assert (other.status_code, other.json["type"]) == (422, "/problems/idempotency-key-reused")
    assert fetched == [URL]


@pytest.mark.parametrize("photo_urls", [[], None])
def test_to_remove_photos_is_another_request_than_to_leave_them(
    seller: "Seller", fetched: list[Any], photo_urls: list[str] | None
) -> None:
    made = seller.send_json({"title": "Shoe", "photo_urls": [URL]}).json["product"]
    path = f"/v1/products/{made['id']}"
    assert seller.call("PATCH", path, json={"title": "Boot"}, headers=KEY).status_code == 202
    removal = seller.call("PATCH", path, json={"title": "Boot", "photo_urls": photo_urls}, headers=KEY)
    assert (removal.status_code, removal.json["type"]) == (422, "/problems/idempotency-key-reused")


def test_addresses_are_fetched_before_the_turn_of_an_import(
    seller: "Seller", fetched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for another server must not keep the others of the import waiting."""
    order: list[str] = []
    fetch, import_ = PhotoUrlFetcher.fetch_all, Precedence.import_

    @contextmanager
    def turn(self: Precedence) -> Iterator[None]:
        order.append("turn")
        with import_(self):
            yield

    def fetch_all(self: PhotoUrlFetcher, wanted: Any, tenant_id: str) -> list[bytes]:
        order.append("fetch")
        return fetch(self, wanted, tenant_id)

    monkeypatch.setattr(Precedence, "import_", turn)
    monkeypatch.setattr(PhotoUrlFetcher, "fetch_all", fetch_all)
    assert seller.send_json({"photo_urls": [URL], "lane": "bulk"}).status_code == 202
    assert order == ["fetch", "turn"]
